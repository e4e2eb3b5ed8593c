"What each stream explains alone: drawn from shares that are known, honest where nothing was planted."

import json

import numpy as np, pandas as pd, pytest

import mirage.data.cohort
from mirage.core import MODALITIES, finish_run, run_path, start_run
from mirage.features.store import inputs_of
from mirage.training.runs import asked_settings
from test_figures import draw, drawn
from toycohorts import SUBJECTS, OneSet


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    "Makes a toy cohort with a banded ridge of known shares, and opens it under its name."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')

    def make(unique=True, moved=0.0, **how):
        toy = OneSet(tmp_path / 'data' / 'toy', **how)
        config = dict(cohort='toy', bands=list(MODALITIES), inputs=inputs_of(toy))
        run = start_run(
            run_path('toy', 'ridge', 'banded-native'), asked_settings('toy', 'ridge', 'banded-native') | config
        )
        shares(toy, SUBJECTS, 0.3, unique).to_csv(run.path / 'shares.csv', index=False)
        shares(toy, SUBJECTS[:1], moved, unique).to_csv(run.path / 'shuffled.csv', index=False)
        finish_run(run, {})
        monkeypatch.setattr(mirage.data.cohort.Cohort, 'open', classmethod(lambda cls, name, *a, **k: toy))
        return toy

    return make


def shares(toy, people, r2, unique):
    "As chapter 03f writes them, from the shares that were planted, or from those of other parcels."
    rng, tables = np.random.default_rng(0), []
    for s in people:
        for b, m in enumerate(MODALITIES):
            alone = 0.8 * r2 * toy.predicted_shares[:, b] + 0.01 * rng.standard_normal(toy.parcels)
            given = dict(subject=s, parcel=np.arange(toy.parcels) + 1, band=m, r2=r2, product=alone, unique=alone)
            tables.append(pd.DataFrame(given | dict(set='val')))
    table = pd.concat(tables)
    return table if unique else table.assign(unique=np.nan)


def verdicts(tmp_path):
    about = json.loads((tmp_path / 'results/toy/figures/fig12_streams.json').read_text())
    assert about['faults'] == []
    return {c['here']: c['verdict'] for c in about['claims'] if c['paper'].startswith(('(planted)', '(control)'))}


@pytest.mark.parametrize('how', [{}, dict(parcels=30, atlas=None), dict(lost=True)])
def test_planted_shares_are_found(cohort, tmp_path, how):
    cohort(**how)
    draw('fig12_streams', cohort='toy')
    found = verdicts(tmp_path)
    assert len(found) == 5 and set(found.values()) == {'holds'}
    table = pd.read_csv(tmp_path / 'results/toy/figures/fig12_streams.csv')
    assert np.allclose(table.r2 - table[[f'unique_{m}' for m in MODALITIES]].sum(axis=1), table.shared, atol=1e-5)


@pytest.mark.parametrize('many', [2, 12])
def test_shares_are_drawn_by_the_networks_of_ones_own_atlas(cohort, tmp_path, many):
    toy = cohort(parcels=30, atlas=None)
    networks = [f'Network {k % many}' if k else '' for k in range(30)]
    toy.regions = pd.DataFrame(dict(label=range(1, 31), name='region', network=networks, hemi=''))
    found = draw('fig12_streams', cohort='toy')
    verdicts(tmp_path)  # nothing lies on anything else
    rows = pd.DataFrame(found['table'])
    assert set(rows.network) == set(networks) - {''} and len(rows) == 4 * many
    inside = np.array(networks) == 'Network 1'
    text = rows[(rows.network == 'Network 1') & (rows.share == 'text')]
    assert np.isclose(text['mean'].iloc[0], np.nanmean(found['alone']['text'][:, inside]))
    assert '1 of 30 parcels belong to no network' in found['caption']


def test_shares_of_other_parcels_and_a_control_that_explains_something_fail(cohort, tmp_path):
    cohort(planted=False, moved=0.02)
    draw('fig12_streams', cohort='toy')
    found = {what.split(',')[0]: verdict for what, verdict in verdicts(tmp_path).items()}
    follows = 'correlation of unique and planted shares over parcels and streams'
    assert found[follows] == found['R² of sub-01'] == 'fails'


def test_a_run_without_unique_shares_is_refused(cohort, tmp_path):
    cohort(unique=False)
    with pytest.raises(ValueError, match='has no unique shares: fit it again'):
        draw('fig12_streams', cohort='toy')
    assert not drawn(tmp_path)
