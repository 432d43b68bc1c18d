"""What a reduction is to a device: `map` makes a tile its partial state, `combine` makes two states one, `finish` ends.

A state is an array with the reduced axes kept at extent 1, or a tuple of such arrays and numbers. The state of a block
without elements must be neutral; where a reduction has no neutral element, its reduced axes have extent 0. `combine`
must be usable along any tree; which tree is `ops.tree`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

State = Any


class Reducer:
    """One reduction over given axes.

    Attributes
    ----------
    flat : bool
        Over all axes the order of elements does not matter, so contiguous blocks may be run as one axis, and narrow
        ones as wide ones.
    tiled : bool
        A block may be mapped tile by tile.
    """

    flat = True
    tiled = True

    def __init__(self, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        self.axes, self.kw = axes, kw

    def direct(self, x: np.ndarray) -> bool:
        """Whether `map` reads a block as it lies once and makes no copy of it, so that it needs no tiles."""
        return False

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        raise NotImplementedError

    def combine(self, a: State, b: State) -> State:
        raise NotImplementedError

    def collapse(self, stacked: State) -> State:
        """Combine along a new first axis: every array of `stacked` has one more axis than that of a state."""
        raise NotImplementedError

    def merge(self, states: Sequence[State]) -> State:
        """Many states into one."""
        if len(states) == 1:
            return states[0]
        if isinstance(states[0], tuple):
            return self.collapse(tuple(np.stack(field) for field in zip(*states, strict=True)))
        return self.collapse(np.stack(states))

    def finish(self, state: State) -> np.ndarray:
        return state

    def count(self, x: np.ndarray) -> int:
        """Elements of `x` that go into one element of the state."""
        n = 1
        for a in self.axes:
            n *= x.shape[a]
        return n
