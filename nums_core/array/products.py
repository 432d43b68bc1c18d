"""Products of arrays: matmul, dot, tensordot and their kin. Each names its axes by labels and becomes contractions.

A contraction of two arrays is planned as one product of matrices a block (`expr.build.contract`); a product that sums
nothing is elementwise. Chains are ordered by cost when they are computed: `(a @ b) @ v` runs as `a @ (b @ v)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core.array.array import Array, known_expr
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.grid import uniform
from nums_core.expr.node import Expr


def label(i: int) -> str:
    """The i-th label: a, b, .., z and then letters nobody types."""
    return chr(ord("a") + i) if i < 26 else chr(0x100 + i)


def labels(start: int, n: int) -> str:
    return "".join(label(i) for i in range(start, start + n))


def deliver(made: Array, out: Any) -> Any:
    """`made`, or `out` with its values."""
    if out is None:
        return made
    if made.shape != tuple(out.shape):
        raise ShapeError(f"output array is not acceptable: it has shape {tuple(out.shape)}, the result {made.shape}; "
                         "give out= the result's shape, or leave it out")
    if isinstance(out, np.ndarray):
        out[...] = made.compute()
    else:
        out._expr = build.cast(made.expr, out.dtype)
    return out


# -- contraction of two labelled arrays -------------------------------------------------------------------------------

def contract(a: Expr, la: str, b: Expr, lb: str, lc: str) -> Expr:
    """einsum of two arrays without repeated labels; an extent of 1 is broadcast to its label's extent."""
    a, la = _without_stretched(a, la, b, lb)
    b, lb = _without_stretched(b, lb, a, la)
    a, la = sum_labels(a, la, lb + lc)
    b, lb = sum_labels(b, lb, la + lc)
    a, b = _bounded(a, la, b, lb, lc)
    if any(x not in lc for x in la + lb):
        return build.contract(a, b, la, lb, lc)
    x, y = (expand(e, names, lc) for e, names in ((a, la), (b, lb)))
    return build.elementwise("multiply", [x, y])


def _without_stretched(a: Expr, la: str, b: Expr, lb: str) -> tuple[Expr, str]:
    """`a` without the axes of extent 1 that `b` has at full extent."""
    drop = [i for i, x in enumerate(la) if a.shape[i] == 1 and x in lb and b.shape[lb.index(x)] != 1]
    if not drop:
        return a, la
    keep = [i for i in range(a.ndim) if i not in drop]
    return build.axes(a, keep, tuple(a.shape[i] for i in keep)), "".join(la[i] for i in keep)


def _bounded(a: Expr, la: str, b: Expr, lb: str, lc: str) -> tuple[Expr, Expr]:
    """`a` and `b` cut so that a block of the result is no larger than the largest of theirs, or a usual block: an outer
    product of two vectors in blocks would otherwise have blocks of a square of that size."""
    cuts: dict[str, tuple[int, ...]] = {}
    operands = sorted(((a, la), (b, lb)), key=lambda p: -math.prod(p[0].shape) * p[0].dtype.itemsize)
    for x, names in operands:
        for name, c in zip(names, x.chunks, strict=True):
            cuts.setdefault(name, c)
    item = np.result_type(a.dtype, b.dtype).itemsize
    limit = max(config.get().block_bytes, *(item * math.prod(max(cuts[x], default=0) for x in names) for names in (la, lb)))
    most = {x: max(cuts[x], default=0) for x in lc}
    if item * math.prod(most.values()) <= limit:
        return a, b
    pieces = dict.fromkeys(lc, 1)
    while item * math.prod(-(-n // pieces[x]) for x, n in most.items()) > limit:
        longest = max(lc, key=lambda x: most[x] / pieces[x])
        if most[longest] <= pieces[longest]:
            break
        pieces[longest] *= 2
    for name, k in pieces.items():
        cuts[name] = tuple(part for n in cuts[name] for part in uniform(n, max(1, -(-n // k))))
    return build.rechunk(a, tuple(cuts[x] for x in la)), build.rechunk(b, tuple(cuts[x] for x in lb))


def sum_labels(a: Expr, la: str, wanted: str) -> tuple[Expr, str]:
    """`a` summed over the labels that nobody else wants, in its own dtype as einsum does."""
    alone = tuple(i for i, x in enumerate(la) if x not in wanted)
    if not alone:
        return a, la
    left = "".join(x for x in la if x in wanted)
    if a.dtype == bool:
        return build.reduce("any", a, alone), left
    return build.reduce("sum", a, alone, kw=(("dtype", a.dtype.str),), dtype=a.dtype), left


def expand(a: Expr, la: str, lc: str) -> Expr:
    """`a` with its axes in the order of `lc` and new axes of extent 1 for the labels it lacks."""
    source = [la.index(x) if x in la else None for x in lc]
    return build.axes(a, source, tuple(1 if s is None else a.shape[s] for s in source))


# -- generalised ufuncs: matmul, matvec, vecmat, vecdot ----------------------------------------------------------------

class _Gufunc:
    """A product over core axes, the last ones, with all axes before them broadcast; NumPy's call signature."""

    def __init__(self, name: str, signature: str, left: str, right: str, result: str, conj: bool = False) -> None:
        self.__name__ = self.name = name
        self.signature, self.core, self.conj = signature, (left, right, result), conj
        self.__doc__ = f"`numpy.{name}`, lazily on blocks: {signature}, batch axes broadcast.\n\n" + (
            "Raises\n------\nValueError\n    Core extents differ, or an operand has too few axes, in NumPy's words.")

    def __repr__(self) -> str:
        return f"<gufunc '{self.name}'>"

    def __call__(self, x1: Any, x2: Any, /, out: Any = None, *, axes: Any = None, axis: int | None = None,
                 keepdims: bool = False, dtype: Any = None, casting: str = "same_kind", **ignored: Any) -> Any:
        a, b = (known_expr(x) for x in (x1, x2))
        if dtype is not None:
            a, b = build.cast(a, dtype), build.cast(b, dtype)
        left, right, result = self._cores(a, b)
        if axis is not None:
            axes = [axis, axis, ()]
        if axes is not None:
            a, b = (_cores_last(x, where, n) for x, where, n in zip((a, b), axes, map(len, (left, right)), strict=False))
        self._check(a, b, left, right)
        if self.conj and a.dtype.kind == "c":
            a = build.elementwise("conjugate", [a])
        made = Array(_batched(a, b, left, right, result))
        if axes is not None and len(axes) == 3 and result:
            made = Array(_cores_back(made.expr, axes[2], len(result)))
        if keepdims:
            made = made[..., None]
        return deliver(made, out[0] if isinstance(out, tuple) else out)

    def _cores(self, a: Expr, b: Expr) -> tuple[str, str, str]:
        left, right, result = self.core
        if self.name == "matmul":
            if a.ndim == 1:
                left, result = "k", result.replace("n", "")
            if b.ndim == 1:
                right, result = "k", result.replace("m", "")
        return left, right, result

    def _check(self, a: Expr, b: Expr, left: str, right: str) -> None:
        for i, (x, core) in enumerate(((a, left), (b, right))):
            if x.ndim < len(core):
                raise ShapeError(f"{self.name}: Input operand {i} does not have enough dimensions (has {x.ndim}, gufunc "
                                 f"core with signature {self.signature} requires {len(core)}); multiply by a scalar "
                                 "with * instead, or add an axis with x[None]")
        for i, name in enumerate(right):
            if name in left:
                n, m = a.shape[left.index(name) - len(left)], b.shape[i - len(right)]
                if n != m:
                    raise ShapeError(f"{self.name}: Input operand 1 has a mismatch in its core dimension {i}, with "
                                     f"gufunc signature {self.signature} (size {m} is different from {n}); transpose "
                                     f"an operand, or check the axes: shapes are {a.shape} and {b.shape}")


def _cores_last(x: Expr, where: Any, n: int) -> Expr:
    axes = [w % x.ndim for w in ((where,) if isinstance(where, int) else tuple(where))]
    if len(axes) != n:
        raise ValueError(f"axes item should have {n} entries for the core dimensions, got {axes}; name each core axis")
    return build.transpose(x, [i for i in range(x.ndim) if i not in axes] + axes)


def _cores_back(x: Expr, where: Any, n: int) -> Expr:
    axes = [w % x.ndim for w in ((where,) if isinstance(where, int) else tuple(where))]
    order = iter(range(x.ndim - n))
    return build.transpose(x, [x.ndim - n + axes.index(i) if i in axes else next(order) for i in range(x.ndim)])


def _batched(a: Expr, b: Expr, left: str, right: str, result: str) -> Expr:
    """Contract the core axes of `a` and `b`, with the axes before them broadcast."""
    core = {x: label(i) for i, x in enumerate("nkm")}
    na, nb = a.ndim - len(left), b.ndim - len(right)
    build.broadcast_shape([a.shape[:na], b.shape[:nb]])
    batch = labels(3, max(na, nb))
    la, lb, lc = ("".join(core[x] for x in names) for names in (left, right, result))
    return contract(a, batch[len(batch) - na:] + la, b, batch[len(batch) - nb:] + lb, batch + lc)


matmul = _Gufunc("matmul", "(n?,k),(k,m?)->(n?,m?)", "nk", "km", "nm")
matvec = _Gufunc("matvec", "(m,n),(n)->(m)", "nk", "k", "n")
vecmat = _Gufunc("vecmat", "(n),(n,m)->(m)", "k", "km", "m", conj=True)
vecdot = _Gufunc("vecdot", "(n),(n)->()", "k", "k", "", conj=True)


# -- dot and its kin --------------------------------------------------------------------------------------------------

def _aligned(a: Expr, i: int, b: Expr, j: int) -> None:
    if a.shape[i] != b.shape[j]:
        text = " and ".join(f"({','.join(map(str, x.shape))}{',' if x.ndim == 1 else ''})" for x in (a, b))
        raise ShapeError(f"shapes {text} not aligned: {a.shape[i]} (dim {i}) != {b.shape[j]} (dim {j}); transpose an "
                         "operand, or check which axes are summed")


def _sum_pair(a: Expr, i: int, b: Expr, j: int) -> Expr:
    """Sum over axis `i` of `a` and axis `j` of `b`; other axes of `a`, then of `b`."""
    _aligned(a, i, b, j)
    la = labels(1, a.ndim)
    lb = labels(1 + a.ndim, b.ndim)
    la, lb = la[:i] + label(0) + la[i + 1:], lb[:j] + label(0) + lb[j + 1:]
    return contract(a, la, b, lb, (la + lb).replace(label(0), ""))


def dot(a: Any, b: Any, out: Any = None) -> Any:
    """Sum over the last axis of `a` and the second to last of `b` (its only axis if it has one).

    Raises
    ------
    ValueError
        The extents differ, in NumPy's words.
    """
    x, y = known_expr(a), known_expr(b)
    if x.ndim == 0 or y.ndim == 0:
        return deliver(Array(build.elementwise("multiply", [x, y])), out)
    return deliver(Array(_sum_pair(x, x.ndim - 1, y, max(y.ndim - 2, 0))), out)


def inner(a: Any, b: Any) -> Array:
    """Sum over the last axes of `a` and `b`."""
    x, y = known_expr(a), known_expr(b)
    if x.ndim == 0 or y.ndim == 0:
        return Array(build.elementwise("multiply", [x, y]))
    return Array(_sum_pair(x, x.ndim - 1, y, y.ndim - 1))


def vdot(a: Any, b: Any) -> Array:
    """Sum of conj(a) * b over all elements, both in C order."""
    from nums_core.array.manipulation import ravel

    x, y = known_expr(a), known_expr(b)
    if math.prod(x.shape) != math.prod(y.shape):
        raise ShapeError(f"cannot reshape array of size {math.prod(y.shape)} into shape ({math.prod(x.shape)},); vdot "
                         f"takes arrays of equal size, got shapes {x.shape} and {y.shape}")
    if x.shape != y.shape:
        x, y = ravel(Array(x)).expr, ravel(Array(y)).expr
    if x.dtype.kind == "c":
        x = build.elementwise("conjugate", [x])
    names = labels(0, x.ndim)
    return Array(contract(x, names, y, names, ""))


def outer(a: Any, b: Any, out: Any = None) -> Any:
    """All products of an element of `a` and one of `b`: shape (a.size, b.size)."""
    from nums_core.array.manipulation import ravel

    x, y = (ravel(Array(known_expr(v))).expr for v in (a, b))
    return deliver(Array(contract(x, "a", y, "b", "ab")), out)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Array:
    """Sum over pairs of axes.

    Parameters
    ----------
    axes : int, or a pair of axes or sequences of axes
        An int: that many last axes of `a` and first axes of `b`.

    Raises
    ------
    ValueError
        "shape-mismatch for sum": the pairs differ in number or extent.
    """
    x, y = known_expr(a), known_expr(b)
    left, right = _axis_pairs(axes, x)
    left, right = ([_axis(i, e) for i in which] for which, e in ((left, x), (right, y)))
    if len(left) != len(right) or any(x.shape[i] != y.shape[j] for i, j in zip(left, right, strict=True)):
        raise ShapeError(f"shape-mismatch for sum: axes {left} of shape {x.shape} and axes {right} of shape {y.shape} "
                         "must pair equal extents; name the axes of each operand as axes=((..), (..))")
    la, lb = labels(0, x.ndim), labels(x.ndim, y.ndim)
    for i, j in zip(left, right, strict=True):
        lb = lb[:j] + la[i] + lb[j + 1:]
    lc = "".join([c for i, c in enumerate(la) if i not in left] + [c for j, c in enumerate(lb) if j not in right])
    return Array(contract(x, la, y, lb, lc))


def _axis_pairs(axes: Any, a: Expr) -> tuple[Sequence[int], Sequence[int]]:
    if isinstance(axes, (int, np.integer)):
        return range(-int(axes), 0), range(int(axes))
    left, right = axes
    return tuple(np.atleast_1d(left).tolist()), tuple(np.atleast_1d(right).tolist())


def _axis(i: int, x: Expr) -> int:
    if not -x.ndim <= i < x.ndim:
        raise IndexError(f"tuple index out of range: axis {i} of an array of shape {x.shape}; axes are 0 to {x.ndim - 1}")
    return i % x.ndim


def kron(a: Any, b: Any) -> Array:
    """Kronecker product: every element of `a` times all of `b`, extents multiply."""
    x, y = known_expr(a), known_expr(b)
    n = max(x.ndim, y.ndim)
    x, y = (build.axes(e, (*(None,) * (n - e.ndim), *range(e.ndim)), (1,) * (n - e.ndim) + e.shape) for e in (x, y))
    if n == 0:
        return Array(build.elementwise("multiply", [x, y]))
    from nums_core.array.manipulation import reshape

    la, lb = labels(0, n), labels(n, n)
    pairs = contract(x, la, y, lb, "".join(p for two in zip(la, lb, strict=True) for p in two))
    return reshape(Array(pairs), tuple(p * q for p, q in zip(x.shape, y.shape, strict=True)))


def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Array:
    """Cross product of vectors of 3 (or, as NumPy still allows, 2) components along an axis.

    Raises
    ------
    ValueError
        "incompatible dimensions for cross product": a vector has neither 2 nor 3 components.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = (_last(known_expr(v), k) for v, k in ((a, axisa), (b, axisb)))
    if x.shape[-1] not in (2, 3) or y.shape[-1] not in (2, 3):
        raise ShapeError(f"incompatible dimensions for cross product (dimension must be 2 or 3): the vectors have "
                         f"{x.shape[-1]} and {y.shape[-1]} components; name the axis of the vectors with axisa=, axisb=")
    batch = build.broadcast_shape([x.shape[:-1], y.shape[:-1]])
    chunks = build.common_chunks([x, y], (*batch, 3))[:-1]
    parts = [[build.rechunk(build.broadcast_to(_component(v, i), batch), chunks) for i in range(v.shape[-1])]
             for v in (x, y)]
    made = _cross_components(parts[0], parts[1])
    if len(made) == 1:
        return Array(made[0])
    stacked = build.concatenate([build.axes(m, (*range(m.ndim), None), (*m.shape, 1)) for m in made], len(batch))
    return Array(_from_last(build.uncut(stacked, [len(batch)]), axisc))


def _cross_components(a: list[Expr], b: list[Expr]) -> list[Expr]:
    """The components of a x b; a missing third component is 0."""
    def minus(i: int, j: int) -> Expr:
        """a_i b_j - a_j b_i"""
        terms = [build.elementwise("multiply", [a[p], b[q]]) if p < len(a) and q < len(b) else None
                 for p, q in ((i, j), (j, i))]
        if terms[1] is None:
            assert terms[0] is not None
            return terms[0]
        return build.elementwise("subtract", terms) if terms[0] is not None else build.elementwise("negative", terms[1:])
    if len(a) == len(b) == 2:
        return [minus(0, 1)]
    return [minus(1, 2), minus(2, 0), minus(0, 1)]


def _component(x: Expr, i: int) -> Expr:
    one = build.gather(x, (0,) * (x.ndim - 1) + (i,), (1,) * x.ndim, (*x.chunks[:-1], (1,)))
    return build.axes(one, tuple(range(x.ndim - 1)), x.shape[:-1])


def _last(x: Expr, axis: int) -> Expr:
    (k,) = build.normalize_axes(axis, x.ndim)
    return build.transpose(x, [i for i in range(x.ndim) if i != k] + [k])


def _from_last(x: Expr, axis: int) -> Expr:
    (k,) = build.normalize_axes(axis, x.ndim)
    order = list(range(x.ndim - 1))
    order.insert(k, x.ndim - 1)
    return build.transpose(x, order)


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """Sum along a diagonal of the planes of `axis1` and `axis2`."""
    from nums_core.array import diagonals, reductions

    x = Array(known_expr(a))
    if x.ndim < 2:
        raise ShapeError(f"diag requires an array of at least two dimensions, got shape {x.shape}; use sum for vectors")
    line = diagonals.diagonal(x, offset, axis1, axis2)
    return deliver(reductions.sum(line, axis=-1, dtype=dtype), out)


__all__ = ["cross", "dot", "inner", "kron", "matmul", "matvec", "outer", "tensordot", "trace", "vdot", "vecdot",
           "vecmat"]
