"""Adam, and Adam with decoupled weight decay.

Source     D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1.
           I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, Algorithm 2, line 12; the decay
           is multiplied by the rate, as most libraries have it.
Notation   m, v  running means of g and g^2  |  t  number of the update, from 1
Departs    The corrections 1 - beta^t are -expm1(t log beta) in float64: 1 - 0.999^t loses four digits in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.nn.optim.optimiser import Moment, Optimiser, Scalar, Slots, in_range, scalar, zeros_as


@dataclass(frozen=True, kw_only=True)
class Adam(Optimiser):
    """p <- p - rate m̂ / (√v̂ + eps), with m̂ and v̂ the bias-corrected running means of g and g².

    Parameters
    ----------
    beta1, beta2 : float, 0 <= beta < 1
        How much of the running means of g and of g² stays at each update.
    eps : float
        Added to the root, outside of it.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        in_range(self, rate=(0.0, math.inf), beta1=(0.0, 1.0), beta2=(0.0, 1.0), eps=(0.0, math.inf))

    def slots(self, p: Array) -> Slots:
        return {"mean": zeros_as(p), "square": zeros_as(p)}

    def rule(self, p: Array, g: Array, slots: Slots, at: Moment) -> tuple[Array, Slots]:
        m = at.keep(self.beta1 * slots["mean"] + (1 - self.beta1) * g, slots["mean"])
        v = at.keep(self.beta2 * slots["square"] + (1 - self.beta2) * (g * g), slots["square"])
        along = scalar(at.rate / remaining(self.beta1, at.number), p)
        spread = scalar(remaining(self.beta2, at.number) ** -0.5, p)
        return p - along * m / (np.sqrt(v) * spread + self.eps), {"mean": m, "square": v}


def remaining(beta: float, t: Scalar) -> Scalar:
    """1 - beta^t."""
    return -np.expm1(t * math.log(beta)) if beta else 1.0


def everything(path: str, p: Any) -> bool:
    """Decay all parameters, as the paper does."""
    return True


def matrices(path: str, p: Any) -> bool:
    """Decay parameters of two axes and more: weights, but neither biases nor norms' gains."""
    return p.ndim >= 2


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam, with p <- (1 - rate decay) p first.

    Parameters
    ----------
    decay : float
    decays : function of (path, parameter) to bool
        Which parameters decay: `everything`, `matrices`, or your own.
    """

    decay: float = 0.01
    decays: Callable[[str, Any], bool] = everything

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(self, decay=(0.0, math.inf))

    def rule(self, p: Array, g: Array, slots: Slots, at: Moment) -> tuple[Array, Slots]:
        if self.decay and self.decays(at.path, p):
            p = p * scalar(1 - at.rate * self.decay, p)
        return super().rule(p, g, slots, at)
