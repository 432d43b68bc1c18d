"""Sums of products whose inner axes are cut alike become one product, over the inner axes laid side by side.

    x1 @ y1 + x2 @ y2   ->   [x1 x2] @ [[y1] [y2]]      blocks of the terms in turn; no block is touched

Then the partial products of a block of the result are added up in one tree, those of all terms at one place before
those at the next. What lies on one worker meets there, and one partial result a worker crosses, not one a term. So the
cotangent of what several cut matrices read (queries, keys and values; the two of a gated MLP) costs one sum over the
workers.

Source     M. Shoeybi et al., "Megatron-LM", 2019, section 3: the operator f, one all-reduce backward for all of them.
Departs    Terms behind unlike numbers of barriers are left apart: parts of a batch, taken one after another, would keep
           their partial results until the last.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from nums_core.expr.build import concatenate
from nums_core.expr.grid import Chunks, known
from nums_core.expr.node import Expr, consumers, make, postorder, with_args


def join(roots: Sequence[Expr]) -> list[Expr]:
    """`roots` with such sums of products joined. Linear in the nodes."""
    nodes = list(postorder(roots))
    if not any(_is_cut_product(n) for n in nodes):
        return list(roots)
    group_of = {id(n): group for group in _groups(nodes, consumers(roots)) for n in group}
    done: dict[int, Expr | None] = {}
    for node in nodes:
        args = [done[id(a)] for a in node.args]
        left = [a for a in args if a is not None]
        if id(node) in group_of:
            done[id(node)] = None  # a term that is in the product made for the last of its group
            group = group_of[id(node)]
            if node is group[-1]:
                done[id(node)] = _joined([with_args(n, [_kept(done, a) for a in n.args]) for n in group])
        elif len(left) < len(args):
            done[id(node)] = left[0] if left else None
        else:
            done[id(node)] = with_args(node, left)
    return [_kept(done, r) for r in roots]


def _kept(done: dict[int, Expr | None], node: Expr) -> Expr:
    made = done[id(node)]
    assert made is not None, "only additions read the terms of a sum"
    return made


def _groups(nodes: Sequence[Expr], uses: dict[int, int]) -> list[list[Expr]]:
    """Products that can be joined, in the order of `nodes`: of one sum, behind as many barriers, cut alike."""
    sum_of: dict[int, int] = {}  # the last addition of the sum that an addition or a product is a part of
    for node in reversed(nodes):
        if _is_addition(node):
            whole = sum_of.setdefault(id(node), id(node))
            sum_of.update({id(a): whole for a in node.args if uses[id(a)] == 1})
    barriers: dict[int, int] = {}
    found: dict[Hashable, list[Expr]] = {}
    for node in nodes:
        barriers[id(node)] = max((barriers[id(a)] for a in node.args), default=0) + (node.op == "barrier.after")
        if id(node) in sum_of and _is_cut_product(node):
            found.setdefault((sum_of[id(node)], barriers[id(node)], *_cut(node)), []).append(node)
    return [group for group in found.values() if len(group) > 1]


def _is_addition(node: Expr) -> bool:
    return (node.op == "ewise" and node.params[0] == "add" and node.params[2] == (0, 1)
            and all((a.dtype, a.chunks) == (node.dtype, node.chunks) for a in node.args))


def _is_cut_product(node: Expr) -> bool:
    """Whether a node sums over one axis of both operands, which is cut. (`expr.fuse` takes in transposed operands.)"""
    if node.op != "contract" or not known(node.chunks):
        return False
    inner = _inner_axes(node)
    return inner is not None and len(node.args[0].chunks[inner[0]]) > 1 and all(a.op != "axes" for a in node.args)


def _inner_axes(node: Expr) -> tuple[int, int] | None:
    """The summed axis of each operand, where there is one and no more."""
    la, lb, lc = node.params
    summed = [x for x in {*la, *lb} if x not in lc]
    if len(summed) != 1 or summed[0] not in la or summed[0] not in lb:
        return None
    return la.index(summed[0]), lb.index(summed[0])


def _cut(node: Expr) -> tuple[Hashable, ...]:
    """What must be equal for two products to be joined: labels, dtype, number of inner blocks, all other chunks."""
    inner = _inner_axes(node)
    assert inner is not None
    outer = [c[:k] + c[k + 1:] for c, k in zip((a.chunks for a in node.args), inner, strict=True)]
    return node.params, node.dtype, len(node.args[0].chunks[inner[0]]), *outer


def _joined(terms: Sequence[Expr]) -> Expr:
    """One product for all `terms`."""
    last, inner = terms[-1], _inner_axes(terms[-1])
    assert inner is not None
    args = [_in_turn([t.args[k] for t in terms], axis) for k, axis in enumerate(inner)]
    return make("contract", args, last.params, last.shape, last.dtype, last.chunks, last.line)


def _in_turn(parts: Sequence[Expr], axis: int) -> Expr:
    """The first blocks of all parts along `axis`, then the second ones, and so on."""
    n = len(parts[0].chunks[axis])
    whole = concatenate(parts, axis)
    order = tuple(t * n + k for k in range(n) for t in range(len(parts)))
    numbers = tuple(order if i == axis else tuple(range(g)) for i, g in enumerate(whole.grid))
    chunks: Chunks = tuple(tuple(c[k] for k in at) for c, at in zip(whole.chunks, numbers, strict=True))
    return make("blocks.take", (whole,), (numbers,), whole.shape, whole.dtype, chunks, whole.line)
