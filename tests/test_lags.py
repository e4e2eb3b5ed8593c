"Fast signals: lags at the rate of the recording, found where they were planted; what is no recording is refused."

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mirage.models.lags import (
    cosine_basis,
    fit_lags,
    held,
    lag_samples,
    lagged_rows,
    read_signals,
    score_lags,
    signals_of,
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


def test_the_weights_are_those_of_a_plain_ridge_on_lagged_columns():
    rng = np.random.default_rng(1)
    trials = [simulate(rng, 200) for _ in range(3)]
    model = fit_lags(trials, RATE, 0, 0.05, alphas=[30.0])
    rows = np.concatenate([lagged_rows(x, np.arange(11)) for x, _ in trials])
    plain = Ridge(alpha=30.0).fit(rows, np.concatenate([y for _, y in trials]))
    np.testing.assert_allclose(model.curves.reshape(-1, 3), plain.coef_.T, atol=1e-8)
    np.testing.assert_allclose(model.predict(trials[0][0]), plain.predict(rows[:200]), atol=1e-8)


def test_a_lag_moves_features_later_and_leaves_zeros():
    x = np.arange(1.0, 6.0)[:, None]
    assert lagged_rows(x, [0, 2, -1])[:, :].T.tolist() == [[1, 2, 3, 4, 5], [0, 0, 1, 2, 3], [2, 3, 4, 5, 0]]
    assert lag_samples(-0.01, 0.02, 100).tolist() == [-1, 0, 1, 2]
    np.testing.assert_allclose(cosine_basis(41, 9).sum(1), 1)  # evenly spread: no lag counts for more
    assert (cosine_basis(5, 9) == np.eye(5)).all()


def test_slow_features_are_held_and_known_no_earlier_than_they_are_shown():
    x = held(np.array([[1.0], [2.0]]), 2.0, 100.0, 120)[:, 0]
    assert x[0] == 1 and x[49] == 1 and x[50] == 2 and x[99] == 2 and (x[100:] == 0).all()


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
