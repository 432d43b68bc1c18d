"""Lineage: how kept blocks were made, and the part of a plan that makes lost ones again.

    Making   a run that kept something: its plan, and what went in
    Origin   kept blocks, as an output of a making; what went into later makings are origins too

A making holds recipes, never blocks: blocks that the program has dropped are freed at once, and made again in passing where
an array made from them was lost. Nothing here runs anything; `executors.recovery` does.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from nums_core.ops.taskgraph import LEAF, AxisArgs, Family, Kernel, ListArgs, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Held, Output
from nums_core.runtime.gather import chunk_slices
from nums_core.runtime.partition import row_args
from nums_core.runtime.plan import Plan, direct_moves
from nums_core.runtime.supertask import edges_of

_serials = itertools.count()


class Pinned:
    """An array of the driver's that went into a run. Only the oldest are let go of over the budget; then they are there as
    long as the program has them."""

    def __init__(self, value: Any, n_bytes: float) -> None:
        self.strong, self.n_bytes = value, n_bytes
        self.weak = weakref.ref(value) if n_bytes else None

    def get(self) -> Any:
        """The array, or None if it is gone."""
        return self.strong if self.weak is None or self.strong is not None else self.weak()


class Pins:
    """All pinned arrays of an executor, each once."""

    def __init__(self) -> None:
        self.boxes: weakref.WeakValueDictionary[int, Pinned] = weakref.WeakValueDictionary()
        self.lock = threading.Lock()

    def pin(self, value: Any, most_bytes: float) -> Pinned:
        with self.lock:
            box = self.boxes.get(id(value))
            if box is None or box.get() is not value:
                self.boxes[id(value)] = box = Pinned(value, _memory_bytes(value))
                self._keep_to(most_bytes)
            return box

    def _keep_to(self, most_bytes: float) -> None:
        held = [b for b in self.boxes.values() if b.n_bytes and b.strong is not None]  # oldest first
        over = sum(b.n_bytes for b in held) - most_bytes
        for box in held:
            if over <= 0:
                return
            box.strong, over = None, over - box.n_bytes


def _memory_bytes(value: Any) -> float:
    """Bytes of this process's memory that `value` keeps alive: 0 for files and other readers."""
    if isinstance(value, Held):
        return value.nbytes
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base
    return 0.0 if not isinstance(value, np.ndarray) or isinstance(value, np.memmap) else float(value.nbytes)


@dataclass(eq=False)
class Origin:
    """Where kept blocks come from: output `output` of `making` (None: not known any more). `held` gives the handle of the
    blocks as long as the program has it."""

    making: Making | None
    output: int
    held: Any


@dataclass(eq=False)
class Making:
    """A run, as far as it takes to repeat parts of it.

    Attributes
    ----------
    inputs : tuple of Origin or Pinned, by slot
    depth : int
        Runs on the longest way from here back to what was not made by a run.
    serial : int
        Larger than that of whatever made the inputs.
    """

    plan: Plan
    outputs: tuple[Output, ...]
    inputs: tuple[Origin | Pinned, ...]
    serial: int = -1
    depth: int = 1

    def __post_init__(self) -> None:
        self.serial = next(_serials) if self.serial < 0 else self.serial
        self.depth = 1 + max((o.making.depth for o in self.inputs if isinstance(o, Origin) and o.making), default=0)

    def rows(self, output: int) -> slice:
        """Ids of the blocks of an output."""
        f = self.plan.graph.families[self.plan.graph.outputs[output]]
        return slice(f.start, f.stop)


def reading(source: Any, output: Output, home: np.ndarray, cluster: Cluster) -> tuple[Plan, tuple[Output, ...]]:
    """A plan that reads the blocks of an array out of a store, each on the worker that is its home."""
    grid, n = tuple(map(len, output.chunks)), len(home)
    sizes = np.ones(1)
    for axis in output.chunks:
        sizes = (sizes[:, None] * np.array(axis)[None, :]).reshape(-1)
    args = AxisArgs(tuple(map(tuple, chunk_slices(output.chunks))))
    family = Family(Kernel("read", (0,)), 0, grid, args=args, label=f"read {type(source).__name__}")
    graph = TaskGraph((family,), np.zeros(n + 1, np.int64), np.zeros(0, np.int64), sizes * np.dtype(output.dtype).itemsize,
                      np.zeros(n), np.full(n, -1, np.int32), (0,))
    none = np.zeros(0, np.int32)
    return Plan(graph, cluster, np.asarray(home, np.int32), np.arange(n), none.astype(np.int64), none, none,
                "checkpoint"), (output,)


# -- the part of a plan that is still to be run -----------------------------------------------------------------------

class Store(NamedTuple):
    """Blocks of a plan that exist already: `held` at input `slot`; block `b` of the plan is its row `b - start`."""

    slot: int
    start: int
    held: Any


class Cut(NamedTuple):
    """A part of a plan.

    Attributes
    ----------
    plan : Plan
    ids : int64 array
        Id in the whole plan of each block.
    outputs : tuple of int
        Which outputs of the whole plan it makes rows of.
    rows : tuple of int64 arrays
        Which rows, for each of these.
    """

    plan: Plan
    ids: np.ndarray
    outputs: tuple[int, ...]
    rows: tuple[np.ndarray, ...]


def backward(g: TaskGraph, wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The blocks that making `wanted` needs, back to leaves and to what is `there`: bool, shape (n,)."""
    need = wanted.copy()
    for f in reversed(g.families):
        if f.role != LEAF:
            tasks = f.start + np.flatnonzero(need[f.start:f.stop] & ~there[f.start:f.stop])
            need[edges_of(g, tasks)[0]] = True
    return need


def inputs_read(g: TaskGraph, used: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The inputs that blocks `used` are read from: slots, with the rows of it where it is a held one."""
    return [(f.kernel.params[0], used[f.start:f.stop]) for f in g.families
            if f.kernel.name in ("view", "held", "read") and used[f.start:f.stop].any()]


def part_of(plan: Plan, wanted: np.ndarray, there: np.ndarray, stores: Sequence[Store], outputs: Sequence[int]) -> Cut:
    """The part of `plan` that makes the blocks `wanted`.

    Every task stays on its worker and in its order, with the same operands, so that every bit is as in the whole plan.

    Parameters
    ----------
    wanted : bool array, shape (n,)
    there : int array, shape (n,)
        Which of `stores` has a block; -1: none.
    outputs : numbers of the outputs that the part may have
    """
    g = plan.graph
    there = np.where(wanted, -1, there)
    need = backward(g, wanted, there >= 0)
    fresh = need & (there < 0)
    worker = plan.worker.copy()
    families: list[Family] = []
    picked: list[np.ndarray] = []
    for k, store in enumerate(stores):
        blocks = np.flatnonzero(need & (there == k))
        worker[blocks] = store.held.home[blocks - store.start]
        _add(families, picked, blocks, Family(Kernel("held", (store.slot,)), 0, (len(blocks),), LEAF,
                                              ListArgs(tuple((blocks - store.start).tolist())), "kept"))
    n_stored = sum(map(len, picked))
    place: dict[int, int] = {}
    for k, f in enumerate(g.families):
        rows = np.flatnonzero(fresh[f.start:f.stop])
        place[k] = len(families)
        leaf = f.role == LEAF and f.args is None
        args = ListArgs(tuple(rows.tolist())) if leaf else row_args(f, rows)
        _add(families, picked, rows + f.start, replace(f, grid=(len(rows),), args=args))
    made = [i for i in outputs if wanted[g.families[g.outputs[i]].start:g.families[g.outputs[i]].stop].any()]
    ids = np.concatenate(picked) if picked else np.zeros(0, np.int64)
    graph = _edges(g, ids, n_stored, tuple(families), tuple(place[g.outputs[i]] for i in made), worker)
    rows_of = tuple(picked[place[g.outputs[i]]] - g.families[g.outputs[i]].start for i in made)
    return Cut(_placed(plan, graph, ids, worker), ids, tuple(made), rows_of)


def _add(families: list[Family], picked: list[np.ndarray], blocks: np.ndarray, family: Family) -> None:
    """Add a family, with its ids after those before it; one without tasks is left out."""
    if len(blocks):
        families.append(replace(family, start=families[-1].stop if families else 0))
        picked.append(blocks)


def _edges(g: TaskGraph, ids: np.ndarray, n_stored: int, families: tuple[Family, ...], outputs: tuple[int, ...],
           worker: np.ndarray) -> TaskGraph:
    lookup = np.full(g.n_tasks, -1, np.int64)
    lookup[ids] = np.arange(len(ids))
    tasks = np.flatnonzero(~g.is_leaf[ids])
    tasks = tasks[tasks >= n_stored]
    producer, place = edges_of(g, ids[tasks])
    counts = np.zeros(len(ids), np.int64)
    counts[tasks] = np.bincount(place, minlength=len(tasks))
    home = g.home[ids]
    home[:n_stored] = worker[ids[:n_stored]]
    return TaskGraph(families, np.concatenate([[0], np.cumsum(counts)]), lookup[producer], g.out_bytes[ids], g.flop[ids],
                     home, outputs)


def _placed(plan: Plan, graph: TaskGraph, ids: np.ndarray, worker: np.ndarray) -> Plan:
    lookup = np.full(plan.graph.n_tasks, -1, np.int64)
    lookup[ids] = np.arange(len(ids))
    order = lookup[plan.order]
    here = worker[ids].astype(np.int32)
    return Plan(graph, plan.cluster, here, order[order >= 0], *direct_moves(graph, here), plan.policy)
