"""scikit-learn's own checks of estimators, on every estimator here."""

import warnings

import pytest
from sklearn.utils import estimator_checks

import nums_core.array.estimators as es

ROWS = {"check_sample_weight_equivalence_on_dense_data": "centers are drawn row by row: a row of weight 2 is one row"}
FAILS = {"KMeans": ROWS}
ESTIMATORS = [es.LinearRegression(), es.LinearRegression(positive=True), es.Ridge(), es.Lasso(), es.ElasticNet(),
              es.LogisticRegression(), es.LogisticRegression(solver="lbfgs"), es.PoissonRegressor(),
              es.PoissonRegressor(solver="lbfgs"), es.PCA(), es.PCA(svd_solver="full", n_components=1), es.KMeans()]


def _checks():
    with warnings.catch_warnings():  # it warns that nothing of it is inherited
        warnings.filterwarnings("ignore", ".*does not inherit from", UserWarning)
        return estimator_checks.parametrize_with_checks(
            ESTIMATORS, expected_failed_checks=lambda e: FAILS.get(type(e).__name__, {}))


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")  # two checks have fewer distinct rows than clusters
@_checks()
def test_checks_of_sklearn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("memmap", [False, True])
def test_clustering_check(memmap):
    """scikit-learn runs this only for classes that inherit its mixin."""
    estimator_checks.check_clustering("KMeans", es.KMeans(), readonly_memmap=memmap)


def test_sklearn_is_not_imported():
    import subprocess
    import sys

    code = ("import sys, numpy, nums_core.array.estimators as es; x = numpy.arange(12.0).reshape(6, 2) ** 2\n"
            "es.LogisticRegression().fit(x, x[:, 0] > 5).predict(x); es.KMeans(2, random_state=0).fit(x)\n"
            "try: es.Ridge().predict(x)\n"
            "except es.NotFittedError: assert 'sklearn' not in sys.modules; print('none')")
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "none"
