"""TaskGraph: kernel calls in bulk, as arrays instead of one Python object a task.

A graph is a sequence of *families*. A family runs one kernel over every block of one grid; its tasks have consecutive
ids in C order of the grid, and each task makes one block, so that *task id* and *block id* are the same number. Which
blocks a task reads stands in one CSR pair (`in_ptr`, `in_idx`) for the whole graph. Families come in topological
order: a task reads only blocks of smaller id, made by other families.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from nums_core._util import SourceLine

LEAF, TASK, REDUCE = "leaf", "task", "reduce"


class Kernel(NamedTuple):
    """What a task runs: a row of the device's kernel table and its fixed parameters (picklable)."""

    name: str
    params: tuple[Any, ...] = ()


@dataclass(frozen=True)
class AxisArgs:
    """Arguments of each task of a family, as a product over the axes of its grid.

    The task at grid index `(i, j, ...)` gets the tuple `(per_axis[0][i], per_axis[1][j], ...)`.
    """

    per_axis: tuple[tuple[Any, ...], ...]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return itertools.product(*self.per_axis)


@dataclass(frozen=True)
class ListArgs:
    """Arguments of each task of a family, written out."""

    each: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.each)


@dataclass(frozen=True)
class Family:
    """The tasks that run one kernel over one grid.

    Attributes
    ----------
    kernel : Kernel
    start : int
        Id of the first task; the family's ids are `start .. start + count - 1`, C order of `grid`.
    grid : tuple of int
    role : "leaf", "task" or "reduce"
        A leaf binds data that exists before the run: `kernel.params[0]` is the number of the input. A reduce task has
        any number of inputs and is cut into a tree by the planner (`ops.tree`); its kernel is
        `Kernel("tree", (combine, finish))`.
    args : AxisArgs or ListArgs or None
        Per-task arguments; None where a task needs none.
    label : str
        Name for people: "add", "sum.map", ...
    line : SourceLine or None
        The user's line that built the operation.
    together : bool
        The tasks divide blocks among many readers: they should run one after the other, in order of id, before any
        reader, so that each divided block is in memory once. (On its own an order would serve one reader at a time.)
    """

    kernel: Kernel
    start: int
    grid: tuple[int, ...]
    role: str = TASK
    args: AxisArgs | ListArgs | None = None
    label: str = ""
    line: SourceLine | None = None
    together: bool = False

    @cached_property
    def count(self) -> int:
        return math.prod(self.grid)

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """A program of kernel calls.

    Attributes
    ----------
    families : tuple of Family, topological order, ids consecutive
    in_ptr : int64 array, shape (n + 1,)
    in_idx : int64 array
        Task `t` reads blocks `in_idx[in_ptr[t]:in_ptr[t + 1]]`, in the order the kernel wants them.
    out_bytes : float64 array, shape (n,), bytes
        Size of each block (an estimate where it depends on data). For a leaf: bytes of the existing block.
    flop : float64 array, shape (n,)
    home : int32 array, shape (n,)
        Worker that holds a leaf already; -1 = the driver's memory, to be read wherever it is wanted. -1 for tasks.
    outputs : tuple of int
        Families whose blocks are the results.
    """

    families: tuple[Family, ...]
    in_ptr: np.ndarray
    in_idx: np.ndarray
    out_bytes: np.ndarray
    flop: np.ndarray
    home: np.ndarray
    outputs: tuple[int, ...] = field(default=())

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # what was worked out is worked out again

    @property
    def n_tasks(self) -> int:
        """All tasks, leaves included."""
        return len(self.out_bytes)

    @cached_property
    def family_of(self) -> np.ndarray:
        """int32, shape (n,): the family of each task."""
        return np.repeat(np.arange(len(self.families), dtype=np.int32), [f.count for f in self.families])

    @cached_property
    def is_leaf(self) -> np.ndarray:
        """bool, shape (n,)."""
        return np.repeat(np.array([f.role == LEAF for f in self.families], bool), [f.count for f in self.families])

    @cached_property
    def consumer_of_edge(self) -> np.ndarray:
        """int64, shape of `in_idx`: the task that owns each edge."""
        return np.repeat(np.arange(self.n_tasks), np.diff(self.in_ptr))

    @cached_property
    def is_output(self) -> np.ndarray:
        """bool, shape (n,)."""
        mask = np.zeros(self.n_tasks, bool)
        for f in self.outputs:
            mask[self.families[f].start:self.families[f].stop] = True
        return mask

    def inputs(self, task: int) -> np.ndarray:
        return self.in_idx[self.in_ptr[task]:self.in_ptr[task + 1]]

    def validate(self) -> None:
        """Check the invariants above; for tests and after passes under test."""
        n = self.n_tasks
        assert [f.start for f in self.families] == list(
            itertools.accumulate([0, *[f.count for f in self.families]]))[:-1], "family ids must be consecutive"
        assert len(self.in_ptr) == n + 1 and self.in_ptr[-1] == len(self.in_idx)
        assert (self.in_idx < self.consumer_of_edge).all(), "a task may read only blocks of smaller id"
        assert (self.in_idx >= 0).all()
        assert (self.family_of[self.in_idx] < self.family_of[self.consumer_of_edge]).all(), (
            "tasks of one family must not read each other")
        assert all(len(np.flatnonzero(np.diff(self.in_ptr[f.start:f.stop + 1]))) == 0
                   for f in self.families if f.role == LEAF), "leaves read nothing"
        assert all(0 <= o < len(self.families) for o in self.outputs)


class GraphBuilder:
    """Collects families in topological order and freezes them into a TaskGraph."""

    def __init__(self) -> None:
        self.families: list[Family] = []
        self.n_tasks = 0
        self._counts: list[np.ndarray] = []
        self._idx: list[np.ndarray] = []
        self._bytes: list[np.ndarray] = []
        self._flop: list[np.ndarray] = []
        self._home: list[np.ndarray] = []

    def add(self, kernel: Kernel, grid: tuple[int, ...], inputs: np.ndarray, *, out_bytes: np.ndarray | float,
            flop: np.ndarray | float = 0.0, role: str = TASK, args: AxisArgs | ListArgs | None = None,
            home: np.ndarray | int = -1, label: str = "", line: SourceLine | None = None,
            counts: np.ndarray | None = None, together: bool = False) -> int:
        """Add a family; returns its index.

        `inputs` has shape (count, k) when each task reads k blocks; otherwise it is flat and `counts` says how many
        each task reads.
        """
        family = Family(kernel, self.n_tasks, tuple(grid), role, args, label, line, together)
        n = family.count
        if counts is None:
            counts = np.full(n, inputs.shape[1] if inputs.ndim == 2 else 0, np.int64)
        self._counts.append(counts)
        self._idx.append(np.ascontiguousarray(inputs, dtype=np.int64).reshape(-1))
        # What depends on data and could not even be bounded counts as a megabyte and no work.
        self._bytes.append(np.broadcast_to(np.nan_to_num(np.asarray(out_bytes, float), nan=1e6), (n,)))
        self._flop.append(np.broadcast_to(np.nan_to_num(np.asarray(flop, float)), (n,)))
        self._home.append(np.broadcast_to(np.asarray(home, np.int32), (n,)))
        self.families.append(family)
        self.n_tasks += n
        return len(self.families) - 1

    def ids(self, family: int) -> np.ndarray:
        """Task ids of a family, in the shape of its grid."""
        f = self.families[family]
        return np.arange(f.start, f.stop).reshape(f.grid)

    def bytes_of(self, blocks: np.ndarray) -> np.ndarray:
        """Bytes of blocks made so far, in the shape of their ids."""
        return np.concatenate(self._bytes)[blocks]

    def build(self, outputs: tuple[int, ...]) -> TaskGraph:
        counts = np.concatenate(self._counts) if self._counts else np.zeros(0, np.int64)
        in_ptr = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=in_ptr[1:])
        cat = lambda parts, dtype: np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)  # noqa: E731
        return TaskGraph(tuple(self.families), in_ptr, cat(self._idx, np.int64), cat(self._bytes, float),
                         cat(self._flop, float), cat(self._home, np.int32), tuple(outputs))
