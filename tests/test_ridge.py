"What the ridge chapter cannot show about itself: hard designs, missing rows, memory, and input that does not fit."

import tracemalloc
from collections import namedtuple

import numpy as np, pandas as pd, pytest
from scipy.signal import lfilter
from scipy.stats import gamma
from sklearn.linear_model import Ridge, RidgeCV

import mirage.models.ridge as R
from mirage.core import TR, pearson
from mirage.models.ridge import DELAYS, DESIGNS, Design, TrainingRows, design_matrix, fit_ridge, ridge_predictions
from mirage.models.ridge import showings, tr_mean, tr_rows
from mirage.features.store import FeatureSet

ALPHAS = np.logspace(-2, 6, 10)


def same_as_sklearn(X, Y, alphas=ALPHAS, rtol=1e-6):
    ours = fit_ridge([(X, {'s': Y})], alphas)['s']
    theirs = RidgeCV(alphas=alphas, alpha_per_target=True).fit(X.astype(np.float64), Y.astype(np.float64))
    assert (ours.alpha == theirs.alpha_).all()
    scale = np.abs(theirs.coef_).max(1, keepdims=True)
    assert (np.abs(ours.coefficients.T - theirs.coef_) <= rtol * scale).all()
    assert np.allclose(ours.predict(X), theirs.predict(X), atol=1e-4 * np.abs(Y).max())
    return ours


def data(n, p, t, seed=0, signal=(0, 2)):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal((p, t)) * np.linspace(*signal, t) / p**0.5 + rng.standard_normal((n, t)), rng


@pytest.mark.parametrize('n,p', [(40, 120), (100, 100), (101, 100), (700, 60)])
def test_wide_square_and_tall(n, p):
    X, Y, _ = data(n, p, 30)
    same_as_sklearn(X, Y)


def test_singular_values_over_six_decades():
    X, Y, rng = data(500, 80, 40)
    X = X @ np.linalg.qr(rng.standard_normal((80, 80)))[0] * np.logspace(3, -3, 80)
    Y = Y + X[:, :40] / X[:, :40].std(0)
    same_as_sklearn(X, Y, np.logspace(-1, 8, 12), rtol=1e-5)


def test_one_sample_with_all_the_leverage():
    X, Y, _ = data(400, 50, 40)
    X[:, 7] = 0
    X[13, 7] = 1e4  # leverage of sample 13 is one but for the penalty
    same_as_sklearn(X, Y)


def test_large_means_and_single_precision():
    X, Y, _ = data(600, 40, 20)
    same_as_sklearn((X + 300).astype(np.float32), (Y - 50).astype(np.float32), rtol=1e-5)


def test_near_ties_are_settled_in_double_precision(monkeypatch):
    "Penalties a millionth apart: single precision cannot order their errors, the fit still does."
    X, Y, _ = data(500, 40, 50, signal=(0.5, 3))
    alphas = np.sort(np.concatenate([np.logspace(0, 4, 5) * (1 + d) for d in (0, 1e-6)]))
    same_as_sklearn(X, Y, alphas)
    exact, counts = R.loo_exact, []
    monkeypatch.setattr(R, 'loo_exact', lambda *a, columns: counts.append(columns.sum()) or exact(*a, columns=columns))
    fit_ridge([(X, {'s': Y})], alphas)
    assert counts == [50]
    counts.clear()
    fit_ridge([(X, {'s': Y})], np.logspace(0, 4, 5))
    assert sum(counts) < 10


def test_penalties_so_small_that_nothing_is_left_out():
    "More columns than samples and next to no penalty: leverages of one must not decide."
    X, Y, _ = data(30, 90, 20)
    ours = fit_ridge([(X, {'s': Y})], [1e-300, 1e-14, 1.0, 1e3])['s']
    theirs = fit_ridge([(X, {'s': Y})], [1.0, 1e3])['s']
    assert (ours.alpha == theirs.alpha).all() and np.allclose(ours.coefficients, theirs.coefficients)
    with pytest.raises(ValueError, match='too small for the 30 rows of s'):
        fit_ridge([(X, {'s': Y})], [1e-300, 1e-14])


def test_a_constant_parcel_gets_the_first_penalty_and_no_coefficients():
    X, Y, _ = data(200, 20, 5)
    Y[:, 2] = 4.0
    ours = same_as_sklearn(X, Y)
    assert (
        ours.alpha[2] == ALPHAS[0]
        and np.allclose(ours.coefficients[:, 2], 0, atol=1e-12)
        and np.isclose(ours.intercept[2], 4)
    )


def test_blocks_do_not_matter():
    X, Y, _ = data(3000, 30, 10)
    whole = fit_ridge([(X, {'s': Y})], ALPHAS)['s']
    cuts = [0, 1, 5, 1700, 3000]
    parts = fit_ridge([(X[a:b], {'s': Y[a:b]}) for a, b in zip(cuts, cuts[1:])], ALPHAS)['s']
    assert (whole.alpha == parts.alpha).all() and np.allclose(whole.errors, parts.errors, rtol=1e-5)
    assert np.allclose(whole.coefficients, parts.coefficients, rtol=1e-9, atol=1e-12)


def test_one_decomposition_for_all_who_saw_the_same(monkeypatch):
    X, Y, rng = data(900, 25, 8)
    Ys = {s: Y + rng.standard_normal(Y.shape) for s in 'abcd'}
    eigh, count = R.eigh, []
    monkeypatch.setattr(R, 'eigh', lambda *a, **k: count.append(1) or eigh(*a, **k))
    fit_ridge([(X, Ys)], ALPHAS)
    assert len(count) == 1
    count.clear()
    spans = [(0, 300, 'abcd'), (300, 500, 'abc'), (500, 600, 'cab'), (600, 900, 'ad')]  # b and c saw the same rows
    blocks = []
    for i, j, who in spans:
        blocks.append((X[i:j], {s: Ys[s][i:j] for s in who}))
    together = fit_ridge(blocks, ALPHAS)
    assert len(count) == 3
    for s in 'abcd':
        rows = np.concatenate([np.arange(i, j) for i, j, who in spans if s in who])
        alone = fit_ridge([(X[rows], {s: Ys[s][rows]})], ALPHAS)[s]
        assert (alone.alpha == together[s].alpha).all() and np.allclose(
            alone.coefficients, together[s].coefficients, rtol=1e-8, atol=1e-11
        )


def test_memory_does_not_grow_with_the_rows():
    class Stream:
        def __init__(self, blocks):
            self.blocks = blocks

        def __iter__(self):
            for k in range(self.blocks):
                X = np.random.default_rng(k).standard_normal((1000, 300)).astype(np.float32)
                yield X, {'s': X[:, :50]}

    def peak(blocks):
        tracemalloc.start()
        fit_ridge(Stream(blocks), ALPHAS[:4])
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    few, many = peak(5), peak(40)  # the larger design would fill 96 MB
    assert many - few < 4e6 and many < 30e6


def test_input_that_does_not_fit():
    X, Y, _ = data(50, 6, 3)
    bad = X.copy()
    bad[3, 2] = np.nan
    for blocks, error, message in [
        ((b for b in [(X, {'s': Y})]), TypeError, 'read twice'),
        ([], ValueError, 'no blocks'),
        ([(bad, {'s': Y})], ValueError, 'the design has 1 NaN'),
        ([(X, {'s': Y * np.inf})], ValueError, 'BOLD of s has NaN or infinite values in 3'),
        ([(X, {'s': Y}), (X[:, :5], {'s': Y})], ValueError, 'block 1 has 5 columns'),
        ([(X, {'s': Y[:-1]})], ValueError, r'block 0: BOLD of s is \(49, 3\)'),
        ([(X, {'s': Y}), (X, {'s': Y[:, :2]})], ValueError, r'block 1: BOLD of s is \(50, 2\), expected \(50, 3\)'),
        ([(X[:2], {'s': Y[:2]})], ValueError, 's saw 2 rows'),
    ]:
        with pytest.raises(error, match=message):
            fit_ridge(blocks, ALPHAS)
    for alphas in ([], [0.0], [1.0, -1.0], [np.nan]):
        with pytest.raises(ValueError, match='penalties must be above zero'):
            fit_ridge([(X, {'s': Y})], alphas)


def toy_cohort(lengths):
    "lengths: {(subject, split, repeat): n_tr}; split names begin with their set."
    rows = [(s, f, r, f.split('_')[0], n) for (s, f, r), n in lengths.items()]
    runs = pd.DataFrame(rows, columns=['subject', 'split', 'repeat', 'set', 'n_tr'])

    def seed(k):
        return np.random.default_rng(list(map(ord, ''.join(map(str, k)))))

    bold = {k: seed(k).standard_normal((n, 4)).astype(np.float32) for k, n in lengths.items()}
    return namedtuple('C', 'runs bold')(runs, lambda r: bold[r.subject, r.split, r.repeat])


def test_every_training_row_is_used_once_per_subject():
    cohort = toy_cohort({
        ('a', 'train_1', 1): 50,
        ('b', 'train_1', 1): 47,
        ('c', 'train_1', 1): 50,
        ('a', 'train_1', 2): 48,
        ('c', 'train_1', 2): 48,
        ('a', 'train_2', 1): 30,
        ('b', 'train_2', 1): 30,
        ('c', 'train_2', 1): 30,
        ('a', 'val_1', 1): 20,
    })
    design = {f: np.arange(60.0)[:, None] + 100 * k for k, f in enumerate(['train_1', 'train_2', 'val_1'])}
    for trim in (0, 5):
        blocks = TrainingRows(cohort, design, trim)
        assert blocks.same_runs == [['a', 'c'], ['b']]
        assert len({frozenset(y) for _, y in blocks}) <= 1 + len(blocks.same_runs)  # so many Gram matrices
        for s in 'abc':
            mine = [(x[:, 0], y[s]) for x, y in blocks if s in y]
            rows, bold = np.concatenate([m[0] for m in mine]), np.concatenate([m[1] for m in mine])
            runs = [r for r in cohort.runs.itertuples() if r.subject == s and r.set == 'train']

            def part(x, r):
                return x[trim : r.n_tr - trim]

            wanted = np.concatenate([np.c_[part(design[r.split], r), part(cohort.bold(r), r)] for r in runs])
            assert sorted(map(tuple, np.c_[rows, bold])) == sorted(map(tuple, wanted))


def test_only_training_movies_shape_the_design():
    rng = np.random.default_rng(0)
    movies = {f: rng.standard_normal((40, 30)).astype(np.float32) for f in ('train', 'val')}
    louder = movies | {'val': movies['val'] * 100 + 5}
    for design in (
        Design((3 * TR, 4 * TR)),
        Design((3 * TR, 4 * TR), width=20),
        Design((3 * TR, 4 * TR), components=5),
    ):
        a, b = (design_matrix(f, ['train'], design, [10, 20]) for f in (movies, louder))
        assert np.array_equal(a['train'], b['train']) and not np.allclose(a['val'], b['val'])
        assert np.array_equal(a['train'], design_matrix(movies, ['train'], design, [10, 20])['train'])


def test_the_challenge_recipe():
    "Sample i sees exactly the five TRs i-7 to i-3, is fitted five TRs inside the run, and every TR is predicted."
    r = DESIGNS['challenge']
    rows = {'train_1': np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)}
    moved = {'train_1': rows['train_1'].copy()}
    moved['train_1'][20] += 1

    def lagged(movies):
        return design_matrix(movies, ['train_1'], Design(r.delays), [3])['train_1']

    change = np.abs(lagged(moved) - lagged(rows)).reshape(40, 5, 3).max(2)
    hit = {(i, i - 20) for i in range(40) for k in range(5) if change[i, k] > 0.3}
    assert hit == {(20 + d, d) for d in (3, 4, 5, 6, 7)}
    cohort = toy_cohort({('a', 'train_1', 1): 40, ('a', 'val_1', 1): 33})
    design = design_matrix(rows | {'val_1': rows['train_1'][:33]}, ['train_1'], r, [3])
    assert [len(x) for x, _ in TrainingRows(cohort, design, r.trim)] == [30]
    models = fit_ridge(TrainingRows(cohort, design, r.trim), ALPHAS)
    assert [y.shape for _, y in ridge_predictions(models, design, cohort.runs[cohort.runs['set'] == 'val'])] == [
        (33, 4)
    ]
    with pytest.raises(ValueError, match='a has 33 TRs of val_1, the design 20'):
        list(
            ridge_predictions(models, {f: x[:20] for f, x in design.items()}, cohort.runs[cohort.runs['set'] == 'val'])
        )


def test_tr_grid_is_the_time_of_the_movie():
    """Frames of 0.5 s, TRs of 1.49 s: a pulse in frame k shows in the TRs that it overlaps and nowhere else, also far
    into a movie."""
    for k in (0, 2, 298, 1005, 5000):
        pulse = np.zeros((6000, 1))
        pulse[k] = 1
        got = np.flatnonzero(tr_mean(pulse, 1900)[:, 0])
        assert got.tolist() == [
            j for j in range(1900) if j * 1.49 < (k + 1) / 2 - 1e-9 and (j + 1) * 1.49 > k / 2 + 1e-9
        ]


SECONDS = 900.0  # of each simulated movie


def response(t):  # seconds after something was shown
    "A haemodynamic response: up at 5 s, a little below zero after it."
    return gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6


class Movies(FeatureSet):
    "Streams that change over seconds, on the 2 Hz grid."

    streams, hz = {'text': (2, 5), 'vision': (1, 4)}, 2.0

    def __init__(self, splits):
        rng = np.random.default_rng(0)

        def slow(*shape):
            return lfilter([1], [1, -0.8], rng.standard_normal((int(SECONDS * self.hz), *shape)), axis=0)

        self.states = {(m, s): slow(*shape).astype(np.float16) for s in splits for m, shape in self.streams.items()}

    def steps(self, split):
        return int(SECONDS * self.hz)

    def _fill(self, stream, split, start, out):
        out[:] = self.states[stream, split][start : start + len(out)]


def simulated_people(movies, tr, onsets=(0.0,)):
    """BOLD of two parcels per subject: what the movie evokes, sampled every TR from each subject's onset on, and as
    much noise."""
    lag, fine = np.arange(0, 32, 0.1), 0.1
    evoked = {}
    for split in ('m1', 'm2', 'v'):
        x = np.hstack([movies.states[m, split].astype(float).mean(1) for m in movies.streams])
        x = np.repeat(x, round(1 / movies.hz / fine), axis=0)
        drive = x @ np.random.default_rng(1).standard_normal((9, 2))
        evoked[split] = np.stack([np.convolve(d, response(lag))[: len(d)] for d in drive.T], 1)
    rows, bold, rng = [], {}, np.random.default_rng(2)
    for s, onset in zip('abc', onsets):
        for split, y in evoked.items():
            n = int((SECONDS - max(onset, 0)) / tr) - 5
            at = np.round((onset + np.arange(n) * tr) / fine).astype(int)
            y = np.where((at >= 0)[:, None], y[np.maximum(at, 0)], 0)
            y = y / y.std(0) + rng.standard_normal(y.shape)
            bold[s, split] = ((y - y.mean(0)) / y.std(0)).astype(np.float32)
            rows.append((s, split, 1, 'val' if split == 'v' else 'train', n, onset, 'memory'))
    runs = pd.DataFrame(rows, columns=['subject', 'split', 'repeat', 'set', 'n_tr', 'onset', 'bold'])
    return namedtuple('People', 'runs bold tr')(runs, lambda r: bold[r.subject, r.split], tr)


def ridge_r(movies, people, chosen=DESIGNS['paper'], given_onsets=True):
    "Validation r of each subject, as chapter 03d computes it; `given_onsets`: whether the onsets are given."
    runs = people.runs if given_onsets else people.runs.assign(onset=0.0)
    cohort = people._replace(runs=runs)
    train = list(showings(runs[runs['set'] == 'train']))
    rows = {}
    for key, n in showings(runs).items():
        split, onset = key if isinstance(key, tuple) else (key, 0.0)
        rows[key] = tr_rows(movies, split, n, people.tr, onset=onset, delays=chosen.delays)
    design = design_matrix(rows, train, chosen, [5, 4], tr=people.tr)
    models = fit_ridge(TrainingRows(cohort, design, chosen.trim), np.logspace(0, 6, 13))
    return {
        row.subject: pearson(y, people.bold(row)).mean()
        for row, y in ridge_predictions(models, design, runs[runs['set'] == 'val'])
    }


def test_lags_are_the_same_seconds_at_every_tr():
    """Samples from 0.5 to 3 s apart, one haemodynamic response: the ridge finds it at every TR; half of the variance is
    noise, so r ends at .71."""
    movies = Movies(['m1', 'm2', 'v'])
    found = {
        tr: np.mean(list(ridge_r(movies, simulated_people(movies, tr)).values()))
        for tr in (0.5, 1.0, 1.49, 2.0, 2.5, 3.0)
    }
    print(found)
    assert all(0.62 < r < 0.72 for r in found.values()), found


def test_at_the_papers_tr_the_lags_are_the_shifts_they_were():
    rng = np.random.default_rng(0)
    rows = {'m': rng.standard_normal((60, 4)).astype(np.float32)}
    design = design_matrix(rows, ['m'], Design(DELAYS))['m']
    z = (rows['m'] - rows['m'].mean(0, dtype=float)) / rows['m'].std(0, dtype=float)
    assert DELAYS == (4.47, 5.96, 7.45, 8.94, 10.43)
    for k, lag in enumerate((3, 4, 5, 6, 7)):
        part = design[:, 4 * k : 4 * k + 4]
        assert np.allclose(part[lag:], z[:-lag], atol=1e-5) and (part[:lag] == 0).all()


def test_row_0_of_bold_is_where_onset_says():
    """One was scanned from a countdown of 8 s on, one from the movie's beginning, one from 30 s into it: each is
    predicted, and is not without its onset."""
    movies = Movies(['m1', 'm2', 'v'])
    for tr in (1.49, 2.0):
        people = simulated_people(movies, tr, onsets=(-8.0, 0.0, 30.0))
        right, wrong = ridge_r(movies, people), ridge_r(movies, people, given_onsets=False)
        assert min(right.values()) > 0.6 and abs(right['b'] - wrong['b']) < 0.05, (right, wrong)
        assert wrong['a'] < 0.4 and wrong['c'] < 0.2


def test_delays_that_the_rows_do_not_hold_are_refused():
    with pytest.raises(ValueError, match='2 of the delays are no whole TRs of 2.0 s, the rows hold 0'):
        design_matrix({'m': np.random.default_rng(0).standard_normal((20, 3))}, ['m'], Design((4.0, 4.5, 5.0)), tr=2.0)


def by_runs(X, Y, shown):
    "Runs of 60 rows each; shown: subject → the runs of which."
    runs = []
    for k in range(5):
        rows = slice(k * 60, k * 60 + 60)
        runs.append([(X[rows], {s: Y[rows] for s in shown if k in shown[s]})])
    return runs


def test_penalties_by_whole_runs_are_those_of_refitting_without_each_run():
    X, Y, _ = data(300, 20, 12)
    parts = by_runs(X, Y, {'s': range(5)})
    ours = fit_ridge([b for part in parts for b in part], ALPHAS, parts)['s']
    errors = np.zeros((len(ALPHAS), 12))
    for k in range(5):
        out = np.arange(300) // 60 == k
        for a, alpha in enumerate(ALPHAS):
            errors[a] += ((Y[out] - Ridge(alpha=alpha).fit(X[~out], Y[~out]).predict(X[out])) ** 2).sum(0) / 300
    assert np.allclose(ours.errors, errors, rtol=1e-4) and (ours.alpha == ALPHAS[errors.argmin(0)]).all()


def test_people_who_missed_runs_get_the_penalties_they_would_get_alone():
    X, Y, _ = data(300, 20, 12)
    shown = {'a': (0, 1, 2, 3, 4), 'b': (0, 2, 4), 'c': (1, 2)}
    parts = by_runs(X, Y, shown)
    together = fit_ridge([b for part in parts for b in part], ALPHAS, parts)
    for s, runs in shown.items():
        own = [part for k, part in enumerate(by_runs(X, Y, {s: runs})) if k in runs]
        alone = fit_ridge([b for part in own for b in part], ALPHAS, own)[s]
        assert (alone.alpha == together[s].alpha).all() and np.allclose(alone.errors, together[s].errors, rtol=1e-4)
        assert np.allclose(alone.coefficients, together[s].coefficients, rtol=1e-7, atol=1e-10)


def test_one_run_cannot_be_left_out():
    X, Y, _ = data(300, 20, 12)
    parts = by_runs(X, Y, {'a': (0, 1), 'b': (1,)})[:2]
    with pytest.raises(ValueError, match='b saw one run only.*penalty=samples'):
        fit_ridge([b for part in parts for b in part], ALPHAS, parts)


def test_a_stream_counts_as_much_as_another_however_wide_it_is_and_however_loud_its_layers():
    rng = np.random.default_rng(0)
    rows = {'m': rng.standard_normal((400, 105)).astype(np.float32)}
    rows['m'][:, 3] = 2.0  # never changes
    spread = design_matrix(rows, ['m'], Design((0.0,), balance=True), [5, 100])['m'].var(0)
    assert np.isclose(spread[:5].sum(), spread[5:].sum(), rtol=1e-4) and np.isclose(spread.sum(), 104, rtol=1e-4)

    class Loud(FeatureSet):
        streams, hz = {'text': (3, 8)}, 2.0
        x = rng.standard_normal((300, 3, 8)) * np.array([1.0, 100.0, 0.0])[:, None]

        def steps(self, split):
            return 300

        def _fill(self, stream, split, start, out):
            out[:] = self.x[start : start + len(out)]

    by_layer = R.layer_weights(Loud(), ['m'])
    assert np.allclose(by_layer['text'] / by_layer['text'][0], [1, 0.01, 0], rtol=0.1) and by_layer['text'].sum() == 1
    mean = tr_rows(Loud(), 'm', 50, 2.0, layers=by_layer)
    assert np.allclose(
        mean, tr_mean(np.einsum('tld,l->td', Loud.x.astype(np.float16), by_layer['text']), 50, 2.0), atol=1e-2
    )
