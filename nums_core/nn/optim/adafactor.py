"""Adafactor: second moments of matrices kept as one row and one column.

Source     N. Shazeer, M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018, Algorithms
           4 (matrices) and 5 (vectors), with the settings of Algorithm 6.
Notation   R, C  running means of g^2 over columns and over rows  |  U  update  |  d  clipping threshold  |  t  from 1
Departs    Means stand where the paper has sums: V = R C / mean(R) is the same number, and does not grow with the
           matrix. Arrays of more axes are stacks of matrices in their last two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nums_core.array.array import Array
from nums_core.nn.optim.optimiser import Moment, Optimiser, Scalar, Slots, in_range, scalar, slot_dtype, zeros_as
from nums_core.nn.optim.schedules import InverseSqrt, Schedule

USUAL_RATE = InverseSqrt(peak=1e-2, warmup_steps=10_000, ramp=False)  # min(0.01, 1/√t)


@dataclass(frozen=True, kw_only=True)
class Adafactor(Optimiser):
    """p <- p - max(eps_scale, RMS(p)) rate U / max(1, RMS(U) / clip), with U = g / √V.

    Parameters
    ----------
    rate : float or Schedule
        Relative to the size of the parameter, if `relative`. Default: min(0.01, 1/√t).
    relative : bool
        Multiply the rate with max(eps_scale, RMS(p)).
    clip : float
        Most that the root mean square of U may be.
    decay_power : float, 0 < decay_power
        V keeps 1 - t^-decay_power of itself at update t.
    eps_square, eps_scale : float
        The paper's epsilon 1 (added to g²) and epsilon 2 (least size of a parameter).
    """

    rate: float | Schedule = USUAL_RATE
    relative: bool = True
    clip: float = 1.0
    decay_power: float = 0.8
    eps_square: float = 1e-30
    eps_scale: float = 1e-3

    def __post_init__(self) -> None:
        in_range(self, rate=(0.0, math.inf), clip=(1e-6, math.inf), decay_power=(1e-6, math.inf),
                 eps_square=(0.0, 1.0), eps_scale=(0.0, math.inf))

    def slots(self, p: Array) -> Slots:
        if p.ndim < 2:
            return {"square": zeros_as(p)}
        *stack, rows, columns = p.chunks
        n_stack, n_rows, n_columns = p.shape[:-2], p.shape[-2], p.shape[-1]
        return {"row": zeros_as(p, (*n_stack, n_rows), (*stack, rows)),
                "column": zeros_as(p, (*n_stack, n_columns), (*stack, columns))}

    def rule(self, p: Array, g: Array, slots: Slots, at: Moment) -> tuple[Array, Slots]:
        stays = scalar(1 - (at.number * 1.0) ** -self.decay_power, p)  # beta2_t of section 7.2
        square = g * g + self.eps_square
        if p.ndim < 2:
            v = at.keep(stays * slots["square"] + (1 - stays) * square, slots["square"])
            return self._moved(p, g / np.sqrt(v), at), {"square": v}
        r = at.keep(stays * slots["row"] + (1 - stays) * square.mean(axis=-1), slots["row"])
        c = at.keep(stays * slots["column"] + (1 - stays) * square.mean(axis=-2), slots["column"])
        # 1/√V as a product of two thin arrays: V itself is never made.
        by_row = np.sqrt(r.mean(axis=-1, keepdims=True) / r)
        u = g * by_row[..., :, None] * (1 / np.sqrt(c))[..., None, :]
        return self._moved(p, u, at), {"row": r, "column": c}

    def _moved(self, p: Array, u: Array, at: Moment) -> Array:
        """Algorithm 4, lines 4 and 8-10."""
        rate = scalar(at.rate, p)
        if self.relative:
            rate = rate * np.maximum(rms(p.astype(slot_dtype(p))), self.eps_scale)
        return p - u * (rate / np.maximum(rms(u) / self.clip, 1.0))


def rms(x: Array) -> Scalar:
    """Root mean square of all elements."""
    return np.sqrt((x * x).mean())
