"Cross-validation by run: nothing is predicted by a model that saw it, and what cannot be done is refused."

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mirage.core import pearson
from mirage.data.cohort import Cohort
from mirage.data.folds import SET, check_folds, cohort_of_fold, make_folds, same_movie
from mirage.evaluation.evaluate import challenge_score
from mirage.evaluation.statistics import group_test
from mirage.models.ridge import Design, TrainingRows, chosen_design, design_matrix, fit_ridge, own_delays
from mirage.models.ridge import ridge_predictions, showings

PEOPLE = ('sub-01', 'sub-02', 'sub-03')


class Recordings(Cohort):
    "A cohort whose BOLD is in memory."

    def bold(self, row):
        return self.kept[row.subject, row.split, row.repeat]


def recordings(shown, lengths=60, parcels=3, video=None, seed=0):
    "shown: subject → its splits; the BOLD is noise."
    rng = np.random.default_rng(seed)
    lengths = lengths if isinstance(lengths, dict) else dict.fromkeys({f for fs in shown.values() for f in fs}, lengths)
    rows = [(s, f, 1, 'train', lengths[f], f'{s}-{f}', (video or {}).get(f)) for s, fs in shown.items() for f in fs]
    table = pd.DataFrame(rows, columns='subject split repeat set n_tr bold video'.split()).assign(onset=0.0, movie='m')
    cohort = Recordings('toy', None, table, 2.0, parcels, tuple(shown), None, True)
    cohort.kept = {
        (r.subject, r.split, r.repeat): rng.standard_normal((r.n_tr, parcels)).astype(np.float32)
        for r in table.itertuples()
    }
    return cohort


def in_fold(cohort, fold, validation=()):
    found = cohort_of_fold(cohort, fold, validation)
    found.kept = cohort.kept
    return found


@pytest.mark.parametrize('seed', range(5))
def test_every_run_is_predicted_once_by_a_model_that_learned_from_and_stopped_on_others(seed):
    rng = np.random.default_rng(seed)
    names = [f'run-{k}' for k in range(9)]
    shown = {s: sorted(rng.permutation(names)[:7].tolist()) for s in PEOPLE}
    cohort = recordings(shown)
    units = len(same_movie(cohort))
    for how in ('runs', 2, 3, units):
        held_out = []
        for fold in make_folds(cohort, how):
            for member in range(4):
                runs = in_fold(cohort, fold, fold.validation(member)).runs
                assert len(runs) == len(cohort.runs) and set(runs['set']) == {'train', 'val', SET}
                assert set(runs[runs['set'] == SET].split) == set(fold.held_out)
                assert not set(runs[runs['set'] != SET].split) & set(fold.held_out)
                assert not set(runs[runs['set'] == 'val'].split) & set(runs[runs['set'] == 'train'].split)
            held_out += fold.held_out
        assert sorted(held_out) == sorted(cohort.runs.split.unique())


def test_a_movie_under_two_names_is_held_out_as_one():
    by_file = recordings(dict.fromkeys(PEOPLE, ['a', 'b', 'c', 'd']), video=dict(a='x.mkv', b='y.mkv', c='x.mkv'))
    assert same_movie(by_file) == [('a', 'c'), ('b',), ('d',)]
    content = dict(a='1', b='2', c='3', d='2')
    features = SimpleNamespace(streams=['text'], digest=lambda m, split: content[split])
    assert same_movie(by_file, features) == [('a', 'c'), ('b', 'd')]
    content |= dict(d='1')
    assert same_movie(by_file, features) == [('a', 'c', 'd'), ('b',)]
    assert [f.held_out for f in make_folds(by_file, 'runs', features)] == [('a', 'c', 'd'), ('b',)]


def test_runs_without_bold_have_no_part():
    cohort = recordings(dict.fromkeys(PEOPLE, ['a', 'b', 'c', 'd']))
    cohort.runs.loc[cohort.runs.split == 'd', 'bold'] = None
    folds = make_folds(cohort, 'runs')
    assert [f.held_out for f in folds] == [('a',), ('b',), ('c',)]
    assert 'd' not in set(cohort_of_fold(cohort, folds[0]).runs.split)


@pytest.mark.parametrize('folds', ['run', '1', 1, 0, -2, 2.0, True, '', [2]])
def test_folds_that_mean_nothing_are_refused(folds):
    with pytest.raises(ValueError, match='it may be runs'):
        check_folds(folds)


def test_folds_that_leave_nothing_to_learn_from_are_refused():
    cohort = recordings({'sub-01': ['a', 'b', 'c'], 'sub-02': ['b']})
    with pytest.raises(ValueError, match='fold 2 of 3: b: sub-02 saw nothing else'):
        make_folds(cohort, 'runs')
    with pytest.raises(ValueError, match='3 movies with BOLD: they make no 4 folds. Give folds from 2 to 3'):
        make_folds(recordings({'sub-01': ['a', 'b', 'c']}), 4)
    with pytest.raises(ValueError, match='what is left is one movie'):
        make_folds(recordings({'sub-01': ['a', 'b']}), 2)[0].validation()


def predicted(cohort, folds, rows, plan=Design((0.0, 2.0), balance=True, penalty='runs')):
    "Leave-one-run-out by ridge: {subject: {split: (n_tr, parcels)}}."
    found = {}
    for fold in folds:
        part = in_fold(cohort, fold)
        train = list(showings(part.runs[part.runs['set'] == 'train']))
        design = design_matrix(rows, train, plan, [4, 2], tr=2.0)
        blocks = TrainingRows(part, design)
        models = fit_ridge(blocks, np.logspace(0, 5, 6), blocks.parts())
        for row, y in ridge_predictions(models, design, part.runs[part.runs['set'] == SET]):
            found.setdefault(row.subject, {})[row.split] = y
    return found


def test_what_a_fold_predicts_does_not_depend_on_the_bold_that_it_predicts():
    names = ['a', 'b', 'c', 'd']
    cohort = recordings(dict.fromkeys(PEOPLE, names))
    rng = np.random.default_rng(1)
    rows = {f: rng.standard_normal((60, 6)).astype(np.float32) for f in names}
    folds = make_folds(cohort, 'runs')
    before = predicted(cohort, folds, rows)
    for s in PEOPLE:
        cohort.kept[s, 'b', 1] = cohort.kept[s, 'b', 1][::-1] * 7
    after = predicted(cohort, folds, rows)
    for s in PEOPLE:
        assert np.array_equal(before[s]['b'], after[s]['b'])
        assert not np.allclose(before[s]['a'], after[s]['a'])  # the others did learn from it


def test_noise_is_predicted_by_nobody():
    names = [f'run-{k}' for k in range(6)]
    cohort = recordings(dict.fromkeys(PEOPLE, names), lengths=150, parcels=30)
    rng = np.random.default_rng(1)
    rows = {f: rng.standard_normal((150, 6)).astype(np.float32) for f in names}
    found = predicted(cohort, make_folds(cohort, 'runs'), rows)
    r = [pearson(found[s][f], cohort.kept[s, f, 1]).mean() for s in PEOPLE for f in names]
    assert abs(np.mean(r)) < 0.02


def test_a_cross_validation_scores_each_fold_by_itself():
    "Folds are models with scales of their own: joined into one time course they would be compared with one another."
    rng = np.random.default_rng(0)
    bold = {'sub-01': {f: rng.standard_normal((80, 4)) for f in 'ab'}}
    scales = dict(a=1.0, b=100.0)
    guess = {'sub-01': {f: scales[f] * (y + rng.standard_normal(y.shape)) + 9 for f, y in bold['sub-01'].items()}}
    score = challenge_score(guess, bold, 'ood', movies=dict(a='fold 1', b='fold 2'))
    alone = [pearson(guess['sub-01'][f][5:-5], bold['sub-01'][f][5:-5]).mean() for f in 'ab']
    assert np.isclose(score.mean, np.mean(alone), atol=1e-6)


def test_lags_of_own_data_are_seconds_around_the_peak_of_the_response():
    for tr in (0.5, 0.72, 1.0, 1.49, 2.0, 2.5, 3.0):
        delays = own_delays(tr)
        assert delays[0] == 4.0 and delays[-1] == 8.0 and 0.99 <= np.diff(delays).min() <= np.diff(delays).max() <= 2.01
    cohort = recordings({'sub-01': ['a', 'b']})
    plan = chosen_design(cohort)
    assert (plan.delays, plan.balance, plan.penalty) == ((4.0, 6.0, 8.0), True, 'runs')
    embedded = chosen_design(SimpleNamespace(name='embedded', tr=1.49))
    assert not embedded.balance and embedded.penalty == 'samples' and len(embedded.delays) == 5
    assert chosen_design(cohort, delays='5', penalty='samples').delays == (5.0,)
    for wrong, match in [
        (dict(variant='best'), 'unknown variant'),
        (dict(penalty='trs'), 'it may be samples, runs or auto'),
        (dict(delays='4;5'), 'expected seconds'),
        (dict(delays='-4'), 'a delay, seconds'),
    ]:
        with pytest.raises(ValueError, match=match):
            chosen_design(cohort, **wrong)


def test_too_few_people_are_no_group():
    assert group_test(np.full((4, 2), 0.3)).p.min() > 0.05
    assert group_test(np.full((5, 2), 0.3)).p.max() < 0.05
    holes = group_test(np.array([[0.1, np.nan], [0.2, np.nan], [0.3, np.nan]]))
    assert holes.people.tolist() == [3, 0] and np.isnan(holes.p[1]) and np.isnan(holes.estimate[1])
