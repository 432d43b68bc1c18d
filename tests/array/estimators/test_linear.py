"""Least squares and its kin against scikit-learn, and where systems are near singular."""

import numpy
import pytest
from sklearn import linear_model

import nums_core.array as np
from nums_core.array.estimators import ElasticNet, Lasso, LinearRegression, Ridge
from nums_core.array.estimators.descent import coordinate_descent, duality_gap
from nums_core.array.estimators.moments import moments
from nums_core.array.estimators.solving import cholesky_solve, least_norm_solve, nonnegative_solve

GRIDS = [(400, 6), (90, 6), (77, 2), (7, 6)]
TIGHT = {"tol": 1e-12, "max_iter": 10_000}
PAIRS = {
    "linear": (LinearRegression(), linear_model.LinearRegression()),
    "linear, no intercept": (LinearRegression(fit_intercept=False), linear_model.LinearRegression(fit_intercept=False)),
    "linear, positive": (LinearRegression(positive=True), linear_model.LinearRegression(positive=True)),
    "ridge": (Ridge(alpha=3.0), linear_model.Ridge(alpha=3.0)),
    "ridge, no intercept": (Ridge(alpha=3.0, fit_intercept=False), linear_model.Ridge(alpha=3.0, fit_intercept=False)),
    "ridge, positive": (Ridge(alpha=3.0, positive=True), linear_model.Ridge(alpha=3.0, positive=True, tol=1e-12)),
    "lasso": (Lasso(alpha=0.1, **TIGHT), linear_model.Lasso(alpha=0.1, **TIGHT)),
    "lasso, no intercept": (Lasso(alpha=0.1, fit_intercept=False, **TIGHT),
                            linear_model.Lasso(alpha=0.1, fit_intercept=False, **TIGHT)),
    "lasso, positive": (Lasso(alpha=0.1, positive=True, **TIGHT), linear_model.Lasso(alpha=0.1, positive=True, **TIGHT)),
    "elastic net": (ElasticNet(alpha=0.2, l1_ratio=0.3, **TIGHT), linear_model.ElasticNet(alpha=0.2, l1_ratio=0.3, **TIGHT)),
}


def problem(n=400, d=6, seed=0, dtype=float):
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 3.0 ** numpy.arange(d) + 10
    y = x @ (rng.normal(size=d) / 3.0 ** numpy.arange(d)) + rng.normal(size=n) + 5
    return x.astype(dtype), y.astype(dtype), rng.uniform(0.5, 2, size=n).astype(dtype)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunks", GRIDS, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_agrees_with_sklearn(name, chunks, weighted):
    mine, peer = PAIRS[name]
    x, y, w = problem()
    mine.fit(np.from_array(x, chunks), np.from_array(y, chunks[0]), w if weighted else None)
    peer.fit(x, y, w if weighted else None)
    numpy.testing.assert_allclose(mine.coef_, peer.coef_, rtol=1e-6, atol=1e-7)
    numpy.testing.assert_allclose(mine.intercept_, peer.intercept_, rtol=1e-6, atol=1e-7)
    numpy.testing.assert_allclose(mine.predict(x), peer.predict(x), rtol=1e-6)
    assert mine.score(x, y, w) == pytest.approx(peer.score(x, y, w), abs=1e-9)


@pytest.mark.parametrize("name", ["linear", "ridge", "lasso"])
def test_float32_stays(name):
    mine, peer = PAIRS[name]
    x, y, _ = problem(dtype="f4")
    mine.fit(x, y)
    peer.fit(x.astype(float), y.astype(float))
    assert mine.coef_.dtype == mine.predict(x).dtype == numpy.float32
    numpy.testing.assert_allclose(mine.coef_, peer.coef_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(alpha=0.5)])
def test_several_targets(model):
    x, y, w = problem()
    both = numpy.stack([y, -2 * y + x[:, 0]], axis=1)
    model.fit(np.from_array(x, (90, 3)), np.from_array(both, (50, 1)), w)
    peer = getattr(linear_model, type(model).__name__)(**model.get_params()).fit(x, both, w)
    assert model.coef_.shape == (2, 6) and model.intercept_.shape == (2,)
    numpy.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-6, atol=1e-9)
    numpy.testing.assert_allclose(model.predict(x), peer.predict(x), rtol=1e-8)
    assert model.score(x, both) == pytest.approx(peer.score(x, both))


def test_arrays_are_answered_with_arrays():
    x, y, _ = problem()
    lazy = np.from_array(x, (90, 6))
    model = LinearRegression().fit(lazy, y)
    assert isinstance(model.predict(lazy), np.Array) and model.predict(lazy).chunks == ((90, 90, 90, 90, 40),)
    assert isinstance(model.predict(x), numpy.ndarray) and isinstance(model.predict(x.tolist()), numpy.ndarray)
    assert isinstance(model.score(lazy, y), float)


# -- near singular ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("condition", [1e3, 1e6, 1e9])
def test_ill_conditioned_features_lose_what_qr_loses(condition):
    """Squares alone would lose all digits at 1e8."""
    rng = numpy.random.default_rng(1)
    u, v = (numpy.linalg.qr(rng.normal(size=(n, 5)))[0] for n in (300, 5))
    x = (u - u.mean(axis=0)) * numpy.geomspace(1, 1 / condition, 5) @ v.T
    true = v @ numpy.array([1.0, -1, 2, 0.5, 1])
    got = LinearRegression().fit(np.from_array(x, (64, 5)), x @ true).coef_
    assert abs(got - true).max() <= 50 * condition * 2.2e-16 * abs(true).max() * 10


@pytest.mark.parametrize("shape", [(40, 6), (5, 8)], ids=["twin columns", "more columns than rows"])
@pytest.mark.parametrize("weighted", [False, True])
def test_deficient_rank_gives_the_least_norm(shape, weighted):
    rng = numpy.random.default_rng(2)
    x = rng.normal(size=shape)
    x[:, 3] = x[:, 2]
    y, w = rng.normal(size=shape[0]), rng.uniform(1, 2, size=shape[0]) if weighted else None
    mine = LinearRegression().fit(x, y, w)
    peer = linear_model.LinearRegression().fit(x, y, w)
    numpy.testing.assert_allclose(mine.coef_, peer.coef_, atol=1e-9)
    numpy.testing.assert_allclose(mine.predict(x), peer.predict(x), atol=1e-9)


def test_a_weak_penalty_on_twin_columns_shares_between_them():
    rng = numpy.random.default_rng(3)
    x = rng.normal(size=(50, 3))
    x[:, 1] = x[:, 0]
    y = 2 * x[:, 0] + x[:, 2]
    coef = Ridge(alpha=1e-13).fit(np.from_array(x, (11, 3)), y).coef_
    numpy.testing.assert_allclose(coef, [1, 1, 1], atol=1e-6)


# -- the parts --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("far", [0.0, 1e8])
@pytest.mark.parametrize("drift", [0.0, 1e6])
def test_moments_keep_their_digits_far_from_zero(far, drift):
    """`drift` puts the later rows far from the first ones."""
    rng = numpy.random.default_rng(4)
    x = rng.normal(size=(2000, 3)) + far + drift * numpy.linspace(0, 1, 2000)[:, None] ** 4
    w = rng.uniform(0.5, 1.5, size=2000)
    got = moments(np.from_array(x, (300, 3)), None, np.from_array(w, 300))
    mean = numpy.average(x.astype(numpy.longdouble), axis=0, weights=w)
    want = ((x - mean).T * w) @ (x - mean)
    numpy.testing.assert_allclose(got.mean, mean.astype(float), rtol=1e-15, atol=1e-15)
    numpy.testing.assert_allclose(got.scatter, want.astype(float), rtol=1e-9, atol=1e-9 * abs(want).max())


def test_small_systems():
    rng = numpy.random.default_rng(5)
    a = rng.normal(size=(9, 4))
    g, c = a.T @ a, rng.normal(size=(4, 2))
    numpy.testing.assert_allclose(cholesky_solve(g, c, 1e-9), numpy.linalg.solve(g, c))
    scale = numpy.diag([1.0, 1e8, 1e-8, 1])
    numpy.testing.assert_allclose(cholesky_solve(scale @ g @ scale, scale @ c, 1e-9) * numpy.diag(scale)[:, None],
                                  numpy.linalg.solve(g, c), rtol=1e-6)
    low = a[:2].T @ a[:2]
    assert cholesky_solve(low, c, 1e-9) is None and cholesky_solve(-g, c, 1e-9) is None
    numpy.testing.assert_allclose(least_norm_solve(low, low @ c), numpy.linalg.pinv(low) @ low @ c, atol=1e-12)
    w = nonnegative_solve(g, c[:, 0])
    slope = g @ w - c[:, 0]
    assert (w >= 0).all() and (slope >= -1e-9).all() and abs(w @ slope) < 1e-9


def test_the_gap_bounds_the_error_and_closes():
    rng = numpy.random.default_rng(6)
    a, y = rng.normal(size=(60, 8)), rng.normal(size=60)
    g, c, q = a.T @ a / 60, a.T @ y / 60, y @ y / 60

    def objective(w):
        return w @ g @ w / 2 - c @ w + q / 2 + 0.05 * abs(w).sum()
    best = coordinate_descent(g, c, q, 0.05, 0.0, tol=1e-15, max_iter=10_000)
    assert best.converged and 0 < (best.w == 0).sum() < 8
    for k in range(1, 6):
        rough = coordinate_descent(g, c, q, 0.05, 0.0, tol=0.0, max_iter=k)
        assert objective(rough.w) - objective(best.w) <= duality_gap(
            rough.w, c - g @ rough.w, c, q, 0.05, 0.0, False) + 1e-15


def test_stopping_early_says_so():
    x, y, _ = problem()
    with pytest.warns(UserWarning, match="raise max_iter"):
        Lasso(alpha=1e-6, max_iter=2, tol=1e-14).fit(x, y)


def test_r2_of_a_constant_target():
    x = numpy.arange(6.0)[:, None]
    model = LinearRegression().fit(x, numpy.full(6, 2.0))
    assert model.score(x, numpy.full(6, 2.0)) == 1.0
    assert LinearRegression().fit(x, x[:, 0]).score(x, numpy.full(6, 2.0)) == 0.0


@pytest.mark.parametrize(("model", "remedy"), [
    (Ridge(alpha=-1), r"'alpha' parameter of Ridge must be a number in \[0, inf\)"), (Ridge(alpha=numpy.inf), "Got inf"),
    (Lasso(alpha=numpy.nan), "Got nan"), (Lasso(alpha=True), "a number"), (ElasticNet(l1_ratio=2), r"\[0, 1\]"),
    (Lasso(max_iter=1.5), "an int of at least 1"), (LinearRegression(positive="no"), "set_params")])
def test_bad_parameters_name_the_rule(model, remedy):
    x, y, _ = problem()
    with pytest.raises(ValueError, match=remedy):
        model.fit(x, y)


@pytest.mark.parametrize(("change", "remedy"), [
    (lambda x, y: (x, None), "the target y is None"), (lambda x, y: (x, numpy.stack([y, y, y], axis=-1)[None]), r"y.ravel\(\)"),
    (lambda x, y: (x, numpy.where(y > 5, numpy.inf, y)), "y contains NaN"), (lambda x, y: (x + 1j, y), "columns of"),
    (lambda x, y: (x, y.astype("U5")), "encode it first"), (lambda x, y: (x.T, y), r"y.ravel\(\)")])
def test_bad_input_names_the_remedy(change, remedy):
    with pytest.raises(ValueError, match=remedy):
        LinearRegression().fit(*change(*problem()[:2]))


def test_other_columns_than_those_of_the_fit():
    x, y, _ = problem()
    with pytest.raises(ValueError, match="give the columns that fit"):
        Lasso().fit(x, y).predict(x[:, :4])
