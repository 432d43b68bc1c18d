"""Where results are put together: one NumPy array, written block by block where the sizes are known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from nums_core.runtime.executors.base import Chunks, Output


def chunk_slices(chunks: Chunks) -> list[list[slice]]:
    """For each axis, the slice of every block along it."""
    out = []
    for sizes in chunks:
        stops = list(itertools.accumulate(int(c) for c in sizes))
        out.append([slice(a, b) for a, b in zip([0, *stops], stops, strict=False)])
    return out


class Destination:
    """The array of one output. `array` is None while sizes depend on data; then `join` makes it from the blocks."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.array: np.ndarray | None = None
        if not output.unknown:
            self.array = np.empty([int(sum(sizes)) for sizes in output.chunks], output.dtype)

    def views(self) -> list[np.ndarray]:
        """The place of each block, in C order of the grid."""
        assert self.array is not None
        if not self.output.chunks:
            return [self.array[...]]
        return [self.array[at] for at in itertools.product(*chunk_slices(self.output.chunks))]

    def collect(self, blocks: list[Any]) -> np.ndarray:
        """The result made of all its blocks, in C order of the grid. A single block may be returned as it is."""
        if self.array is None:
            return self.join(blocks)
        for view, block in zip(self.views(), blocks, strict=True):
            view[...] = block
        return self.array

    def join(self, blocks: list[Any]) -> np.ndarray:
        """Concatenate blocks whose sizes were not known, along every axis of the grid."""
        grid = [len(sizes) for sizes in self.output.chunks]
        level: list[np.ndarray] = [np.asarray(b) for b in blocks]
        for axis in reversed(range(len(grid))):
            n = grid[axis]
            level = [level[i] if n == 1 else np.concatenate(level[i:i + n], axis=axis)
                     for i in range(0, len(level), n)] if n else []
        if not level:
            return np.empty([0] * len(grid), self.output.dtype)
        return level[0].astype(self.output.dtype, copy=False)
