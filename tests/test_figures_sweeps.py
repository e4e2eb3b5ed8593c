"""Figures that compare many runs, or divide one run's score: whole and honest on a toy cohort where every comparison
goes the claimed way, and on one where it goes the other way."""

import json

import pandas as pd, pytest

import mirage.data.cohort, mirage.features.store
from mirage.core import Run, finish_run, run_path, start_run
from test_atlases import slabs
from test_figures import draw, drawn
from toycohorts import DrawnFeatures, EverySet

NOTEBOOKS = 'fig2_fusion fig6_queries fig8_maps fig9_depth fig10_ceiling fig11_sensitivity'.split()


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    "Makes a toy cohort, and opens it under its name."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')
    monkeypatch.setattr(mirage.features.store, 'open_features', lambda *a, **k: DrawnFeatures)

    def make(**how):
        toy = EverySet(tmp_path / 'data' / 'toy', **how).write()
        monkeypatch.setattr(mirage.data.cohort.Cohort, 'open', classmethod(lambda cls, name, *a, **k: toy))
        return toy

    return make


def accounts(tmp_path, items=NOTEBOOKS):
    return {i: json.loads((tmp_path / f'results/toy/figures/{i}.json').read_text()) for i in items}


def verdicts(tmp_path):
    return {(i, c['paper'], c['here']): c['verdict'] for i, a in accounts(tmp_path).items() for c in a['claims']}


def is_about(claim, topics):
    "Whether a claim is about one of these topics; the order in depth is chance here."
    return any(topic in claim for topic in topics) and 'ordered in depth' not in claim


def test_what_goes_the_claimed_way_holds(cohort, tmp_path):
    cohort()
    for item in NOTEBOOKS:
        draw(item, cohort='toy')
    for item, about in accounts(tmp_path).items():
        assert (
            about['faults'] == []
            and about['simulated']
            and about['claims']
            and {f'{item}.{e}' for e in ('png', 'pdf', 'csv')} <= drawn(tmp_path)
        )
        assert len(pd.read_csv(tmp_path / f'results/toy/figures/{item}.csv'))
    found = verdicts(tmp_path)
    sure = (
        'Native outperforms',
        'A step up in architecture',
        'achieves the highest alignment',
        'A single query is clearly worse',
        'Ensembling provides',
        'MIRAGE surpasses',
        '(planted)',
        'a longer window',
        'modality dropout helps',
    )
    judged = {k: v for k, v in found.items() if is_about(k[1], sure) and k[0] != 'fig6_queries'}
    assert len(judged) > 25 and set(judged.values()) == {'holds'}, {k: v for k, v in judged.items() if v != 'holds'}


def test_what_goes_the_other_way_fails(cohort, tmp_path):
    cohort(good=False)
    for item in NOTEBOOKS:
        draw(item, cohort='toy')
    found = verdicts(tmp_path)
    turned = (
        'Native outperforms',
        'A step up',
        'Ensembling',
        'MIRAGE surpasses',
        '(planted)',
        'longer window',
        'dropout helps',
    )
    against = {k: v for k, v in found.items() if is_about(k[1], turned) and 'right on average' not in k[1]}
    assert len(against) > 25 and set(against.values()) == {'fails'}, {k: v for k, v in against.items() if v != 'fails'}


@pytest.mark.parametrize(
    'item, run',
    [
        ('fig2_fusion', 'train/mirage-tiny-qwen2.5-omni-7b-tower-s0'),
        ('fig6_queries', 'train/mirage-q1-native-s1'),
        ('fig8_maps', 'ensemble/mirage-native'),
        ('fig9_depth', 'depth/mirage-native-s0'),
        ('fig10_ceiling', 'ridge/linear-native'),
        ('fig11_sensitivity', 'train/mirage-released-native-s0'),
    ],
)
def test_one_missing_run_of_many_is_an_error(cohort, tmp_path, item, run):
    cohort()
    where = run_path('toy', *run.split('/'))
    (where / 'provenance.json').rename(tmp_path / 'aside')
    with pytest.raises(FileNotFoundError, match=f'{where.name} has no provenance.json'):
        draw(item, cohort='toy')
    (tmp_path / 'aside').rename(where / 'provenance.json')
    finish_run(start_run(where, Run(where).config | dict(cohort='elsewhere'), overwrite=True), {})
    with pytest.raises(ValueError, match='made on cohort elsewhere, not toy'):
        draw(item, cohort='toy')
    assert not drawn(tmp_path)


def test_a_depth_attribution_of_other_weights_is_refused(cohort, tmp_path):
    cohort()
    path = run_path('toy', 'train', 'mirage-native-s0')
    run = start_run(path, Run(path).config)
    (run.path / 'weights.safetensors').write_bytes(b'trained again')
    finish_run(run, {})
    with pytest.raises(ValueError, match='was made of another train/mirage-native-s0'):
        draw('fig9_depth', cohort='toy')
    assert not drawn(tmp_path)


@pytest.mark.parametrize('item', ['fig8_maps', 'fig9_depth', 'fig10_ceiling'])
def test_maps_are_whole_and_small(cohort, tmp_path, item):
    cohort(parcels=1000, atlas='schaefer1000')
    draw(item, cohort='toy')
    assert (
        accounts(tmp_path, [item])[item]['faults'] == []
        and (tmp_path / f'results/toy/figures/{item}.pdf').stat().st_size < 1.5e6
    )
    assert {'parcel', 'name', 'net'} <= set(pd.read_csv(tmp_path / f'results/toy/figures/{item}.csv'))


@pytest.mark.parametrize('space', ['MNI152NLin6Asym', 'elsewhere'])
def test_the_ceiling_of_an_atlas_of_ones_own_has_maps_and_bars_by_its_networks(cohort, tmp_path, space):
    toy = cohort(parcels=12, atlas=None)
    toy.labels = (slabs(12, tmp_path, f'space-{space}_dseg.nii.gz'),)
    names = [f'region {k}' for k in range(1, 13)]
    networks = ['Language and speech', 'Else'] * 6
    toy.regions = pd.DataFrame(dict(label=range(1, 13), name=names, network=networks, hemi=''))
    found = draw('fig10_ceiling', cohort='toy')
    assert accounts(tmp_path, ['fig10_ceiling'])['fig10_ceiling']['faults'] == []
    assert set(found['by'].parcels) == {'all', 'Language and speech', 'Else'}
    bars = [text.get_text() for ax in found['fig'].axes for text in ax.get_yticklabels()]
    assert {'Language and spee…', 'Else'} <= set(bars)


@pytest.mark.parametrize(
    'networks, shown', [(['Language', 'a $x', ''], 'network'), ([''], ''), (['only one', ''], 'network')]
)
def test_depth_is_drawn_by_the_networks_of_ones_own_atlas_or_says_why_not(cohort, tmp_path, networks, shown):
    toy = cohort(parcels=12, atlas=None)
    networks = (networks * 12)[:12]
    names = [f'region {k}' for k in range(1, 13)]
    toy.regions = pd.DataFrame(dict(label=range(1, 13), name=names, network=networks, hemi=''))
    found = draw('fig9_depth', cohort='toy')
    about = accounts(tmp_path, ['fig9_depth'])['fig9_depth']
    assert about['faults'] == [] and found['division'].kind == shown
    assert [line.short for line in found['lines']] == [name for name in dict.fromkeys(networks) if name]
    says = f'{networks.count("")} of 12 parcels belong to no network' if shown else 'the atlas names no networks'
    assert says in about['caption'] and any(says in text.get_text() for text in found['fig'].texts)


def test_without_public_bold_the_maps_show_validation(cohort, tmp_path):
    toy = cohort()
    toy.runs.loc[toy.runs.set.isin(['s7', 'ood']), 'bold'] = None
    space = draw('fig8_maps', cohort='toy')
    assert space['shown'] == ['val'] and 'validation set' in accounts(tmp_path, ['fig8_maps'])['fig8_maps']['caption']
    draw('fig2_fusion', cohort='toy')
    assert set(pd.read_csv(tmp_path / 'results/toy/figures/fig2_fusion.csv').set) == {'val'}
    with pytest.raises(ValueError, match='no BOLD of its s7 set'):
        draw('fig8_maps', cohort='toy', sets='s7')
