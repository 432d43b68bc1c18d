"""Super-tasks: a plan's order cut into convex groups, each run without asking anybody.

Any contiguous run of a topological order is convex: a path that leaves it cannot come back. So a worker's order is cut
into runs worth about `TARGET_S`, and only what crosses between runs needs locks, counts or messages.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nums_core.ops.taskgraph import LEAF, Kernel
from nums_core.runtime.plan import Plan

TARGET_S = 1e-3
TASK_OVERHEAD_S = 3e-6


def estimated_seconds(plan: Plan) -> np.ndarray:
    """Seconds of each task on one thread of its worker: float64, shape (n,); 0 for leaves."""
    g, workers = plan.graph, plan.cluster.workers
    flop_per_s = np.array([w.flop_per_s for w in workers])[plan.worker]
    bytes_per_s = np.array([w.memory_bytes_per_s for w in workers])[plan.worker]
    read = np.zeros(g.n_tasks)
    np.add.at(read, g.consumer_of_edge, g.out_bytes[g.in_idx])
    seconds = TASK_OVERHEAD_S + np.maximum(g.flop / flop_per_s, (read + g.out_bytes) / bytes_per_s)
    seconds[g.is_leaf] = 0.0
    return seconds


@dataclass
class TaskTable:
    """A plan made ready to run: for each task its function, arguments and operands, as plain lists.

    Attributes
    ----------
    functions : list, one a task
        None for leaves.
    args : list
    inputs : list of lists of block ids
    """

    plan: Plan
    functions: list[Any] = field(init=False)
    args: list[Any] = field(init=False)
    inputs: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        from nums_core.runtime.devices.numpy import compile_kernel

        g = self.plan.graph
        self.functions, self.args = [], []
        compiled: dict[int, Any] = {}
        for f in g.families:
            run = None
            if f.role != LEAF and f.kernel.name != "read":
                run = compiled.get(id(f.kernel)) or compiled.setdefault(id(f.kernel), compile_kernel(f.kernel))
            self.functions.extend(itertools.repeat(run, f.count))
            self.args.extend(f.args if f.args is not None else itertools.repeat(None, f.count))
        idx, ptr = g.in_idx.tolist(), g.in_ptr.tolist()
        self.inputs = [idx[a:b] for a, b in itertools.pairwise(ptr)]

    def bind_readers(self, inputs: Any) -> list[Any]:
        """Functions with this run's sources in place of `read` kernels."""
        readers = [f for f in self.plan.graph.families if f.kernel.name == "read"]
        if not readers:
            return self.functions
        functions = list(self.functions)
        for f in readers:
            functions[f.start:f.stop] = [_reader(inputs[f.kernel.params[0]], f.kernel)] * f.count
        return functions

    @cached_property
    def blas(self) -> bool:
        """Whether any kernel may call a threaded BLAS."""
        return any(f.kernel.name == "contract" or f.kernel.name.startswith(("linalg.", "map"))
                   for f in self.plan.graph.families)


def _reader(source: Any, kernel: Kernel) -> Any:
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        block = np.asarray(source[args])
        if out is None:
            return np.array(block) if isinstance(block, np.memmap) or block.base is not None else block
        out[...] = block
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
    order = plan.order[~g.is_leaf[plan.order]]
    if len(order) == 0:
        return Segments([], [], [], [], [], {}, [])
    cost = seconds[order]
    total = float(cost.sum())
    # At least a few segments a thread, so that both ends of the run keep every thread busy.
    target = max(20e-6, min(TARGET_S, total / (8 * n_threads))) if n_threads > 1 else max(TARGET_S, total / 64)
    label = np.floor((np.cumsum(cost) - cost / 2) / target).astype(np.int64)
    label = np.cumsum(np.diff(label, prepend=label[0]) != 0)
    n_segments = int(label[-1]) + 1
    segment = np.full(g.n_tasks, -1, np.int64)
    segment[order] = label

    ends = np.flatnonzero(np.diff(label, append=n_segments + 1)) + 1
    flat = order.tolist()
    tasks = [flat[a:b] for a, b in itertools.pairwise([0, *ends.tolist()])]
    seconds_of = np.bincount(label, weights=cost, minlength=n_segments).tolist()

    consumer, producer = g.consumer_of_edge, g.in_idx
    s_of, d_of = segment[producer], segment[consumer]
    cross = s_of != d_of
    # The distinct (block, reading segment) and (making segment, reading segment) pairs.
    reads: list[list[int]] = [[] for _ in range(n_segments)]
    readers: dict[int, int] = {}
    for code in np.unique(producer[cross] * n_segments + d_of[cross]).tolist():
        block, d = divmod(code, n_segments)
        reads[d].append(block)
        readers[block] = readers.get(block, 0) + 1
    after: list[list[int]] = [[] for _ in range(n_segments)]
    n_before = [0] * n_segments
    made = cross & (s_of >= 0)
    for code in np.unique(s_of[made] * n_segments + d_of[made]).tolist():
        s, d = divmod(code, n_segments)
        after[s].append(d)
        n_before[d] += 1

    # Blocks used only inside their own segment die with their last reader there.
    inner = np.ones(g.n_tasks, bool)
    inner[producer[cross]] = False
    inner &= ~g.is_output & ~g.is_leaf
    last = plan.last_use
    dying = np.flatnonzero(inner)
    killer = plan.order[last[dying]].tolist()
    of_task: dict[int, list[int]] = {}
    for block, task in zip(dying.tolist(), killer, strict=True):
        of_task.setdefault(task, []).append(block)
    none: list[int] = []
    frees = [[of_task.get(t, none) for t in run] for run in tasks]
    return Segments(tasks, seconds_of, n_before, after, reads, readers, frees)
