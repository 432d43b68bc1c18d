"""einsum: subscripts are parsed as NumPy parses them, diagonals taken, and the rest contracted pair by pair.

The order of the pairs is chosen by seconds, not by flop alone: what a step reads, writes and must copy counts too. For
MTTKRP, `ijk,jr,kr->ir`, the orders need the same flop, but one of them streams the tensor as it lies in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr
from nums_core.array.products import contract, deliver, expand, label, sum_labels
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr

BRUTE_FORCE = 4  # operands up to which every order is costed; more go to opt_einsum
FLOP_PER_BYTE = 4.0  # what moving a byte costs beside a flop, on usual machines
Operand = tuple[Expr, str]


def einsum(*operands: Any, out: Any = None, dtype: Any = None, order: str = "K", casting: str = "safe",
           optimize: Any = False, split_every: Any = None) -> Any:
    """Sum of products by labels: `einsum("ij,jk->ik", a, b)`.

    Repeated labels take diagonals, labels that the result lacks are summed, `...` stands for all other axes; an extent
    of 1 is broadcast. Operands may also alternate with lists of integers: `einsum(a, [0, 1], b, [1, 2], [0, 2])`.

    Parameters
    ----------
    dtype : dtype, optional
        Operands are cast to it under the rule `casting`. Otherwise the result has NumPy's promoted dtype.
    optimize, order, split_every
        Accepted for NumPy and dask; the order of contractions is always chosen by cost.

    Raises
    ------
    ValueError
        Subscripts and shapes do not fit, in NumPy's words.

    Notes
    -----
    The cost is that of the cheapest order of pairs found, in flop and bytes of intermediates; each pair is planned
    block by block.
    """
    subscripts, arrays = _separate(operands)
    exprs = [known_expr(a) for a in arrays]
    inputs, result = _parse(subscripts, exprs)
    wanted = np.result_type(*(e.dtype for e in exprs)) if dtype is None else np.dtype(dtype)
    for e in exprs:
        if dtype is not None and not np.can_cast(e.dtype, wanted, casting):  # type: ignore[arg-type]
            raise DTypeError(f"Iterator operand required casting from {e.dtype!r} to {wanted!r} but did not follow the "
                             f"rule {casting!r}; give casting='unsafe' if that is meant")
    terms = [_diagonals(build.cast(e, wanted), names) for e, names in zip(exprs, inputs, strict=True)]
    return deliver(Array(_contracted(terms, result)), out)


def einsum_path(*operands: Any, optimize: Any = "greedy", **kwargs: Any) -> tuple[list[Any], str]:
    """NumPy's report on a contraction order; einsum here chooses its own."""
    subscripts, arrays = _separate(operands)
    shapes = [np.broadcast_to(np.zeros((), e.dtype), e.shape) for e in map(known_expr, arrays)]
    return np.einsum_path(subscripts, *shapes, optimize=optimize)


# -- parsing ----------------------------------------------------------------------------------------------------------

def _separate(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """Subscripts as text, and the arrays."""
    if not operands:
        raise ValueError("must specify the einstein sum subscripts string and at least one operand, or at least one "
                         "operand and its corresponding subscripts list")
    if isinstance(operands[0], str):
        return operands[0].replace(" ", ""), list(operands[1:])
    pairs = len(operands) // 2
    text = ",".join(_sublist(s) for s in operands[1:2 * pairs:2])
    return text + (f"->{_sublist(operands[-1])}" if len(operands) % 2 else ""), list(operands[:2 * pairs:2])


def _sublist(items: Sequence[Any]) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join("..." if s is Ellipsis else letters[s] for s in items)


def _parse(subscripts: str, exprs: Sequence[Expr]) -> tuple[list[str], str]:
    """Labels of every operand and of the result, without ellipses. Labels the ellipsis stands for are fresh."""
    left, arrow, right = subscripts.partition("->")
    terms = left.split(",")
    try:
        if len(terms) != len(exprs) or not exprs:
            raise ValueError
        wide = max(e.ndim - len(t.replace("...", "")) for t, e in zip(terms, exprs, strict=True))
        rest = "".join(label(26 + i) for i in range(wide))
        inputs = [_without_ellipsis(t, e.ndim, rest) for t, e in zip(terms, exprs, strict=True)]
        if not arrow:
            once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
            right = ("..." if "..." in left else "") + "".join(once)
        shown = max((e.ndim - len(t.replace("...", "")) for t, e in zip(terms, exprs, strict=True) if "..." in t),
                    default=0)
        result = right.replace("...", rest[len(rest) - shown:] if shown else "")
        _check(inputs, result, right, shown, exprs)
    except ValueError:
        _refuse(subscripts, exprs)
    return inputs, result


def _without_ellipsis(term: str, ndim: int, rest: str) -> str:
    n = ndim - len(term.replace("...", ""))
    if (n != 0 and "..." not in term) or n < 0 or (
            not term.replace("...", "", 1).isalpha() and term not in ("", "...")):
        raise ValueError
    return term.replace("...", rest[len(rest) - n:] if n else "")


def _check(inputs: Sequence[str], result: str, right: str, shown: int, exprs: Sequence[Expr]) -> None:
    extent: dict[str, Any] = {}
    for names, e in zip(inputs, exprs, strict=True):
        for x, n in zip(names, e.shape, strict=True):
            if extent.setdefault(x, n) not in (n, 1) and n != 1:
                raise ValueError
            extent[x] = n if extent[x] == 1 else extent[x]
            if names.count(x) > 1 and len({e.shape[i] for i, y in enumerate(names) if y == x}) > 1:
                raise ValueError
    if len(set(result)) != len(result) or set(result) - set(extent) or (shown and "..." not in right):
        raise ValueError


def _refuse(subscripts: str, exprs: Sequence[Expr]) -> None:
    """Raise NumPy's own error for these subscripts and shapes, with the shapes met."""
    shapes = ", ".join(str(e.shape) for e in exprs)
    way_out = f"; subscripts {subscripts!r} met shapes {shapes or 'of no operand'}: give each axis one letter, or use '...'"
    try:
        np.einsum(subscripts, *(np.broadcast_to(np.zeros((), e.dtype), e.shape) for e in exprs))
    except ValueError as error:
        raise ShapeError(str(error).rstrip(". ") + way_out) from None
    raise ShapeError("einstein sum subscripts do not fit the operands" + way_out)


def _diagonals(x: Expr, names: str) -> Operand:
    """Each repeated label once: the diagonal over its axes."""
    from nums_core.array.diagonals import diagonal

    while len(set(names)) != len(names):
        twice = next(c for c in names if names.count(c) > 1)
        i = names.index(twice)
        j = names.index(twice, i + 1)
        x = diagonal(Array(x), 0, i, j).expr
        names = names[:i] + names[i + 1:j] + names[j + 1:] + twice
    return x, names


# -- contracting ------------------------------------------------------------------------------------------------------

def _contracted(terms: list[Operand], result: str) -> Expr:
    pool = dict(enumerate(terms))
    for made, step in enumerate(_path(terms, result), len(terms)):
        taken = [pool.pop(k) for k in step]
        while len(taken) > 1:
            (a, la), (b, lb), *rest = taken
            others = [names for _, names in (*rest, *pool.values())]
            lc = _between(la, lb, result + "".join(others)) if others else result
            taken = [(contract(a, la, b, lb, lc), lc), *rest]
        pool[made] = taken[0]
    ((x, names),) = pool.values()
    x, names = sum_labels(x, names, result)
    return expand(x, names, result)


def _between(la: str, lb: str, others: str) -> str:
    """Labels of an intermediate: those of its larger operand first, as they lie."""
    return "".join(x for x in dict.fromkeys(la + lb) if x in others)


def _path(terms: list[Operand], result: str) -> list[tuple[int, ...]]:
    """Which terms to contract at each step. Terms are numbered, and each product takes the next number."""
    if len(terms) <= 2:
        return [tuple(range(len(terms)))] if len(terms) == 2 else []
    extent = {x: n for e, names in terms for x, n in zip(names, e.shape, strict=True) if n != 1}
    inputs = [names for _, names in terms]
    if len(terms) <= BRUTE_FORCE:
        return _cheapest(dict(enumerate(inputs)), len(inputs), result, extent)[1]
    import opt_einsum

    shapes = [tuple(extent.get(x, 1) for x in names) for names in inputs]
    path, _ = opt_einsum.contract_path(",".join(inputs) + "->" + result, *shapes, shapes=True, optimize="auto")
    return list(opt_einsum.paths.linear_to_ssa(path))


def _cheapest(inputs: dict[int, str], fresh: int, result: str,
              extent: dict[str, int]) -> tuple[float, list[tuple[int, ...]]]:
    """Every order of the pairs, costed; ties go to the first found."""
    best: tuple[float, list[tuple[int, ...]]] = (math.inf if len(inputs) > 1 else 0.0, [])
    for i, j in itertools.combinations(inputs, 2):
        left = {k: x for k, x in inputs.items() if k not in (i, j)}
        made = _between(inputs[i], inputs[j], result + "".join(left.values())) if left else result
        cost, rest = _cheapest(left | {fresh: made}, fresh + 1, result, extent)
        cost += _cost(inputs[i], inputs[j], made, extent)
        if cost < best[0]:
            best = cost, [(i, j), *rest]
    return best


def _cost(la: str, lb: str, lc: str, extent: dict[str, int]) -> float:
    """Of one contraction, in flop: multiplications, and bytes read, written, and copied where labels that are summed
    stand between others, so that no product of matrices takes the operand as it lies."""
    size = lambda names: math.prod(extent.get(x, 1) for x in names)  # noqa: E731
    moved = float(size(la) + size(lb) + 2 * size(lc))
    for names, other in ((la, lb), (lb, la)):
        summed = [x in other and x not in lc for x in names]
        if any(summed) and not (_run(summed) and (summed[0] or summed[-1])):
            moved += 2 * size(names)
    return 2.0 * size(set(la + lb)) + 8 * FLOP_PER_BYTE * moved


def _run(flags: Sequence[bool]) -> bool:
    """Whether the true ones stand together."""
    return sum(1 for k, _ in itertools.groupby(flags) if k) == 1


__all__ = ["einsum", "einsum_path"]
