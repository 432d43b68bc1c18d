"""Super-tasks: a plan's order cut into convex groups, each run without asking anybody.

Any contiguous run of a topological order is convex: a path that leaves it cannot come back. So a worker's order is cut
into runs worth about `TARGET_S`, and only what crosses between runs needs locks, counts or messages.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nums_core.ops.taskgraph import LEAF, Family, Kernel, TaskGraph
from nums_core.runtime.plan import Plan
from nums_core.runtime.seconds import task_seconds
from nums_core.runtime.sources import drop_pages

TARGET_S = 1e-3
# Work in tasks shorter than this is done sooner by one thread: each task takes the interpreter a few times, and handing it
# to a thread that fell asleep costs up to 50 us (2,500 tasks of 12 us: 0.07 s on one thread, 0.14 s on two).
MIN_TASK_S = 80e-6
INLINE_S = 150e-6
FOLLOWED = 20_000  # tasks of a run at most, for it to be cut along its chains: some 2 us a task


def estimated_seconds(plan: Plan) -> np.ndarray:
    """Seconds of each task on one thread of its worker: float64, shape (n,); 0 for leaves."""
    return task_seconds(plan.graph, plan.worker, plan.cluster)


def useful_threads(seconds: np.ndarray, threads: int) -> int:
    """How many of `threads` threads a run is worth, from the seconds of its tasks."""
    total = float(seconds.sum())
    # How long the task is that an average second is spent in: a few long ones count, however many short ones there are.
    return threads if total > INLINE_S and float(np.square(seconds).sum()) > MIN_TASK_S * total else 1


class TaskTable:
    """A plan made ready to run: for each task its function, arguments and operands, as plain lists.

    It does not hold the plan itself, so that caches keyed weakly by plans let go of both.

    Attributes
    ----------
    functions : list, one a task
        None for leaves.
    args : list
    inputs : list of lists of block ids
    """

    def __init__(self, graph: TaskGraph) -> None:
        from nums_core.runtime.devices.numpy import compile_kernel

        self.graph = graph
        self.functions: list[Any] = []
        self.args: list[Any] = []
        compiled: dict[int, Any] = {}
        for f in graph.families:
            run = None
            if f.role != LEAF and f.kernel.name != "read":
                run = compiled.get(id(f.kernel)) or compiled.setdefault(id(f.kernel), compile_kernel(f.kernel))
            self.functions.extend(itertools.repeat(run, f.count))
            self.args.extend(f.args if f.args is not None else itertools.repeat(None, f.count))
        idx = graph.in_idx.tolist()
        self.inputs = [idx[a:b] for a, b in itertools.pairwise(graph.in_ptr.tolist())]

    def bind_readers(self, inputs: Any) -> list[Any]:
        """Functions with this run's sources in place of `read` kernels."""
        if not self.readers:
            return self.functions
        functions = list(self.functions)
        for f in self.readers:
            functions[f.start:f.stop] = [_reader(inputs[f.kernel.params[0]], f.kernel)] * f.count
        return functions

    @cached_property
    def readers(self) -> list[Family]:
        """Families that read sources."""
        return [f for f in self.graph.families if f.kernel.name == "read"]

    @cached_property
    def need(self) -> list[float]:
        """Bytes of the block each task makes, as far as they are known."""
        return np.nan_to_num(self.graph.out_bytes).tolist()

    @cached_property
    def n_readers(self) -> list[int]:
        """How many tasks read each block."""
        g = self.graph
        return np.bincount(g.in_idx, minlength=g.n_tasks).tolist()

    @cached_property
    def mean_bytes(self) -> float:
        """Bytes of a block on average, leaves left out."""
        made = np.nan_to_num(self.graph.out_bytes[~self.graph.is_leaf])
        return float(made.mean()) if len(made) else 0.0

    @cached_property
    def blas(self) -> bool:
        """Whether any kernel may call a threaded BLAS."""
        return any(f.kernel.name == "contract" or f.kernel.name.startswith(("linalg.", "quantized."))
                   or f.kernel.name.endswith("map") for f in self.graph.families)


def _reader(source: Any, kernel: Kernel) -> Any:
    """A source of ours writes blocks itself, by `read_into(slices, out)`; any other gives `source[slices]`."""
    if hasattr(source, "read_into"):
        return lambda args, blocks, out=None: source.read_into(args, out)

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        block = np.asarray(source[args])
        if out is not None:
            out[...] = block
        elif block.base is not None:
            out = np.array(block)
        else:
            return block
        drop_pages(source)
        return out
    return run


@dataclass
class Segments:
    """Contiguous runs of one worker's order, with what crosses between them.

    Attributes
    ----------
    tasks : list of lists of task ids, leaves left out
    seconds : list of float, s (estimated)
    n_before : list of int
        How many other segments each one waits for.
    after : list of lists
        Which segments wait for it.
    reads : list of lists of block ids
        Blocks from other segments (or leaves) that each segment reads.
    readers : dict block id -> number of segments that read it from outside
    frees : list of lists of lists
        For each task of each segment, the blocks that die with it because nobody outside the segment reads them.
    """

    tasks: list[list[int]]
    seconds: list[float]
    n_before: list[int]
    after: list[list[int]]
    reads: list[list[int]]
    readers: dict[int, int]
    frees: list[list[list[int]]]


def cut(plan: Plan, seconds: np.ndarray, n_threads: int) -> Segments:
    """Cut the order of a one-worker plan into segments."""
    g = plan.graph
    return cut_run(g, plan.order[~g.is_leaf[plan.order]], seconds, n_threads, g.is_output)


def cut_run(g: TaskGraph, order: np.ndarray, seconds: np.ndarray, n_threads: int, keep: np.ndarray) -> Segments:
    """Cut a run of tasks of `g` into segments.

    Parameters
    ----------
    order : int64 array
        Tasks, no leaves, in the order in which they would run; what they read is among them or exists already.
    seconds : float64 array, shape (n,), s
    n_threads : int
        How many threads share the segments.
    keep : bool array, shape (n,)
        Blocks that are needed after the run, so that nothing in it may free them.
    """
    if len(order) == 0:
        return Segments([], [], [], [], [], {}, [])
    target = _target(float(seconds[order].sum()), n_threads)
    if n_threads > 1 and len(order) <= FOLLOWED:
        order, label = _followed(g, order, seconds, target)
        cost = seconds[order]
    else:
        cost = seconds[order]
        label = _labels(cost, target)
    n_segments = int(label[-1]) + 1
    segment = np.full(g.n_tasks, -1, np.int64)
    segment[order] = label
    ends = np.flatnonzero(np.diff(label, append=n_segments + 1)) + 1
    flat = order.tolist()
    tasks = [flat[a:b] for a, b in itertools.pairwise([0, *ends.tolist()])]
    seconds_of = np.bincount(label, weights=cost, minlength=n_segments).tolist()

    producer, place = edges_of(g, order)  # every edge into the run, and where in `order` its reader stands
    s_of, d_of = segment[producer], label[place]
    cross = s_of != d_of
    # The distinct (block, reading segment) and (making segment, reading segment) pairs.
    reads: list[list[int]] = [[] for _ in range(n_segments)]
    readers: dict[int, int] = {}
    for code in _distinct(producer[cross] * n_segments + d_of[cross]):
        block, d = divmod(code, n_segments)
        reads[d].append(block)
        readers[block] = readers.get(block, 0) + 1
    after: list[list[int]] = [[] for _ in range(n_segments)]
    n_before = [0] * n_segments
    made = cross & (s_of >= 0)
    for code in _distinct(s_of[made] * n_segments + d_of[made]):
        s, d = divmod(code, n_segments)
        after[s].append(d)
        n_before[d] += 1

    # Blocks used only inside their own segment die with their last reader there.
    last = np.full(g.n_tasks, -1, np.int64)
    last[order] = np.arange(len(order))
    np.maximum.at(last, producer, place)
    inner = segment >= 0
    inner[producer[cross]] = False
    inner &= ~keep
    dying = np.flatnonzero(inner)
    of_task: dict[int, list[int]] = {}
    for block, task in zip(dying.tolist(), order[last[dying]].tolist(), strict=True):
        of_task.setdefault(task, []).append(block)
    none: list[int] = []
    frees = [[of_task.get(t, none) for t in run] for run in tasks]
    return Segments(tasks, seconds_of, n_before, after, reads, readers, frees)


def _distinct(codes: np.ndarray) -> list[int]:
    """The different values, ascending. (`numpy.unique` would import `numpy.ma`: 15 ms of a first result.)"""
    codes = np.sort(codes)
    return codes[np.diff(codes, prepend=-1) != 0].tolist()


def _target(total_s: float, n_threads: int) -> float:
    """Seconds of a segment: at least a few a thread, so that both ends of the run keep every thread busy."""
    return max(20e-6, min(TARGET_S, total_s / (8 * n_threads))) if n_threads > 1 else max(TARGET_S, total_s / 64)


def _labels(cost: np.ndarray, target: float) -> np.ndarray:
    """Which segment each task of a run belongs to: non-decreasing from 0, no number left out."""
    label = np.floor((np.cumsum(cost) - cost / 2) / target).astype(np.int64)
    return np.cumsum(np.diff(label, prepend=label[0]) != 0)


def _followed(g: TaskGraph, order: np.ndarray, seconds: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """Another order of the run and the segment of each task in it: a segment follows one chain as long as it can.

    Tasks that stand beside each other in an order may belong to chains that run side by side (blocks of a batch through the
    layers of a model); a segment of both would make each chain wait for the other.
    """
    producer, place = edges_of(g, order)
    at = np.full(g.n_tasks, -1, np.int64)
    at[order] = np.arange(len(order))
    inside = at[producer] >= 0
    source, reader = at[producer[inside]], place[inside]
    missing = np.bincount(reader, minlength=len(order)).tolist()
    by_source = np.argsort(source, kind="stable")
    readers, ptr = reader[by_source].tolist(), np.searchsorted(source[by_source], np.arange(len(order) + 1)).tolist()
    cost = seconds[order].tolist()
    ready = [i for i, n in enumerate(missing) if n == 0]  # ascending, so a heap
    near: list[int] = []  # ready, and the last operand was made in this segment
    made: list[int] = []
    label: list[int] = []
    family = g.family_of[order].tolist()
    segment, spent, first = 0, 0.0, -1
    while ready or near:
        # What costs next to nothing stays with what it follows. Once a chain ends, its segment goes on with one alike.
        full = (spent >= target and not (near and cost[near[0]] < target / 16)) or (
            not near and spent > target / 8 and family[ready[0]] != first)
        if full:
            for i in near:
                heapq.heappush(ready, i)
            near, segment, spent, first = [], segment + 1, 0.0, -1
        i = heapq.heappop(near or ready)
        first = family[i] if first < 0 else first
        made.append(i)
        label.append(segment)
        spent += cost[i]
        for j in readers[ptr[i]:ptr[i + 1]]:
            missing[j] -= 1
            if missing[j] == 0:
                heapq.heappush(near, j)
    return order[made], np.array(label)


def edges_of(g: TaskGraph, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The blocks that `tasks` read, edge by edge, and for each edge the position of its reader in `tasks`."""
    start = g.in_ptr[tasks]
    counts = g.in_ptr[tasks + 1] - start
    place = np.repeat(np.arange(len(tasks)), counts)
    first = np.cumsum(counts) - counts
    return g.in_idx[np.arange(len(place)) - first[place] + start[place]], place
