"""Small blocks are read together where nobody sees the difference.

A reduction over blocks of kilobytes would be all overhead. Where a fused group reads only sources in memory (or values
made from their position alone), how it is cut along the axes that it reduces is nobody's business: neighbouring blocks
are merged until they hold `config.merge_bytes`. The rule looks at the grid alone, never at the machine, so that the
bits stay the same everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from nums_core import config
from nums_core.expr.grid import known
from nums_core.expr.node import Expr, consumers, make, postorder, with_args


def coarsen(roots: Sequence[Expr]) -> list[Expr]:
    """Fused expressions with coarser loops where that is free."""
    target = config.get().merge_bytes
    nodes = list(postorder(roots))
    if not target or not any(_candidate(n) for n in nodes):
        return list(roots)
    uses = consumers(roots)
    done: dict[int, Expr] = {}
    for node in nodes:
        node_args = [done[id(a)] for a in node.args]
        merged = _merged(node, target) if _candidate(node) and _free(node, uses) else None
        done[id(node)] = merged if merged is not None else with_args(node, node_args)
    return [done[id(r)] for r in roots]


def _candidate(node: Expr) -> bool:
    return node.op == "fused" and node.params[0].reduction is not None and bool(node.args)


def _free(node: Expr, uses: dict[int, int]) -> bool:
    """Whether every operand can be cut anew at no cost."""
    return all((a.op == "leaf" and a.params[0].kind == "array") or (a.op == "create" and uses[id(a)] == 1)
               for a in node.args)


def _merged(node: Expr, target: int) -> Expr | None:
    program, chunks, keep = node.params
    if not known(chunks):
        return None
    n_blocks = math.prod(map(len, chunks))
    elements = math.prod(map(sum, chunks))
    block_bytes = elements / max(n_blocks, 1) * max(a.dtype.itemsize for a in node.args)
    factor = int(target // max(block_bytes, 1))
    if factor < 2:
        return None
    cut = list(chunks)
    for loop in reversed(program.reduction.axes):  # the axes that lie closest in memory first
        take = min(factor, len(cut[loop]))
        if take > 1:
            cut[loop] = tuple(sum(group) for group in _groups(cut[loop], take))
            factor //= take
        if factor < 2:
            break
    if tuple(cut) == chunks:
        return None
    args = [_recut(a, amap, cut) for a, amap in zip(node.args, program.maps, strict=True)]
    return make("fused", args, (program, tuple(cut), keep), node.shape, node.dtype, node.chunks, node.line)


def _groups(sizes: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(itertools.islice(sizes, i, i + n)) for i in range(0, len(sizes), n)]


def _recut(a: Expr, amap: tuple[int | None, ...], cut: Sequence[tuple[int, ...]]) -> Expr:
    chunks = list(a.chunks)
    for loop, axis in enumerate(amap):
        if axis is not None:
            chunks[axis] = cut[loop]
    return make(a.op, a.args, a.params, a.shape, a.dtype, tuple(chunks), a.line)
