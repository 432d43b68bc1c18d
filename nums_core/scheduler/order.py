"""In which order tasks run: depth first, combining as soon as partial results exist, so that little is alive at once.

Every task gets a key, and tasks are sorted by it. The key never falls along an edge, so the order is topological by
construction:

    root   the smallest position among the output blocks that need the task (outputs are made one by one)
    p      how far into the leaves one must have read before the task can run (so partials combine at once)
    id     a task reads only smaller ids

Two keys are in use, `(root, p, id)` and `(p, id)`: the first is right for products (one output block after the other),
the second where every output block needs all leaves (Gram matrices, several statistics of one array). Which leaves less
alive is not guessed but counted.

Families are passed over one by one with array operations; this assumes that tasks of one family do not read each other.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import TaskGraph

_BITS = 20  # fractions are kept as integers of so many bits; equal ones are told apart by id
_ONE = 1 << _BITS
_FEW = 64  # graphs with fewer tasks are not worth a second order


def read_progress(graph: TaskGraph) -> np.ndarray:
    """`p` of each task: the largest index, as a fraction of its family, among the sources it depends on."""
    p = np.zeros(graph.n_tasks, np.int64)
    ptr, idx = graph.in_ptr, graph.in_idx
    for f in graph.families:
        a, b = int(ptr[f.start]), int(ptr[f.stop])
        if a == b:
            p[f.start:f.stop] = np.arange(f.count) * _ONE // max(f.count, 1)
        elif b - a == f.count == 1:
            p[f.start] = p[idx[a]]
        else:
            _largest(p[f.start:f.stop], p[idx[a:b]], ptr[f.start:f.stop + 1])
    return p


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
        own = need[f.start:f.stop]
        width, rest = divmod(b - a, f.count)
        if width == 1 and rest == 0 and f.count == 1:
            need[idx[a]] = min(need[idx[a]], own[0])
        else:
            np.minimum.at(need, idx[a:b], np.repeat(own, np.diff(ptr[f.start:f.stop + 1])))
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


def candidates(graph: TaskGraph) -> list[np.ndarray]:
    """Topological orders worth comparing, the likeliest first; one where a choice cannot matter."""
    p = read_progress(graph)
    out = [_sorted_by(first_need(graph, _output_positions(graph, True)), p)]
    if graph.n_tasks >= _FEW and sum(graph.families[f].count for f in graph.outputs) > 1:
        out.append(_sorted_by(p))
        if len(graph.outputs) > 1:
            out.append(_sorted_by(first_need(graph, _output_positions(graph, False)), p))
    return out
