"""What generalised linear models minimise, and the passes that evaluate it.

    f(theta) = sum_i s_i l(y_i, z_i) / S + penalty |w|^2 / 2,    z_i = w x_i + b,    S = sum_i s_i

theta = [w, b], shape (k, d + 1), is handed about as a vector. Without an intercept its last column stays 0.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.estimators import losses
from nums_core.array.estimators.passes import total


class Start(NamedTuple):
    """Weight S; mean of x (d,) and its variance, about 0 where there is no intercept (d,); weight of each class (k,), or
    weighted sum of y (1,)."""

    weight: float
    mean: np.ndarray
    variance: np.ndarray
    by_class: np.ndarray


class Objective:
    """f over the rows `x`, `y`, `w` (Arrays cut alike; `w` or None)."""

    def __init__(self, loss: str, x: Any, y: Any, w: Any, *, k: int = 1, intercept: bool = True) -> None:
        self.loss, self.x, self.y, self.w = loss, x, y, w
        self.k, self.d, self.intercept = k, x.shape[1], intercept
        self.shape = (1 if loss != "multinomial" else k, self.d + 1)
        self.penalty = 0.0

    @cached_property
    def start(self) -> Start:
        """One pass, 4 n d flop."""
        d, k = self.d, self.k
        weight, first, second, by_class = total(losses.start, [self.x, self.y, self.w], [], [(), (d,), (d,), (k,)],
                                                flop_per_row=4.0 * d, k=k)
        if not weight > 0:
            raise ValueError("sample_weight is zero for every row; at least one weight must not be zero")
        mean, square = first / weight, second / weight
        if not self.intercept:
            return Start(float(weight), np.zeros(d), square, by_class)
        rounding = np.finfo(float).eps * square
        return Start(float(weight), mean, np.maximum(square - mean**2, rounding), by_class)

    def gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """f and its gradient: one pass, 4 n d k flop, d k numbers a block moved."""
        value, grad = total(losses.gradient, [self.x, self.y, self.w], [theta.reshape(self.shape)], [(), self.shape],
                            flop_per_row=4.0 * theta.size, loss=self.loss)
        return self._value(value, theta), self._gradient(grad, theta)

    def hessian(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """f, its gradient and its Hessian over the free numbers: one pass, n (d k)^2 flop, (d k)^2 numbers a block moved."""
        m = theta.size
        value, grad, hess = total(losses.hessian, [self.x, self.y, self.w], [theta.reshape(self.shape)],
                                  [(), self.shape, (m, m)], flop_per_row=float(m * m), loss=self.loss)
        hess /= self.start.weight
        hess[np.diag_indices(m)] += self.penalty * self.penalised
        return self._value(value, theta), self._gradient(grad, theta), hess

    def along(self, theta: np.ndarray, step: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f at theta + t step and its slope in t, for every t of `sizes`: one pass."""
        values, slopes = total(losses.along, [self.x, self.y, self.w], [theta.reshape(self.shape), step.reshape(self.shape),
                               sizes], [sizes.shape, sizes.shape], flop_per_row=4.0 * theta.size, loss=self.loss)
        w, v = theta * self.penalised, step * self.penalised
        squares = w @ w + 2 * sizes * (w @ v) + sizes**2 * (v @ v)
        return (values / self.start.weight + self.penalty / 2 * squares,
                slopes / self.start.weight + self.penalty * (w @ v + sizes * (v @ v)))

    @cached_property
    def penalised(self) -> np.ndarray:
        """1 for coefficients, 0 for intercepts: vector like theta."""
        mask = np.ones(self.shape)
        mask[:, -1] = 0.0
        return mask.ravel()

    @cached_property
    def free(self) -> np.ndarray:
        """Which numbers of theta are to be found."""
        mask = np.ones(self.shape, bool)
        mask[:, -1] = self.intercept
        return mask.ravel()

    def _value(self, value: np.ndarray, theta: np.ndarray) -> float:
        w = theta * self.penalised
        return float(value) / self.start.weight + self.penalty / 2 * float(w @ w)

    def _gradient(self, grad: np.ndarray, theta: np.ndarray) -> np.ndarray:
        return (grad.ravel() / self.start.weight + self.penalty * self.penalised * theta) * self.free
