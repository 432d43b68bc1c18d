"""Logistic regression against scikit-learn, and what it says to bad input."""

import numpy
import pytest
from sklearn.linear_model import LogisticRegression as Peer

import nums_core.array as np
from nums_core.array.estimators import LogisticRegression


def problem(n=400, d=5, seed=0):
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = (x @ rng.normal(size=d) + rng.normal(size=n) > 0.3).astype(int)
    return x, y


@pytest.mark.parametrize("chunks", [(400, 5), (90, 5), (77, 2)], ids=str)
@pytest.mark.parametrize("intercept", [True, False])
def test_agrees_with_sklearn(chunks, intercept):
    x, y = problem()
    mine = LogisticRegression(C=0.7, fit_intercept=intercept).fit(np.from_array(x, chunks), np.from_array(y, chunks[0]))
    peer = Peer(C=0.7, fit_intercept=intercept, tol=1e-12, solver="newton-cholesky").fit(x, y)
    numpy.testing.assert_allclose(mine.coef_, peer.coef_, atol=1e-6)
    numpy.testing.assert_allclose(mine.intercept_, peer.intercept_ if intercept else [0.0], atol=1e-6)
    numpy.testing.assert_array_equal(mine.predict(x).compute(), peer.predict(x))


def test_labels_may_be_text():
    x, y = problem()
    names = numpy.where(y == 1, "late", "fine")
    model = LogisticRegression().fit(x, names)
    assert list(model.classes_) == ["fine", "late"]
    assert model.score(x, names) > 0.8


def test_parameters_follow_sklearn():
    model = LogisticRegression(C=2.0)
    assert model.get_params() == {"C": 2.0, "fit_intercept": True, "tol": 1e-8, "max_iter": 100}
    assert model.set_params(C=3.0).C == 3.0
    assert "C=3.0" in repr(model)
    with pytest.raises(ValueError, match="it has C, fit_intercept"):
        model.set_params(penalty="l1")


@pytest.mark.parametrize(("change", "remedy"), [
    (lambda x, y: (x[:, 0], y), r"X.reshape\(-1, 1\)"),
    (lambda x, y: (x, y[:-1]), r"y.ravel\(\)"),
    (lambda x, y: (x, y * 0), "y > threshold"),
    (lambda x, y: (numpy.where(x > 2, numpy.nan, x), y), "clean it first"),
])
def test_bad_input_names_the_remedy(change, remedy):
    with pytest.raises(ValueError, match=remedy):
        LogisticRegression().fit(*change(*problem()))


def test_predict_before_fit():
    with pytest.raises(ValueError, match="call fit"):
        LogisticRegression().predict(numpy.ones((2, 2)))
