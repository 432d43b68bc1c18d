"""Where results are put together: one NumPy array, written block by block where the sizes are known."""

from __future__ import annotations

import itertools
import math
import mmap
import threading
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


TOUCH_BYTES_PER_S = 8e9  # writing a byte in each page of new memory
TOUCH_SHARE = 0.02  # of a run's seconds that may go to that


class Destination:
    """The array of one output. `array` is None while sizes depend on data; then `join` makes it from the blocks.

    In a run that takes long for its bytes (`run_s`, as predicted) the memory is touched at once. Virtual machines give free
    memory back to their host within a second or two, and fetching it again while tasks wait costs many times more than
    taking what a result before this one has just given up.
    """

    def __init__(self, output: Output, run_s: float = 0.0) -> None:
        self.output = output
        self.array: np.ndarray | None = None
        if not output.unknown:
            self.array = np.empty([int(sum(sizes)) for sizes in output.chunks], output.dtype)
            most_bytes = TOUCH_SHARE * run_s * TOUCH_BYTES_PER_S
            if mmap.PAGESIZE < self.array.nbytes < most_bytes and not self.array.dtype.hasobject:
                self.array.reshape(-1).view(np.uint8)[::mmap.PAGESIZE] = 0

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


class Appended:
    """An output whose extent along axis 0 depends on data: blocks go to their place as soon as it is known.

    The array is made for the most that there can be; memory that nobody touches costs nothing, and the rest is given
    back at the end. So results are never held twice. Safe to use from several threads.
    """

    def __init__(self, output: Output, most_bytes: float) -> None:
        self.output, (rows, *columns) = output, output.chunks
        self.slices = list(itertools.product(*chunk_slices(tuple(columns))))
        self.row = tuple(int(sum(c)) for c in columns)
        self.n_rows = len(rows)
        row_bytes = np.dtype(output.dtype).itemsize * math.prod(self.row)
        try:
            self.array = np.empty((int(most_bytes // max(row_bytes, 1)) + 1, *self.row), output.dtype)
        except MemoryError:
            self.array = np.empty((0, *self.row), output.dtype)
        self.lock = threading.Lock()
        self.starts = [0]  # of grid rows, as far as they are known
        self.heights: dict[int, int] = {}
        self.waiting: dict[int, list[tuple[int, np.ndarray]]] = {}
        self.beyond: list[tuple[int, int, np.ndarray]] = []  # what the guess of the size was too small for

    @staticmethod
    def takes(output: Output) -> bool:
        """Whether an output is one of these: several blocks, of unknown extents along axis 0 alone."""
        return output.unknown and math.prod(map(len, output.chunks)) > 1 and not any(
            math.isnan(c) for sizes in output.chunks[1:] for c in sizes)

    def add(self, k: int, block: np.ndarray) -> None:
        """Block `k`, in C order of the grid, is made."""
        row, column = divmod(k, len(self.slices))
        with self.lock:
            self.heights[row] = len(block)
            self.waiting.setdefault(row, []).append((column, block))
            while len(self.starts) - 1 in self.heights:
                self.starts.append(self.starts[-1] + self.heights[len(self.starts) - 1])
            known = [r for r in self.waiting if r < len(self.starts)]
            ready = [(self.starts[r], c, b) for r in known for c, b in self.waiting.pop(r)]
            for piece in [p for p in ready if p[0] + len(p[2]) > len(self.array)]:
                ready.remove(piece)
                self.beyond.append(piece)
        self._write(ready)

    def _write(self, pieces: list[tuple[int, int, np.ndarray]]) -> None:
        for start, column, block in pieces:
            self.array[(slice(start, start + len(block)), *self.slices[column])] = block

    def finish(self) -> np.ndarray:
        """The result; all blocks are added."""
        n = self.starts[self.n_rows]
        if self.beyond:
            short, self.array = self.array, np.empty((n, *self.row), self.output.dtype)
            self.array[:min(len(short), n)] = short[:n]
            self._write(self.beyond)
        else:
            self.array.resize((n, *self.row), refcheck=False)  # no view of it is alive
        return self.array
