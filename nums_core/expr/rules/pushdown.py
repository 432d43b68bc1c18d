"""Slices and re-blockings go down through operations with a structure of their own.

    gather(concat(a, b))     -> concat(gather(a), gather(b))      only blocks that straddle a border are put together
    gather(points(x))        -> points(gather(x)) of fewer points (as many, where nobody else reads the operand)
    reshape(leaf)            -> leaf of the source's other shape  (a view: nothing moves)
    select(gather(x), gather(f(x)))  -> the mask is made of what is selected from

    and where nobody else reads the operand, so that nothing is computed twice:

    gather(reduce(x))        -> reduce(gather(x))
    gather(contract(a, b))   -> contract(gather(a), gather(b))
"""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Any

from nums_core.expr.build import gather, slice_chunks
from nums_core.expr.grid import known
from nums_core.expr.index import Frozen
from nums_core.expr.node import Expr, Region, make
from nums_core.expr.rules.movement import sliced_like


def through_concat(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "concat" or not known(node.chunks) or not known(x.chunks):
        return None
    (axis,) = x.params
    cut = node.chunks[axis]
    if 0 in cut or not cut:
        return None
    groups = [(parts, [c for _, c in run]) for parts, run in itertools.groupby(
        zip(_reached(node, x, axis), cut, strict=True), key=lambda pair: pair[0])]
    pieces, done = [], 0
    for (first, last), sizes in groups:
        if first == last:
            pieces.append(_of_parts(node, x, axis, first, last, done, tuple(sizes)))
            done += sum(sizes)
            continue
        for n in sizes:
            pieces.append(_of_parts(node, x, axis, first, last, done, (n,)))
            done += n
    if len(pieces) == 1:
        return pieces[0] if pieces[0] is not node else None
    return make("concat", pieces, (axis,), node.shape, node.dtype, node.chunks, node.line)


def _reached(node: Expr, x: Expr, axis: int) -> list[tuple[int, int]]:
    """First and last part (lower number first) that each chunk of the result reads."""
    start, step = node.params[0][axis], node.params[1][axis]
    ends = list(itertools.accumulate(a.shape[axis] for a in x.args))
    out, at = [], 0
    for n in node.chunks[axis]:
        both = [bisect.bisect_right(ends, start + i * step) for i in (at, at + n - 1)]
        out.append((min(both), max(both)))
        at += n
    return out


def _of_parts(node: Expr, x: Expr, axis: int, first: int, last: int, done: int, sizes: tuple[int, ...]) -> Expr:
    """The elements from `done` on along `axis`, in chunks of `sizes`, read from parts `first` to `last` of `x`."""
    begin = sum(a.shape[axis] for a in x.args[:first])
    start, step = list(node.params[0]), node.params[1]
    start[axis] = node.params[0][axis] + done * step[axis] - begin
    chunks = tuple(sizes if i == axis else c for i, c in enumerate(node.chunks))
    parts = list(x.args[first:last + 1])
    if len(parts) > 1:
        lowest = start[axis] if step[axis] > 0 else start[axis] + (sum(sizes) - 1) * step[axis]
        tail = parts[0].shape[axis] - lowest
        if 2 * tail <= parts[0].shape[axis]:  # read only what is wanted of the outer parts
            parts[0] = _end(parts[0], axis, lowest, tail)
            start[axis] -= lowest
        highest = max(start[axis], start[axis] + (sum(sizes) - 1) * step[axis]) + 1
        head = highest - sum(p.shape[axis] for p in parts[:-1])
        if 2 * head <= parts[-1].shape[axis]:
            parts[-1] = _end(parts[-1], axis, 0, head)
        cut = tuple(c for p in parts for c in p.chunks[axis])
        x = make("concat", parts, (axis,), tuple(sum(cut) if i == axis else n for i, n in enumerate(x.shape)), x.dtype,
                 tuple(cut if i == axis else c for i, c in enumerate(x.chunks)))
    else:
        (x,) = parts
    return gather(x, tuple(start), step, chunks)


def _end(part: Expr, axis: int, start: int, n: int) -> Expr:
    at = tuple(start if i == axis else 0 for i in range(part.ndim))
    chunks = tuple(slice_chunks(c, start, 1, n) if i == axis else c for i, c in enumerate(part.chunks))
    return gather(part, at, (1,) * part.ndim, chunks)


def through_points(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "index.points":
        return None
    first, frozen = x.params
    (inner,), k = x.args, len(frozen.array)
    start, step = node.params
    n = node.shape[first]
    stop = start[first] + n * step[first]
    locs = frozen.array[:, start[first]:(None if stop < 0 else stop):step[first]] if n else frozen.array[:, :0]
    over = range(first, first + k)
    spread = [*range(first), *[first] * k, *range(first + 1, node.ndim)]
    box = [(0, 1, inner.chunks[i]) if i in over else (start[j], step[j], node.chunks[j]) for i, j in enumerate(spread)]
    base = gather(inner, *(tuple(b[i] for b in box) for i in range(3)))  # type: ignore[arg-type]
    if locs.shape == frozen.array.shape and step[first] == 1:
        kept: Any = frozen
    else:
        kept = Frozen(locs)
    return make("index.points", (base,), (first, kept), node.shape, node.dtype, node.chunks, x.line)


def fewer_points(node: Expr) -> Expr | None:
    return through_points(node) if _reaches_half(node, node.args[0]) else None


def reshaped_leaf(node: Expr) -> Expr | None:
    x = node.args[0]
    (in_order,) = node.params
    if not in_order or x.op != "leaf" or x.params[0].kind != "array":
        return None
    source, region = x.params
    if any(region.start) or any(d != 1 for d in region.step) or not source.data.flags.c_contiguous or math.prod(
            x.shape) != source.data.size:
        return None
    whole = Region((0,) * node.ndim, (1,) * node.ndim, node.shape)
    return make("leaf", (), (source, whole), node.shape, node.dtype, node.chunks, x.line)


def mask_of_data(node: Expr) -> Expr | None:
    x, mask = node.args
    if x.op != "gather" or mask.op != "gather" or mask.args[0].op != "ewise" or x.ndim != mask.ndim:
        return None
    f = mask.args[0]
    if mask.params != x.params or not any(a is x.args[0] for a in f.args):
        return None
    made = make("ewise", [sliced_like(a, f, mask) for a in f.args], f.params, mask.shape, mask.dtype, mask.chunks, f.line)
    return make(node.op, (x, made), node.params, node.shape, node.dtype, node.chunks, node.line)


def through_reduce(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "reduce" or len(x.args) != 1 or x.params[0] == "user" or not _reaches_half(node, x):
        return None
    axes, keep = x.params[1:3]
    (inner,) = x.args
    kept = [i for i in range(inner.ndim) if i not in axes]
    out_axis = {i: (i if keep else kept.index(i)) for i in kept}
    if keep and any(node.params[0][i] or node.params[1][i] != 1 or node.chunks[i] != x.chunks[i] for i in axes):
        return None
    box = [(node.params[0][out_axis[i]], node.params[1][out_axis[i]], node.chunks[out_axis[i]]) if i in out_axis
           else (0, 1, inner.chunks[i]) for i in range(inner.ndim)]
    base = gather(inner, *(tuple(b[i] for b in box) for i in range(3)))  # type: ignore[arg-type]
    return make("reduce", (base,), x.params, node.shape, node.dtype, node.chunks, x.line)


def through_contract(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "contract" or len(x.params) != 3 or not _reaches_half(node, x):
        return None
    la, lb, lc = x.params
    args = []
    for a, labels in zip(x.args, (la, lb), strict=True):
        box = [(node.params[0][lc.index(c)], node.params[1][lc.index(c)], node.chunks[lc.index(c)]) if c in lc
               else (0, 1, a.chunks[i]) for i, c in enumerate(labels)]
        args.append(gather(a, *(tuple(b[i] for b in box) for i in range(3))))  # type: ignore[arg-type]
    return make("contract", args, x.params, node.shape, node.dtype, node.chunks, x.line)


def _reaches_half(node: Expr, x: Expr) -> bool:
    return 2 * math.prod(node.shape) <= math.prod(x.shape)


RULES = [("gather", through_concat), ("gather", fewer_points), ("reshape.blocks", reshaped_leaf),
         ("index.select", mask_of_data)]
ALONE = [("gather", through_points), ("gather", through_reduce), ("gather", through_contract)]
