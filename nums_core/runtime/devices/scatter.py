"""Kernels of a reduce-scatter (`scheduler.scatter`): a partial result is cut into pieces, and pieces become a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.runtime.devices import reducers

Run = Callable[..., Any]


def _axis(x: np.ndarray, m: int) -> int:
    """The axis that `x` is cut along: the first with an element for each of `m` pieces, else the longest."""
    return next((i for i, n in enumerate(x.shape) if n >= m), int(np.argmax(x.shape)))


def _slice() -> Run:
    """Piece `j` of `m`, a view. A task's arguments are (j, m)."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        (x,), (j, m) = blocks, args
        axis = _axis(x, m)
        n = x.shape[axis]
        piece = x[(slice(None),) * axis + (slice(j * n // m, (j + 1) * n // m),)]
        if out is None:
            return piece
        out[...] = piece
        return out
    return run


def _join(combine: tuple[Any, ...], finish: tuple[Any, ...]) -> Run:
    """All pieces side by side, then the finish; the last operand is a whole partial result, which shows the shape."""
    name, axes, kw = combine
    last = reducers.finisher(reducers.make(name, axes, dict(kw)), *finish)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        *pieces, like = blocks
        block = last(np.concatenate(pieces, axis=_axis(like, len(pieces))))
        if out is None:
            return block
        out[...] = block
        return out
    return run


KERNELS: dict[str, Callable[..., Run]] = {"slice": _slice, "join": _join}
