"""Mixed precision: compute in float16 on float32 master weights, with a loss scale that finds itself.

Source     P. Micikevicius et al., "Mixed precision training", ICLR 2018, sections 3.1 (master weights) and 3.2 (loss
           scaling, with the automatic choice described there: halve on overflow, double after many good steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array, asarray
from nums_core.array.elementwise import where
from nums_core.errors import ConfigError, DTypeError
from nums_core.nn import tree
from nums_core.nn.optim.optimiser import trainable


class ScaleState(NamedTuple):
    """The scale in force (float32), and how many steps in a row it did not overflow (int32); Arrays of shape ()."""

    scale: Array
    good_steps: Array


@dataclass(frozen=True)
class LossScale:
    """A dynamic loss scale: times `grow` after `patience` good steps in a row, times `shrink` on every overflow.

    Parameters
    ----------
    initial : float
    grow, shrink : float
        Powers of two keep scaling and unscaling free of rounding.
    patience : int, steps
    least, most : float
        Bounds of the scale.
    """

    initial: float = 2.0**15
    grow: float = 2.0
    shrink: float = 0.5
    patience: int = 2000
    least: float = 1.0
    most: float = 2.0**24

    def __post_init__(self) -> None:
        if not (self.grow >= 1 > self.shrink > 0 and self.patience >= 1 and self.least <= self.initial <= self.most):
            raise ConfigError(f"{self} cannot work; give grow >= 1 > shrink > 0, patience >= 1 and least <= initial <= "
                              "most")

    def init(self) -> ScaleState:
        return ScaleState(asarray(np.float32(self.initial)), asarray(np.int32(0)))

    def update(self, state: ScaleState, finite: Array) -> ScaleState:
        """The state after a step whose gradients were all finite, or not."""
        good = where(finite, state.good_steps + 1, 0)
        full = good >= self.patience
        grown = np.minimum(state.scale * where(full, np.float32(self.grow), np.float32(1)), np.float32(self.most))
        shrunk = np.maximum(state.scale * np.float32(self.shrink), np.float32(self.least))
        return ScaleState(where(finite, grown, shrunk), where(full, 0, good).astype(np.int32))


@dataclass(frozen=True)
class Precision:
    """In which dtype a training step computes; master weights and the optimiser's state keep theirs.

    Parameters
    ----------
    compute : "float32", "float16" or "float64"
        Parameters are cast to it before the loss is computed; their gradients come back in the master's dtype.
    loss_scale : LossScale or None
        Needed with float16, whose small gradients would vanish: taken by default there.

    Raises
    ------
    DTypeError
        bfloat16, or something that is no floating dtype.

    Notes
    -----
    Processors without half-precision units multiply float16 matrices slowly: here float16 saves memory, not time.
    """

    compute: str = "float32"
    loss_scale: LossScale | None = None

    def __post_init__(self) -> None:
        if self.compute not in ("float16", "float32", "float64"):
            raise DTypeError(f"cannot compute in {self.compute!r}: arrays have no products in that dtype; take 'float32', "
                             "or 'float16' with a loss scale")
        if self.compute == "float16" and self.loss_scale is None:
            object.__setattr__(self, "loss_scale", LossScale())

    def cast(self, params: Any) -> Any:
        """`params` with every floating array in the dtype to compute in."""
        return tree.map(lambda p: p.astype(self.compute) if trainable(p) else p, params)
