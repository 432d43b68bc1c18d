"""Reductions become trees of ordinary tasks, cut where their partial results change worker.

`grow` handles all output blocks of a reduction with n partials at once: row r of `ids` holds the partials of output r.
A range of the halving tree (`ops.tree`) whose leaves lie on one worker becomes one task; a range that spans workers
becomes a task of two inputs, run where the fewest partials cross (`places`). Where the partials of one worker weigh more than
`TASK_BYTES` together their range is cut further, so that in depth-first order only O(log n) of them are alive.

`grow_local` gives up the fixed tree: it drains each worker, then each node, then combines over nodes, which moves k - 1
partials for partials on any k workers in any order (the pairing rule of section 4.5 in the NumS planner, mended).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nums_core.ops import tree
from nums_core.scheduler.places import Places

# One task reads at most this much of a reduction's partial results, unless they are only two.
TASK_BYTES = 4 * 2**20


class Level(NamedTuple):
    """Tasks of one depth of the trees: `counts[t]` inputs each, flat in `inputs`; `rows` is the output they serve."""

    inputs: np.ndarray
    counts: np.ndarray
    rows: np.ndarray
    workers: np.ndarray


class Trees(NamedTuple):
    """Inner levels, ids consecutive from the `next_id` given, deepest first; then the roots, one a row in order."""

    inner: list[Level]
    root: Level


def chunk_depths(n: int, most: int) -> list[int]:
    """Depths (deepest first, 0 left out) at which a range on one worker becomes a task of its own.

    `most` inputs are allowed for a task. The deepest ranges hold at most that many leaves; above, a task combines as
    many ranges.
    """
    if n <= most:
        return []
    deepest = 0
    while -(-n >> deepest) > most:  # ceil(n / 2^deepest)
        deepest += 1
    return list(range(deepest, 0, -max(1, most.bit_length() - 1)))


def grow(ids: np.ndarray, workers: np.ndarray, target: np.ndarray, next_id: int, most: int,
         forced: bool = False) -> Trees:
    """Halving trees over the rows of `ids`.

    Parameters
    ----------
    ids : int array, shape (rows, n), n >= 1
        Blocks to combine.
    workers : int32 array, shape (rows, n)
    target : int32 array, shape (rows,)
        Where the result is wanted: among two workers a task prefers this one, so that it reaches the root.
    next_id : int
        Id of the first inner task.
    most : int
        Inputs of a task whose inputs lie on one worker.
    forced : bool
        The roots will run at `target`, so that what lies on one other worker is combined there first.
    """
    if ids.shape[1] == 1 or (workers == workers[:, :1]).all():
        trees = _grow_together(ids, workers[:, 0], next_id, most)
        alone = np.full(len(ids), ids.shape[1] > 1)
    else:
        trees, alone = _grow_apart(ids, workers, target, next_id, most)
    sent = alone & (trees.root.workers != target)
    return _combined_first(trees, sent, next_id) if forced and sent.any() else trees


def _combined_first(trees: Trees, sent: np.ndarray, next_id: int) -> Trees:
    """Roots `sent` elsewhere read one combined partial instead of all that their own worker has."""
    root = trees.root
    next_id += sum(len(level.counts) for level in trees.inner)
    of_sent = np.repeat(sent, root.counts)
    inner = Level(root.inputs[of_sent], root.counts[sent], root.rows[sent], root.workers[sent])
    counts = np.where(sent, 1, root.counts)
    inputs = np.empty(counts.sum(), np.int64)
    single = np.repeat(sent, counts)
    inputs[single], inputs[~single] = next_id + np.arange(int(sent.sum())), root.inputs[~of_sent]
    return Trees([*trees.inner, inner], Level(inputs, counts, root.rows, root.workers))


def _grow_together(ids: np.ndarray, worker: np.ndarray, next_id: int, most: int) -> Trees:
    """All partials of an output on one worker: every tree has the same shape."""
    rows, n = ids.shape
    inner: list[Level] = []
    values, deeper = ids, -1
    for depth in chunk_depths(n, most):
        values, level = _together_level(values, n, depth, deeper, next_id, worker)
        if level is not None:
            inner.append(level)
            next_id += len(level.counts)
        deeper = depth
    counts = np.full(rows, values.shape[1])
    return Trees(inner, Level(values.reshape(-1), counts, np.arange(rows), worker))


def _together_level(values: np.ndarray, n: int, depth: int, deeper: int, next_id: int,
                    worker: np.ndarray) -> tuple[np.ndarray, Level | None]:
    """Combine `values` (leaves, or the ranges at depth `deeper`) into the ranges at `depth`."""
    rows = len(values)
    sizes = np.diff(tree.bounds(n, depth)) if deeper < 0 else np.full(2**depth, 2**(deeper - depth))
    made = sizes > 1
    per_row = int(made.sum())
    if per_row == 0:
        return values, None
    new = np.empty((rows, len(sizes)), np.int64)
    new[:, made] = next_id + np.arange(rows * per_row).reshape(rows, per_row)
    taken = np.repeat(made, sizes)
    new[:, ~made] = values[:, ~taken]
    row_of = np.repeat(np.arange(rows), per_row)
    inputs = (values if made.all() else values[:, taken]).reshape(-1)
    return new, Level(inputs, np.tile(sizes[made], rows), row_of, worker[row_of])


def _grow_apart(ids: np.ndarray, workers: np.ndarray, target: np.ndarray, next_id: int,
                most: int) -> tuple[Trees, np.ndarray]:
    """Partials of an output on several workers: the trees differ from row to row. Also: which roots' inputs are together.

    Every array below has one column for each range at its depth. `one[d]` is the worker that holds all of a range, or
    -1; `place[d]` the worker of its value; `value[d]` the block that is its value, where it is a task or a leaf.
    """
    rows, n = ids.shape
    deepest = tree.depth(n)
    chunks = chunk_depths(n, most)
    one, place = _bottom_up(workers, target, deepest)
    value: dict[int, np.ndarray] = {}
    inner: list[Level] = []
    for depth in range(deepest, 0, -1):
        value[depth] = np.full(one[depth].shape, -1, np.int64)
        if depth == deepest:
            edges = tree.bounds(n, depth)
            single = np.diff(edges) == 1
            value[depth][:, single] = ids[:, edges[:-1][single]]
        made = _is_task(one, depth, n, chunks)
        parts = _inputs(ids, value, one, made, depth, deepest, chunks)
        level = _level(parts, place[depth])
        if len(level.counts):
            at = 0
            for mask, _, _ in parts:
                k = int(mask.sum())
                value[depth][mask] = next_id + at + np.arange(k)
                at += k
            inner.append(level)
            next_id += at
        _forget(value, depth, chunks)
    made = np.ones((rows, 1), bool)
    root = _level(_inputs(ids, value, one, made, 0, deepest, chunks), place[0])
    return Trees(inner, _in_row_order(root)), (place[1] == place[0]).all(axis=1)


def _bottom_up(workers: np.ndarray, target: np.ndarray, deepest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    edges = tree.bounds(workers.shape[1], deepest)
    left, right = workers[:, edges[:-1]], workers[:, edges[1:] - 1]
    one, places = [_agree(left, right)], Places(workers, target)
    places.leaves(left, right, deepest)
    for depth in range(deepest - 1, -1, -1):
        one.append(_agree(one[-1][:, 0::2], one[-1][:, 1::2]))
        places.halves(depth)
    return one[::-1], places.top_down()


def _agree(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.where(left == right, left, -1)


def _is_task(one: list[np.ndarray], depth: int, n: int, chunks: list[int]) -> np.ndarray:
    """Ranges at `depth` that become tasks: those over several workers, the largest on one worker, and its chunks."""
    apart = one[depth] < 0
    if depth in chunks:
        whole = ~apart
    else:
        whole = ~apart & np.repeat(one[depth - 1] < 0, 2, axis=1)
    return apart | (whole & (np.diff(tree.bounds(n, depth)) > 1))


_Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # mask over (rows, ranges), flat inputs, counts


def _inputs(ids: np.ndarray, value: dict[int, np.ndarray], one: list[np.ndarray], made: np.ndarray, depth: int,
            deepest: int, chunks: list[int]) -> list[_Part]:
    """What the tasks at `depth` read: first those on one worker, then those over several."""
    together, apart = made & (one[depth] >= 0), made & (one[depth] < 0)
    below = min((c for c in chunks if c > depth), default=None)
    parts = [_from_depth(value[below], together, depth, below) if below else _from_leaves(ids, together, depth)]
    if depth < deepest:
        parts.append(_from_depth(value[depth + 1], apart, depth, depth + 1))
    else:
        parts.append(_from_leaves(ids, apart, depth))
    return parts


def _from_depth(values: np.ndarray, mask: np.ndarray, depth: int, below: int) -> _Part:
    fan = 2**(below - depth)
    chosen: np.ndarray = values.reshape(-1, fan)
    if not mask.all():
        chosen = chosen[mask.reshape(-1)]
    return mask, chosen.reshape(-1), np.full(len(chosen), fan)


def _from_leaves(ids: np.ndarray, mask: np.ndarray, depth: int) -> _Part:
    n = ids.shape[1]
    edges = tree.bounds(n, depth)
    rows, ranges = np.nonzero(mask)
    counts = np.diff(edges)[ranges]
    return mask, ids.reshape(-1)[ragged(rows * n + edges[ranges], counts)], counts


def ragged(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`concatenate([arange(s, s + c) for s, c in zip(starts, counts)])`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - counts), counts)


def _level(parts: list[_Part], place: np.ndarray) -> Level:
    parts = [part for part in parts if len(part[2])] or parts[:1]
    rows = np.concatenate([np.repeat(np.arange(len(mask)), mask.sum(axis=1)) for mask, _, _ in parts])
    return Level(np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts]), rows,
                 np.concatenate([place[mask] for mask, _, _ in parts]))


def _in_row_order(level: Level) -> Level:
    by_row = np.argsort(level.rows, kind="stable")
    starts = np.cumsum(level.counts) - level.counts
    counts = level.counts[by_row]
    return Level(level.inputs[ragged(starts[by_row], counts)], counts, level.rows[by_row], level.workers[by_row])


def _forget(value: dict[int, np.ndarray], depth: int, chunks: list[int]) -> None:
    """Drop values that no shallower range reads: keep `depth` itself and the chunk depths."""
    for d in [d for d in value if d > depth and d not in chunks]:
        del value[d]



def grow_local(ids: np.ndarray, workers: np.ndarray, target: np.ndarray, next_id: int, most: int,
               node_of: np.ndarray, forced: bool = False) -> Trees:
    """Drain each worker, then each node, then combine over nodes: k - 1 partials move, whatever lies where."""
    if ids.shape[1] == 1 or (workers == workers[:, :1]).all():
        return grow(ids, workers, target, next_id, most, forced)
    rows, n = ids.shape
    block, worker, row = ids.reshape(-1), workers.reshape(-1), np.repeat(np.arange(rows), n)
    inner: list[Level] = []
    for place_of in (np.arange(len(node_of)), node_of):
        block, worker, row, made = _drain(block, worker, row, place_of, target, next_id, most)
        inner += made
        next_id += sum(len(level.counts) for level in made)
    made, root = cut(block, worker, np.bincount(row, minlength=rows), target, next_id, most, forced=forced)
    return Trees(inner + made, root)


def _drain(block: np.ndarray, worker: np.ndarray, row: np.ndarray, place_of: np.ndarray, target: np.ndarray,
           next_id: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Level]]:
    """Combine the partials of a row that share a place (a worker, a node) into one; sorted by row and place."""
    place = place_of[worker]
    order = np.lexsort((place, row))
    block, worker, row, place = block[order], worker[order], row[order], place[order]
    first = np.r_[True, (row[1:] != row[:-1]) | (place[1:] != place[:-1])]
    starts = np.flatnonzero(first)
    counts = np.diff(np.r_[starts, len(row)])
    value, at = block[starts], worker[starts]
    several = counts > 1
    inner: list[Level] = []
    if several.any():
        members = np.repeat(several, counts)
        of_row = row[starts][several]
        inner, top = cut(block[members], worker[members], counts[several], target[of_row], next_id, most)
        inner = [level._replace(rows=of_row[level.rows]) for level in [*inner, top]]
        made = sum(len(level.counts) for level in inner)
        value[several] = next_id + made - len(top.counts) + np.arange(len(top.counts))
        at[several] = top.workers
    return value, at, row[starts], inner


def cut(block: np.ndarray, worker: np.ndarray, counts: np.ndarray, target: np.ndarray, next_id: int, most: int,
        node_of: np.ndarray | None = None, forced: bool = False) -> Trees:
    """Trees over consecutive groups of partials of any sizes: `grow` (or, given `node_of`, `grow_local`) a size."""
    rows = len(counts)
    n = len(block) // max(rows, 1)
    if (counts == n).all():
        return _grow(block.reshape(rows, n), worker.reshape(rows, n), target, next_id, most, node_of, forced)
    inner: list[Level] = []
    tops: list[Level] = []
    starts = np.cumsum(counts) - counts
    for size in np.flatnonzero(np.bincount(counts)):
        groups = np.flatnonzero(counts == size)
        members = starts[groups][:, None] + np.arange(size)
        grown = _grow(block[members], worker[members], target[groups], next_id, most, node_of, forced)
        levels = [level._replace(rows=groups[level.rows]) for level in (*grown.inner, grown.root)]
        inner += levels[:-1]
        tops.append(levels[-1])
        next_id += sum(len(level.counts) for level in levels[:-1])
    return Trees(inner, _in_row_order(Level(*(np.concatenate(parts) for parts in zip(*tops, strict=True)))))


def _grow(ids: np.ndarray, workers: np.ndarray, target: np.ndarray, next_id: int, most: int,
          node_of: np.ndarray | None, forced: bool) -> Trees:
    if node_of is None:
        return grow(ids, workers, target, next_id, most, forced)
    return grow_local(ids, workers, target, next_id, most, node_of, forced)
