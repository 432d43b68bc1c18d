"""L-BFGS: loss and gradient in one pass an iteration, the rest on vectors of the size of theta.

Source     Nocedal, Wright, "Numerical Optimization", 2nd ed. 2006: algorithm 7.4 the two-loop recursion, 7.5; (7.20) the
           scaling; (3.6b) the curvature condition
Departs    (1) variables are centred and scaled by the Hessian's diagonal at the start, so that features of unlike size or
           far from 0 cost no iterations; with an intercept, w (x - m) + b' is the same model as w x + b. (2) Where the
           full step does not do, many sizes are tried in one pass (`search`)
"""

from __future__ import annotations

from collections import deque

import numpy as np

from nums_core.array.estimators.newton import Solution
from nums_core.array.estimators.objective import Objective
from nums_core.array.estimators.search import best_size, decreases

CURVATURE = 0.9  # (3.6b)
PAIRS = 10


class Scaled:
    """Variables u with theta = T u: w = u_w / a, b = u_b / a_b - w m."""

    def __init__(self, f: Objective, curvature: np.ndarray) -> None:
        """`curvature`: d2l/dz2 at the start for each row of theta, shape (k,)."""
        start, (k, m) = f.start, f.shape
        scale = np.empty((k, m))
        scale[:, :-1] = np.sqrt(np.outer(curvature, start.variance) + f.penalty)
        scale[:, -1] = np.sqrt(curvature)
        self.scale = np.where(scale > 0, scale, 1.0)
        self.mean = start.mean

    def theta(self, u: np.ndarray) -> np.ndarray:
        w = u.reshape(self.scale.shape) / self.scale
        w[:, -1] -= w[:, :-1] @ self.mean
        return w.ravel()

    def variables(self, theta: np.ndarray) -> np.ndarray:
        w = theta.reshape(self.scale.shape).copy()
        w[:, -1] += w[:, :-1] @ self.mean
        return (w * self.scale).ravel()

    def gradient(self, grad: np.ndarray) -> np.ndarray:
        g = grad.reshape(self.scale.shape).copy()
        g[:, :-1] -= np.outer(g[:, -1], self.mean)
        return (g / self.scale).ravel()


def lbfgs(f: Objective, theta: np.ndarray, curvature: np.ndarray, *, tol: float, max_iter: int) -> Solution:
    """Minimise `f` from `theta` until no entry of the gradient is larger than `tol`. One pass an iteration."""
    scaled = Scaled(f, curvature)
    u = scaled.variables(theta)
    value, grad = f.gradient(theta)
    g, pairs = scaled.gradient(grad), deque[tuple[np.ndarray, np.ndarray]](maxlen=PAIRS)
    for iteration in range(max_iter):
        steep = float(np.abs(grad).max())
        if steep <= tol:
            return Solution(theta, max(iteration, 1), steep, True)
        way = -_two_loops(g, pairs)
        found = _searched(f, scaled, u, way, value, g)
        if found is None:
            return Solution(theta, iteration + 1, steep, steep <= np.sqrt(tol))
        u_new, theta, value_new, grad = found
        g_new = scaled.gradient(grad)
        if (u_new - u) @ (g_new - g) > 0:
            pairs.append((u_new - u, g_new - g))
        stands = value - value_new <= 4 * np.finfo(float).eps * abs(value) and len(pairs) > 1
        u, value, g = u_new, value_new, g_new
        if stands:  # two values that rounding cannot tell apart
            steep = float(np.abs(grad).max())
            return Solution(theta, iteration + 1, steep, steep <= max(tol, np.sqrt(np.finfo(float).eps)))
    steep = float(np.abs(grad).max())
    return Solution(theta, max_iter, steep, steep <= tol)


def _searched(f: Objective, scaled: Scaled, u: np.ndarray, way: np.ndarray, value: float,
              g: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray] | None:
    """The next u, theta, value and gradient along `way`; None where the function does not fall."""
    slope = float(g @ way)
    t = 1.0
    theta = scaled.theta(u + way)
    found = f.gradient(theta)
    if not (decreases(found[0], value, slope) and abs(scaled.gradient(found[1]) @ way) <= CURVATURE * abs(slope)):
        base = scaled.theta(u)
        t = best_size(lambda sizes: f.along(base, scaled.theta(u + way) - base, sizes), value, slope)
        if t == 0.0:
            return None
        theta = scaled.theta(u + t * way)
        found = f.gradient(theta)
        if not found[0] <= value:
            return None
    return u + t * way, theta, *found


def _two_loops(g: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Algorithm 7.4: the inverse Hessian that `pairs` tell of, times `g`."""
    q, kept = g.copy(), []
    for s, y in reversed(pairs):
        alpha = (s @ q) / (s @ y)
        q -= alpha * y
        kept.append(alpha)
    if pairs:
        s, y = pairs[-1]
        q *= (s @ y) / (y @ y)  # (7.20)
    for (s, y), alpha in zip(pairs, reversed(kept), strict=True):
        q += s * (alpha - (y @ q) / (s @ y))
    return q
