"""Stochastic gradient descent, with momentum.

Source     I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013,
           equations (1)-(4), in the form with the rate outside: b <- mu b + g;  p <- p - rate (g + mu b  or  b).
"""

from __future__ import annotations

from dataclasses import dataclass

from nums_core.array.array import Array
from nums_core.errors import ConfigError
from nums_core.nn.optim.optimiser import Moment, Optimiser, Slots, in_range, scalar, zeros_as


@dataclass(frozen=True, kw_only=True)
class SGD(Optimiser):
    """p <- p - rate (b), with b <- momentum b + g + decay p.

    Parameters
    ----------
    momentum : float, 0 <= momentum < 1
        0 keeps no state.
    nesterov : bool
        Use g + momentum b in place of b: the gradient as if taken one step ahead.
    decay : float
        L2 penalty, added to the gradient.
    """

    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0

    def __post_init__(self) -> None:
        in_range(self, rate=(0.0, float("inf")), momentum=(0.0, 1.0), decay=(0.0, float("inf")))
        if self.nesterov and not self.momentum:
            raise ConfigError("SGD(nesterov=True) looks ahead along the momentum, which is 0; give momentum=0.9, say")

    def slots(self, p: Array) -> Slots:
        return {"momentum": zeros_as(p)} if self.momentum else {}

    def rule(self, p: Array, g: Array, slots: Slots, at: Moment) -> tuple[Array, Slots]:
        if self.decay:
            g = g + self.decay * p
        rate = scalar(at.rate, p)
        if not self.momentum:
            return p - rate * g, {}
        b = at.keep(self.momentum * slots["momentum"] + g, slots["momentum"])
        direction = g + self.momentum * b if self.nesterov else b
        return p - rate * direction, {"momentum": b}
