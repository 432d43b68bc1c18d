"""Coordinate descent for the elastic net on the Gram matrix alone.

    minimise  w'Gw / 2 - c'w + q / 2 + l1 |w|_1 + l2 |w|^2 / 2

Source     Friedman, Hastie, Tibshirani, "Regularization paths for generalized linear models via coordinate descent", J.
           Stat. Softw. 33(1), 2010: section 2.1 (5) the update, 2.2 covariance updates, 2.6 active sets; the gap: Kim et al.,
           "An interior-point method for large-scale l1-regularized least squares", IEEE J-STSP 1(4), 2007: section III
Notation   G = X'X / n, c = X'y / n, q = y'y / n of centred data  |  r = c - Gw, the correlation of features and residual
Departs    r is kept whole, so that an update is one axpy of p numbers; data are not read again
Checked    against scikit-learn in tests/array/estimators
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SWEEPS_BETWEEN = 10  # sweeps over the active set before all coordinates are looked at again


class Descent(NamedTuple):
    """`w`, shape (p,); `gap`, an upper bound of how far the objective is from its least; sweeps; whether gap <= tol q."""

    w: np.ndarray
    gap: float
    sweeps: int
    converged: bool


def coordinate_descent(g: np.ndarray, c: np.ndarray, q: float, l1: float, l2: float, *, positive: bool = False,
                       tol: float = 1e-4, max_iter: int = 1000) -> Descent:
    """Sweep until the duality gap is at most `tol` times `q`, or `max_iter` times. A sweep is p^2 flop at most."""
    w, r = np.zeros(len(c)), c.copy()
    sweeps, gap = 0, np.inf
    everything = np.flatnonzero(np.diag(g) > 0)
    while sweeps < max_iter:
        _sweep(g, w, r, l1, l2, positive, everything)
        sweeps += 1
        gap = duality_gap(w, c - g @ w, c, q, l1, l2, positive)
        if gap <= tol * q:
            return Descent(w, gap, sweeps, True)
        active = np.flatnonzero(w)
        for _ in range(min(SWEEPS_BETWEEN, max_iter - sweeps)):
            sweeps += 1
            if _sweep(g, w, r, l1, l2, positive, active) <= tol * 1e-3:
                break
        r = c - g @ w  # without what rounding has added up
    return Descent(w, gap, sweeps, False)


def _sweep(g: np.ndarray, w: np.ndarray, r: np.ndarray, l1: float, l2: float, positive: bool, which: np.ndarray) -> float:
    """Update the coordinates `which` in turn, in place; returns the largest change beside the largest coefficient."""
    diagonal = np.diag(g)
    change = 0.0
    for j in which.tolist():
        old = w[j]
        z = r[j] + diagonal[j] * old
        size = (z if positive else abs(z)) - l1
        new = 0.0 if size <= 0 else np.copysign(size, z) / (diagonal[j] + l2)  # (5): soft thresholding
        if new != old:
            r -= (new - old) * g[:, j]
            w[j] = new
            change = max(change, abs(new - old))
    return change / max(float(np.abs(w).max(initial=0.0)), np.finfo(float).tiny)


def duality_gap(w: np.ndarray, r: np.ndarray, c: np.ndarray, q: float, l1: float, l2: float, positive: bool) -> float:
    """Objective at `w` less the dual at the residual, scaled until it is feasible.

    With residual e = y - Xw: |e|^2 / n = q - w'(c + r), e'y / n = q - w'c, X'e / n = r."""
    e2, ey = q - w @ (c + r), q - w @ c
    slope = r - l2 * w
    steep = float(slope.max() if positive else np.abs(slope).max())
    s = min(1.0, l1 / steep) if steep > 0 else 1.0
    return float(e2 * (1 + s * s) / 2 + l1 * np.abs(w).sum() - s * ey + l2 * (1 + s * s) / 2 * (w @ w))
