"""Least squares and its penalised kin: `LinearRegression`, `Ridge`, `ElasticNet`, `Lasso`.

All read the data once for the moments of [X, y] and solve a system of the size of the features. Where that system is too
near singular to trust, squares are undone: the factor R of a tall-skinny QR takes the place of X'X.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import nums_core.array as nc
from nums_core.array.estimators import inputs, metrics, parameters
from nums_core.array.estimators.base import ConvergenceWarning, Estimator, warn
from nums_core.array.estimators.descent import coordinate_descent
from nums_core.array.estimators.moments import Moments, moments
from nums_core.array.estimators.passes import each
from nums_core.array.estimators.solving import cholesky_solve, nonnegative_solve

RCOND = 1e-9  # of X'X scaled to a unit diagonal: below it, fewer than seven digits of the coefficients would be right


def affine(x: Any, coef: np.ndarray, intercept: Any) -> Any:
    """x coef' + intercept, row block by row block: Array (n,), or (n, k) for coef (k, d); in the dtype of `x`.

    Raises (while computing) a ValueError for NaN or infinity in `x`, seen in the result."""
    coef = np.asarray(coef)
    width = None if coef.ndim == 1 else len(coef)
    return each(_affine, [x], [coef.astype(x.dtype), np.asarray(intercept, x.dtype)], width=width, dtype=x.dtype,
                flop_per_row=2.0 * coef.size)


def _affine(x: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    return x @ coef.T + intercept


class LinearModel(Estimator):
    """A regressor that predicts x w + b."""

    _kind = "regressor"
    _targets: ClassVar[dict[str, bool]] = {"required": True}
    coef_: np.ndarray
    intercept_: Any
    fit_intercept: bool

    def predict(self, X: Any) -> Any:  # noqa: N803
        """x w + b: shape (n,), or (n, k) for k targets; lazy where `X` is."""
        x = inputs.new_matrix(self, X)
        return inputs.answer(X, affine(x, self.coef_, self.intercept_))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """R^2 of the predictions, at most 1; the mean over targets where there are several."""
        x = inputs.new_matrix(self, X)
        y = inputs.targets(self, y, x)
        return metrics.r2(y, affine(x, self.coef_, self.intercept_), inputs.weights(sample_weight, x))

    def _moments(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any, Moments]:  # noqa: N803
        self._check_params()
        x = inputs.fit_matrix(self, X)
        y, w = inputs.targets(self, y, x), inputs.weights(sample_weight, x)
        return x, y, w, moments(x, y, w, centered=bool(self.fit_intercept))

    def _keep(self, coef: np.ndarray, found: Moments, y: Any, dtype: Any) -> Any:
        """Set the attributes from coefficients (d, k)."""
        mean_x, mean_y = np.split(found.mean, [len(coef)])
        intercept = mean_y - mean_x @ coef if self.fit_intercept else np.zeros(coef.shape[1])
        several = y.ndim == 2
        self.coef_ = (coef.T if several else coef[:, 0]).astype(dtype)
        self.intercept_ = (intercept.astype(dtype) if several else dtype.type(intercept[0])) if self.fit_intercept else 0.0
        return self


# -- squares ----------------------------------------------------------------------------------------------------------

class LinearRegression(LinearModel):
    """Ordinary least squares.

    minimise  sum_i s_i (y_i - x_i w - b)^2

    Parameters
    ----------
    fit_intercept : bool
    positive : bool
        Only coefficients of 0 and above.

    Attributes
    ----------
    coef_ : ndarray, shape (d,), or (k, d) for `y` of shape (n, k); dtype of `X`
    intercept_ : float, or ndarray (k,)

    Notes
    -----
    One pass, n (d + k)^2 flop, (d + k)^2 numbers a block moved; then Cholesky, d^3 / 3 flop. Where the scaled X'X has a
    reciprocal condition below 1e-9 (a rank below d included), the coefficients of least norm come from a tall-skinny QR of
    the centred data with an SVD of R, two more passes and 2 n d^2 flop.
    """

    _rules: ClassVar[dict[str, parameters.Rule]] = {"fit_intercept": parameters.FLAG, "positive": parameters.FLAG}
    _targets: ClassVar[dict[str, bool]] = {"required": True, "multi_output": True}
    _alpha: float = 0.0

    def __init__(self, fit_intercept: bool = True, positive: bool = False) -> None:
        self.fit_intercept, self.positive = fit_intercept, positive

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
        """Fit to `X`, (n, d), and `y`, (n,) or (n, k); `sample_weight`, (n,), are the s_i.

        Raises
        ------
        ValueError
            Shapes that do not fit one another; NaN or infinity; weights that are negative or all zero.
        """
        x, y, w, found = self._moments(X, y, sample_weight)
        d, alpha = x.shape[1], self._penalty()
        g, c = found.scatter[:d, :d] + alpha * np.eye(d), found.scatter[:d, d:]
        if self.positive:
            coef: np.ndarray | None = np.stack([nonnegative_solve(g, column) for column in c.T], axis=1)
        else:
            coef = cholesky_solve(g, c, RCOND)
        return self._keep(_by_qr(x, y, w, found, alpha) if coef is None else coef, found, y, x.dtype)

    def _penalty(self) -> float:
        return 0.0


class Ridge(LinearRegression):
    """Least squares with a penalty on the squares of the coefficients.

    minimise  sum_i s_i (y_i - x_i w - b)^2 + alpha |w|^2

    Parameters
    ----------
    alpha : float, >= 0
        The intercept is not penalised.
    fit_intercept, positive : bool
        As in `LinearRegression`.

    Attributes
    ----------
    coef_, intercept_ : as in `LinearRegression`

    Notes
    -----
    Costs those of `LinearRegression`; sqrt(alpha) I stands under X where the QR is needed.
    """

    _rules: ClassVar[dict[str, parameters.Rule]] = LinearRegression._rules | {"alpha": parameters.real(0)}

    def __init__(self, alpha: float = 1.0, fit_intercept: bool = True, positive: bool = False) -> None:
        self.alpha, self.fit_intercept, self.positive = alpha, fit_intercept, positive

    def _penalty(self) -> float:
        return float(self.alpha)


def _by_qr(x: Any, y: Any, w: Any, found: Moments, alpha: float) -> np.ndarray:
    """Coefficients (d, k) of least norm, from the centred data themselves."""
    d = x.shape[1]
    a = x.astype(float) - found.mean[:d]
    b = y.astype(float).reshape(x.shape[0], -1) - found.mean[d:]
    if w is not None:
        root = nc.sqrt(w.astype(float))[:, None]
        a, b = a * root, b * root
    if alpha > 0:
        a = nc.concatenate([a, np.sqrt(alpha) * nc.eye(d)], axis=0)
        b = nc.concatenate([b, nc.zeros((d, b.shape[1]))], axis=0)
    return nc.linalg.lstsq(a, b)[0].compute()


# -- absolute values --------------------------------------------------------------------------------------------------

class ElasticNet(LinearModel):
    """Least squares with a penalty on absolute values and squares of the coefficients.

    minimise  sum_i s_i (y_i - x_i w - b)^2 / (2 sum_i s_i) + alpha l1_ratio |w|_1 + alpha (1 - l1_ratio) |w|^2 / 2

    Parameters
    ----------
    alpha : float, >= 0
    l1_ratio : float in [0, 1]
    fit_intercept, positive : bool
        As in `LinearRegression`.
    max_iter : int
        Sweeps over the coordinates at most.
    tol : float
        Stop when the duality gap is at most `tol` times the variance of `y`.

    Attributes
    ----------
    coef_ : ndarray, shape (d,), dtype of `X`
    intercept_ : float
    dual_gap_ : float
        The objective is no further than this from its least.
    n_iter_ : int, sweeps

    Notes
    -----
    One pass, n (d + 1)^2 flop; sweeps of at most d^2 flop each on the Gram matrix, which the data are not read for.

    References
    ----------
    .. [1] Friedman, Hastie, Tibshirani, "Regularization paths for generalized linear models via coordinate descent", J. Stat.
       Softw. 33(1), 2010, section 2.2.
    """

    _rules: ClassVar[dict[str, parameters.Rule]] = {
        "alpha": parameters.real(0), "l1_ratio": parameters.real(0, 1), "fit_intercept": parameters.FLAG,
        "positive": parameters.FLAG, "max_iter": parameters.whole(1), "tol": parameters.real(0)}

    def __init__(self, alpha: float = 1.0, l1_ratio: float = 0.5, fit_intercept: bool = True, positive: bool = False,
                 max_iter: int = 1000, tol: float = 1e-4) -> None:
        self.alpha, self.l1_ratio, self.fit_intercept, self.positive = alpha, l1_ratio, fit_intercept, positive
        self.max_iter, self.tol = max_iter, tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
        """Fit to `X`, (n, d), and `y`, (n,); `sample_weight`, (n,), are the s_i.

        Raises
        ------
        ValueError
            Shapes that do not fit one another; NaN or infinity; weights that are negative or all zero.
        """
        x, y, _, found = self._moments(X, y, sample_weight)
        d, ratio = x.shape[1], self._ratio()
        s = found.scatter / found.weight
        made = coordinate_descent(s[:d, :d], s[:d, d], float(s[d, d]), self.alpha * ratio, self.alpha * (1 - ratio),
                                  positive=self.positive, tol=self.tol, max_iter=self.max_iter)
        self.n_iter_, self.dual_gap_ = made.sweeps, made.gap
        if not made.converged:
            warn(ConvergenceWarning, f"the duality gap is {made.gap:.3g} after {made.sweeps} sweeps, above tol times the "
                                     f"variance of y, {self.tol * s[d, d]:.3g}; raise max_iter, alpha or tol")
        return self._keep(made.w[:, None], found, y, x.dtype)

    def _ratio(self) -> float:
        return float(self.l1_ratio)


class Lasso(ElasticNet):
    """Least squares with a penalty on the absolute values of the coefficients: many become 0.

    minimise  sum_i s_i (y_i - x_i w - b)^2 / (2 sum_i s_i) + alpha |w|_1

    Parameters, attributes, cost and source as of `ElasticNet`, whose `l1_ratio` is 1 here.
    """

    _rules: ClassVar[dict[str, parameters.Rule]] = {k: r for k, r in ElasticNet._rules.items() if k != "l1_ratio"}

    def __init__(self, alpha: float = 1.0, fit_intercept: bool = True, positive: bool = False, max_iter: int = 1000,
                 tol: float = 1e-4) -> None:
        self.alpha, self.fit_intercept, self.positive = alpha, fit_intercept, positive
        self.max_iter, self.tol = max_iter, tol

    def _ratio(self) -> float:
        return 1.0
