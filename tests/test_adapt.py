"""A person who was not there when a model was trained: what is added, what stays as it was, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
import yaml

from mirage.core import open_run, root, run_path
from mirage.data.cohort import Cohort
from mirage.evaluation.evaluate import evaluate, evaluate_set
from mirage.evaluation.methods import model_sentences
from mirage.features.store import open_features
from mirage.models.model import load_model
from mirage.models.readout import AVERAGE, PENALTIES, Readout, average_readout, believed, fit_readout, people_only
from mirage.models.readout import readout_spread, readouts_of, response_sizes, stretches, worth_leaving
from mirage.prediction.adapt import adapt, encoded, open_known
from mirage.prediction.predict import for_people
from mirage.prediction.recipe import Recipe, Weights, check_recipe
from mirage.training.loader import Loader, Reader
from mirage.training.runs import parameters_of
from mirage.training.start import open_start, people_added, readouts_from, start_settings
from mirage.training.train import train

STREAMS = {'text': (2, 8), 'audio': (3, 8), 'vision': (2, 8)}
SETS = {'a': 'train', 'b': 'train', 'v': 'val', 't': 'test'}
TRS, TR, PARCELS = 60, 1.5, 6
KNOWN, NEW = ('ann', 'bob', 'cas'), ('dan', 'eva')
SMALL = dict(preset='smoke', epochs=1, window=10)


def write_cohort(folder, people, tr=TR, parcels=PARCELS, width=8, names=None, atlas=None):
    "A cohort of one's own whose features came with it; the BOLD follows them."
    rng = np.random.default_rng(7)
    shared, lines = rng.normal(size=(24, parcels)), ['subject,split,set,bold,transcript']
    for split in SETS:
        frames, drive = round(TRS * tr * 2), rng.normal(size=(round(TRS * tr * 2), 3, 8))
        for k, (m, (layers, _)) in enumerate(STREAMS.items()):
            (folder / f'features/{m}').mkdir(parents=True, exist_ok=True)
            states = np.repeat(drive[:, None, k], layers, 1).astype(np.float16)
            np.save(folder / f'features/{m}/{split}.npy', np.pad(states, ((0, 0), (0, 0), (0, width - 8))))
        (folder / f'{split}.csv').write_text('word,onset,offset\nhello,1,2\n')
        driven = drive.reshape(frames, -1)[np.arange(TRS) * frames // TRS] @ shared
        for person in people:
            bold = pd.DataFrame(
                driven + rng.normal(size=driven.shape), columns=names or [f'p{k}' for k in range(parcels)]
            )
            bold.to_csv(folder / f'{person}_{split}.csv', index=False)
            lines.append(f'{person},{split},{SETS[split]},{person}_{split}.csv,{split}.csv')
    (folder / 'runs.csv').write_text('\n'.join(lines))
    about = dict(tr=tr, parcels=parcels, atlas=atlas, features=dict.fromkeys(STREAMS, 2.0))
    (folder / 'cohort.yaml').write_text(yaml.safe_dump(about))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A root with a cohort of five, and weights of three of them."
    place = tmp_path_factory.mktemp('adapt')
    (place / 'data/five').mkdir(parents=True)
    write_cohort(place / 'data/five', KNOWN + NEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MIRAGE_ROOT', str(place))
        yield SimpleNamespace(root=place, run=train('five', subjects=list(KNOWN), **SMALL))


def everything(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file() and '.digests' not in str(p)}


def test_adding_people_changes_no_bit_of_the_others(trained):
    run = adapt(trained.run.path, 'five', subjects='dan,eva')
    before, after = load_model(trained.run), load_model(run)
    assert after.config.subjects == KNOWN + NEW and open_run(run.path).config['new'] == [*NEW]
    for name, value in before.state_dict().items():
        assert torch.equal(
            value, after.state_dict()[name][: len(value)] if name.startswith('head') else after.state_dict()[name]
        )
    x = {m: torch.randn(2, 30, *shape) for m, shape in STREAMS.items()}
    with torch.no_grad():
        assert torch.equal(after(x)[:, : len(KNOWN)], before(x))
    with h5py.File(run.path / 'predictions.h5') as f:
        assert set(f['val']) == set(NEW) and f['val/dan/v'].shape == (TRS, PARCELS)
    assert set(run.metrics['r']['test']) == set(NEW) == set(run.metrics['people'])


def test_features_that_came_with_another_cohort_are_said_to_be_taken_for_the_same(trained):
    other = trained.root / 'data/others'
    other.mkdir()
    write_cohort(other, ('fay',))
    with pytest.warns(UserWarning, match='cohort others, of the same widths, are taken to be of the same kind'):
        adapt(trained.run.path, 'others', subjects='fay', minutes=2)


def test_a_person_without_minutes_is_the_average_person_to_the_last_bit(trained):
    run = adapt(trained.run.path, 'five', subjects='dan', minutes=0)
    average, model = average_readout(load_model(trained.run)), load_model(run)
    assert np.array_equal(model.head.weights[-1].detach(), average.coefficients)
    assert np.array_equal(model.head.bias_param[-1].detach(), average.bias)
    r, beside = run.metrics['r']['test']['dan'], run.metrics['average']['test']['dan']
    assert abs(r - beside) < 1e-9 and run.metrics['people']['dan']['average_share'] == 1


def test_whoever_stays_the_average_person_with_minutes_is_told_so(trained, capsys, monkeypatch):
    monkeypatch.setattr('mirage.models.readout.worth_leaving', lambda together, rows: False)
    monkeypatch.setattr('mirage.models.readout.RISK', 1e-12)
    run = adapt(trained.run.path, 'five', subjects='dan', minutes=2.5)
    assert run.metrics['people']['dan']['average_share'] == 1
    assert 'dan: nothing in 100 TRs is surely better than the average person' in capsys.readouterr().out


def test_minutes_are_the_first_ones_and_another_number_is_another_result(trained):
    ten = adapt(trained.run.path, 'five', subjects='eva', minutes=2)
    assert ten.metrics['people']['eva']['rows'] == 80 and ten.path.name.endswith('-with+eva-2min')
    again = adapt(trained.run.path, 'five', subjects='eva', minutes=2)
    assert again.provenance['files'] == ten.provenance['files']
    with pytest.raises(FileExistsError, match='minutes: 2.* → 1.5'):
        adapt(trained.run.path, 'five', subjects='eva', minutes=1.5, name=ten.path.name)


def test_whoever_was_added_can_be_built_upon(trained):
    first = adapt(trained.run.path, 'five', subjects='dan', minutes=1)
    second = adapt(first.path, 'five', subjects='eva', minutes=1)
    assert load_model(second).config.subjects == KNOWN + NEW
    with pytest.raises(ValueError, match='has dan already'):
        adapt(second.path, 'five', subjects='dan')


def test_people_who_are_added_one_by_one_get_the_very_readouts_that_they_get_together(trained, monkeypatch):
    def own(regression, parts, **penalties):  # not the average's, which would be the same anyway
        return np.full(regression.y.shape[1], 6)

    monkeypatch.setattr('mirage.models.readout.chosen_penalties', own)
    one, then = Path(), {}
    for subject in ('dan', 'eva'):
        one = adapt(one if then else trained.run.path, 'five', subjects=subject, minutes=2, name=f'one-{subject}').path
        then[subject] = load_model(one)
    both = adapt(trained.run.path, 'five', subjects='dan,eva', minutes=2, name='both')
    for name, value in load_model(both).state_dict().items():
        assert torch.equal(value, then['eva'].state_dict()[name]), name
    assert both.metrics['people']['eva']['average_share'] < 1
    assert open_run(one).config['added'] == both.config['added'] == dict(dan='five', eva='five')
    without = adapt(one, write_sixth(trained, 'six'), subjects='fay', minutes=0, name='fay').path
    nobody = average_readout(load_model(trained.run))
    assert np.array_equal(load_model(without).head.weights[-1].detach(), nobody.coefficients)


def write_sixth(trained, name):
    folder = trained.root / 'data' / name
    folder.mkdir(exist_ok=True)
    write_cohort(folder, ('fay', 'gus'))
    return name


def test_the_average_person_stays_the_same_whoever_was_added_here_or_in_a_shared_model(trained, tmp_path):
    run = adapt(trained.run.path, 'five', subjects='dan,eva', minutes=2, name='shared')
    added = people_added(run.config)
    assert added == dict(dan='five', eva='five')
    model, recipe = load_model(run), Recipe('tiny-qwen3-omni-thinking', added=added)
    recipe.write(tmp_path / 'recipe.yaml')
    assert Recipe.read(tmp_path / 'recipe.yaml') == recipe
    weights, _ = for_people(Weights(model, recipe, 'a test', 'none'), AVERAGE)
    again, people = for_people(weights, AVERAGE)
    before, _ = for_people(SimpleWeights(load_model(trained.run)), AVERAGE)
    assert people == (AVERAGE,) and torch.equal(again.model.head.weights[-1], before.model.head.weights[-1])
    older = {k: v for k, v in run.config.items() if k != 'added'}
    assert people_added(older) == added
    Recipe('tiny-qwen3-omni-thinking').write(tmp_path / 'recipe.yaml')
    assert 'added' not in (tmp_path / 'recipe.yaml').read_text()
    for wrong in (dict(zoe='five'), dict.fromkeys(KNOWN + NEW, 'five')):
        with pytest.raises(ValueError, match='were added to the people of a training'):
            check_recipe('a model', model, Recipe('tiny-qwen3-omni-thinking', added=wrong, atlas=None))
    with pytest.raises(ValueError, match='added is'):
        Recipe('tiny-qwen3-omni-thinking', added=['dan'])


def test_a_trained_person_called_average_is_not_served_as_the_mean(trained):
    named = people_only(load_model(trained.run), {AVERAGE: Readout(np.ones((24, 6), 'f'), np.ones(6, 'f'))} | NOBODY)
    with pytest.raises(ValueError, match='has a person called average'):
        for_people(SimpleWeights(named), AVERAGE)
    with pytest.raises(ValueError, match='has a person called average.*train again with another name'):
        check_recipe('a model', named, Recipe('tiny-qwen3-omni-thinking', atlas=None))


NOBODY = {'bob': Readout(np.zeros((24, 6), 'f'), np.zeros(6, 'f'))}


@pytest.mark.parametrize('weights', ['auto', 'untrained', '', 'nowhere', None, 3])
def test_what_are_no_weights_of_people_is_refused_with_what_can_be_given(trained, weights):
    with pytest.raises(ValueError, match='adapt: weights is .*expected a training run .results/') as found:
        adapt(weights, 'five', subjects='dan')
    assert 'or untrained' not in str(found.value)


def test_a_parcel_that_was_not_measured_is_predicted_as_zero_with_minutes_and_without(trained):
    folder = trained.root / 'data' / write_sixth(trained, 'gap')
    for split, values in (('a', np.nan), ('v', 1.0)):  # missing in a recording; constant in the validation's
        table = pd.read_csv(folder / f'fay_{split}.csv')
        table.assign(**{dict(a='p1', v='p3')[split]: values}).to_csv(folder / f'fay_{split}.csv', index=False)
    average = average_readout(load_model(trained.run)).coefficients
    for minutes in (0, 2):
        with pytest.warns(UserWarning, match='2 of 6 parcels of fay were not measured'):
            run = adapt(trained.run.path, 'gap', subjects='fay', minutes=minutes)
        own = load_model(run).head.weights[-1].detach().numpy()
        assert list(np.flatnonzero(~own.any(0))) == [1, 3]
        assert minutes or np.array_equal(own[:, [0, 2, 4, 5]], average[:, [0, 2, 4, 5]])


def test_a_parcel_that_is_constant_in_the_minutes_that_are_fitted_is_named_with_the_way_out(trained):
    folder = trained.root / 'data' / write_sixth(trained, 'still')
    table = pd.read_csv(folder / 'fay_a.csv')
    table.loc[:39, 'p1'] = 1.0
    table.to_csv(folder / 'fay_a.csv', index=False)
    with pytest.raises(ValueError, match='fay a: parcel p1 has one value over the 40 TRs.*Take more minutes'):
        adapt(trained.run.path, 'still', subjects='fay', minutes=1)


def test_weights_whose_own_recordings_have_changed_are_refused(trained, tmp_path):
    place = trained.root / 'data/four'
    place.mkdir()
    write_cohort(place, ('ann', 'bob', 'dan', 'eva'))
    run = train('four', subjects=['ann', 'bob'], **SMALL)
    first = adapt(run.path, 'four', subjects='dan', minutes=1)
    sent = tmp_path / 'sent'
    shutil.copytree(run.path, sent)
    bold = place / 'ann_a.csv'
    bold.write_text(bold.read_text().replace('0.', '0.1', 1))
    before = everything(trained.root / 'results')
    for weights in (run.path, first.path):
        with pytest.raises(ValueError, match='other inputs than are there now.*(train)'):
            adapt(weights, 'four', subjects='eva', minutes=1)
    assert everything(trained.root / 'results') == before
    bold.write_text(bold.read_text().replace('0.1', '0.', 1))
    assert adapt(first.path, 'four', subjects='eva', minutes=1).metrics['people']['eva']['rows'] == 40
    shutil.rmtree(place)  # as where weights were sent to: their recordings are not there
    with pytest.raises(FileNotFoundError, match='trained on cohort four, which is not here.*chapter 09c'):
        adapt(sent, 'five', subjects='eva', minutes=1)


def plainly_fitted(pieces, start, tr, spread):
    "What `fit_readout` stands for, fit by fit: inverse matrices, and a fit of its own for every stretch."
    z, y = (np.concatenate(each).astype(float) for each in zip(*pieces))
    parts = stretches([len(x) for x, _ in pieces], tr)
    size = response_sizes(start.predict(z), y, parts)
    residual, inverse = y - size * start.predict(z), np.linalg.inv(spread @ spread.T)
    whitened = (z - z.mean(0)) @ spread
    alphas = np.square(whitened).sum() / z.shape[1] * PENALTIES

    def ridge(rows, alpha):
        x, b = z[rows] - z[rows].mean(0), residual[rows] - residual[rows].mean(0)
        w = np.linalg.solve(x.T @ x + alpha * inverse, x.T @ b)
        return w, residual[rows].mean(0) - z[rows].mean(0) @ w

    def squared(part, alpha):
        w, b = ridge(np.setdiff1d(np.arange(len(z)), np.arange(len(z))[part]), alpha)
        return np.square(residual[part] - z[part] @ w - b).sum(0)

    errors, rows = [], np.array([part.stop - part.start for part in parts])
    centred = residual - residual.mean(0)
    for part in parts:
        errors.append([squared(part, a) for a in alphas] + [np.square(centred[part]).sum(0)])
    better, _, together = believed(np.array(errors), rows)
    assert worth_leaving(together, rows)
    which = better.argmin(0)
    coefficients = start.coefficients.astype(float)
    for k in np.flatnonzero(which < len(alphas)):
        coefficients[:, k] = size[k] * coefficients[:, k] + ridge(np.arange(len(z)), alphas[which[k]])[0][:, k]
    return coefficients, np.append(PENALTIES, np.inf)[which]


@pytest.mark.parametrize('hidden', [12, 150])
def test_the_closed_form_is_the_plain_one_with_more_trs_than_hidden_units_and_with_fewer(hidden):
    rng = np.random.default_rng(hidden)
    truth, spread = rng.normal(size=(hidden, 8)), np.linalg.cholesky(np.eye(hidden) + 3 / hidden)
    known = 0.7 * truth + rng.normal(size=truth.shape)
    pieces = [(z := rng.normal(size=(rows, hidden)), z @ truth + rng.normal(size=(rows, 8))) for rows in (90, 70)]
    start = Readout(known.astype(np.float32), np.zeros(8, np.float32))
    fitted = fit_readout(pieces, start, tr=1.5, spread=spread)
    coefficients, penalty = plainly_fitted(pieces, start, 1.5, spread)
    assert np.array_equal(fitted.penalty, penalty) and np.isfinite(penalty).any()
    assert np.allclose(fitted.coefficients, coefficients, rtol=1e-5, atol=1e-5)


def test_an_adaptation_fits_the_first_minutes_on_what_the_encoder_gives_for_them(trained, monkeypatch):
    monkeypatch.setattr('mirage.models.readout.worth_leaving', lambda *_: True)
    made = adapt(trained.run.path, 'five', subjects='dan', minutes=2, name='by-hand')
    model, cohort = load_model(trained.run), Cohort.open('five', subjects='dan')
    known = open_known(trained.run.path)
    loader = Loader(cohort, Reader(open_features(cohort, known.preset, fusion='native'), cohort.splits.split), 10)
    z = encoded(known, cohort, cohort.runs[cohort.runs['set'] == 'train'], loader)
    pieces = []
    for split, rows in dict(a=TRS, b=80 - TRS).items():  # two minutes are 80 TRs, a run has 60
        bold = pd.read_csv(cohort.root / f'dan_{split}.csv').to_numpy()[:rows]
        pieces.append((z[split, 0.0][:rows], (bold - bold.mean(0)) / bold.std(0)))
    fitted = fit_readout(pieces, average_readout(model), tr=TR, spread=readout_spread(model))
    assert np.isfinite(fitted.penalty).any()
    found = readouts_of(load_model(made))['dan']
    assert np.allclose(found.coefficients, fitted.coefficients, atol=1e-6)
    assert np.allclose(found.bias, fitted.bias, atol=1e-6)


def test_whoever_may_not_stay_the_average_person_has_a_readout_of_their_own_in_every_parcel(trained):
    own = adapt(trained.run.path, 'five', subjects='dan', minutes=2, stay=False)
    assert own.path.name.endswith('with+dan-2min-own') and own.metrics['people']['dan']['average_share'] == 0
    assert np.isfinite(pd.read_csv(own.path / 'penalties.csv').penalty).all()
    with pytest.raises(ValueError, match='stay=False and minutes=0'):
        adapt(trained.run.path, 'five', subjects='dan', minutes=0, stay=False)


@pytest.mark.parametrize('size', [1.0, 0.3])
def test_recordings_that_say_nothing_new_leave_the_average_person_as_it_was(size):
    "With noise that is slow and that parcels share, and with responses that are smaller than the average's."
    rng, left = np.random.default_rng(1), 0
    start = Readout(rng.normal(size=(20, 60)).astype(np.float32), np.zeros(60, np.float32))
    for _ in range(20):
        z = rng.normal(size=(200, 20))
        shared = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 60))
        noise = 5 * np.cumsum(shared + rng.normal(size=(200, 60)), axis=0) / 10
        fitted = fit_readout([(z, size * start.predict(z) + noise)], start, tr=1.5)
        left += fitted.average_share < 1
        stayed = np.isinf(fitted.penalty)
        assert np.array_equal(fitted.coefficients[:, stayed], start.coefficients[:, stayed])
    assert left <= 4


def test_smaller_responses_are_no_readout_of_ones_own_and_other_directions_are():
    rng, z = np.random.default_rng(2), np.random.default_rng(3).normal(size=(400, 20))
    start = Readout(rng.normal(size=(20, 60)).astype(np.float32), np.zeros(60, np.float32))
    noise = rng.normal(size=(400, 60))
    smaller = fit_readout([(z, 0.3 * start.predict(z) + noise)], start, tr=1.5)
    own = rng.normal(size=(20, 60))
    other = fit_readout([(z, 0.3 * z @ (start.coefficients + own) + noise)], start, tr=1.5)
    assert smaller.average_share > 0.9 and other.average_share < 0.1
    assert np.corrcoef(other.coefficients.ravel(), (start.coefficients + own).ravel())[0, 1] > 0.95


def test_stretches_are_a_minute_or_a_third_or_a_twelfth():
    assert [p.stop - p.start for p in stretches([400], tr=1.5)] == [40] * 10
    assert [p.stop - p.start for p in stretches([30, 30], tr=1.5)] == [15] * 4
    assert [p.stop - p.start for p in stretches([60], tr=1.5)] == [20] * 3
    assert len(stretches([800, 1600], tr=1.5)) == 12


REFUSALS = {
    'somebody who is there': (dict(subjects='ann'), {}, 'has ann already'),
    'nobody named': ({}, {}, 'has ann, bob, cas already.*subjects=dan,eva'),
    'too few TRs': (dict(subjects='dan', minutes=0.5), {}, '20 TRs of dan are too few: a readout takes 30'),
    'more than there is': (dict(subjects='dan', minutes=60), {}, 'dan has 3.0 minutes of training recordings'),
    'no such minutes': (dict(subjects='dan', minutes=-1), {}, 'minutes is -1'),
    'another TR': (dict(subjects='dan'), dict(tr=2.0), 'at TR 1.5 s; cohort other has TR 2 s'),
    'other parcels': (dict(subjects='dan'), dict(parcels=7), 'has 6 parcels, cohort other has 7'),
    'parcels of other names': (dict(subjects='dan'), dict(names=[*'uvwxyz']), 'number 1 is p0 in one and u in'),
    'another backbone': (dict(subjects='dan'), dict(width=16), 'they are of another backbone'),
    'the name of the mean': (dict(subjects=AVERAGE), dict(people=[AVERAGE]), 'a person called average'),
}  # fmt: skip


@pytest.mark.parametrize('what', REFUSALS)
def test_what_does_not_fit_is_refused_before_anything_is_written(trained, what):
    asked, changes, says = REFUSALS[what]
    other = trained.root / 'data/other'
    shutil.rmtree(other, ignore_errors=True)
    if changes:
        other.mkdir()
        write_cohort(other, changes.pop('people', NEW), **changes)
    before = everything(trained.root / 'results')
    with pytest.raises(ValueError, match=says) as found:
        adapt(trained.run.path, 'other' if other.is_dir() else 'five', **asked)
    assert '\n' not in str(found.value) and everything(trained.root / 'results') == before


def test_another_atlas_and_features_of_a_backbone_are_refused(trained, monkeypatch):
    data = Cohort.open('five', subjects='dan')
    monkeypatch.setattr(Cohort, 'open', lambda *a, **k: data)
    data.atlas = 'schaefer1000'
    monkeypatch.setattr('mirage.prediction.adapt.check_source', lambda run: None)
    monkeypatch.setattr('mirage.prediction.adapt.about_training', lambda config: ('five', False, None))
    with pytest.raises(ValueError, match='parcels of no atlas, cohort five those of schaefer1000'):
        adapt(trained.run.path, 'five')
    data.atlas, data.rates = None, {}
    with pytest.raises(ValueError, match='reads features that came with their cohort; cohort five has none'):
        adapt(trained.run.path, 'five')


def test_the_average_person_is_scored_under_that_name(trained):
    data = Cohort.open('five', subjects=list(KNOWN))
    own, average = (evaluate(trained.run, data, draws=20, subjects=s)['test'] for s in ('all', 'average'))
    assert set(average.table().predicted) == {'average'} and set(own.table().predicted) == {'own'}
    with h5py.File(trained.run.path / 'predictions.h5') as f:
        mean = np.mean([f[f'test/{s}/t'] for s in KNOWN], 0)[5:-5]
    measured = data.bold(next(r for r in data.runs.itertuples() if (r.subject, r.split) == ('bob', 't')))[5:-5]
    assert np.isclose(average.score.r.loc['bob', 1].item(), np.corrcoef(mean[:, 0], measured[:, 0])[0, 1], atol=1e-5)
    assert (own.bootstrap - average.bootstrap).r.shape == (3, PARCELS)  # at the same blocks
    added = adapt(trained.run.path, 'five', subjects='dan', minutes=1)
    with pytest.raises(ValueError, match='minutes=0'):
        evaluate(added, Cohort.open('five'), draws=2, subjects='average')


def without(trained, name, *lines):
    "A trained cohort in whose list some people lack some runs."
    folder = trained.root / 'data' / name
    folder.mkdir()
    write_cohort(folder, KNOWN)
    runs = pd.read_csv(folder / 'runs.csv')
    runs[~(runs.subject + ' ' + runs.split).isin(lines)].to_csv(folder / 'runs.csv', index=False)
    return folder


def average_of(run, cohort):
    return evaluate_set(run, Cohort.open(cohort), 'test', draws=2, subjects='average')


def test_the_average_of_people_who_saw_other_movies_is_refused_and_what_one_lacks_is_named(trained):
    without(trained, 'lacks', 'ann t')
    lacks = train('lacks', **SMALL)
    with pytest.raises(ValueError, match='has no predictions of ann for test.*ann, bob, cas.*subjects=all'):
        average_of(lacks, 'lacks')
    assert evaluate_set(lacks, Cohort.open('lacks'), 'val', draws=2, subjects='average').predicted == 'average'
    for name, gone in (('disjoint', ['ann b', 'bob t', 'cas t']), ('part', ['ann b'])):
        folder = without(trained, name, *gone)
        runs = pd.read_csv(folder / 'runs.csv')
        runs.loc[runs.split == 'b', 'set'] = 'test'
        runs.to_csv(folder / 'runs.csv', index=False)
    with pytest.raises(ValueError, match='no split of test in common .ann: t; bob: b; cas: b'):
        average_of(train('disjoint', **SMALL), 'disjoint')
    with pytest.warns(UserWarning, match='left out: b, which ann lack'):
        assert set(average_of(train('part', **SMALL), 'part').score.r.index.get_level_values(0)) == {*KNOWN}


def test_the_average_person_is_predicted_under_that_name(trained):
    model = load_model(trained.run)
    weights, people = for_people(SimpleWeights(model), 'bob, average')
    assert people == ('bob', AVERAGE) and weights.model.config.subjects == (*KNOWN, AVERAGE)
    x = {m: torch.randn(2, 30, *shape) for m, shape in STREAMS.items()}
    with torch.no_grad():
        y, own = weights.model(x), model(x)
        alone = people_only(model, {AVERAGE: average_readout(model)})(x)
    assert torch.allclose(y[:, -1], own.mean(1), atol=1e-5) and torch.equal(y[:, -1], alone[:, 0])
    assert torch.equal(y[:, :-1], own)
    with pytest.raises(ValueError, match='no subject'):
        for_people(weights, 'mean')


def SimpleWeights(model):
    return Weights(model, Recipe('tiny-qwen3-omni-thinking'), 'a test', 'none')


def test_results_lie_where_runs_do(trained):
    run = adapt(trained.run.path, 'five', subjects='dan', minutes=1)
    assert run.path == run_path('five', 'adapt', run.path.name) and run.path.is_relative_to(root())
    penalties = pd.read_csv(run.path / 'penalties.csv')
    assert list(penalties.parcel) == [1, 2, 3, 4, 5, 6] and (penalties.penalty > 0).all()


@pytest.mark.promise('adapt', ('kill', 'signal', 'full disk', 'two at once'))
@pytest.mark.filterwarnings('ignore')
def test_an_adaptation_that_is_killed_stopped_out_of_room_or_started_twice_ends_the_same(trained):
    from test_promises import keeps_its_promises

    def act():
        adapt(trained.run.path, 'five', subjects=['dan'], minutes=1.0, name='promised', workers=0)

    act()
    keeps_its_promises(act, run_path('five', 'adapt', 'promised'), times=(1, 4))


def test_a_training_begins_from_given_weights_with_the_encoder_frozen_or_free(trained):
    given, path = load_model(trained.run).state_dict(), trained.run.path
    frozen = train('five', subjects=['bob', 'dan'], start=str(path), frozen=True, **SMALL)
    assert '-from+mirage-smoke-of' in frozen.path.name and frozen.path.name.endswith('-frozen')
    assert frozen.config['start'] == dict(
        weights=str(path), digest=trained.run.provenance['files']['weights.safetensors']['sha256'], frozen=True
    )
    free = train('five', subjects=['bob', 'dan'], start=str(path), **SMALL)
    assert free.path != frozen.path and free.config['model']['hidden'] == trained.run.config['model']['hidden']
    kept, changed = load_model(frozen).state_dict(), load_model(free).state_dict()
    encoder = [k for k in given if not k.startswith(('head.', 'null_tokens.'))]
    assert all(torch.equal(kept[k], given[k]) for k in encoder)
    assert not all(torch.equal(changed[k], given[k]) for k in encoder)
    assert not torch.equal(kept['head.weights'][0], given['head.weights'][1])  # bob's own, trained on
    assert train('five', subjects=['bob', 'dan'], start=str(path), **SMALL).provenance == free.provenance


def start_of(source):
    return open_start(str(getattr(source, 'path', source)))


def other_cohort(trained, name, people, **how):
    folder = trained.root / 'data' / name
    folder.mkdir(exist_ok=True)
    write_cohort(folder, people, **how)
    return Cohort.open(name)


def test_a_namesake_in_another_cohort_begins_as_the_average_person_and_other_parcels_by_chance(trained):
    given, same = start_of(trained.run), dict(ann='average', zoe='average')
    namesake = other_cohort(trained, 'namesake', ('ann', 'zoe'))
    begun, notes = readouts_from(given, namesake)
    assert begun == same and 'knows ann of cohort five; in cohort namesake these are taken for other' in notes[0]
    assert start_settings(given, True, namesake)['start']['readouts'] == same
    for name, how in (('elsewhere', dict(names=[*'uvwxyz'])), ('seven', dict(parcels=7))):
        begun, notes = readouts_from(given, other_cohort(trained, name, ('ann', 'zoe'), **how))
        assert set(begun.values()) == {'chance'} and 'every readout begins by chance' in notes[0]
    assert readouts_from(given, Cohort.open('five', subjects='ann,dan')) == (dict(ann='own', dan='average'), [])
    with pytest.warns(UserWarning, match='parcel p0 where cohort elsewhere has u: every readout begins by chance'):
        run = train('elsewhere', start=str(trained.run.path), frozen=True, **SMALL)
    assert run.config['start']['readouts'] == dict(ann='chance', zoe='chance')


def test_who_was_added_to_a_start_is_of_their_own_cohort_and_not_in_its_average(trained, tmp_path):
    other = other_cohort(trained, 'home', ('fay', 'ann'))
    grown = adapt(trained.run.path, 'home', subjects='fay', minutes=2)
    begun, notes = readouts_from(start_of(grown), other)
    assert begun == dict(fay='own', ann='average') and 'knows ann of cohort five' in notes[0]
    assert start_settings(start_of(grown), True, other)['start']['not_in_average'] == ['fay']
    with pytest.raises(ValueError, match='was trained on five, perhaps on the movies that the folds hold out'):
        train('five', start=str(grown.path), folds='runs', fold=1, **SMALL)
    unsaid = replace(start_of(grown), cohort='', atlas='', parcels=(), added={})  # a shared model without a recipe
    begun, notes = readouts_from(unsaid, other)
    assert set(begun.values()) == {'average'} and 'nothing names the 6 parcels of both' in notes[0]
    assert 'ann, fay of a cohort that is not named' in notes[1]


def test_a_training_of_other_parcels_begins_from_given_weights(trained):
    other = trained.root / 'data/other'
    shutil.rmtree(other, ignore_errors=True)
    other.mkdir()
    write_cohort(other, NEW, parcels=7, tr=2.0)
    run = train('other', start=str(trained.run.path), frozen=True, **SMALL)
    assert load_model(run).head.weights.shape[0] == 2 and load_model(run).head.weights.shape[2] == 7


def test_readouts_that_share_factors_serve_trainings_new_people_the_average_and_a_start(trained):
    low = train('five', subjects=list(KNOWN), readout_rank=5, **SMALL)
    assert '-rank5-' in low.path.name and parameters_of(low.path.name)['readout_rank'] == 5
    model = load_model(low)
    assert model.head.weights.shape == (3, 5, PARCELS) and model.head.shared.shape == (24, 5)
    assert 'per subject, of 5 factors of its output that all subjects share, predicts' in model_sentences(low.config, 1)
    run = adapt(low.path, 'five', subjects='dan', minutes=2)
    grown, x = load_model(run), {m: torch.randn(2, 30, *shape) for m, shape in STREAMS.items()}
    with torch.no_grad():
        assert torch.equal(grown(x)[:, : len(KNOWN)], model(x))
    assert torch.equal(grown.head.shared, model.head.shared)
    scores = evaluate(low, Cohort.open('five', subjects=list(KNOWN)), draws=5, subjects='average')
    assert set(scores['test'].table().predicted) == {AVERAGE}
    begun = train('five', subjects=['bob', 'dan'], start=str(low.path), frozen=True, **SMALL)
    assert begun.config['model']['readout_rank'] == 5
    assert torch.equal(
        load_model(begun).temporal_encoder.time_pos_embed, model.temporal_encoder.time_pos_embed
    )  # frozen


@pytest.mark.parametrize('rank, says', [(25, 'readout_rank is 25, expected .* 1 to 24'), (0, 'from 1 to')])
def test_more_shared_factors_than_hidden_units_are_refused_before_anything_is_written(trained, rank, says):
    before = everything(trained.root / 'results')
    with pytest.raises(ValueError, match=says):
        train('five', readout_rank=rank, **SMALL)
    assert everything(trained.root / 'results') == before


@pytest.mark.parametrize(
    'asked, says',
    [
        (dict(start='nowhere'), 'there is no folder nowhere'),
        (dict(hidden=48), 'has hidden 24, and hidden 48 was asked for'),
        (dict(readout_rank=4), 'has readout_rank None, and readout_rank 4 was asked for'),
        (dict(aggregate='mean'), 'pools by queries, and mean was asked for'),
        (dict(fusion='tower'), 'fusion is native, here it is tower'),
        (dict(start=None, frozen=True), 'give start too'),
    ],
)
def test_weights_that_do_not_fit_a_training_are_refused_before_anything_is_written(trained, asked, says):
    before = everything(trained.root / 'results')
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        train('five', **SMALL | dict(start=str(trained.run.path)) | asked)
    assert everything(trained.root / 'results') == before


def test_a_parcel_that_was_not_measured_is_no_difference_between_people():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(12, 1)) + 0.1 * rng.normal(size=(2, 12, 400))
    missing = common.copy()
    missing[1, :, :300] = 0
    along = {}
    for name, readouts in (('all', common), ('missing', missing)):
        model = SimpleNamespace(head=SimpleNamespace(weights=torch.tensor(readouts)))
        spread = readout_spread(model)
        direction = common.mean((0, 2)) / np.linalg.norm(common.mean((0, 2)))
        along[name] = direction @ spread @ spread.T @ direction
    assert abs(along['missing'] - along['all']) < 0.5


@pytest.mark.long
def test_the_curve_is_drawn_for_people_with_gaps_who_saw_a_movie_from_later_on(tmp_path, monkeypatch):
    folder = tmp_path / 'data/gaps'
    folder.mkdir(parents=True)
    write_cohort(folder, KNOWN + NEW)
    for split in SETS:
        table = pd.read_csv(folder / f'ann_{split}.csv')
        table.assign(p2=np.nan).to_csv(folder / f'ann_{split}.csv', index=False)
    runs = pd.read_csv(folder / 'runs.csv').assign(onset=0.0)
    later = (runs.subject == 'dan') & (runs.split == 't')
    runs.loc[later, 'onset'] = 6.0
    runs.to_csv(folder / 'runs.csv', index=False)
    pd.read_csv(folder / 'dan_t.csv').iloc[:56].to_csv(folder / 'dan_t.csv', index=False)
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')
    chapter = Path(__file__).parents[1] / 'nbs/figures/adapt.ipynb'
    asked = dict(cohort=str(folder), preset='smoke')
    papermill.execute_notebook(chapter, tmp_path / 'out.ipynb', parameters=asked, progress_bar=False)
    scores = pd.read_csv(tmp_path / 'results/gaps/figures/adapt.csv')
    assert {'ours', 'average', 'full training'} <= set(scores.method) and np.isfinite(scores.estimate).all()
