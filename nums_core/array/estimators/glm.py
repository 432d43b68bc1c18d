"""Generalised linear models: `LogisticRegression`, two classes or many, and `PoissonRegressor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

import nums_core.array as nc
from nums_core.array.estimators import inputs, metrics, parameters
from nums_core.array.estimators.base import ConvergenceWarning, Estimator, warn
from nums_core.array.estimators.lbfgs import lbfgs
from nums_core.array.estimators.linear import affine
from nums_core.array.estimators.newton import Solution, newton
from nums_core.array.estimators.objective import Objective
from nums_core.array.estimators.passes import each, few

NEWTON_SIZE = 256  # numbers in theta up to which "auto" takes Newton: its passes cost this much more, but there are few
MANY = 1024  # distinct labels of a block up to which nothing else is moved to find the classes
SOLVERS = ("auto", "newton-cholesky", "lbfgs")


class GeneralizedLinear(Estimator):
    """A model fitted by Newton's method or L-BFGS."""

    fit_intercept: bool
    solver: str
    tol: float
    max_iter: int

    def _solved(self, f: Objective, theta: np.ndarray, curvature: np.ndarray) -> Solution:
        """The least of `f`, from `theta` (k, d + 1); `curvature` is d2l/dz2 there."""
        small = f.shape[0] * f.shape[1] <= NEWTON_SIZE
        if self.solver == "newton-cholesky" or (self.solver == "auto" and small):
            found = newton(f, theta.ravel(), tol=self.tol, max_iter=self.max_iter)
        else:
            found = lbfgs(f, theta.ravel(), curvature, tol=self.tol, max_iter=self.max_iter)
        if not found.converged:
            warn(ConvergenceWarning, f"{type(self).__name__} stopped after {found.iterations} iterations with a gradient of "
                                     f"{found.steepness:.3g}, above tol={self.tol:g}; raise max_iter, bring features to a like "
                                     "scale, or strengthen the penalty")
        return found


# -- classes ----------------------------------------------------------------------------------------------------------

class LogisticRegression(GeneralizedLinear):
    """Classes by logistic regression, multinomial for more than two, with a penalty on squares.

    minimise  C sum_i s_i l(y_i, z_i) + |w|^2 / 2,    z_i = w x_i + b
    l = log(1 + exp(-z)) for the class that is meant, or log sum_c exp(z_c) - z_y for more than two

    Parameters
    ----------
    C : float, > 0
        Inverse strength of the penalty; `numpy.inf` for none. The intercept is not penalised.
    fit_intercept : bool
    class_weight : dict of label to weight, "balanced" or None
        Factors of the s_i; "balanced" gives every class the same weight in all. Labels left out have 1.
    solver : "auto", "newton-cholesky" or "lbfgs"
        "auto" is Newton up to 256 coefficients (classes counted), L-BFGS beyond.
    tol : float
        Stop when no entry of the gradient, of the objective divided by C sum_i s_i, is larger.
    max_iter : int

    Attributes
    ----------
    classes_ : ndarray, shape (k,), sorted
    coef_ : ndarray, shape (1, d) for two classes, else (k, d); dtype of `X`
    intercept_ : ndarray, shape (1,) or (k,)
    n_iter_ : ndarray of one int

    Notes
    -----
    One pass to begin with, then one an iteration. Newton: n (k d)^2 flop and (k d)^2 numbers a block moved a pass, some 5 to
    10 passes; L-BFGS: 4 n d k flop and d k numbers a block, some 15 to 100 passes.

    References
    ----------
    .. [1] Nocedal, Wright, "Numerical Optimization", 2nd ed. 2006, algorithms 3.2, 7.4.
    """

    _kind = "classifier"
    _targets: ClassVar[dict[str, bool]] = {"required": True}
    _rules: ClassVar[dict[str, parameters.Rule]] = {
        "C": parameters.real(0, above=True, infinite=True), "fit_intercept": parameters.FLAG,
        "class_weight": parameters.either(parameters.one_of("balanced", None),
                                          parameters.Rule("a dict", lambda v: isinstance(v, Mapping))),
        "solver": parameters.one_of(*SOLVERS), "tol": parameters.real(0), "max_iter": parameters.whole(1)}

    def __init__(self, C: float = 1.0, fit_intercept: bool = True, class_weight: Any = None,  # noqa: N803
                 solver: str = "auto", tol: float = 1e-6, max_iter: int = 100) -> None:
        self.C, self.fit_intercept, self.class_weight, self.solver = C, fit_intercept, class_weight, solver
        self.tol, self.max_iter = tol, max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogisticRegression:  # noqa: N803
        """Fit to `X`, (n, d), and labels `y`, (n,), of any dtype; `sample_weight`, (n,), are the s_i.

        Raises
        ------
        ValueError
            Shapes that do not fit one another; fewer than two classes; labels that are measurements; NaN or infinity.
        """
        self._check_params()
        x = inputs.fit_matrix(self, X)
        self.classes_, codes = _classes(inputs.required(self, y), x)
        k = len(self.classes_)
        w = inputs.weights(sample_weight, x)
        if self.class_weight is not None:
            w = self._with_class_weights(codes, w, k)
        x, codes, w = inputs.resident(x, codes, w)
        loss = "multinomial" if k > 2 else "logistic"
        f = Objective(loss, x, codes, w, k=k, intercept=bool(self.fit_intercept))
        theta, curvature = _beginning(f)
        f.penalty = 1 / (self.C * f.start.weight)
        found = self._solved(f, theta, curvature)
        made = found.theta.reshape(f.shape)
        if loss == "multinomial":  # rows that all move alike change nothing: the model of least size is meant
            made = made - made.mean(axis=0)
        made = made.astype(x.dtype)
        self.coef_, self.intercept_ = made[:, :-1].copy(), made[:, -1].copy()
        self.n_iter_ = np.array([found.iterations], np.int32)
        return self

    def _with_class_weights(self, codes: Any, w: Any, k: int) -> Any:
        if isinstance(self.class_weight, Mapping):
            unknown = [c for c in self.class_weight if not np.any(self.classes_ == c)]
            if unknown:
                raise ValueError(f"class_weight names the classes {unknown}, which y does not hold; it holds "
                                 f"{self.classes_.tolist()}")
            factors = np.array([self.class_weight.get(c, 1.0) for c in self.classes_.tolist()], float)
        else:
            share = nc.stack([((codes == c) if w is None else (codes == c) * w).sum() for c in range(k)]).compute()
            factors = share.sum() / (k * np.maximum(share, np.finfo(float).tiny))
        of_row = sum((codes == c) * float(factors[c]) for c in range(k))
        return of_row if w is None else of_row * w

    def _z(self, X: Any) -> Any:  # noqa: N803
        x = inputs.new_matrix(self, X)
        return affine(x, self.coef_, self.intercept_) if len(self.classes_) > 2 else affine(
            x, self.coef_[0], self.intercept_[0])

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        """z of each row: shape (n,) for two classes, above 0 for the second; else (n, k)."""
        return inputs.answer(X, self._z(X))

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Probability of each class: shape (n, k), dtype of `X`."""
        return inputs.answer(X, self._probabilities(X))

    def _probabilities(self, X: Any) -> Any:  # noqa: N803
        z = self._z(X)
        return each(_softmax, [z], [], width=len(self.classes_), dtype=z.dtype)

    def predict_log_proba(self, X: Any) -> Any:  # noqa: N803
        """Logarithms of `predict_proba`."""
        return inputs.answer(X, nc.log(self._probabilities(X)))

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The likeliest class of each row: shape (n,), dtype of `classes_`."""
        return inputs.answer(X, self._classes_at(self._z(X)))

    def _classes_at(self, z: Any) -> Any:
        return each(_likeliest, [z], [self.classes_], width=None, dtype=self.classes_.dtype)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Share of rows whose class is right, weighted."""
        z = self._z(X)
        y = inputs.one_axis(nc.asarray(_labels(inputs.required(self, y))), z)
        return metrics.accuracy(y, self._classes_at(z), inputs.weights(sample_weight, z))


def _labels(y: Any) -> Any:
    """Labels as an Array or a NumPy array of numbers or text."""
    if isinstance(y, nc.Array):
        return y
    y = np.asarray(y)
    if y.dtype.kind == "O":
        y = np.array(y.tolist())
        if y.dtype.kind == "O":
            raise ValueError("Unknown label type: y holds Python objects of several kinds; make them all text or all numbers")
    return y


def _classes(y: Any, x: Any) -> tuple[np.ndarray, Any]:
    """The classes, sorted, and the number of each row's, an Array of the dtype of `x` cut like it."""
    y = inputs.one_axis(nc.asarray(_labels(y)), x)
    if y.dtype.kind == "c":
        raise ValueError("Complex data not supported: labels are numbers that can be ordered, or text")
    classes = _distinct(y)
    if classes.dtype.kind == "f":
        if not np.isfinite(classes).all():
            raise ValueError("y contains NaN or infinity; leave those rows out of X and y")
        if (classes % 1 != 0).any():
            raise ValueError("Unknown label type: y is continuous; use a regressor, or map it to classes first, as in "
                             "y > threshold")
    if len(classes) < 2:
        raise ValueError(f"y holds {len(classes)} class, {classes.tolist()}; at least 2 classes are needed: map the labels "
                         "to two values first, as in y > threshold")
    return classes, nc.searchsorted(nc.asarray(classes), y).astype(x.dtype)


def _distinct(y: Any) -> np.ndarray:
    """The distinct labels, sorted; a few of each block are enough to know them, unless there are very many."""
    count = min(max(y.chunks[0]), MANY)
    per_block = few(_first_labels, [y], [], count=count, width=None, dtype=y.dtype).compute().reshape(-1, count)
    if count == MANY and any(len(np.unique(labels)) == MANY for labels in per_block):
        return np.asarray(nc.unique(y).compute())
    return np.unique(per_block)


def _first_labels(y: np.ndarray, *, count: int, block: int) -> np.ndarray:
    labels = np.unique(y)[:count]
    return np.concatenate([labels, np.full(count - len(labels), labels[0], labels.dtype)])


def _beginning(f: Objective) -> tuple[np.ndarray, np.ndarray]:
    """theta with the classes' shares and nothing else, and d2l/dz2 there."""
    share = f.start.by_class / f.start.weight
    if (share > 0).sum() < 2:
        raise ValueError("sample_weight leaves rows of one class only; at least 2 classes are needed")
    theta = np.zeros(f.shape)
    if not f.intercept:
        share = np.full(len(share), 1 / len(share))
    log = np.log(np.maximum(share, 1e-9))
    if f.intercept:
        theta[:, -1] = log[1] - log[0] if f.loss == "logistic" else log - log.mean()
    curvature = np.maximum(share * (1 - share), 1e-9)
    return theta, curvature[:1] if f.loss == "logistic" else curvature


def _softmax(z: np.ndarray) -> np.ndarray:
    if z.ndim == 1:
        small = np.exp(-np.abs(z))
        likelier, other = 1 / (1 + small), small / (1 + small)
        return np.stack([np.where(z > 0, other, likelier), np.where(z > 0, likelier, other)], axis=1)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def _likeliest(z: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return classes[(z > 0).astype(np.intp) if z.ndim == 1 else z.argmax(axis=1)]


# -- counts -----------------------------------------------------------------------------------------------------------

class PoissonRegressor(GeneralizedLinear):
    """Counts with a mean of exp(w x + b), and a penalty on squares.

    minimise  sum_i s_i (exp(z_i) - y_i z_i) / sum_i s_i + alpha |w|^2 / 2,    z_i = w x_i + b

    Parameters
    ----------
    alpha : float, >= 0
    fit_intercept : bool
    solver : "auto", "newton-cholesky" or "lbfgs"
        "auto" is Newton up to 256 coefficients, L-BFGS beyond.
    tol : float
        Stop when no entry of the gradient is larger.
    max_iter : int

    Attributes
    ----------
    coef_ : ndarray, shape (d,), dtype of `X`
    intercept_ : float
    n_iter_ : int

    Notes
    -----
    Cost as of `LogisticRegression` with one value of z a row.
    """

    _kind = "regressor"
    _targets: ClassVar[dict[str, bool]] = {"required": True, "positive_only": True}
    _rules: ClassVar[dict[str, parameters.Rule]] = {
        "alpha": parameters.real(0), "fit_intercept": parameters.FLAG, "solver": parameters.one_of(*SOLVERS),
        "tol": parameters.real(0), "max_iter": parameters.whole(1)}

    def __init__(self, alpha: float = 1.0, fit_intercept: bool = True, solver: str = "auto", tol: float = 1e-6,
                 max_iter: int = 100) -> None:
        self.alpha, self.fit_intercept, self.solver = alpha, fit_intercept, solver
        self.tol, self.max_iter = tol, max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PoissonRegressor:  # noqa: N803
        """Fit to `X`, (n, d), and counts `y`, (n,), of 0 and above; `sample_weight`, (n,), are the s_i.

        Raises
        ------
        ValueError
            Negative `y`, or none above 0; shapes that do not fit one another; NaN or infinity.
        """
        self._check_params()
        x = inputs.fit_matrix(self, X)
        y = each(_counts, [inputs.targets(self, y, x)], [], width=None, dtype=x.dtype)
        x, y, w = inputs.resident(x, y, inputs.weights(sample_weight, x))
        f = Objective("poisson", x, y, w, intercept=bool(self.fit_intercept))
        f.penalty = float(self.alpha)
        mean = float(f.start.by_class[0]) / f.start.weight
        if not mean > 0:
            raise ValueError("y is 0 in every row that counts; at least one count must be above 0")
        theta = np.zeros(f.shape)
        theta[0, -1] = np.log(mean) if f.intercept else 0.0
        found = self._solved(f, theta, np.array([mean if f.intercept else 1.0]))
        made = found.theta.astype(x.dtype)
        self.coef_, self.intercept_, self.n_iter_ = made[:-1].copy(), made[-1], found.iterations
        return self

    def _mean(self, X: Any) -> Any:  # noqa: N803
        return nc.exp(affine(inputs.new_matrix(self, X), self.coef_, self.intercept_))

    def predict(self, X: Any) -> Any:  # noqa: N803
        """exp(w x + b): shape (n,), dtype of `X`."""
        return inputs.answer(X, self._mean(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """D^2, the share of the deviance that is explained; at most 1."""
        mu = self._mean(X)
        y = inputs.one_axis(nc.asarray(inputs.required(self, y)).astype(mu.dtype), mu)
        return metrics.d2_poisson(y, mu, inputs.weights(sample_weight, mu))


def _counts(y: np.ndarray) -> np.ndarray:
    if (y < 0).any():
        raise ValueError("Some values of y are negative, and a Poisson mean is above 0; shift or clip y, or use a linear model")
    return y
