"""Slices and re-blockings go down to where they cost nothing; axis maps meet and cancel.

    gather(leaf)          -> leaf of another region and grid (a view: nothing moves)
    gather(gather(x))     -> gather(x)
    gather(axes(x))       -> axes(gather(x))
    gather(ewise(x, ..))  -> ewise(gather(x), ..)        where it reaches only part, or reaches leaves
    gather(ewise(x, ..))  -> ewise(gather(x), ..)        where nobody else reads it and its operands are much smaller
    gather(full)          -> full of the new shape
    axes(axes(x))         -> axes(x)
"""

from __future__ import annotations

import math

from nums_core.expr.build import axes, gather
from nums_core.expr.node import Expr, Region, make

_GROWS = 4  # how much larger than its operands a result is that is made anew rather than re-blocked


def into_leaf(node: Expr) -> Expr | None:
    """Read what is wanted, cut as it is wanted. Where reading has a price (random numbers are drawn) only if that at least
    halves it: the whole may be wanted elsewhere too."""
    return _leaf_read_for(node, 0.5)


def into_leaf_alone(node: Expr) -> Expr | None:
    """The same where nobody else reads the source."""
    return _leaf_read_for(node, 1.1)


def _leaf_read_for(node: Expr, most: float) -> Expr | None:
    """The gather of a leaf as a leaf, if reading it costs `most` times as much at most."""
    x = node.args[0]
    if x.op != "leaf" or x.params[0].kind == "held":
        return None
    source, region = x.params
    start, step = node.params
    if source.kind == "reader" and any(s < 0 for s in step):
        return None
    moved = Region(tuple(r + s * d for r, s, d in zip(region.start, start, region.step, strict=True)),
                   tuple(s * d for s, d in zip(step, region.step, strict=True)), region.shape)
    price = getattr(source.data, "read_price", None)
    if price is not None and price(node.chunks, moved.step) > most * price(x.chunks, region.step):
        return None
    return make("leaf", (), (source, moved), node.shape, node.dtype, node.chunks, x.line)


def into_fill(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "create" or x.params[0] != "full":
        return None
    return make("create", (), x.params, node.shape, node.dtype, node.chunks, x.line)


def merge(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "gather":
        return None
    (start, step), (start0, step0) = node.params, x.params
    return gather(x.args[0], tuple(a + s * d for a, s, d in zip(start0, start, step0, strict=True)),
                  tuple(s * d for s, d in zip(step, step0, strict=True)), node.chunks)


def through_axes(node: Expr) -> Expr | None:
    """Slice the operand of an axis map instead of its result."""
    x = node.args[0]
    if x.op != "axes":
        return None
    (source,), inner = x.params, x.args[0]
    start, step = [0] * inner.ndim, [1] * inner.ndim
    chunks: list[tuple[int, ...]] = list(inner.chunks)
    for axis, s in enumerate(source):
        if s is not None and inner.shape[s] == x.shape[axis]:
            start[s], step[s], chunks[s] = node.params[0][axis], node.params[1][axis], node.chunks[axis]
    return axes(gather(inner, tuple(start), tuple(step), tuple(chunks)), source, node.shape, node.chunks)


def through_ewise(node: Expr) -> Expr | None:
    """Slice the operands of an elementwise operation instead of its result: where that reads less, or where all its
    operands are sources, so that re-blocking becomes free."""
    x = node.args[0]
    if x.op != "ewise" or not (2 * math.prod(node.shape) <= math.prod(x.shape) or _over_sources(x)):
        return None
    args = [sliced_like(a, x, node) for a in x.args]
    return make("ewise", args, x.params, node.shape, node.dtype, node.chunks, x.line)


def through_outer(node: Expr) -> Expr | None:
    """Re-block the small operands of an elementwise operation, not its much larger result: an outer product."""
    x = node.args[0]
    if x.op != "ewise":
        return None
    operands = sum(math.prod((a.args[0] if a.op == "axes" else a).shape) for a in x.args)
    if not _GROWS * operands <= math.prod(x.shape):
        return None
    args = [sliced_like(a, x, node) for a in x.args]
    return make("ewise", args, x.params, node.shape, node.dtype, node.chunks, x.line)


def _over_sources(x: Expr, depth: int = 4) -> bool:
    if x.op == "leaf":
        return x.params[0].kind == "array"
    if x.op == "create":
        return x.params[0] == "full"
    return depth > 0 and x.op in ("ewise", "axes", "gather") and all(_over_sources(a, depth - 1) for a in x.args)


def sliced_like(a: Expr, x: Expr, node: Expr) -> Expr:
    """What `node` gathers of `x`, gathered of the operand `a` of `x` (axes of extent 1 that are broadcast stay)."""
    back = x.ndim - a.ndim
    start, step = list(node.params[0][back:]), list(node.params[1][back:])
    chunks: list[tuple[int, ...]] = list(node.chunks[back:])
    for i, n in enumerate(a.shape):
        if n == 1 and x.shape[back + i] != 1:
            start[i], step[i], chunks[i] = 0, 1, (1,)
    return gather(a, tuple(start), tuple(step), tuple(chunks))


def merge_axes(node: Expr) -> Expr | None:
    x = node.args[0]
    if x.op != "axes":
        return None
    (outer,), (inner,) = node.params, x.params
    source = tuple(None if s is None else inner[s] for s in outer)
    base = x.args[0]
    named = [s for s in source if s is not None]
    if any(base.shape[i] != 1 for i in range(base.ndim) if i not in named):
        return None  # an axis of the operand was broadcast from 1 and then dropped: keep both
    for axis, s in enumerate(source):
        if s is not None and outer[axis] is not None and base.shape[s] != x.shape[outer[axis]] and base.shape[s] != 1:
            return None
    return axes(base, source, node.shape, node.chunks)


RULES = [("gather", into_leaf), ("gather", into_fill), ("gather", merge), ("gather", through_axes),
         ("gather", through_ewise), ("axes", merge_axes)]
ALONE = [("gather", into_leaf_alone), ("gather", through_outer)]
