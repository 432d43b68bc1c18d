"""In which order tasks run: depth first, combining as soon as partial results exist, so that little is alive at once.

Every task gets a key, and tasks are sorted by it. The key never falls along an edge, so the order is topological by
construction:

    root   the smallest position among the output blocks that need the task (outputs are made one by one)
    p      how far into the leaves one must have read before the task can run (so partials combine at once)
    id     a task reads only smaller ids

`(root, p, id)` is right for products (one output block after the other), `(p, id)` where every output block needs all
leaves (Gram matrices, several statistics of one array), `(depth, id)` for a long chain that leaves outputs on its way (the
derivative of a deep function). Outputs count side by side or one after the other, and where
they are reductions `root` may count what they combine instead (the sum of a product). Which of these leaves least alive
is not guessed but counted (`simulate.Liveness`). The best is on a par with a task-by-task search, at a small fraction of
its time (tests/scheduler/test_order.py compares peaks with `dask.order`).

Families are passed over one by one with array operations; tasks of one family must not read each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nums_core.ops.taskgraph import TaskGraph

_BITS = 20  # fractions are kept as integers of so many bits; equal ones are told apart by id
_ONE = 1 << _BITS
# Long chains side by side, such as a derivative of a batch in a few blocks: one step of each in turn keeps as many
# threads busy to the end, where one chain after the other would leave the last one alone.
_DEEP, _NARROW, _MANY_TASKS = 48, 32, 100_000
_FEW = 24  # graphs with fewer tasks are not worth a second order
_MANY = 64  # so many output blocks are order enough by themselves


def read_progress(graph: TaskGraph) -> np.ndarray:
    """`p` of each task: the largest index, as a fraction of its family, among the sources it depends on."""
    p = np.zeros(graph.n_tasks, np.int64)
    ptr, idx = graph.in_ptr, graph.in_idx
    for f in graph.families:
        a, b = int(ptr[f.start]), int(ptr[f.stop])
        if a == b:
            p[f.start:f.stop] = np.arange(f.count) * _ONE // max(f.count, 1)
        elif f.count == 1:  # by far the cheapest way for scripts that make many small arrays
            p[f.start] = p[idx[a:b]].max()
        else:
            _largest(p[f.start:f.stop], p[idx[a:b]], ptr[f.start:f.stop + 1])
    return p


def depth(graph: TaskGraph) -> np.ndarray:
    """Edges on the longest way from a source to each task."""
    d = np.zeros(graph.n_tasks, np.int64)
    ptr, idx = graph.in_ptr, graph.in_idx
    for f in graph.families:
        a, b = int(ptr[f.start]), int(ptr[f.stop])
        if a < b:
            below = np.zeros(f.count, np.int64)
            _largest(below, d[idx[a:b]], ptr[f.start:f.stop + 1])
            d[f.start:f.stop] = below + 1
    return d


def _largest(out: np.ndarray, values: np.ndarray, ptr: np.ndarray) -> None:
    """Maximum of each segment of `values` (0 where empty), into `out`."""
    width, rest = divmod(len(values), len(out))
    counts = np.diff(ptr)
    if rest == 0 and (counts == width).all():
        if width > 8:
            values.reshape(-1, width).max(axis=1, out=out)
            return
        out[:] = values[::width]
        for k in range(1, width):  # NumPy's own reduction over a short last axis is ten times slower
            np.maximum(out, values[k::width], out=out)
    else:
        np.maximum.at(out, np.repeat(np.arange(len(out)), counts), values)


def first_need(graph: TaskGraph, at_output: np.ndarray) -> np.ndarray:
    """`root` of each task: the least `at_output` among the output blocks that need it; `_ONE` where none does."""
    need = at_output.copy()
    ptr, idx = graph.in_ptr, graph.in_idx
    for f in reversed(graph.families):
        a, b = int(ptr[f.start]), int(ptr[f.stop])
        if a == b:
            continue
        if f.together:
            need[f.start:f.stop] = need[f.start:f.stop].min(initial=_ONE)
        read = idx[a:b]
        if f.count == 1:
            need[read] = np.minimum(need[read], need[f.start])
        else:
            own = np.repeat(need[f.start:f.stop], np.diff(ptr[f.start:f.stop + 1]))
            np.minimum.at(need, read, own)
    return need


def _output_positions(graph: TaskGraph, side_by_side: bool) -> np.ndarray:
    """Position of each output block as a fraction: of its own family, or of all output blocks one after the other."""
    at = np.full(graph.n_tasks, _ONE, np.int64)
    total = max(sum(graph.families[f].count for f in graph.outputs), 1)
    before = 0
    for f in graph.outputs:
        family = graph.families[f]
        position = np.arange(family.count)
        fraction = position * _ONE // max(family.count, 1) if side_by_side else (before + position) * _ONE // total
        np.minimum(at[family.start:family.stop], fraction, out=at[family.start:family.stop])
        before += family.count
    return at


def _sorted_by(*keys: np.ndarray) -> np.ndarray:
    """Task ids sorted by keys of `_BITS` + 1 bits each, then by id."""
    n = len(keys[0])
    bits = max(n - 1, 1).bit_length()
    if (len(keys) * (_BITS + 1)) + bits > 63:
        return np.lexsort(keys[::-1])  # stable, so equal keys stay in order of id
    packed = np.zeros(n, np.int64)
    for key in keys:
        packed = packed << (_BITS + 1) | key
    packed = packed << bits | np.arange(n)
    packed.sort()
    return packed & ((1 << bits) - 1)


def _anchor_positions(graph: TaskGraph) -> np.ndarray | None:
    """Positions as in `_output_positions`, but of the blocks that the outputs' reductions combine."""
    anchors = []
    for f in graph.outputs:
        family = graph.families[f]
        while family.kernel.name.endswith("tree") and family.count:
            family = graph.families[graph.family_of[graph.in_idx[graph.in_ptr[family.start]]]]
        anchors.append(family)
    if all(a.start == graph.families[f].start for a, f in zip(anchors, graph.outputs, strict=True)):
        return None
    at = np.full(graph.n_tasks, _ONE, np.int64)
    for a in anchors:
        np.minimum(at[a.start:a.stop], np.arange(a.count) * _ONE // a.count, out=at[a.start:a.stop])
    return at


def _pass_on(graph: TaskGraph, need: np.ndarray) -> None:
    """Give tasks past the anchors the largest key of their operands."""
    ptr = graph.in_ptr
    for f in graph.families:
        a, b = int(ptr[f.start]), int(ptr[f.stop])
        own = need[f.start:f.stop]
        if a < b and (past := own == _ONE).any():
            largest = np.zeros(f.count, np.int64)
            _largest(largest, need[graph.in_idx[a:b]], ptr[f.start:f.stop + 1])
            own[past] = largest[past]


def candidates(graph: TaskGraph) -> Iterator[np.ndarray]:
    """Topological orders worth comparing, the likeliest first; one where a choice cannot matter."""
    level = depth(graph) if _FEW <= graph.n_tasks <= _MANY_TASKS and len(graph.outputs) > 1 else None
    deep = level is not None and level.max() >= _DEEP and graph.n_tasks <= _NARROW * level.max()
    if deep:
        yield np.argsort(level, kind="stable")  # type: ignore[arg-type]
    p = read_progress(graph)
    yield _sorted_by(first_need(graph, _output_positions(graph, True)), p)
    if graph.n_tasks < _FEW:
        return
    blocks = sum(graph.families[f].count for f in graph.outputs)
    if blocks > 1:
        yield _sorted_by(p)
    if len(graph.outputs) > 1:
        yield _sorted_by(first_need(graph, _output_positions(graph, False)), p)
    anchors = _anchor_positions(graph) if blocks < _MANY else None
    if anchors is not None:
        need = first_need(graph, anchors)
        _pass_on(graph, need)
        yield _sorted_by(need, p)
    if len(graph.outputs) > 1 and not deep:
        yield np.argsort(depth(graph) if level is None else level, kind="stable")
