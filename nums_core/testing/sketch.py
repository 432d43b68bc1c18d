"""Sketch: task graphs and plans written by hand, for tests of executors and schedulers.

    s = Sketch()
    x = s.view(0, ((4, 4), (6,)))              # blocks of a NumPy array, by its chunks
    y = s.apply("add", x, 1.0)                 # elementwise, block by block
    plan, outputs = s.plan(cluster, [y, s.reduce("sum", y, (0, 1))], place="turned")

`place` says where tasks run: "packed" deals each family out in contiguous runs, "turned" does the same and turns it by
one worker from family to family, so that nearly every operand crosses; an array names the worker of each task.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core._util import SourceLine, user_line
from nums_core.ops.program import Instr, Program, Reduction
from nums_core.ops.taskgraph import LEAF, AxisArgs, GraphBuilder, Kernel, ListArgs, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Chunks, Output
from nums_core.runtime.gather import chunk_slices
from nums_core.runtime.plan import Plan

Place = str | np.ndarray


class Sketch:
    """A graph in the making. Families are named by the number that each method returns.

    Attributes
    ----------
    chunks, dtype : dicts by family
    line : SourceLine or None
        Where the families that follow are said to be written; None: the caller's line.
    """

    def __init__(self) -> None:
        self.line: SourceLine | None = None
        self.builder = GraphBuilder()
        self.chunks: dict[int, Chunks] = {}
        self.dtype: dict[int, np.dtype] = {}

    # -- leaves -------------------------------------------------------------------------------------------------------

    def view(self, slot: int, chunks: Chunks, dtype: Any = "f8") -> int:
        """Blocks of a NumPy array."""
        return self._add(Kernel("view", (slot,)), chunks, dtype, role=LEAF, args=_slices(chunks), label="view")

    def held(self, slot: int, chunks: Chunks, dtype: Any = "f8", home: np.ndarray | int = 0) -> int:
        """Blocks that an executor keeps."""
        return self._add(Kernel("held", (slot,)), chunks, dtype, role=LEAF, home=home, label="held")

    def read(self, slot: int, chunks: Chunks, dtype: Any = "f8") -> int:
        """Tasks that read slices of anything."""
        return self._add(Kernel("read", (slot,)), chunks, dtype, args=_slices(chunks), label="read")

    # -- tasks --------------------------------------------------------------------------------------------------------

    def apply(self, op: str, *operands: int | float | bool, dtype: Any = None) -> int:
        """An elementwise operation; operands are families of one grid, or constants (floats)."""
        families = [x for x in operands if type(x) is int]
        first = families[0]
        dtype = np.dtype(self.dtype[first] if dtype is None else dtype)
        n, chunks = len(families), self.chunks[first]
        consts = tuple(x for x in operands if type(x) is not int)
        inputs, others = iter(range(n)), iter(range(n, len(operands)))
        values = tuple(next(inputs) if type(x) is int else next(others) for x in operands)
        program = Program(len(chunks), (tuple(range(len(chunks))),) * n, tuple(self.dtype[f].str for f in families),
                          consts, (Instr(op, values, dtype.str),))
        return self._add(Kernel("fused", (program,)), chunks, dtype, families, label=op, flop=True)

    def call(self, function: Callable[..., Any], *families: int, dtype: Any = None, chunks: Chunks | None = None,
             n_bytes: float | None = None) -> int:
        """A Python function on whole blocks."""
        first = families[0]
        dtype = np.dtype(self.dtype[first] if dtype is None else dtype)
        kernel = Kernel("map", (function, {}, None, None, ()))
        return self._add(kernel, chunks or self.chunks[first], dtype, families, n_bytes=n_bytes,
                         label=getattr(function, "__name__", "map"))

    def pick(self, family: int, k: int, dtype: Any = None) -> int:
        """The k-th part of blocks that are tuples."""
        dtype = self.dtype[family] if dtype is None else dtype
        return self._add(Kernel("pick", (k,)), self.chunks[family], dtype, (family,), label="pick")

    def reduce(self, name: str, family: int, axes: tuple[int, ...], dtype: Any = None) -> int:
        """A reduction over `axes`: a partial state of each block, and trees as single tasks."""
        chunks, made = self.chunks[family], np.dtype(self.dtype[family] if dtype is None else dtype)
        program = Program(len(chunks), (tuple(range(len(chunks))),), (self.dtype[family].str,), (), (),
                          Reduction(name, axes, ()))
        state = tuple((1,) * len(c) if i in axes else c for i, c in enumerate(chunks))
        partial = self._add(Kernel("fused", (program,)), state, made, (family,), label=f"{name}.map", flop=True)
        ids = self.builder.ids(partial)
        kept = [i for i in range(len(chunks)) if i not in axes]
        lines = ids.transpose(*kept, *axes).reshape(int(np.prod([len(chunks[i]) for i in kept])), -1)
        kernel = Kernel("tree", ((name, axes, ()), (axes, made.str)))
        return self._add(kernel, tuple(chunks[i] for i in kept), made, lines, label=f"{name}.tree")

    def join(self, family: int, axis: int = 0) -> int:
        """All blocks of a one-axis family side by side: a task of many operands."""
        chunks = self.chunks[family]
        whole = tuple((sum(c),) if i == axis else c for i, c in enumerate(chunks))
        ids = np.moveaxis(self.builder.ids(family), axis, -1).reshape(-1, len(chunks[axis]))
        return self._add(Kernel("concat", (axis,)), whole, self.dtype[family], ids, label="concat")

    def _add(self, kernel: Kernel, chunks: Chunks, dtype: Any, inputs: Sequence[int] | np.ndarray = (), *,
             flop: bool = False, n_bytes: float | None = None, **kw: Any) -> int:
        grid = tuple(map(len, chunks))
        count = int(np.prod(grid))
        if not isinstance(inputs, np.ndarray):
            columns = [self.builder.ids(f).reshape(-1) for f in inputs]
            inputs = np.stack(columns, axis=1) if columns else np.zeros((count, 0), np.int64)
        elements = np.array([float(np.prod(sizes)) for sizes in itertools.product(*chunks)])
        size = np.nan_to_num(elements * np.dtype(dtype).itemsize, nan=800.0) if n_bytes is None else n_bytes
        family = self.builder.add(kernel, grid, inputs, out_bytes=size, line=self.line or user_line(),
                                  flop=np.nan_to_num(elements) if flop else 0.0, **kw)
        self.chunks[family], self.dtype[family] = chunks, np.dtype(dtype)
        return family

    # -- plans --------------------------------------------------------------------------------------------------------

    def graph(self, outputs: Sequence[int]) -> TaskGraph:
        graph = self.builder.build(tuple(outputs))
        graph.validate()
        return graph

    def plan(self, cluster: Cluster, outputs: Sequence[int], keep: bool | Sequence[bool] = False,
             place: Place = "packed", order: np.ndarray | None = None) -> tuple[Plan, list[Output]]:
        """A plan and what is wanted of its outputs."""
        keeps = [keep] * len(outputs) if isinstance(keep, bool) else keep
        wanted = [Output(self.chunks[f], self.dtype[f].str if self.dtype[f].kind != "V" else self.dtype[f],  # type: ignore[arg-type]
                         k) for f, k in zip(outputs, keeps, strict=True)]
        return plan_by_hand(self.graph(outputs), cluster, place, order), wanted


def plan_by_hand(graph: TaskGraph, cluster: Cluster, place: Place = "packed", order: np.ndarray | None = None) -> Plan:
    """A plan without a scheduler: tasks in the order of their ids (or `order`), moves from where a block is made."""
    worker = _placed(graph, cluster.n_workers, place)
    here = graph.home >= 0
    worker[here] = graph.home[here]
    producer, consumer = graph.in_idx, graph.consumer_of_edge
    cross = worker[producer] != worker[consumer]
    moves = np.unique(np.stack([producer[cross], worker[consumer][cross]], axis=1), axis=0)
    plan = Plan(graph, cluster, worker.astype(np.int32), np.arange(graph.n_tasks) if order is None else order,
                moves[:, 0], worker[moves[:, 0]].astype(np.int32), moves[:, 1].astype(np.int32), policy="by hand")
    plan.validate()
    return plan


def _placed(graph: TaskGraph, n_workers: int, place: Place) -> np.ndarray:
    if isinstance(place, np.ndarray):
        return place.astype(np.int64)
    if place not in ("packed", "turned"):
        raise ValueError(f"{place!r} is not a way to place tasks; use 'packed', 'turned' or an array")
    worker = np.zeros(graph.n_tasks, np.int64)
    for k, f in enumerate(graph.families):
        run = np.arange(f.count) * n_workers // max(f.count, 1)
        worker[f.start:f.stop] = (run + (k if place == "turned" else 0)) % n_workers
    return worker


def _slices(chunks: Chunks) -> AxisArgs | ListArgs:
    return AxisArgs(tuple(map(tuple, chunk_slices(chunks))))
