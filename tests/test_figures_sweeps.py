"""Figures that compare many runs, or divide one run's score: whole and honest on a toy cohort where every comparison
goes the claimed way, and on one where it goes the other way."""

import json
from dataclasses import asdict
from pathlib import Path

import h5py, numpy as np, pandas as pd, pytest, torch

import mirage.data.cohort, mirage.features.store
from mirage.core import MODALITIES, Run, digest, finish_run, get_preset, run_path, seal, start_run
from mirage.models.model import Mirage, ModelConfig
from mirage.training.runs import asked_settings, backbone_sweep, identity_of, parameters_of, query_sweep
from mirage.training.runs import sensitivity_sweeps, variant
from mirage.features.store import inputs_of
from test_figures import drawn, execute

NOTEBOOKS = 'fig2_fusion fig6_queries fig8_maps fig9_depth fig10_ceiling fig11_sensitivity'.split()
SUBJECTS, ROWS, LAYERS, WINDOWS = ('sub-01', 'sub-02'), 120, 13, 6
SPLITS = dict(
    val=('s06e01a', 's06e01b'),
    s7=('s07e01a', 's07e01b'),
    ood=('wot1', 'wot2', 'chaplin1', 'chaplin2'),
    train=('life01', 'figures01'),
)
PRESET = get_preset('smoke')


def rng_of(*key):
    return np.random.default_rng(int(digest(key, 8), 16))


def steps(stage, name):
    "How many steps a run is from the best one, by the paper's account."
    if stage != 'train':
        return {'ensemble': 0, 'ridge': 3}[stage] + ('tower' in name)
    given = parameters_of(name)
    changed = set(given) - {'aggregate', 'fusion', 'seed'}
    return 1 + (given['aggregate'] == 'groups') + (given['fusion'] == 'tower') + bool(changed)


class Toy:
    "Two subjects who saw every set, and two movies twice; parcels mix three modalities and have known ceilings."

    name, tr, simulated, subjects, rates = 'toy', 1.49, True, SUBJECTS, {}

    def __init__(self, folder, parcels=60, atlas=None, good=True):
        self.root, self.parcels, self.atlas, self.good, rng = folder, parcels, atlas, good, rng_of('toy')
        rows = [
            (s, k, k.rstrip('12').removesuffix('0'), which, r, Path(__file__), ROWS)
            for s in SUBJECTS
            for which, ks in SPLITS.items()
            for k in ks
            for r in ((1, 2) if which == 'train' else (1,))
        ]
        self.runs = pd.DataFrame(rows, columns=['subject', 'split', 'movie', 'set', 'repeat', 'bold', 'n_tr']).assign(
            movie=lambda t: t.movie.where(t.set == 'ood', t.split.str[:3])
        )
        self.splits = self.runs[['split', 'movie', 'set']].drop_duplicates('split')
        self.signal = {k: rng.standard_normal((ROWS, parcels)) for ks in SPLITS.values() for k in ks}
        self.known = rng.uniform(0.3, 0.9, parcels)
        self.ceiling = pd.DataFrame(
            dict(
                subject=np.repeat(SUBJECTS, parcels),
                parcel=np.tile(np.arange(parcels) + 1, 2),
                ceiling=np.tile(self.known if good else self.known[::-1], 2),
            )
        )
        self.shares = rng.dirichlet([0.3] * 3, parcels)
        (folder / 'truth').mkdir(parents=True)
        with h5py.File(folder / 'truth' / 'truth.h5', 'w') as f:
            f.attrs['columns'] = json.dumps(list(MODALITIES))
            for s in SUBJECTS:
                f[f'weights/{s}'] = np.sqrt(self.shares)
            for m in MODALITIES:
                f[f'bands/{m}'] = np.eye(LAYERS)[6]
        seal(folder / 'truth' / 'truth.h5')

    def bold(self, row):
        y = self.known * self.signal[row.split] + np.sqrt(1 - self.known**2) * rng_of(
            row.subject, row.split, row.repeat
        ).standard_normal((ROWS, self.parcels))
        return y.astype(np.float32)

    def write(self):
        "Every run that the figures draw."
        train = {'encoder-tower-s0', 'encoder-native-s0', *(variant(PRESET, s) for s in range(PRESET.members))} | {
            r
            for g in (backbone_sweep(PRESET), query_sweep(PRESET), *sensitivity_sweeps(PRESET).values())
            for r in g.values()
        }
        for stage, name in [
            ('ridge', 'linear-tower'),
            ('ridge', 'linear-native'),
            ('ensemble', 'mirage-native'),
            *(('train', n) for n in sorted(train)),
        ]:
            n = steps(stage, name)
            noise = 0.4 + 0.4 * n if self.good else 2.4 - 0.4 * n
            shape = ModelConfig.from_preset(
                PRESET,
                dict.fromkeys(MODALITIES, 12),
                SUBJECTS,
                self.parcels,
                queries=parameters_of(name).get('queries', PRESET.queries) if stage == 'train' else PRESET.queries,
            )
            run = start_run(
                run_path('toy', stage, name),
                dict(preset=asdict(PRESET), fusion='native')
                | asked_settings('toy', stage, name)
                | dict(cohort='toy', model=asdict(shape), inputs=inputs_of(self)),
            )
            with h5py.File(run.path / 'predictions.h5', 'w') as f:
                for which in ('val', 's7', 'ood'):
                    for s in SUBJECTS:
                        for k in SPLITS[which]:
                            f[f'{which}/{s}/{k}'] = (
                                self.signal[k] + noise * rng_of(name, s, k).standard_normal((ROWS, self.parcels))
                            ).astype(np.float32)
            (run.path / 'weights.safetensors').write_bytes(name.encode())
            with torch.device('meta'):
                done = finish_run(run, dict(parameters=sum(p.numel() for p in Mirage(shape).parameters())))
            if name == 'mirage-native-s0':
                of = {f'train/{name}': identity_of(done)}
        out = start_run(
            run_path('toy', 'depth', 'mirage-native-s0'),
            dict(cohort='toy', streams=list(MODALITIES), inputs=inputs_of(self) | dict(of=of)),
        )
        shares = self.shares if self.good else np.roll(self.shares, 1, axis=1)
        profile = np.exp(-((np.arange(LAYERS) - (6 if self.good else 1)) ** 2) / 2)
        profile /= profile.sum()
        with h5py.File(out.path / 'parts.h5', 'w') as f:
            for i, m in enumerate(MODALITIES):
                f[f'parts/{m}'] = (
                    0.4 / WINDOWS * profile[:, None] * shares[:, i] * rng_of(m).uniform(0.8, 1.2, (WINDOWS, 1, 1))
                )
            f['rest'] = np.zeros((WINDOWS, self.parcels))
        finish_run(out, dict(error=0.0))
        return self


class Features:
    "What Figure 6 needs to know of the features: their shapes."

    streams = dict.fromkeys(MODALITIES, (LAYERS, 12))


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    "Makes a toy cohort, and opens it under its name."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')
    monkeypatch.setattr(mirage.features.store, 'open_features', lambda *a, **k: Features)

    def make(**how):
        toy = Toy(tmp_path / 'data' / 'toy', **how).write()
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
        execute(item, cohort='toy')
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
        execute(item, cohort='toy')
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
        execute(item, cohort='toy')
    (tmp_path / 'aside').rename(where / 'provenance.json')
    finish_run(start_run(where, Run(where).config | dict(cohort='elsewhere'), overwrite=True), {})
    with pytest.raises(ValueError, match='made on cohort elsewhere, not toy'):
        execute(item, cohort='toy')
    assert not drawn(tmp_path)


def test_a_depth_attribution_of_other_weights_is_refused(cohort, tmp_path):
    cohort()
    path = run_path('toy', 'train', 'mirage-native-s0')
    run = start_run(path, Run(path).config)
    (run.path / 'weights.safetensors').write_bytes(b'trained again')
    finish_run(run, {})
    with pytest.raises(ValueError, match='was made of another train/mirage-native-s0'):
        execute('fig9_depth', cohort='toy')
    assert not drawn(tmp_path)


@pytest.mark.parametrize('item', ['fig8_maps', 'fig9_depth', 'fig10_ceiling'])
def test_maps_are_whole_and_small(cohort, tmp_path, item):
    cohort(parcels=1000, atlas='schaefer1000')
    execute(item, cohort='toy')
    assert (
        accounts(tmp_path, [item])[item]['faults'] == []
        and (tmp_path / f'results/toy/figures/{item}.pdf').stat().st_size < 1.5e6
    )
    assert {'parcel', 'name', 'net'} <= set(pd.read_csv(tmp_path / f'results/toy/figures/{item}.csv'))


def test_without_public_bold_the_maps_show_validation(cohort, tmp_path):
    toy = cohort()
    toy.runs.loc[toy.runs.set.isin(['s7', 'ood']), 'bold'] = None
    space = execute('fig8_maps', cohort='toy')
    assert space['shown'] == ['val'] and 'validation set' in accounts(tmp_path, ['fig8_maps'])['fig8_maps']['caption']
    execute('fig2_fusion', cohort='toy')
    assert set(pd.read_csv(tmp_path / 'results/toy/figures/fig2_fusion.csv').set) == {'val'}
    with pytest.raises(ValueError, match='no BOLD of its s7 set'):
        execute('fig8_maps', cohort='toy', sets='s7')
