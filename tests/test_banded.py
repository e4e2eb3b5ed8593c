"A penalty per band: what is planted comes back, and what does not fit is refused."

from types import SimpleNamespace

import numpy as np, pandas as pd, pytest

from mirage.models.banded import Depths, banded_design, centred, collect_folds, directions, divide, fit_banded
from mirage.models.banded import fit_without_each, less_one, movie_folds, product_shares, together
from mirage.models.ridge import Design, TrainingRows, collect, fit_ridge

WIDTHS = (6, 4, 5)
ALPHAS = np.logspace(-1, 4, 6)


def data(n=300, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, sum(WIDTHS))) + mean
    return X, X[:, :6] @ np.random.default_rng(9).standard_normal((6, 5)) + rng.standard_normal((n, 5))


def parts_of(X, Y, k=3):
    return [[(x, {'ann': y})] for x, y in zip(np.array_split(X, k), np.array_split(Y, k))]


def test_the_sums_of_the_folds_add_up_to_those_of_everything():
    X, Y = data(mean=50)
    whole, folds = collect([(X, {'ann': Y})]), together(collect_folds(parts_of(X, Y)))
    a, (ax, ay) = centred(whole, ['ann'])
    b, (bx, by) = centred(folds, ['ann'])
    assert a.n == b.n == 300 and np.allclose(whole.shift + ax, folds.shift + bx)
    assert np.allclose(whole.base['ann'] + ay, folds.base['ann'] + by)
    for own, theirs in ((a.gram, b.gram), (a.cross, b.cross), (a.yy, b.yy)):
        assert np.allclose(own, theirs, rtol=1e-9, atol=1e-8)
    assert np.allclose(a.yy, np.square(Y - Y.mean(0)).sum(0))


def test_one_band_is_the_ordinary_ridge_with_penalties_by_whole_runs():
    X, Y = data()
    parts = parts_of(X, Y)
    plain = fit_ridge([b for part in parts for b in part], ALPHAS, parts)['ann']
    one = fit_banded(collect_folds(parts), [15], ALPHAS, [[1.0]])['ann']
    assert (one.alpha == plain.alpha).all() and np.allclose(one.coefficients, plain.coefficients, atol=1e-9)
    assert np.allclose(one.intercept, plain.intercept) and np.allclose(one.predict(X), plain.predict(X))


def test_the_bands_that_matter_are_believed_and_new_rows_are_predicted_better():
    X, Y = data(60)
    new, bold = data(500, seed=3)
    folds = collect_folds(parts_of(X, 0.3 * Y))
    many = fit_banded(folds, WIDTHS, ALPHAS, directions(3, 30))['ann']
    one = fit_banded(folds, WIDTHS, ALPHAS, directions(3, 1))['ann']
    assert (many.gamma[0] > 1 / 3).all() and (many.errors.min(0) <= one.errors.min(0)).all()
    assert np.square(many.predict(new) - 0.3 * bold).mean() < np.square(one.predict(new) - 0.3 * bold).mean()


def test_a_direction_of_zero_leaves_the_band_out():
    X, Y = data()
    model = fit_banded(collect_folds(parts_of(X, Y)), WIDTHS, ALPHAS, less_one(directions(3, 6), 0))['ann']
    assert not model.coefficients[:6].any() and model.coefficients[6:].any()


def test_planted_shares_come_back():
    rng, shares = np.random.default_rng(2), np.array([0.3, 0.15, 0.0])

    def made(n):
        X, w = rng.standard_normal((n, 15)), np.random.default_rng(5).standard_normal((15, 16))
        y = sum(
            x @ (v / np.linalg.norm(v, axis=0)) * share**0.5
            for x, v, share in zip(np.split(X, [6, 10], axis=1), np.split(w, [6, 10]), shares)
        )
        return X, y + rng.standard_normal(y.shape) * (1 - shares.sum()) ** 0.5

    models = fit_without_each(collect_folds(parts_of(*made(3000))), WIDTHS, ALPHAS, directions(3, 8))
    found = divide(models[0]['ann'], [m['ann'] for m in models[1:]], *made(3000))
    assert np.abs(found.product.mean(1) - shares).max() < 0.02 and np.abs(found.unique.mean(1) - shares).max() < 0.02
    assert abs(found.shared.mean()) < 0.02 and np.allclose(found.product.sum(0), found.r2)


def test_constant_bold_has_no_shares():
    assert np.isnan(product_shares(np.ones((9, 2)), np.ones((3, 9, 2)))).all()


@pytest.mark.parametrize(
    'widths, alphas, gammas, message',
    [
        (WIDTHS, ALPHAS, [[1.0, 1.0]], 'a number for each band'),
        (WIDTHS, ALPHAS, [[0.0, 0.0, 0.0]], 'one band at least above it'),
        (WIDTHS, ALPHAS, [[1.0, -1.0, 1.0]], 'not below zero'),
        (WIDTHS, ALPHAS, [[1.0, np.nan, 1.0]], 'finite'),
        (WIDTHS, [0.0], [[1.0, 1.0, 1.0]], 'penalties must be above zero'),
        ((6, 4, 4), ALPHAS, [[1.0, 1.0, 1.0]], 'the bands have 14 columns, the design 15'),
    ],
)
def test_what_does_not_fit_is_refused(widths, alphas, gammas, message):
    with pytest.raises(ValueError, match=message):
        fit_banded(collect_folds(parts_of(*data())), widths, alphas, gammas)


def test_who_saw_one_fold_only_is_named():
    X, Y = data()
    parts = parts_of(X, Y)
    parts[0][0][1]['bob'] = Y[:100]
    with pytest.raises(ValueError, match='bob saw one fold only'):
        fit_banded(collect_folds(parts), WIDTHS, ALPHAS, directions(3, 2))
    with pytest.raises(ValueError, match='at least two'):
        fit_banded(collect_folds(parts_of(X, Y, 1)), WIDTHS, ALPHAS, directions(3, 2))


def test_the_parts_of_a_movie_are_left_out_together():
    names = ['a1', 'a2', 'b1', 'b2', 'c1']
    runs = pd.DataFrame(dict(subject='ann', split=names, movie=[n[0] for n in names], set='train', repeat=1, n_tr=9))
    rows = TrainingRows(SimpleNamespace(runs=runs), {})
    assert [part.only for part in movie_folds(rows, 9)] == [{'a1', 'a2'}, {'b1', 'b2'}, {'c1'}]
    assert len(movie_folds(rows, 2)) == 2 and [part.only for part in rows.parts()] == [
        p.only for p in movie_folds(rows, 9)
    ]
    alone = TrainingRows(SimpleNamespace(runs=runs.assign(movie='a')), {})
    assert [part.only for part in movie_folds(alone, 5)] == [{n} for n in names]
    with pytest.raises(ValueError, match='ann has training runs of one movie only'):
        movie_folds(TrainingRows(SimpleNamespace(runs=runs[:1]), {}))


def test_layers_become_bands_by_depth():
    states = np.arange(24.0).reshape(1, 6, 4)
    features = SimpleNamespace(streams=dict(text=(6, 4)), hz=2.0, read=lambda m, split, a, b: states)
    depths = Depths(features, 'text', 3)
    assert depths.streams == {'text 0-1': (2, 4), 'text 2-3': (2, 4), 'text 4-5': (2, 4)}
    assert (depths.read('text 2-3', 'm', 0, 1) == states[:, 2:4]).all()
    with pytest.raises(ValueError, match='streams or one of text'):
        Depths(features, 'sound')


def test_a_wide_band_is_projected_on_its_own():
    rng = np.random.default_rng(0)
    rows = {m: rng.standard_normal((80, 44)).astype(np.float32) for m in ('m1', 'm2')}
    design, columns = banded_design(rows, ['m1'], Design((0.0,), width=20), [4, 40], tr=1.0)
    assert columns == [4, 10] and design['m2'].shape == (80, 14)
    energy = [np.square(x).sum() for x in np.split(design['m1'], [4], axis=1)]
    assert np.isclose(*energy, rtol=1e-4)
