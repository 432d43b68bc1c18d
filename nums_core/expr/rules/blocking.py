"""Grids of products of arrays in memory: a block of a source is a view, so how it is cut is chosen for speed.

    sum not cut         where the result alone has enough blocks: no partial products, nothing to add; unless the operands
                        would be read so often that cutting them anew, along the sum, saves a quarter of the bytes
    as the user cut it  where that gives enough tasks and the partial products are small beside the operands
    halved              otherwise, at the label that costs least in bytes read and added, until there are enough tasks

Shape, dtype and grid of the result stay: where a product runs on a finer grid, a gather puts its blocks together. The
rule looks at shapes and grids alone, never at the machine, so that the bits are the same everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from nums_core.expr.build import rechunk
from nums_core.expr.grid import Chunks, known, uniform
from nums_core.expr.node import Expr, consumers, make, postorder, with_args

ENOUGH = 4  # blocks of a result that keep threads busy without cutting further
FLOP_PER_TASK = 1e9  # products are cut into tasks of about this much work, where they must be cut at all
MOST, LEAST = 32, 8
MANY = 256  # more tasks than this must be worth their overhead
MIN_FLOP = 2e7  # below this a product is one task's work: a cut sum is only overhead
MIN_EDGE = 32  # no piece is thinner
WORTHWHILE = 0.75  # share of the bytes below which the result's own grid is given up

Cuts = dict[str, tuple[int, ...]]


def regrid(roots: Sequence[Expr]) -> list[Expr]:
    """`roots` with products of arrays in memory on better grids."""
    nodes = list(postorder(roots))
    if not any(n.op == "contract" for n in nodes):
        return list(roots)
    uses = consumers(roots)
    done: dict[int, Expr] = {}
    free: dict[int, bool] = {}
    for node in nodes:
        made = with_args(node, [done[id(a)] for a in node.args])
        free[id(node)] = _is_free(node, free, uses)
        if node.op == "contract" and all(free[id(a)] for a in node.args) and known(node.chunks):
            made = _regridded(made)
        done[id(node)] = made
    return [done[id(r)] for r in roots]


def _is_free(node: Expr, free: dict[int, bool], uses: dict[int, int]) -> bool:
    """Whether cutting `node` anew costs nothing: sources in memory, and what only this product reads of such."""
    if node.op == "leaf":
        return node.params[0].kind == "array" and all(s > 0 for s in node.params[1].step)
    if node.op == "axes":
        return free[id(node.args[0])] and _permutes(node)
    return node.op == "contract" and uses[id(node)] == 1 and all(free[id(a)] for a in node.args)


def _permutes(node: Expr) -> bool:
    (source,), x = node.params, node.args[0]
    return sorted(s for s in source if s is not None) == list(range(x.ndim)) == sorted(range(node.ndim)) and all(
        x.shape[s] == n for s, n in zip(source, node.shape, strict=True))


def recut(x: Expr, chunks: Chunks) -> Expr:
    """A free expression on another grid."""
    if x.chunks == chunks:
        return x
    if x.op == "axes":
        (source,) = x.params
        inner: list[tuple[int, ...]] = list(x.args[0].chunks)
        for axis, s in enumerate(source):
            inner[s] = chunks[axis]
        return make("axes", (recut(x.args[0], tuple(inner)),), x.params, x.shape, x.dtype, chunks, x.line)
    if x.op == "gather":  # a product on a finer grid than it was asked for
        return recut(x.args[0], chunks)
    if x.op == "contract":
        return _on_grid(x, _cuts(x) | dict(zip(x.params[2], chunks, strict=True)))
    return make(x.op, x.args, x.params, x.shape, x.dtype, chunks, x.line)


def _cuts(node: Expr) -> Cuts:
    return {x: c for a, labels in zip(node.args, node.params, strict=False)
            for x, c in zip(labels, a.chunks, strict=True)}


def _on_grid(node: Expr, cuts: Cuts) -> Expr:
    args = [recut(a, tuple(cuts[x] for x in labels)) for a, labels in zip(node.args, node.params, strict=False)]
    return make("contract", args, node.params, node.shape, node.dtype, tuple(cuts[x] for x in node.params[2]), node.line)


def _regridded(node: Expr) -> Expr:
    lc = node.params[2]
    cuts = _cuts(node)
    summed = [x for x in cuts if x not in lc]
    whole = {x: (sum(cuts[x]),) for x in summed}
    n_out, n_sum = (math.prod(len(cuts[x]) for x in labels) for labels in (lc, summed))
    flop = 2.0 * math.prod(sum(c) for c in cuts.values())
    if flop < MIN_FLOP:
        return _on_grid(node, cuts | whole)
    size = _Bytes(node)
    want = min(MOST, max(LEAST, flop / FLOP_PER_TASK))
    if n_out > MOST:
        return _on_grid(node, cuts | whole)
    if n_out >= ENOUGH:
        anew = _halved(node, {x: (sum(c),) for x, c in cuts.items()}, size, want)
        if size.of(anew, lc, refined=True) > WORTHWHILE * size.of(cuts | whole, lc, refined=False):
            return _on_grid(node, cuts | whole)
        return rechunk(_on_grid(node, anew), node.chunks)
    tasks = n_out * n_sum
    if tasks >= LEAST and (tasks <= MANY or flop / tasks >= MIN_FLOP) and (
            2 * n_sum * size.out <= (size.left + size.right) / 2):
        return node
    return rechunk(_on_grid(node, _halved(node, cuts | whole, size, want)), node.chunks)


class _Bytes:
    """Bytes that a product reads and adds when each label is cut into so many pieces."""

    def __init__(self, node: Expr) -> None:
        self.labels = node.params[:3]
        (a, b), item = node.args, node.dtype.itemsize
        self.left, self.right, self.out = (math.prod(x.shape) * item for x in (a, b, node))
        (x, lx), (y, ly) = (_source(e, labels) for e, labels in zip(node.args, node.params, strict=False))
        self.gram = x is y and all(p == q for p, q in zip(lx, ly, strict=True) if p in ly or q in lx)
        self.inner = [_inner(labels, node.params[:3]) for labels in (lx, ly)]

    def of(self, cuts: Cuts, lc: str, refined: bool) -> float:
        pieces = {x: len(c) for x, c in cuts.items()}
        return self.cost(pieces, [x for x in cuts if x not in lc], refined and any(pieces[x] > 1 for x in lc))

    def cost(self, pieces: dict[str, int], summed: Sequence[str], refined: bool) -> float:
        la, lb, _ = self.labels
        total = 0.0
        for labels, n_bytes, inner in ((la, self.left, self.inner[0]), (lb, self.right, self.inner[1])):
            total += n_bytes * math.prod(n for x, n in pieces.items() if x not in labels)
            if any(pieces[x] > 1 for x in inner):
                total += 2 * n_bytes  # the axes that a product merges would not merge in its blocks: a copy
        n_sum = math.prod(pieces[x] for x in summed)
        if self.gram and refined:
            total *= 2  # a product of an array with itself is half the work, unless its result is cut
        return total + (2.0 * n_sum * self.out if n_sum > 1 else 0.0) + (2.0 * self.out if refined else 0.0)


def _inner(labels: str, operands: Sequence[str]) -> list[str]:
    """Labels that follow, in memory, one of the same role (summed, of rows, of columns): together they are one axis."""
    role = {x: tuple(x in each for each in operands) for x in labels}
    return [x for before, x in itertools.pairwise(labels) if role[before] == role[x]]


def _source(x: Expr, labels: str) -> tuple[Expr, str]:
    """What an expression permutes the axes of, and the labels of those."""
    while x.op == "axes":
        (source,) = x.params
        labels = "".join(labels[source.index(i)] for i in range(x.ndim))
        x = x.args[0]
    return x, labels


def _halved(node: Expr, cuts: Cuts, size: _Bytes, want: float) -> Cuts:
    """`cuts` refined until there are `want` tasks, each time at the label that costs least."""
    lc = node.params[2]
    summed = [x for x in cuts if x not in lc]
    pieces = dict.fromkeys(cuts, 1)
    tasks = math.prod(len(c) for c in cuts.values())
    while tasks < want:
        options = []
        for x in cuts:
            if min(cuts[x]) >= 2 * pieces[x] * MIN_EDGE:
                tried = pieces | {x: 2 * pieces[x]}
                options.append((size.cost(tried, summed, any(tried[y] > 1 for y in lc)), x))
        if not options:
            break
        pieces[min(options)[1]] *= 2
        tasks *= 2
    return {x: tuple(part for n in c for part in uniform(n, -(-n // pieces[x]))) for x, c in cuts.items()}
