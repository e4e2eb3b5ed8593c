"Predictions from elsewhere: the shapes in which challenge systems hand in, and what does not fit, by name."

import copy, zipfile
from types import SimpleNamespace

import h5py, numpy as np, pandas as pd, pytest

from mirage.evaluation.evaluate import evaluate_set, who_wins
from mirage.evaluation.foreign import parcels_of, read_foreign, write_predictions_of
from mirage.evaluation.statistics import planted
from mirage.evaluation.submission import dump_npy

LENGTHS = {'s07e01a': 90, 's07e01b': 80}
SUBJECTS = ('sub-01', 'sub-02')
PARCELS = 12


@pytest.fixture
def cohort():
    "Two people, two episodes, the second shown twice to the first of them."
    predicted, measured = planted(np.random.default_rng(0), LENGTHS, SUBJECTS, parcels=PARCELS, rho=0.6)
    rows = [
        dict(subject=s, set='s7', split=k, repeat=repeat, n_tr=n, bold='file', movie='s07')
        for s in SUBJECTS
        for k, n in LENGTHS.items()
        for repeat in ((1, 2) if (s, k) == ('sub-01', 's07e01b') else (1,))
    ]
    runs = pd.DataFrame(rows)
    splits = runs.drop_duplicates('split')[['split', 'movie']]

    def bold(row):
        return measured[row.subject][row.split]

    about = dict(name='two', atlas=None, names=None, parcels=PARCELS, tr=1.49, subjects=SUBJECTS)
    return SimpleNamespace(runs=runs, splits=splits, bold=bold, predicted=predicted, **about)


def hand_in(predicted, path):
    "A file as challenge systems write it."
    if path.suffix == '.npy':
        np.save(path, predicted, allow_pickle=True)
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as z, z.open('fmri_predictions_friends_s7.npy', 'w') as f:
            dump_npy(f, predicted)
    if path.suffix in ('.h5', '.hdf5'):
        with h5py.File(path, 'w') as f:
            for s, splits in predicted.items():
                for k, x in splits.items():
                    f[f's7/{s}/{k}' if path.suffix == '.h5' else f'{s}/{k}'] = x
    if path.suffix == '.csv':
        parts = [
            pd.DataFrame(x, columns=range(1, x.shape[1] + 1)).assign(subject=s, split=k, sample=range(len(x)))
            for s, splits in predicted.items()
            for k, x in splits.items()
        ]
        pd.concat(parts).to_csv(path, index=False)
    return path


@pytest.mark.parametrize('kind', ['theirs.npy', 'theirs.zip', 'theirs.h5', 'theirs.hdf5', 'theirs.csv'])
def test_a_file_in_any_of_the_shapes_is_read_to_the_number(cohort, tmp_path, kind):
    found = read_foreign(hand_in(cohort.predicted, tmp_path / kind), cohort, 's7')
    for s in SUBJECTS:
        for k in LENGTHS:
            assert found[s][k].dtype == np.float32
            assert np.allclose(found[s][k], cohort.predicted[s][k], atol=0 if kind[-3:] != 'csv' else 1e-6)


def test_double_precision_and_one_subject_alone_are_taken(cohort, tmp_path):
    double = {'sub-02': {k: x.astype(float) for k, x in cohort.predicted['sub-02'].items()}}
    found = read_foreign(hand_in(double, tmp_path / 'one.npy'), cohort, 's7', 'sub-02')
    assert list(found) == ['sub-02'] and found['sub-02']['s07e01a'].dtype == np.float32


def test_the_same_numbers_in_a_foreign_file_score_the_same_and_differ_by_nothing(cohort, tmp_path):
    scores = []
    for name in ('ours', 'theirs'):
        (tmp_path / name).mkdir()
        found = read_foreign(hand_in(cohort.predicted, tmp_path / f'{name}.zip'), cohort, 's7')
        write_predictions_of(found, 's7', tmp_path / name / 'predictions.h5')
        scores.append(evaluate_set(tmp_path / name, cohort, 's7', draws=50))
    difference = scores[1].bootstrap - scores[0].bootstrap
    assert abs(scores[0].score.mean - 0.6) < 0.15 and np.abs(difference.r).max() == 0
    told = who_wins(difference, 'theirs', 'ours')
    assert 'cannot be told apart' in told and 'is above ours in 0 of' in told and 'below it in 0 of' in told
    assert (parcels_of(scores[0].bootstrap).q < 0.05).all()


def test_worse_predictions_are_worse_in_their_parcels_alone(cohort, tmp_path):
    noise = copy.deepcopy(cohort.predicted)
    for s in SUBJECTS:
        for k in LENGTHS:
            noise[s][k][:, :4] = np.random.default_rng(1).standard_normal((LENGTHS[k], 4))
    scores = []
    for name, predicted in (('ours', cohort.predicted), ('theirs', noise)):
        (tmp_path / name).mkdir()
        write_predictions_of(predicted, 's7', tmp_path / name / 'predictions.h5')
        scores.append(evaluate_set(tmp_path / name, cohort, 's7', draws=200))
    table = parcels_of(scores[1].bootstrap - scores[0].bootstrap)
    worse = table[(table.q < 0.05) & (table.estimate < 0)].parcel
    assert set(worse) <= {1, 2, 3, 4} and len(worse) >= 3


def changed(predicted, change):
    mine = {s: dict(splits) for s, splits in predicted.items()}
    change(mine)
    return mine


WRONG = {
    'a subject is missing': (lambda x: x.pop('sub-02'), 'sub-02: the subject is missing'),
    'a subject too many': (lambda x: x.update({'sub-04': x['sub-01']}), 'sub-04: is no subject of this set'),
    'another name': (lambda x: x.update({'1': x.pop('sub-01')}), '1: is no subject of this set; there are: sub-01'),
    'a split is missing': (lambda x: x['sub-01'].pop('s07e01a'), 'sub-01 s07e01a: the split is missing'),
    'a split too many': (lambda x: x['sub-01'].update(s08=x['sub-01']['s07e01a']), 'sub-01 s08: is no split'),
    'a row too few': (
        lambda x: x['sub-02'].update(s07e01b=x['sub-02']['s07e01b'][1:]),
        'sub-02 s07e01b: has 79 rows, expected 80',
    ),
    'a parcel too few': (
        lambda x: x['sub-02'].update(s07e01b=x['sub-02']['s07e01b'][:, 1:]),
        'sub-02 s07e01b: has 11 parcels, expected 12',
    ),
    'exchanged': (
        lambda x: x['sub-02'].update(s07e01b=x['sub-02']['s07e01b'].T.copy()),
        'sub-02 s07e01b: .*parcels and rows are exchanged',
    ),
    'not finite': (
        lambda x: x['sub-02'].update(s07e01b=x['sub-02']['s07e01b'] * np.nan),
        'sub-02 s07e01b: has 960 NaN',
    ),
    'whole numbers': (
        lambda x: x['sub-02'].update(s07e01b=x['sub-02']['s07e01b'].astype(np.int32)),
        'sub-02 s07e01b: has dtype int32',
    ),
}


@pytest.mark.parametrize('kind', WRONG)
@pytest.mark.parametrize('suffix', ['.npy', '.h5'])
def test_what_does_not_fit_is_named(cohort, tmp_path, kind, suffix):
    change, says = WRONG[kind]
    path = hand_in(changed(cohort.predicted, change), tmp_path / f'theirs{suffix}')
    with pytest.raises(ValueError, match=says) as refused:
        read_foreign(path, cohort, 's7')
    assert f'theirs{suffix} does not fit the set s7 of two' in str(refused.value)


class Evil:
    def __reduce__(self):
        return open, ('evil', 'w')


@pytest.mark.parametrize(
    'kind, says',
    [
        ('pickle that runs something', 'nothing in it was run'),
        ('one array', 'holds no dictionary'),
        ('set that is not there', 'has no predictions for s7; it has: ood'),
        ('link to elsewhere', 'lies elsewhere'),
        ('samples that jump', 'do not go 0, 1, 2'),
        ('parcels of another atlas', "among them 'V1'"),
        ('no column of samples', 'has no column sample'),
        ('text', 'is none of .zip'),
    ],
)
def test_a_file_that_is_no_prediction_is_refused(cohort, tmp_path, monkeypatch, kind, says):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'theirs.npy'
    if kind == 'pickle that runs something':
        np.save(path, {'sub-01': Evil()}, allow_pickle=True)
    if kind == 'one array':
        np.save(path, np.zeros((90, PARCELS)))
    if kind in ('set that is not there', 'link to elsewhere'):
        path = tmp_path / 'theirs.h5'
        with h5py.File(path, 'w') as f:
            f['ood/sub-01/chaplin1'] = np.zeros((9, PARCELS))
            if kind == 'link to elsewhere':
                f['ood/sub-01/other'] = h5py.ExternalLink('/etc/passwd', 'x')
    if kind in ('samples that jump', 'parcels of another atlas', 'no column of samples'):
        path = hand_in(cohort.predicted, tmp_path / 'theirs.csv')
        table = pd.read_csv(path)
        if kind == 'samples that jump':
            table.loc[3, 'sample'] = 7
        elif kind == 'parcels of another atlas':
            table = table.rename(columns={'1': 'V1'})
        else:
            table = table.drop(columns='sample')
        table.to_csv(path, index=False)
    if kind == 'text':
        path = tmp_path / 'theirs.txt'
        path.write_text('0.3')
    with pytest.raises(ValueError, match=says):
        read_foreign(path, cohort, 's7')
    assert not (tmp_path / 'evil').exists()
