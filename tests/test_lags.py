"Fast signals: lags at the rate of the recording, found where they were planted; what is no recording is refused."

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from mirage.core import TR
from mirage.data.signals import read_signals, signals_of
from mirage.evaluation.statistics import planted, resample
from mirage.models.lags import (
    components_of,
    cosine_basis,
    fit_lags,
    held,
    lag_samples,
    lagged_rows,
    left_out_r,
    score_lags,
    stream_columns,
    too_high,
    trial_sums,
)

RATE, PLANTED = 200.0, np.array([0, 7, 20])


def simulate(rng, samples=600, noise=1.0):
    x = rng.normal(size=(samples, 2))
    y = np.stack([np.concatenate([np.zeros(lag), x[: samples - lag, c % 2]]) for c, lag in enumerate(PLANTED)], 1)
    return x, y + noise * rng.normal(size=y.shape)


def test_a_planted_latency_is_found_within_a_sample_of_it():
    rng = np.random.default_rng(0)
    trials = [simulate(rng) for _ in range(4)]
    model = fit_lags(trials[:3], RATE, -0.05, 0.15)
    assert np.abs(model.latency - PLANTED / RATE).max() <= 1 / RATE + 1e-9
    assert (score_lags(model, trials[3:]) > 0.65).all()


def about_means(trials, lags):  # lagged columns and recordings, each trial about its own mean
    rows = [lagged_rows(x, lags) for x, _ in trials]
    return np.concatenate([z - z.mean(0) for z in rows]), np.concatenate([y - y.mean(0) for _, y in trials])


def test_the_coefficients_are_those_of_a_plain_ridge_on_trials_about_their_means():
    rng = np.random.default_rng(1)
    still = [simulate(rng, 200) for _ in range(3)]
    trials = [(x + 5 * k, y - 3 * k) for k, (x, y) in enumerate(still)]
    model = fit_lags(trials, RATE, 0, 0.05, alphas=[30.0])
    plain = Ridge(alpha=30.0, fit_intercept=False).fit(*about_means(trials, np.arange(11)))
    np.testing.assert_allclose(model.curves.reshape(-1, 3), plain.coef_.T, atol=1e-8)
    off = np.concatenate([model.predict(x) - y for x, y in trials]).mean(0)
    np.testing.assert_allclose(off, 0, atol=1e-8)


def test_the_r_that_chooses_is_that_of_predictions_of_trials_that_were_left_out():
    rng = np.random.default_rng(2)
    trials, lags, alphas = [simulate(rng, 150) for _ in range(3)], np.arange(-2, 12), np.array([1.0, 300.0])
    basis = np.eye(len(lags))
    sums = [trial_sums(trial, lags, basis) for trial in trials]
    found = left_out_r(trials, sums[0] + sums[1] + sums[2], alphas, lags=lags, basis=basis)
    for k, (x, y) in enumerate(trials):
        others = about_means([trial for j, trial in enumerate(trials) if j != k], lags)
        for a, alpha in enumerate(alphas):
            predicted = Ridge(alpha=alpha, fit_intercept=False).fit(*others).predict(lagged_rows(x, lags))
            r = [np.corrcoef(p, m)[0, 1] for p, m in zip(predicted.T, y.T)]
            np.testing.assert_allclose(found[k, a], r, atol=1e-8)


def test_the_drift_of_an_amplifier_from_trial_to_trial_changes_no_coefficient():
    rng = np.random.default_rng(3)
    trials = [simulate(rng, 300) for _ in range(4)]
    drifting = [(x, y + 50 * k) for k, (x, y) in enumerate(trials)]
    still, moved = (fit_lags(t, RATE, -0.05, 0.15) for t in (trials, drifting))
    np.testing.assert_allclose(moved.curves, still.curves, atol=1e-9)
    np.testing.assert_allclose(moved.intercept, still.intercept + 75, atol=1e-9)


def test_a_curve_that_is_highest_where_the_lags_begin_has_no_latency():
    rng = np.random.default_rng(4)
    model = fit_lags([simulate(rng) for _ in range(3)], RATE, 0, 0.15)
    assert np.isnan(model.latency[0]) and np.abs(model.latency[1:] - PLANTED[1:] / RATE).max() <= 1 / RATE + 1e-9
    model.smooth[..., 2] = 0  # a channel that was not measured
    assert np.isnan(model.latency[2]) and np.isfinite(model.latency[1])


def test_penalties_that_end_too_early_are_reported():
    rng = np.random.default_rng(5)
    with pytest.warns(UserWarning, match='2 of 3 channels end at the penalty'):
        fit_lags([simulate(rng, 60, noise=3.0) for _ in range(3)], RATE, -0.05, 0.15, alphas=[0.1, 30.0])


def test_a_trial_shorter_than_the_lags_is_fitted_with_those_that_reach_into_it():
    x = np.random.default_rng(6).normal(size=(5, 2))
    assert lagged_rows(x, np.arange(-8, 9)).shape == (5, 34)
    assert not lagged_rows(x, [7]).any()


def test_wide_streams_become_few_columns_and_narrow_ones_keep_theirs():
    rng = np.random.default_rng(7)
    assert components_of([16], 41, None) == [0] and components_of([16, 3000], 50, None) == [0, 20]
    assert components_of([16, 3000], 50, 8) == [8, 8]
    x = rng.normal(size=(300, 6)) * [1, 2, 3, 1, 1, 0] + 4
    plain = stream_columns([x], 0)(x)
    np.testing.assert_allclose(plain.std(0)[1] / plain.std(0)[0], x.std(0)[1] / x.std(0)[0])
    np.testing.assert_allclose(plain.mean(0), 0, atol=1e-12)
    assert not plain[:, 5].any() and stream_columns([x], 2)(x).shape == (300, 2)


def test_a_lag_moves_features_later_and_leaves_zeros():
    x = np.arange(1.0, 6.0)[:, None]
    assert lagged_rows(x, [0, 2, -1])[:, :].T.tolist() == [[1, 2, 3, 4, 5], [0, 0, 1, 2, 3], [2, 3, 4, 5, 0]]
    assert lag_samples(-0.01, 0.02, 100).tolist() == [-1, 0, 1, 2]
    np.testing.assert_allclose(cosine_basis(41, 9).sum(1), 1)  # evenly spread: no lag counts for more
    assert (cosine_basis(5, 9) == np.eye(5)).all()


def test_slow_features_are_held_and_known_no_earlier_than_they_are_shown():
    x = held(np.array([[1.0], [2.0]]), 2.0, 100.0, samples=120)[:, 0]
    assert x[0] == 1 and x[49] == 1 and x[50] == 2 and x[99] == 2 and (x[100:] == 0).all()
    late = held(np.array([[1.0], [2.0]]), 2.0, 100.0, samples=120, onset=-0.1)[:, 0]
    assert (late[:10] == 0).all() and late[10] == 1 and late[60] == 2 and late[109] == 2 and late[110] == 0


@pytest.mark.parametrize(
    'rate, samples, said',
    [
        (50.0, (3000, 1500), ''),
        (100.0, (3000, 1500), r'^a.npy: 3000 samples at 100 Hz are 30.0 s, its features 60.0 s.*\(50 Hz fits\)$'),
        (51.0, (3000, 1500), ''),
        (50.0, (3000, 400), ''),  # one was cut short
        (25.0, (3000, 1500), ''),  # longer than the features
    ],
)
def test_a_rate_that_is_too_high_is_reported_with_the_one_that_fits(rate, samples, said):
    runs = pd.DataFrame(dict(bold=['a.npy', 'b.npy'], split=['a', 'b'], onset=0.0, n_tr=samples))
    assert re.search(said or '^$', too_high(runs, dict(a=60.0, b=30.0), rate))


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'shape \(300, 4\), expected \(channels, samples\)'):
        signals_of(np.zeros((300, 4)), 100)
    with pytest.raises(ValueError, match='1 of 2 channels have NaN'):
        signals_of([[0, 1, 2], [np.nan, 1, 2]], 100)
    np.save(tmp_path / 'x.npy', np.zeros((2, 50)))
    with pytest.raises(ValueError, match='give its rate in Hz'):
        read_signals(tmp_path / 'x.npy')
    with pytest.raises(ValueError, match='trial 0: 10 samples of features, 9 of the recording'):
        fit_lags([(np.zeros((10, 1)), np.zeros((9, 1)))] * 2, 100.0)
    with pytest.raises(ValueError, match='1 trials: two at least'):
        fit_lags([simulate(np.random.default_rng(0))], RATE)


def test_samples_marked_as_bad_change_neither_fit_nor_score_and_lags_reach_across_them():
    rng = np.random.default_rng(8)
    trials = [simulate(rng, 400) for _ in range(4)]
    spoilt = [(x, y.copy()) for x, y in trials]
    for _, y in spoilt:
        y[100:180] = np.nan
    lags = np.arange(0, 25)
    model = fit_lags(spoilt[:3], RATE, 0, 0.12, alphas=[30.0])
    kept = np.r_[:100, 180:400]
    rows = [lagged_rows(x, lags)[kept] for x, _ in trials[:3]]
    plain = Ridge(alpha=30.0, fit_intercept=False).fit(
        np.concatenate([z - z.mean(0) for z in rows]),
        np.concatenate([y[kept] - y[kept].mean(0) for _, y in trials[:3]]),
    )
    np.testing.assert_allclose(model.curves.reshape(-1, 3), plain.coef_.T, atol=1e-8)
    predicted, y = model.predict(trials[3][0])[kept], trials[3][1][kept]
    r = [np.corrcoef(p, m)[0, 1] for p, m in zip(predicted.T, y.T)]
    np.testing.assert_allclose(score_lags(model, spoilt[3:]), r, atol=1e-6)
    spoilt[0][1][:] = np.nan
    with pytest.raises(ValueError, match='trial 0: 0 samples have numbers. Leave the trial out'):
        fit_lags(spoilt, RATE)
    spoilt[0][1][:, 1:] = 0
    with pytest.raises(ValueError, match='trial 0: the recording has NaN'):
        fit_lags(spoilt, RATE)


def test_intervals_over_blocks_of_fast_samples_hold_the_truth():
    rng, rate, rho, missed, rounds = np.random.default_rng(9), 100.0, 0.4, 0, 60
    for _ in range(rounds):  # a minute whose noise remembers for a tenth of a second
        x, y = planted(rng, dict(story=6000), ('p1',), parcels=1, rho=rho, phi=0.9)
        boot = resample(x, y, dict(story='story'), trim=0, block=5.0 / TR, tr=1 / rate, step=50, draws=200)
        found = boot.interval('p1')
        missed += not found.low <= rho <= found.high
        assert found.high - found.low < 0.25 and boot.df == 11
        assert abs(found.estimate - np.corrcoef(x['p1']['story'][:, 0], y['p1']['story'][:, 0])[0, 1]) < 1e-5
    assert missed <= 9, missed  # 3 of 60 are expected
