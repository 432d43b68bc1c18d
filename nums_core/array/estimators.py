"""Estimators with scikit-learn's API on distributed arrays.

Logistic regression by Newton's method, NumS' own first application (Elibol et al., arXiv 2206.14276). Each step is one
plan, made once and replayed.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

import nums_core.array as nc
from nums_core.errors import ShapeError


class Estimator:
    """Parameters by name, as scikit-learn's `BaseEstimator` has them: the constructor's arguments are attributes."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        names = [p for p in inspect.signature(type(self).__init__).parameters if p != "self"]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Any:
        valid = self.get_params()
        for name, value in params.items():
            if name not in valid:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(valid)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"


class NotFittedError(ValueError, AttributeError):
    """`predict` before `fit`."""


@nc.jit
def _loss(x: Any, y: Any, beta: Any, ridge: Any, c: float) -> Any:
    z = x @ beta
    return c * (np.logaddexp(0, z) - y * z).sum() + (ridge * beta * beta).sum() / 2


@nc.jit
def _direction(x: Any, y: Any, beta: Any, ridge: Any, c: float) -> Any:
    """Newton's step and the gradient's largest entry."""
    mu = 1 / (1 + np.exp(-(x @ beta)))
    gradient = c * (x.T @ (mu - y)) + ridge * beta
    hessian = c * (x.T @ ((mu * (1 - mu))[:, None] * x)) + nc.diag(ridge)
    return nc.linalg.solve(hessian, gradient), abs(gradient).max()


class LogisticRegression(Estimator):
    """Two-class logistic regression, ridge-penalised as scikit-learn's.

    minimise  C * sum_i log(1 + exp(-s_i (x_i w + b)))  +  |w|^2 / 2,    s_i = +-1

    Parameters
    ----------
    C : float
        Inverse strength of the penalty; `numpy.inf` for none. The intercept is not penalised.
    fit_intercept : bool
    tol : float
        Stop when no coefficient changes by more than this (relative to the largest one, at least 1).
    max_iter : int

    Attributes
    ----------
    coef_ : ndarray, shape (1, n_features), float64
    intercept_ : ndarray, shape (1,)
    classes_ : ndarray, shape (2,)
    n_iter_ : ndarray, shape (1,)

    Notes
    -----
    2 n d^2 flop an iteration; d^2 elements move between workers. Steps are halved while the loss does not fall.
    """

    def __init__(self, C: float = 1.0, fit_intercept: bool = True, tol: float = 1e-8, max_iter: int = 100) -> None:  # noqa: N803
        self.C, self.fit_intercept, self.tol, self.max_iter = C, fit_intercept, tol, max_iter

    def fit(self, X: Any, y: Any) -> LogisticRegression:  # noqa: N803
        """Fit to `X`, shape (n, d), and labels `y`, shape (n,), of two values.

        Raises
        ------
        ShapeError
            `X` is not a matrix, or `y` has another length.
        ValueError
            Not exactly two classes; NaN or infinity in `X`.
        """
        x, labels = _matrix(X), nc.asarray(y)
        if labels.shape != x.shape[:1]:
            raise ShapeError(f"X has {x.shape[0]} rows and y shape {labels.shape}; y needs one label a row: y.ravel()?")
        self.classes_ = np.asarray(nc.unique(labels).compute())
        if len(self.classes_) != 2:
            raise ValueError(f"y holds {len(self.classes_)} classes; this estimator needs exactly 2: map the labels to "
                             "two values first, as in y > threshold")
        if not bool(nc.isfinite(x).all()):
            raise ValueError("X contains NaN or infinity; clean it first, as in X[~np.isnan(X).any(axis=1)]")
        x, target = _prepared(x, (labels == self.classes_[1]).astype(float), self.fit_intercept)
        beta = self._newton(x, target)
        values = np.asarray(beta.compute())
        d = X.shape[1]
        self.n_features_in_ = d
        self.coef_, self.intercept_ = values[None, :d], values[d:] if self.fit_intercept else np.zeros(1)
        return self

    def _newton(self, x: Any, y: Any) -> Any:
        d = x.shape[1]
        penalty, c = (1.0, float(self.C)) if np.isfinite(self.C) else (0.0, 1.0)
        weights = np.full(d, penalty)
        if self.fit_intercept:
            weights[-1] = 0.0
        ridge, beta = nc.asarray(weights).persist(), nc.zeros(d).persist()
        loss = float(_loss(x, y, beta, ridge, c))
        iteration = 0
        while iteration < self.max_iter:
            iteration += 1
            step, _ = _direction(x, y, beta, ridge, c)
            beta, loss, change = _search(x, y, beta, step, ridge, c, loss)
            if change <= self.tol:
                break
        self.n_iter_ = np.array([iteration])
        return beta

    def _linear(self, X: Any) -> Any:  # noqa: N803
        if not hasattr(self, "coef_"):
            raise NotFittedError("this LogisticRegression is not fitted yet; call fit(X, y) first")
        x = _matrix(X)
        if x.shape[1] != self.n_features_in_:
            raise ShapeError(f"X has {x.shape[1]} features, but fit() saw {self.n_features_in_}; give the same columns")
        return x @ self.coef_[0] + self.intercept_[0]

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        """Signed distance to the border, shape (n,)."""
        return self._linear(X)

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Probabilities of both classes: Array, shape (n, 2)."""
        p = 1 / (1 + np.exp(-self._linear(X)))
        return nc.stack([1 - p, p], axis=1)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The likelier class of each row: Array, shape (n,)."""
        return nc.where(self._linear(X) > 0, self.classes_[1], self.classes_[0])

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Share of rows whose class is right."""
        return float((self.predict(X) == nc.asarray(y)).mean())


def _matrix(X: Any) -> Any:  # noqa: N803
    x = nc.asarray(X)
    if x.ndim != 2:
        raise ShapeError(f"X has shape {x.shape}; it needs two axes, (rows, features): X.reshape(-1, 1) for one feature")
    return x if x.dtype.kind == "f" else x.astype(float)


def _prepared(x: Any, y: Any, intercept: bool) -> Any:
    """Rows in whole blocks with the intercept's column, and the labels cut alike; both kept."""
    if intercept:
        x = nc.concatenate([x, nc.ones((x.shape[0], 1), dtype=x.dtype)], axis=1)
    x = x.rechunk({1: -1})
    return nc.persist(x, y.rechunk((x.chunks[0],)))


def _search(x: Any, y: Any, beta: Any, step: Any, ridge: Any, c: float, loss: float) -> tuple[Any, float, float]:
    """Go along `step`, halved while the loss rises; returns the new point, its loss and the relative change."""
    scale = 1.0
    for _ in range(30):
        trial = (beta - scale * step).persist()
        value = float(_loss(x, y, trial, ridge, c))
        if value <= loss + 1e-12 * abs(loss):
            break
        scale /= 2
    change = float(abs(scale * step).max()) / max(1.0, float(abs(trial).max()))
    return trial, value, change
