"""Estimators against scikit-learn: the same rows in memory, the same solver, the same tolerance; one line a model.

    python -m bench.estimators [--only NAME ...] [--rows N] [--repeat 3]

A fit counts when what it says is the least really is: the conditions of optimality are worked out in plain NumPy.
scikit-learn runs as it comes, with as many BLAS and OpenMP threads as there are cores; nums_core with as many of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from bench import harness

CLUSTERS, COMPONENTS = 16, 8
LARGE = {"logistic-newton": (2, 64), "logistic-lbfgs": (2, 64)}  # times as many rows; features
Wrong = Callable[[numpy.ndarray, numpy.ndarray, tuple[Any, ...]], float]


@dataclass(frozen=True)
class Case:
    """`make(module)` gives the model, `attributes` what is checked, `wrong(x, y, values)` how far it is from the least."""

    make: Callable[[Any], Any]
    attributes: tuple[str, ...]
    wrong: Wrong
    tolerance: float
    target: str = "number"


def _residual(x, y, w, b):
    return y - x @ w - b


def _normal_equations(x, y, values, alpha=0.0):
    w, b = values
    e = _residual(x, y, w, b)
    return float(max(abs(x.T @ e - alpha * w).max(), abs(e.sum())) / abs(x.T @ y).max())


def _lasso(x, y, values, alpha=0.05):
    w, b = values
    slope = x.T @ _residual(x, y, w, b) / len(x)
    off = numpy.where(w != 0, slope - alpha * numpy.sign(w), numpy.maximum(abs(slope) - alpha, 0))
    return float(abs(off).max() / alpha)


def _logistic(x, y, values):
    w, b = values[0][0], values[1]
    r = 1 / (1 + numpy.exp(-(x @ w + b))) - y
    return float(abs((x.T @ r + w) / len(x)).max())


def _poisson(x, y, values, alpha=1e-3):
    w, b = values
    return float(abs(x.T @ (numpy.exp(x @ w + b) - y) / len(x) + alpha * w).max())


def _pca(x, y, values):
    v, variance = values
    z = (x - x.mean(axis=0)) @ v.T
    off = z.T @ z / (len(x) - 1) - numpy.diag(variance)
    return float(abs(off).max() / variance[0])


def _kmeans(x, y, values):
    centers, inertia = values
    got = sum(float(((x[i:i + 50_000, None] - centers[None]) ** 2).sum(axis=2).min(axis=1).sum())
              for i in range(0, len(x), 50_000))
    return abs(got - inertia) / inertia


def _begin(n_features: int) -> numpy.ndarray:
    return numpy.random.default_rng(harness.SEED + 1).normal(size=(CLUSTERS, n_features))


def _kmeans_of(module: Any, d: int) -> Any:
    options = {"algorithm": "lloyd"} if module.__name__.startswith("sklearn") else {}
    return module.KMeans(CLUSTERS, init=_begin(d), n_init=1, max_iter=20, tol=0, **options)


COEF = ("coef_", "intercept_")
CASES = {
    "linear": Case(lambda m: m.LinearRegression(), COEF, _normal_equations, 1e-9),
    "ridge": Case(lambda m: m.Ridge(1.0), COEF, lambda x, y, v: _normal_equations(x, y, v, 1.0), 1e-9),
    "lasso": Case(lambda m: m.Lasso(0.05, tol=1e-8), COEF, _lasso, 1e-2),
    "logistic-newton": Case(lambda m: m.LogisticRegression(solver="newton-cholesky", tol=1e-6), COEF, _logistic, 2e-6, "class"),
    "logistic-lbfgs": Case(lambda m: m.LogisticRegression(solver="lbfgs", tol=1e-5), COEF, _logistic, 2e-5, "class"),
    "poisson": Case(lambda m: m.PoissonRegressor(alpha=1e-3, solver="newton-cholesky", tol=1e-6), COEF, _poisson, 2e-6,
                    "count"),
    "pca": Case(lambda m: m.PCA(COMPONENTS), ("components_", "explained_variance_"), _pca, 1e-9),
    "kmeans": Case(lambda m: _kmeans_of(m, 32), ("cluster_centers_", "inertia_"), _kmeans, 1e-9),
}


def data(name: str, rows: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Correlated features and a target that follows them."""
    times, d = LARGE.get(name, (1, 32))
    rng = numpy.random.default_rng(harness.SEED)
    x = rng.standard_normal((rows * times, d))
    x[:, 1:] += 0.5 * x[:, :-1]
    z = x @ (rng.normal(size=d) / d**0.5)
    target = CASES[name].target
    if target == "class":
        return x, (z + rng.logistic(size=len(x)) > 0).astype(numpy.int64)
    return x, rng.poisson(numpy.exp(z / 2)).astype(float) if target == "count" else z + rng.normal(size=len(x))


class Fit:
    """A fit as a run of a race."""

    def __init__(self, case: Case, module: Any, x: Any, y: Any) -> None:
        self.case, self.module, self.x, self.y = case, module, x, y
        self.iterations = 0

    def __call__(self) -> tuple[Any, ...]:
        model = self.case.make(self.module).fit(self.x, self.y)
        self.iterations = int(numpy.max(n)) if (n := getattr(model, "n_iter_", None)) is not None else 0
        return tuple(getattr(model, a) for a in self.case.attributes)

    def tasks(self) -> int:
        """Iterations, in the place where races report tasks."""
        return self.iterations


def starts(name: str, x: numpy.ndarray, y: numpy.ndarray) -> dict[str, harness.Start]:
    def nums() -> dict[str, Any]:
        import nums_core.array.estimators as module

        return {"": lambda: Fit(CASES[name], module, x, y)}

    def sklearn() -> dict[str, Any]:
        import warnings

        import sklearn
        from sklearn import cluster, decomposition, linear_model

        warnings.simplefilter("ignore")  # 20 iterations of k-means are meant
        models = {k: v for m in (cluster, decomposition, linear_model) for k, v in vars(m).items()}
        return {"": lambda: Fit(CASES[name], _Namespace(sklearn.__name__, models), x, y)}
    return {"nums": nums, "sklearn": sklearn}


class _Namespace:
    def __init__(self, name: str, names: dict[str, Any]) -> None:
        self.__dict__.update(names)
        self.__name__ = name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(harness.heading())
    races = {}
    for name in options.only:
        x, y = data(name, options.rows)
        case = CASES[name]

        def check(values: tuple[Any, ...], x=x, y=y, case=case) -> str | None:
            off = case.wrong(x, y, values)
            return None if off <= case.tolerance else f"{off:.1e} from the least, where {case.tolerance:.0e} is allowed"

        races[name] = harness.race(starts(name, x, y), check, repeat=options.repeat)
        for library, timing in races[name].items():
            print(f"{name:<16}{len(x):>9,} x {x.shape[1]}  {library:<8} {timing}  {timing.tasks} iterations", flush=True)
        harness.print_ratios(races[name], indent=" " * 16)
    harness.record("estimators", rows=options.rows, repeat=options.repeat, results=races)
    return harness.failures(*races.values())


if __name__ == "__main__":
    raise SystemExit(main())
