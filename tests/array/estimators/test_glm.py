"""Logistic and Poisson regression against scikit-learn; the solvers' passes; what bad input is told."""

import numpy
import pytest
from sklearn import linear_model

import nums_core.array as np
from nums_core import session
from nums_core.array.estimators import LogisticRegression, PoissonRegressor
from nums_core.array.estimators import losses as loss_table
from nums_core.array.estimators.search import best_size, cubic_least

SOLVERS = ["newton-cholesky", "lbfgs"]
GRIDS = [(400, 5), (90, 5), (77, 2)]


def problem(n=400, d=5, k=2, seed=0):
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    z = x @ rng.normal(size=(d, k)) + rng.gumbel(size=(n, k)) + 0.3 * numpy.arange(k)
    return x, z.argmax(axis=1), rng.uniform(0.5, 2, size=n)


@pytest.mark.parametrize("chunks", GRIDS, ids=str)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("k", [2, 4])
def test_logistic_agrees_with_sklearn(chunks, intercept, solver, k):
    x, y, w = problem(k=k)
    mine = LogisticRegression(C=0.7, fit_intercept=intercept, solver=solver, tol=1e-9)
    mine.fit(np.from_array(x, chunks), np.from_array(y, chunks[0]), np.from_array(w, 33))
    peer = linear_model.LogisticRegression(C=0.7, fit_intercept=intercept, tol=1e-12, solver="newton-cholesky",
                                           max_iter=1000).fit(x, y, w)
    numpy.testing.assert_allclose(mine.coef_, peer.coef_, atol=1e-6)
    numpy.testing.assert_allclose(mine.intercept_, peer.intercept_ if intercept else 0.0, atol=1e-6)
    numpy.testing.assert_array_equal(mine.predict(x), peer.predict(x))
    numpy.testing.assert_allclose(mine.predict_proba(x), peer.predict_proba(x), atol=1e-6)
    numpy.testing.assert_allclose(mine.decision_function(x), peer.decision_function(x), atol=1e-5)
    assert mine.score(x, y, w) == pytest.approx(peer.score(x, y, w))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("intercept", [True, False])
def test_poisson_agrees_with_sklearn(solver, alpha, intercept):
    rng = numpy.random.default_rng(1)
    x = rng.normal(size=(500, 4)) * [1, 2, 0.5, 1] + [0, 0.5, 0, 0]
    y = rng.poisson(numpy.exp(x @ [0.3, -0.2, 0.5, 0] + 1))
    w = rng.uniform(0.5, 2, size=500)
    mine = PoissonRegressor(alpha=alpha, fit_intercept=intercept, solver=solver, tol=1e-9)
    mine.fit(np.from_array(x, (110, 3)), y, w)
    peer = linear_model.PoissonRegressor(alpha=alpha, fit_intercept=intercept, tol=1e-12, solver="newton-cholesky",
                                         max_iter=1000).fit(x, y, w)
    numpy.testing.assert_allclose(mine.coef_, peer.coef_, atol=1e-6)
    numpy.testing.assert_allclose(mine.intercept_, peer.intercept_, atol=1e-6)
    numpy.testing.assert_allclose(mine.predict(x), peer.predict(x), rtol=1e-5)
    assert mine.score(x, y, w) == pytest.approx(peer.score(x, y, w), abs=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_class_weights(solver):
    x, y, w = problem(k=3)
    for given in ("balanced", {0: 3.0, 2: 0.5}):
        mine = LogisticRegression(class_weight=given, solver=solver, tol=1e-9).fit(x, y, w)
        peer = linear_model.LogisticRegression(class_weight=given, tol=1e-12, solver="newton-cholesky").fit(x, y, w)
        numpy.testing.assert_allclose(mine.coef_, peer.coef_, atol=1e-5)


@pytest.mark.parametrize("k", [2, 3])
def test_without_penalty(k):
    x, y, _ = problem(k=k)
    mine = [LogisticRegression(C=numpy.inf, solver=s, tol=1e-10).fit(x, y).predict_proba(x) for s in SOLVERS]
    peer = linear_model.LogisticRegression(C=numpy.inf, tol=1e-10, solver="lbfgs", max_iter=1000).fit(x, y)
    for got in mine:
        numpy.testing.assert_allclose(got, peer.predict_proba(x), atol=1e-6)


def test_labels_of_any_kind():
    x, y, _ = problem()
    for labels in (numpy.where(y == 1, "late", "fine"), numpy.where(y == 1, "late", "fine").astype(object), y == 1,
                   numpy.where(y == 1, 7, -3), numpy.where(y == 1, 7.0, -3.0), y.astype("M8[D]")):
        model = LogisticRegression().fit(np.from_array(x, (90, 5)), labels)
        assert model.classes_.tolist() == sorted(set(labels.tolist()))
        assert model.score(x, labels) > 0.8 and (model.predict(x) == labels).mean() > 0.8


def test_float32_stays():
    x, y, _ = problem()
    mine = LogisticRegression().fit(x.astype("f4"), y)
    assert {a.dtype for a in (mine.coef_, mine.intercept_, mine.predict_proba(x.astype("f4")))} == {numpy.dtype("f4")}
    numpy.testing.assert_allclose(mine.coef_, LogisticRegression().fit(x, y).coef_, rtol=1e-4)


# -- passes -----------------------------------------------------------------------------------------------------------

def test_newton_is_one_pass_an_iteration_planned_once():
    x, y, _ = problem(n=4000)
    x, y = np.persist(np.from_array(x, (500, 5)), np.from_array(y, 500))
    runs = []
    own = session.current().executor
    before, run = session.current().plans_made, own.run
    own.run = lambda plan, *rest: runs.append(plan) or run(plan, *rest)
    try:
        model = LogisticRegression(solver="newton-cholesky").fit(x, y)
        passes = [p for p in runs if any(f.label == "hessian" for f in p.graph.families)]
        assert len(passes) == model.n_iter_[0] + 1 and len(set(map(id, passes))) == 1
        families = passes[0].graph.families
        assert sum(f.count for f in families if f.label == "hessian") == 8  # a task a row block
        made = session.current().plans_made
        LogisticRegression(solver="newton-cholesky").fit(x, y)
        assert session.current().plans_made == made > before  # the second fit plans nothing
    finally:
        own.run = run


def test_unlike_scales_cost_lbfgs_no_iterations():
    """It works in centred variables of like curvature; without these 1e4 iterations would not do."""
    x, y, _ = problem()
    odd = x * 10.0 ** numpy.arange(-4, 1) + 10.0 ** numpy.arange(-1, 4)
    plain = LogisticRegression(C=numpy.inf, solver="lbfgs", tol=1e-8).fit(x, y)
    scaled = LogisticRegression(C=numpy.inf, solver="lbfgs", tol=1e-8).fit(odd, y)
    assert scaled.n_iter_[0] <= plain.n_iter_[0] + 10
    numpy.testing.assert_allclose(scaled.predict_proba(odd), plain.predict_proba(x), atol=1e-4)


def test_separable_classes_come_to_an_end():
    x = numpy.linspace(-1, 1, 40)[:, None]
    y = x[:, 0] > 0
    for solver in SOLVERS:
        assert LogisticRegression(C=numpy.inf, solver=solver, tol=1e-4).fit(x, y).score(x, y) == 1.0


def test_counts_that_overflow_a_full_step():
    """From the mean alone Newton's first step overshoots: exp(z) is infinite there."""
    x = numpy.concatenate([numpy.zeros(2000), numpy.full(2, 40.0)])[:, None]
    y = numpy.concatenate([numpy.zeros(2000), numpy.full(2, 1e6)])
    for solver in SOLVERS:
        model = PoissonRegressor(alpha=1e-6, solver=solver, max_iter=300).fit(x, y)
        assert model.predict([[40.0]])[0] == pytest.approx(1e6, rel=0.02)


@pytest.mark.parametrize("name", loss_table.LOSSES)
def test_derivatives_of_losses(name):
    rng = numpy.random.default_rng(0)
    k = 3 if name == "multinomial" else 1
    x, y = rng.normal(size=(20, 4)), rng.integers(0, max(k, 2), size=20).astype(float)
    w, theta, step = rng.uniform(size=20), rng.normal(size=(k, 5)), rng.normal(size=(k, 5))
    value, grad, hess = loss_table.hessian(x, y, w, theta, loss=name)
    assert value == pytest.approx(loss_table.gradient(x, y, w, theta, loss=name)[0])
    numpy.testing.assert_allclose(grad, loss_table.gradient(x, y, w, theta, loss=name)[1])
    h = 1e-5
    (up, grad_up), (down, grad_down) = (loss_table.gradient(x, y, w, theta + s * step, loss=name) for s in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx((grad * step).sum(), rel=1e-7)
    numpy.testing.assert_allclose(hess @ step.ravel(), ((grad_up - grad_down) / (2 * h)).ravel(), rtol=1e-6, atol=1e-7)
    values, slopes = loss_table.along(x, y, w, theta, step, numpy.array([0.0, 0.5]), loss=name)
    half = loss_table.gradient(x, y, w, theta + step / 2, loss=name)
    numpy.testing.assert_allclose([values[0], values[1]], [value, half[0]])
    numpy.testing.assert_allclose(slopes, [(grad * step).sum(), (half[1] * step).sum()])


def test_line_search_meets_the_least():
    for least in (0.003, 0.2, 1.0, 3.0, 15.0):
        parabola = lambda t: ((t - least) ** 2, 2 * (t - least))  # noqa: B023, E731
        value, slope = parabola(0.0)
        assert best_size(parabola, value, slope) == pytest.approx(least, rel=0.3)
    assert cubic_least(0.0, 1.0, -2.0, 2.0, 1.0, 2.0) == pytest.approx(1.0)
    assert best_size(lambda t: (t + 1, -numpy.ones_like(t)), 0.0, -1e-30) == 0.0  # no more than rounding is left


# -- words ------------------------------------------------------------------------------------------------------------

def test_parameters_follow_sklearn():
    model = LogisticRegression(C=2.0)
    assert model.get_params() == {"C": 2.0, "fit_intercept": True, "class_weight": None, "solver": "auto", "tol": 1e-6,
                                  "max_iter": 100}
    assert model.set_params(C=3.0).C == 3.0
    assert "C=3.0" in repr(model)
    with pytest.raises(ValueError, match="it has C, fit_intercept"):
        model.set_params(penalty="l1")


@pytest.mark.parametrize(("change", "remedy"), [
    (lambda x, y: (x[:, 0], y), r"X.reshape\(-1, 1\)"),
    (lambda x, y: (x, y[:-1]), r"y.ravel\(\)"),
    (lambda x, y: (x, y * 0), "y > threshold"),
    (lambda x, y: (x, y + 0.5), "y > threshold"),
    (lambda x, y: (numpy.where(x > 2, numpy.nan, x), y), "clean it first"),
    (lambda x, y: (x, numpy.where(y > 0, numpy.nan, 1.0)), "leave those rows out"),
    (lambda x, y: (x[:0], y[:0]), "a minimum of 1 is required"),
    (lambda x, y: (x.astype("U5"), y), "encode it first"),
    (lambda x, y: (x, y, -numpy.ones(len(y))), "leave rows out instead"),
    (lambda x, y: (x, y, numpy.ones(3)), "one weight a row"),
    (lambda x, y: (x, y, (y == 1) * 1.0), "at least 2 classes"),
    (lambda x, y: (x, y, y * 0.0), "must not be zero"),
])
@pytest.mark.parametrize("lazy", [False, True])
def test_bad_input_names_the_remedy(change, remedy, lazy):
    x, y, _ = problem()
    given = change(x, y)
    if lazy:
        given = [np.from_array(a) for a in given]
    with pytest.raises(ValueError, match=remedy):
        LogisticRegression().fit(*given)


@pytest.mark.parametrize(("params", "remedy"), [
    ({"C": 0}, r"'C' parameter of LogisticRegression must be a number in \(0, inf\]"),
    ({"solver": "sag"}, "one of 'auto', 'newton-cholesky', 'lbfgs'"), ({"max_iter": 0}, "an int of at least 1"),
    ({"tol": None}, "set_params"), ({"fit_intercept": 2}, "a bool"), ({"class_weight": {9: 1.0}}, r"it holds \[0, 1\]")])
def test_bad_parameters_name_the_rule(params, remedy):
    x, y, _ = problem()
    with pytest.raises(ValueError, match=remedy):
        LogisticRegression(**params).fit(x, y)


def test_predict_before_fit():
    with pytest.raises(ValueError, match="call fit"):
        LogisticRegression().predict(numpy.ones((2, 2)))


def test_negative_counts():
    with pytest.raises(ValueError, match="shift or clip y"):
        PoissonRegressor().fit(numpy.ones((3, 1)), [1, -1, 2])
    with pytest.raises(ValueError, match="at least one count"):
        PoissonRegressor().fit(numpy.ones((3, 1)), [0, 0, 0])


def test_stopping_early_says_so():
    x, y, _ = problem()
    for solver in SOLVERS:
        with pytest.warns(UserWarning, match="raise max_iter"):
            LogisticRegression(solver=solver, max_iter=1, tol=1e-12).fit(x, y)
