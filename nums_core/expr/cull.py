"""Culling: tasks that no output needs are dropped, whole families or parts of them.

A slice that cannot be pushed below an operation (a product, a function of the user) leaves blocks of it unread; this is
where they go. The work is a few array operations a family.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from nums_core.ops.taskgraph import LEAF, AxisArgs, Family, ListArgs, TaskGraph


def cull(graph: TaskGraph) -> TaskGraph:
    """`graph` without the tasks that no output depends on; ids and grids of what is left are new."""
    needed = _needed(graph)
    if needed.all():
        return graph
    families: list[Family] = []
    renumbered, start = {}, 0
    for k, f in enumerate(graph.families):
        mask = needed[f.start:f.stop]
        if mask.any():
            renumbered[k] = len(families)
            families.append(_part(f, mask, start))
            start += families[-1].count
    new_id = np.cumsum(needed) - 1
    kept_edges = needed[graph.consumer_of_edge]
    in_ptr = np.zeros(start + 1, np.int64)
    np.cumsum(np.diff(graph.in_ptr)[needed], out=in_ptr[1:])
    return TaskGraph(tuple(families), in_ptr, new_id[graph.in_idx[kept_edges]], graph.out_bytes[needed],
                     graph.flop[needed], graph.home[needed], tuple(renumbered[k] for k in graph.outputs))


def _needed(graph: TaskGraph) -> np.ndarray:
    """bool, shape (n,). Families are in topological order, so one pass from the last to the first finds everything."""
    needed = graph.is_output
    for f in reversed(graph.families):
        mask = needed[f.start:f.stop]
        if not mask.any():
            continue
        first, last = graph.in_ptr[f.start], graph.in_ptr[f.stop]
        edges = graph.in_idx[first:last]
        if not mask.all():
            edges = edges[np.repeat(mask, np.diff(graph.in_ptr[f.start:f.stop + 1]))]
        needed[edges] = True
        if f.role == LEAF and f.kernel.name == "held":
            needed[f.start:f.stop] = True  # they exist, and are bound all at once
    return needed


def _part(f: Family, mask: np.ndarray, start: int) -> Family:
    """The family of the tasks where `mask` is true; a grid of fewer blocks where they are a product, else a list."""
    if mask.all():
        return dataclasses.replace(f, start=start)
    lines = np.nonzero(mask.reshape(f.grid))
    axes = [np.unique(line) for line in lines]
    grid = tuple(map(len, axes))
    if np.prod(grid) == len(lines[0]):
        args = f.args
        if isinstance(args, AxisArgs):
            args = AxisArgs(tuple(tuple(values[i] for i in which)
                                  for values, which in zip(args.per_axis, axes, strict=True)))
        elif args is not None:
            args = ListArgs(tuple(itertools.compress(args, mask)))
        return dataclasses.replace(f, start=start, grid=grid, args=args)
    args = None if f.args is None else ListArgs(tuple(itertools.compress(f.args, mask)))
    return dataclasses.replace(f, start=start, grid=(len(lines[0]),), args=args)
