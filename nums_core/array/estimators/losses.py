"""Losses of generalised linear models: sums over a row block of loss, gradient and Hessian at once.

    z = theta [x, 1],  loss l(y, z) with derivatives r = dl/dz and H = d2l/dz2

    logistic      l = log(1 + e^z) - y z                y in {0, 1}
    poisson       l = e^z - y z                         y >= 0
    multinomial   l = log sum_c e^(z_c) - z_y           y a class number; k values of z a row

theta has a row of d + 1 numbers for each value of z, the intercept's last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nums_core.array.estimators.moments import nonnegative
from nums_core.array.estimators.passes import tiles

Derivatives = tuple[np.ndarray, np.ndarray, np.ndarray]  # loss (t,), r (t, k), H (t,) or (t, k, k)


def logistic(z: np.ndarray, y: np.ndarray) -> Derivatives:
    z = z[:, 0]
    small = np.exp(-np.abs(z))  # never overflows
    p = np.where(z >= 0, 1.0, small) / (1 + small)
    return np.log1p(small) + np.maximum(z, 0) - y * z, (p - y)[:, None], small / (1 + small) ** 2


def poisson(z: np.ndarray, y: np.ndarray) -> Derivatives:
    z = z[:, 0]
    mu = np.exp(z)
    return mu - y * z, (mu - y)[:, None], mu


def multinomial(z: np.ndarray, y: np.ndarray) -> Derivatives:
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z)
    norm = p.sum(axis=1, keepdims=True)
    p /= norm
    row, label = np.arange(len(z)), y.astype(np.intp)
    loss = np.log(norm[:, 0]) - z[row, label]
    r = p.copy()
    r[row, label] -= 1
    return loss, r, p


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], Derivatives]] = {
    "logistic": logistic, "poisson": poisson, "multinomial": multinomial}


# -- kernels of passes ------------------------------------------------------------------------------------------------

def start(x: np.ndarray, y: np.ndarray, w: Any, *, k: int) -> tuple[Any, ...]:
    """What is known before any coefficient: sum of weights; sums over rows of w x and w x^2; sum of w y, or for `k`
    classes the weight of each."""
    s = np.ones(len(x)) if w is None else nonnegative(w).astype(float)
    by_class = np.bincount(y.astype(np.intp), weights=s, minlength=k) if k > 1 else np.array([s @ y])
    first, second = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for rows in tiles(x, x.shape[1]):
        tile = x[rows].astype(float, copy=False)
        first += s[rows] @ tile
        second += s[rows] @ (tile * tile)
    return s.sum(), first, second, by_class


def gradient(x: np.ndarray, y: np.ndarray, w: Any, theta: np.ndarray, *, loss: str) -> tuple[Any, ...]:
    """Sums of the loss and of its gradient, shape (k, d + 1)."""
    value, grad = 0.0, np.zeros(theta.shape)
    for tile, (l, r, _), _ in _weighted(x, y, w, theta, loss):
        value += l
        grad[:, :-1] += r.T @ tile
        grad[:, -1] += r.sum(axis=0)
    return value, grad


def hessian(x: np.ndarray, y: np.ndarray, w: Any, theta: np.ndarray, *, loss: str) -> tuple[Any, ...]:
    """Sums of the loss, its gradient (k, d + 1) and its Hessian (k (d + 1), k (d + 1)), in one reading of `x`."""
    k, m = theta.shape
    value, grad, hess = 0.0, np.zeros((k, m)), np.zeros((k, m, k, m))
    for tile, (l, r, h), s in _weighted(x, y, w, theta, loss):
        one = np.empty((len(tile), m))
        one[:, :-1], one[:, -1] = tile, 1.0
        value += l
        grad += r.T @ one
        _add_hessian(hess, one, h, s)
    return value, grad, hess.reshape(k * m, k * m)


def _add_hessian(hess: np.ndarray, one: np.ndarray, h: np.ndarray, s: Any) -> None:
    """Add [x, 1]' H [x, 1]. Where H is a number it is split evenly, A'A: one triangle is multiplied, not two."""
    k = len(hess)
    if k == 1:
        one *= np.sqrt(h if s is None else h * s)[:, None]
        hess[0, :, 0, :] += one.T @ one
        return
    for a in range(k):  # h are the probabilities p: H_ab = p_a ([a = b] - p_b)
        for b in range(a, k):
            v = h[:, a] * ((1.0 if a == b else 0.0) - h[:, b])
            part = (one * (v if s is None else v * s)[:, None]).T @ one
            hess[a, :, b, :] += part
            if a != b:
                hess[b, :, a, :] += part.T


def along(x: np.ndarray, y: np.ndarray, w: Any, theta: np.ndarray, step: np.ndarray, sizes: np.ndarray, *,
          loss: str) -> tuple[Any, ...]:
    """Sums of the loss at theta + t step, and its slopes in t, for each t of `sizes`: one reading of `x` for all."""
    values, slopes = np.zeros(len(sizes)), np.zeros(len(sizes))
    for rows in tiles(x, x.shape[1]):
        tile, target = x[rows].astype(float, copy=False), y[rows].astype(float, copy=False)
        at, way = (tile @ c[:, :-1].T + c[:, -1] for c in (theta, step))
        s = None if w is None else w[rows].astype(float, copy=False)
        for i, t in enumerate(sizes):
            l, r, _ = LOSSES[loss](at + t * way, target)
            slope = np.einsum("ij,ij->i", r, way)
            values[i] += l.sum() if s is None else s @ l
            slopes[i] += slope.sum() if s is None else s @ slope
    return values, slopes


def _weighted(x: np.ndarray, y: np.ndarray, w: Any, theta: np.ndarray,
              loss: str) -> Iterator[tuple[np.ndarray, tuple[Any, np.ndarray, np.ndarray], Any]]:
    """Tiles of `x` in float64, with the weighted sum of the loss, weighted r, H as it is, and the weights."""
    for rows in tiles(x, theta.shape[1]):
        tile = x[rows].astype(float, copy=False)
        l, r, h = LOSSES[loss](tile @ theta[:, :-1].T + theta[:, -1], y[rows].astype(float, copy=False))
        s = None if w is None else w[rows].astype(float, copy=False)
        yield tile, ((l.sum(), r, h) if s is None else (s @ l, r * s[:, None], h)), s
