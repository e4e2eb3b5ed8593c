"One Pearson for all: it is NumPy's, for columns of any offset and scale, however the rows are cut into blocks."

import warnings

import h5py, numpy as np, pytest
from hypothesis import given, settings, strategies as st

from mirage.core import Pearson, mean_of, pearson
from mirage.evaluation.ensemble import choose, split_sums
from mirage.evaluation.evaluate import challenge_score
from mirage.evaluation.statistics import map_runs, planted, resample


def numpy_r(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return np.array([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(x.shape[1])])


numbers = st.floats(-1e8, 1e8), st.floats(1e-6, 1e6), st.floats(-1e8, 1e8), st.floats(1e-6, 1e6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.floats(0, 1), *numbers, st.lists(st.integers(0, 60), max_size=6))
def test_r_is_numpys_for_columns_of_any_offset_and_scale_in_any_blocks(seed, rows, share, a, b, c, d, cuts):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 4))
    y = share * x + rng.standard_normal((rows, 4))
    x, y = a + b * x, c + d * y
    found = Pearson()
    for block in np.split(np.arange(rows), sorted(k for k in cuts if k <= rows)):
        found.update(x[block], y[block])
    steps = [np.ptp(v, 0) / np.spacing(np.abs(v).max(0)) for v in (x, y)]  # how finely the numbers resolve each column
    fine = np.minimum(*steps) > 1e4
    assert np.allclose(found.r()[fine], numpy_r(x, y)[fine], atol=1e-6)
    assert np.allclose(found.r(), pearson(x, y), atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    'offset, scale', [(5, 1e-5), (1e4, 1), (1e6, 1), (-3e5, 0.1), (0, 1e-12), (0, 1e12), (1e-3, 1e-9)]
)
def test_every_place_that_scores_gives_the_same_r(tmp_path, offset, scale):
    "A prediction with a large offset or a faint signal: score, bootstrap and ensemble agree."
    x, y = planted(np.random.default_rng(0), {'a': 80, 'b': 90}, parcels=4, rho=0.6)
    x = map_runs(lambda v: offset + scale * v.astype(float), x)

    def together(splits):
        return np.concatenate([splits[k][5:-5] for k in 'ab']).astype(float)

    joined = {s: numpy_r(together(x[s]), together(y[s])) for s in x}
    score, boot = challenge_score(x, y, 'val'), resample(x, y, dict(a='f', b='f'), draws=5)
    for i, s in enumerate(x):
        assert np.allclose(score.r.loc[(s, 'all')], joined[s], atol=1e-5) and np.allclose(
            boot.r[i], joined[s], atol=1e-5
        )
    path = tmp_path / 'predictions.h5'
    with h5py.File(path, 'w') as f:
        for s in x:
            for k, v in x[s].items():
                f[f'val/{s}/{k}'] = v
    assert np.allclose(choose([path], [split_sums(path, y)], 'ab', k=1).r[0], list(joined.values()), atol=1e-5)


def test_an_ensemble_member_with_a_large_offset_keeps_its_weight(tmp_path):
    x, y = planted(np.random.default_rng(0), {'a': 200}, parcels=3, rho=0.6)
    paths = [tmp_path / 'plain.h5', tmp_path / 'far.h5']
    for path, offset in zip(paths, (0, 1e5)):
        with h5py.File(path, 'w') as f:
            for s in x:
                f[f'val/{s}/a'] = x[s]['a'].astype(float) + offset
    member_weights = choose(paths, [split_sums(p, y) for p in paths], 'a', k=2).member_weights
    assert np.allclose(member_weights, 0.5, atol=1e-6)


def test_constant_means_one_value_only_everywhere():
    "5 + 1e-5·signal is no constant; a column of one value is: a prediction counts as 0, a measurement as not measured."
    x, y = planted(np.random.default_rng(0), {'a': 120}, subjects=('ann',), parcels=4, rho=0.6)
    plain = challenge_score(x, y, 'val').r.to_numpy()[0]
    x['ann']['a'][:, 1] = (5 + 1e-5 * x['ann']['a'][:, 1]).astype(np.float32)
    x['ann']['a'][:, 2] = 7.1
    y['ann']['a'][:, 3] = np.nan
    x['ann']['a'][:, 3] = 0
    score, boot = challenge_score(x, y, 'val'), resample(x, y, dict(a='a'), draws=20)
    r = score.r.to_numpy()[0]
    assert np.isclose(r[0], plain[0]) and np.isclose(r[1], plain[1], atol=0.01) and r[2] == 0 and np.isnan(r[3])
    assert (
        np.allclose(boot.r[0], r, atol=1e-9, equal_nan=True)
        and score.constant.tolist() == [1]
        and score.measured.tolist() == [3]
    )
    assert (
        np.isclose(score.mean, np.nanmean(r))
        and np.isclose(boot.interval().estimate, score.mean)
        and np.isfinite(boot.interval()).all()
    )
    tests = boot.per_parcel()
    assert tests.q.isna().tolist() == [False, False, False, True] * 2 and (tests.p.dropna() <= 1).all()


def test_a_mean_is_over_what_was_measured():
    assert mean_of(np.array([[0.2, np.nan, 0.4], [np.nan] * 3]))[0] == pytest.approx(0.3) and np.isnan(
        mean_of(np.full(3, np.nan))
    )
    full = np.random.default_rng(0).random((3, 50))
    assert np.array_equal(mean_of(full), full.mean(-1))
