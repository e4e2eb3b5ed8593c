"The score against a toy computed by hand, intervals against planted truths, and what the scorer refuses."

from types import SimpleNamespace

import h5py, numpy as np, pandas as pd, pytest

from mirage.evaluation.evaluate import challenge_score, compare, evaluate, read_predictions
from mirage.evaluation.statistics import map_runs, noise_ceiling, planted, resample, slow_noise

MOVIES = {'wot1': 'wot', 'wot2': 'wot', 'chaplin1': 'chaplin'}


def toy():
    """Three splits of two movies, two subjects, five parcels; the rows that count are small whole numbers, the ten
    others are noise."""
    rng = np.random.default_rng(0)
    wot = np.array([
        [0, 0, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0],
        [1, 0, 0, 1, 1, 0, 0],
        [1, 2, 3, 1, 2, 3, 4],
    ]).T
    rows = {
        'wot1': (np.zeros((3, 5)), wot[:3]),
        'wot2': (np.ones((4, 5)), wot[3:]),
        'chaplin1': (
            np.array([[1, 2, 3]] * 4 + [[7, 7, 7]]).T,
            np.array([[1, 2, 3], [3, 2, 1], [1, 3, 2], [2, 1, 3], [1, 2, 3]]).T,
        ),
    }

    def framed(a):
        return np.concatenate([rng.normal(0, 100, (5, 5)), a, rng.normal(0, 100, (5, 5))]).astype(np.float32)

    def turned(s, k):  # sub-02 answers to wot as nobody else does
        return s == 'sub-02' and k != 'chaplin1'

    x, y = ({'sub-01': {}, 'sub-02': {}} for _ in range(2))
    for s in x:
        x[s] = {k: framed(predicted) for k, (predicted, _) in rows.items()}
    for s in y:
        y[s] = {k: framed(-measured if turned(s, k) else measured) for k, (_, measured) in rows.items()}
    return x, y


def test_the_score_equals_the_hand_computed_one_at_every_step():
    wot = [1, -1, 5 / 12, 2 / 12, 6 / np.sqrt(12 * 52)]  # (n Σxy − Σx Σy)/√… over the seven rows of both splits
    chaplin = [1, -1, 0.5, 0.5, 0]  # the last parcel is predicted as constant
    score = challenge_score(*toy(), 'ood', movies=MOVIES)
    for subject, sign in (('sub-01', 1), ('sub-02', -1)):
        assert np.allclose(score.r.loc[(subject, 'wot')], sign * np.array(wot), atol=1e-12)
        assert np.allclose(score.r.loc[(subject, 'chaplin')], chaplin, atol=1e-12)
        assert np.isclose(score.movies[(subject, 'wot')], sign * np.mean(wot)) and np.isclose(
            score.movies[(subject, 'chaplin')], 0.2
        )
        assert np.isclose(score.subjects[subject], (sign * np.mean(wot) + 0.2) / 2)
    assert np.isclose(score.mean, 0.1)
    assert score.constant.to_dict() == {
        (s, f): int(f == 'chaplin') for s in ('sub-01', 'sub-02') for f in ('wot', 'chaplin')
    }


def test_another_order_of_averages_gives_another_number():
    x, y = toy()
    by_movie, joined = challenge_score(x, y, 'ood', movies=MOVIES), challenge_score(x, y, 's7')
    by_split = challenge_score(x, y, 'ood', movies={k: k for k in MOVIES})
    untrimmed = challenge_score(x, y, 'ood', movies=MOVIES, trim=0)
    numbers = [
        by_movie.subjects['sub-01'],
        joined.subjects['sub-01'],
        by_split.subjects['sub-01'],
        untrimmed.subjects['sub-01'],
    ]
    assert min(abs(a - b) for i, a in enumerate(numbers) for b in numbers[:i]) > 0.01


def test_the_bootstrap_computes_the_same_score():
    x, y = planted(np.random.default_rng(0), {'wot1': 40, 'wot2': 44, 'chaplin1': 60}, parcels=7)
    x['sub-02']['wot2'], y['sub-02']['wot2'] = x['sub-02']['wot2'][:-6], y['sub-02']['wot2'][:-6]
    del x['sub-01']['wot1'], y['sub-01']['wot1']
    for style in ('s7', 'ood'):
        score, bootstrap = (
            challenge_score(x, y, style, movies=MOVIES),
            resample(x, y, MOVIES, pooled=style == 's7', draws=5),
        )
        assert np.allclose(score.parcels.loc[list(bootstrap.subjects)], bootstrap.r, atol=1e-10)


@pytest.mark.parametrize('pooled', [True, False])
def test_intervals_of_a_difference_cover_the_truth(pooled):
    "200 data sets: two models of known and different correlation, scored on the same BOLD."
    rng = np.random.default_rng(5)
    lengths = {f'{f}{i}': 80 if pooled else 45 for f in ('ab' if pooled else 'abcdef') for i in (1, 2)}
    truth = 0.4 / np.sqrt(1.25) - 0.4 / np.sqrt(2)
    hits = []
    for _ in range(200):
        x, y = planted(rng, lengths, parcels=6, rho=0.4)
        a = map_runs(lambda v: v + 0.5 * slow_noise(rng, *v.shape), x)
        b = map_runs(lambda v: v + 1.0 * slow_noise(rng, *v.shape), x)
        movies = {k: k[0] for k in lengths}
        i = (
            resample(a, y, movies, pooled=pooled, draws=200) - resample(b, y, movies, pooled=pooled, draws=200)
        ).interval()
        hits.append(i.low <= truth <= i.high)
    assert 0.90 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize(
    'break_it, message',
    [
        (lambda x: x['sub-02'].pop('wot2'), 'sub-02: wot2 is only in the BOLD'),
        (
            lambda x: x['sub-02'].update(wot2=x['sub-02']['wot2'][1:]),
            r'sub-02 wot2: predicted \(13, 5\), measured \(14, 5\)',
        ),
        (lambda x: x['sub-01']['wot1'].__setitem__((6, 3), np.nan), 'sub-01 wot1: .*NaN.* parcel 4'),
        (lambda x: x.pop('sub-01'), 'predictions are of sub-02, the BOLD is of sub-01, sub-02'),
    ],
)
def test_predictions_that_do_not_fit_are_refused_by_name(break_it, message):
    x, y = toy()
    break_it(x)
    with pytest.raises(ValueError, match=message):
        challenge_score(x, y, 'ood', movies=MOVIES)


def test_scores_at_other_blocks_are_not_compared():
    x, y = planted(np.random.default_rng(0), {'wot1': 80})
    a, b = (resample(x, y, {'wot1': 'wot'}, draws=10, seed=seed) for seed in (0, 1))
    with pytest.raises(ValueError, match='different blocks'):
        a - b


def cohort_of(data, sets):
    "A stand-in for a Cohort that holds its BOLD in memory: {(subject, split, repeat): (n_tr, parcels)}."
    rows = [
        dict(subject=s, split=k, repeat=r, movie=k[:-2], set=sets.get(k, 'train'), bold=None if v is None else 'memory')
        for (s, k, r), v in data.items()
    ]
    runs = pd.DataFrame(rows)
    return SimpleNamespace(
        name='toy',
        tr=1.49,
        runs=runs,
        subjects=tuple(sorted(runs.subject.unique())),
        splits=runs.drop_duplicates('split'),
        bold=lambda row: data[row.subject, row.split, row.repeat],
    )


def test_the_ceiling_of_movies_shown_twice_is_the_root_of_their_correlation():
    rng = np.random.default_rng(0)
    true = np.array([0.0, 0.4, 0.8])
    data = {}
    for s in ('sub-01', 'sub-02'):
        for split, n in (('life01', 3000), ('figures01', 3000)):
            signal = slow_noise(rng, n, 3, common=0)
            for repeat in (1, 2):
                run = true * signal + np.sqrt(1 - true**2) * slow_noise(rng, n, 3, common=0)
                data[s, split, repeat] = run[: n - 7 * (repeat == 2)]  # one run is shorter
        data[s, 'wolf01', 1] = slow_noise(rng, 100, 3)
    ceiling = noise_ceiling(cohort_of(data, {}), draws=200).groupby('parcel').ceiling.mean()
    assert np.allclose(ceiling.loc[[2, 3]], true[1:], atol=0.04) and ceiling[1] < 0.25
    with pytest.raises(ValueError, match='saw a movie twice'):
        noise_ceiling(cohort_of({k: v for k, v in data.items() if k[2] == 1}, {}))


def test_a_set_without_bold_is_absent_and_an_unknown_set_named(tmp_path):
    x, y = planted(np.random.default_rng(0), {'s06e01a': 60, 's07e01a': 60})
    data = {(s, k, 1): v if k == 's06e01a' else None for s in y for k, v in y[s].items()}
    with h5py.File(tmp_path / 'predictions.h5', 'w') as f:
        for s in x:
            for k, v in x[s].items():
                f[f'{"val" if k == "s06e01a" else "s7"}/{s}/{k}'] = v
    scores = evaluate(tmp_path, cohort_of(data, {'s06e01a': 'val', 's07e01a': 's7'}), draws=20)
    assert (
        list(scores) == ['val']
        and list(compare(scores, scores)) == ['val']
        and compare(scores, scores)['val'].interval().estimate == 0
    )
    with pytest.raises(ValueError, match='no predictions for ood; it has: s7, val'):
        read_predictions(tmp_path, 'ood')
