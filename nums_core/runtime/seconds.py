"""Seconds of tasks: the one model that planner, simulator and executors reckon with.

    seconds(t) = TASK_OVERHEAD_S + flop / F + read / R + written / W

F, R and W are rates of one thread of the task's worker: `flop_per_s` and `memory_bytes_per_s` as long as nobody measured
anything. Placement, cuts and orders reckon with those alone, so that a plan is the same on every machine and every day.
A calibrated cluster (`runtime.calibration`) has rates of its own for each class of kernels (`ops.costs`); only predictions
are made with it.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.costs import kernel_class
from nums_core.ops.quantize import row_bytes
from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster, Rate

TASK_OVERHEAD_S = 3e-6
# Kernels that touch no memory: their blocks are parts of their operands.
VIEWS = frozenset({"pick", "scatter.slice"})


def task_seconds(graph: TaskGraph, worker: np.ndarray, cluster: Cluster) -> np.ndarray:
    """Seconds of each task on one thread of its worker: float64, shape (n,); 0 for leaves."""
    read, written = touched_bytes(graph)
    flop_per_s, read_per_s, written_per_s = _rates(graph, worker, cluster)
    seconds = graph.flop / flop_per_s
    seconds += read / read_per_s
    seconds += written / written_per_s
    seconds += TASK_OVERHEAD_S
    seconds[graph.is_leaf] = 0.0
    return seconds


def _rates(graph: TaskGraph, worker: np.ndarray, cluster: Cluster) -> tuple[np.ndarray, ...] | Rate:
    """F, R and W: for each task, or for all of them where all are alike."""
    models, like = cluster.models
    if len(models) == 1 and not models[0].rates:
        return models[0].rate("")
    classes = [kernel_class(f.kernel) for f in graph.families]
    number = {name: k for k, name in enumerate(dict.fromkeys(classes))}
    table = np.array([[w.rate(name) for name in number] for w in models])  # shape (models, classes, 3)
    class_of = np.array([number[name] for name in classes], np.int64)[graph.family_of]
    return tuple(table[like[worker], class_of].T)


def touched_bytes(g: TaskGraph) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that each task reads and writes: float64, shape (n,).

    Operands are read and the result is written as a whole, but for parts taken of a tuple (neither), states of an update
    (changed where they lie) and packed weights of which a task reads some rows.
    """
    read = np.bincount(g.consumer_of_edge, g.out_bytes[g.in_idx], g.n_tasks)
    written = g.out_bytes
    for f in g.families:
        ids = slice(f.start, f.stop)
        if f.kernel.name in VIEWS:
            written = written.copy() if written is g.out_bytes else written
            read[ids] = written[ids] = 0.0
        elif f.kernel.name == "state.update":
            first = int(g.in_ptr[f.start])
            read[f.start] -= g.out_bytes[g.in_idx[first:first + f.kernel.params[2]]].sum()
        elif f.kernel.name == "quantized.matmul":
            whole = g.out_bytes[g.in_idx[g.in_ptr[ids]]]
            each = row_bytes(*f.kernel.params)
            mine = [np.inf if rows is None else (rows.stop - rows.start) * each for *_, rows in f.args or ()]
            read[ids] -= np.maximum(whole - mine, 0.0)
        elif f.kernel.name == "quantized.take":
            for t in range(f.start, f.stop):
                read[t] -= g.out_bytes[g.inputs(t)[1:]].sum()
    return read, written
