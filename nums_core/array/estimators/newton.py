"""Newton's method with a line search: each iteration is one pass over the data.

The gradient and Hessian at the full step are computed at once, since the full step is nearly always taken; they serve the
next iteration. Only where the function does not fall are other step sizes tried, in one more pass.

Source     Nocedal, Wright, "Numerical Optimization", 2nd ed. 2006: algorithm 3.2
Departs    where the Hessian is not safely definite the step of least norm is taken; in the multinomial model the k rows of
           theta may all move by the same vector at no change of z, so that direction is made stiff: it holds no gradient
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nums_core.array.estimators.objective import Objective
from nums_core.array.estimators.search import best_size, decreases
from nums_core.array.estimators.solving import cholesky_solve, least_norm_solve

RCOND = 1e-12


class Solution(NamedTuple):
    """`theta`; iterations; the largest entry of the gradient there; whether that is within the tolerance, or as small as
    rounding lets it be."""

    theta: np.ndarray
    iterations: int
    steepness: float
    converged: bool


def newton(f: Objective, theta: np.ndarray, *, tol: float, max_iter: int) -> Solution:
    """Minimise `f` from `theta` until no entry of the gradient is larger than `tol`."""
    value, grad, hess = f.hessian(theta)
    for iteration in range(max_iter):
        steep = float(np.abs(grad).max())
        if steep <= tol:
            return Solution(theta, max(iteration, 1), steep, True)
        step = _step(f, grad, hess)
        slope = float(grad @ step)
        if -slope <= np.finfo(float).eps * abs(value):  # the decrease is lost in rounding: this is the last step
            return Solution(theta + step, iteration + 1, steep, True)
        after = f.hessian(theta + step)
        if not decreases(after[0], value, slope):
            t = best_size(lambda sizes: f.along(theta, step, sizes), value, slope)  # noqa: B023
            if t == 0.0:
                return Solution(theta, iteration + 1, steep, steep <= np.sqrt(tol))
            step = t * step
            after = f.hessian(theta + step)
        theta, (value, grad, hess) = theta + step, after
    steep = float(np.abs(grad).max())
    return Solution(theta, max_iter, steep, steep <= tol)


def _step(f: Objective, grad: np.ndarray, hess: np.ndarray) -> np.ndarray:
    free = f.free
    k, m = f.shape
    if k > 1:
        same = np.kron(np.ones((k, k)), np.eye(m)) * np.diag(hess).mean()
        hess = hess + same
    h, g = hess[np.ix_(free, free)], grad[free]
    found = cholesky_solve(h, g, RCOND)
    step = np.zeros(len(grad))
    step[free] = -(least_norm_solve(h, g) if found is None else found)
    return step
