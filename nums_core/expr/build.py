"""Constructors of expressions: dtype, shape and grid rules, which raise at once, at the user's line.

Where NumPy has the error, its class and words are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core._util import SourceLine
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr.grid import Chunks, grid_of, known, require_known, uniform
from nums_core.expr.node import Const, Expr, Region, Source, make
from nums_core.expr.opaque import Opaque
from nums_core.ops.elementwise import ELEMENTWISE, UFUNCS, ufunc_loop
from nums_core.ops.reductions import REDUCTIONS

Kw = tuple[tuple[str, Any], ...]


# -- leaves and creation ----------------------------------------------------------------------------------------------

def leaf(source: Source, chunks: Chunks, line: SourceLine | None = None) -> Expr:
    """All of a source, in blocks. Shape and dtype are the source's; `line` made it, if not the user's of this call."""
    n = len(source.shape)
    return make("leaf", (), (source, Region((0,) * n, (1,) * n)), source.shape, source.dtype, chunks, line)


def create(kernel: str, params: tuple[Any, ...], shape: tuple[int, ...], dtype: Any, chunks: Chunks,
           flop: float = 1.0) -> Expr:
    """Blocks made from nothing but their position: `full`, `arange`, `eye`, random numbers."""
    return make("create", (), (kernel, params, flop), shape, dtype, chunks)


def full(value: Any, shape: tuple[int, ...], dtype: Any, chunks: Chunks) -> Expr:
    dtype = np.dtype(dtype)
    return create("full", (Const(value, dtype), dtype.str if dtype.kind != "V" else dtype), shape, dtype, chunks)


# -- elementwise ------------------------------------------------------------------------------------------------------

def broadcast_shape(shapes: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """NumPy's broadcasting, with NumPy's words; NaN extents match only NaN and 1."""
    ndim = max(map(len, shapes), default=0)
    out: list[Any] = []
    for axis in range(-ndim, 0):
        extents = [s[axis] for s in shapes if len(s) >= -axis]
        wide = [n for n in extents if n != 1]
        if any(n != n for n in wide):
            if not all(n != n for n in wide):
                raise ShapeError(f"an extent that depends on data cannot be broadcast with {wide}; call "
                                 ".compute_chunk_sizes() on the array first")
        elif any(n != wide[0] for n in wide):
            text = " ".join(str(s).replace(" ", "") for s in shapes)
            raise ShapeError(f"operands could not be broadcast together with shapes {text} ; each pair of extents, from "
                             "the right, must be equal or one of them 1: add an axis with x[:, None], or transpose")
        out.append(wide[0] if wide else extents[0])
    return tuple(out)


def common_chunks(args: Sequence[Expr], shape: tuple[Any, ...]) -> Chunks:
    """The grid of a broadcast result: each axis is cut as the largest operand that has it is cut.

    A common refinement (dask's rule) would multiply the blocks when grids differ; following the largest operand moves
    the least and keeps the number of blocks."""
    ranked = sorted(args, key=lambda a: -_nbytes(a))
    out: list[tuple[Any, ...]] = []
    for axis, n in enumerate(shape):
        back = axis - len(shape)
        chunk = next((a.chunks[back] for a in ranked if a.ndim >= -back and (a.shape[back] != 1 or n == 1)), (n,))
        out.append(chunk)
    return tuple(out)


def _nbytes(a: Expr) -> float:
    size = math.prod(a.shape)
    return size * a.dtype.itemsize if size == size else math.inf


def align(a: Expr, shape: tuple[Any, ...], chunks: Chunks) -> Expr:
    """`a` cut like the result it takes part in (axes of extent 1 stay)."""
    back = len(shape) - a.ndim
    want = tuple(c if n != 1 or shape[back + i] == 1 else (1,)
                 for i, (n, c) in enumerate(zip(a.shape, chunks[back:], strict=True)))
    return a if want == a.chunks else rechunk(a, want)


def elementwise(name: str, operands: Sequence[Any], kw: Kw = (), dtype: Any = None) -> Expr:
    """`name` (a row of `ops.elementwise`) applied element by element; operands are Exprs and scalars.

    Raises
    ------
    ShapeError, DTypeError
    """
    row = ELEMENTWISE[name]
    kinds = tuple(map(kind_of, operands))
    arrays = [o for o in operands if isinstance(o, Expr)]
    ufunc = UFUNCS.get(name.split(".")[0])
    if ufunc is not None:
        loop = ufunc_loop(ufunc, kinds, dtype)
        result = loop[ufunc.nin + (int(name.split(".")[1]) if "." in name else 0)]
        wants: list[Any] = list(loop[:ufunc.nin])
        if dtype is not None:
            operands = [cast(o, w) if isinstance(o, Expr) else o for o, w in zip(operands, wants, strict=True)]
            arrays = [o for o in operands if isinstance(o, Expr)]
    else:
        result = np.dtype(dtype) if dtype is not None else row.dtype(*kinds, **dict(kw))
        wants = [result if name == "where" and i else None for i in range(len(operands))]
    spec = tuple(_operand(o, w, arrays, name) for o, w in zip(operands, wants, strict=True))
    if name == "power" and result.kind in "iu" and isinstance(spec[1], Const) and spec[1].value < 0:
        raise ValueError("Integers to negative integer powers are not allowed; use x.astype(float) first")
    shape = broadcast_shape([a.shape for a in arrays])
    chunks = arrays[0].chunks if len(arrays) == 1 else common_chunks(arrays, shape)
    args = [a if a.chunks == chunks else align(a, shape, chunks) for a in arrays]
    return make("ewise", args, (name, kw, spec), shape, result, chunks)


def kind_of(o: Any) -> Any:
    """What an operand is to NumPy's promotion: a dtype, or a Python scalar's type, which is weak."""
    if isinstance(o, (Expr, np.generic, np.ndarray)):
        return o.dtype
    return next((t for t in (bool, int, float, complex) if isinstance(o, t)), type(o))


COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"})


def _operand(o: Any, want: Any, arrays: list[Expr], name: str) -> int | Const:
    """The number of an array among the arguments, or a scalar in the dtype it takes part in."""
    if isinstance(o, Expr):
        return next(i for i, a in enumerate(arrays) if a is o)
    if want is None or (isinstance(o, (np.generic, np.ndarray)) and o.dtype != want):
        return Const(o, o.dtype if isinstance(o, (np.generic, np.ndarray)) else None)
    try:
        with np.errstate(all="ignore"):
            return Const(o, want)
    except OverflowError:
        if name not in COMPARISONS:
            raise
        # Comparing with a Python integer that the array's dtype cannot hold is legal: any number on that side will do.
        return Const(o, None) if -2**63 <= o < 2**64 else Const(np.copysign(np.inf, o), None)


def cast(x: Expr, dtype: Any) -> Expr:
    """`x` in another dtype (NumPy's unsafe casting, as `astype`)."""
    dtype = np.dtype(dtype)
    if x.dtype == dtype:
        return x
    return make("ewise", (x,), ("cast", (("dtype", dtype.str),), (0,)), x.shape, dtype, x.chunks)


# -- axes -------------------------------------------------------------------------------------------------------------

def axes(x: Expr, source_axes: Sequence[int | None], shape: tuple[Any, ...], chunks: Chunks | None = None) -> Expr:
    """Output axis `i` runs along axis `source_axes[i]` of `x`, or is new (None). Axes of `x` that are not named must
    have extent 1; an axis of extent 1 may be broadcast to `shape[i]`. Transpose, squeeze, expand, broadcast."""
    source_axes = tuple(source_axes)
    if chunks is None:
        chunks = tuple(x.chunks[s] if s is not None and (x.shape[s] == n or n != n) else (n,)
                       for s, n in zip(source_axes, shape, strict=True))
    if source_axes == tuple(range(x.ndim)) and shape == x.shape:
        return x
    return make("axes", (x,), (source_axes,), tuple(shape), x.dtype, chunks)


def transpose(x: Expr, perm: Sequence[int]) -> Expr:
    return axes(x, tuple(perm), tuple(x.shape[p] for p in perm))


def broadcast_to(x: Expr, shape: tuple[int, ...], chunks: Chunks | None = None) -> Expr:
    """NumPy's `broadcast_to`; new extents are cut by `chunks`, or not at all."""
    back = len(shape) - x.ndim
    if back < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[max(back, 0):], strict=True)):
        raise ShapeError(f"operands could not be broadcast together with remapped shapes [original->remapped]: "
                         f"{x.shape} and requested shape {shape}; extents must be equal or 1")
    return axes(x, (*(None,) * back, *range(x.ndim)), tuple(shape), chunks)


# -- reductions -------------------------------------------------------------------------------------------------------

def normalize_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """`axis` as a sorted tuple of non-negative axes; NumPy's AxisError where it is out of range."""
    if axis is None:
        return tuple(range(ndim))
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    out = []
    for a in items:
        a = int(a)
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
        out.append(a % ndim)
    if len(set(out)) != len(out):
        raise ValueError("duplicate value in 'axis'; name each axis once")
    return tuple(sorted(out))


def reduce(name: str, x: Expr, axis: Any = None, keepdims: bool = False, kw: Kw = (), dtype: Any = None,
           width: int = 1) -> Expr:
    """`name` (a row of `ops.reductions`) over `axis`. `width` is the extent the reduced axes end with (topk's k)."""
    which = normalize_axes(axis, x.ndim)
    result = np.dtype(dtype) if dtype is not None else REDUCTIONS[name].dtype(x.dtype, **dict(kw))
    keep = keepdims or width != 1
    shape = tuple(width if i in which else n for i, n in enumerate(x.shape) if keep or i not in which)
    chunks = tuple((width,) if i in which else c for i, c in enumerate(x.chunks) if keep or i not in which)
    if not which and x.ndim:
        keep = True
    return make("reduce", (x,), (name, which, keep, kw), shape, result, chunks)


# -- contractions -----------------------------------------------------------------------------------------------------

def contract(a: Expr, b: Expr, la: str, lb: str, lc: str) -> Expr:
    """einsum of two arrays, `la,lb->lc`; labels are letters, none repeated within one array."""
    extent: dict[str, Any] = {}
    for x, labels in ((a, la), (b, lb)):
        for label, n in zip(labels, x.shape, strict=True):
            if extent.setdefault(label, n) != n:
                raise ShapeError(f"contraction of shapes {a.shape} and {b.shape}: axis extents {extent[label]} and {n} "
                                 "do not match; summed axes must have equal extents: transpose one operand, or check "
                                 "which axes you mean")
    dtype = np.result_type(a.dtype, b.dtype)
    if dtype.kind not in "biufcO":
        raise DTypeError(f"products of {a.dtype} and {b.dtype} are not defined; cast with x.astype(float)")
    cuts: dict[str, tuple[int, ...]] = {}
    for x, labels in sorted(((a, la), (b, lb)), key=lambda p: -_nbytes(p[0])):
        for label, c in zip(labels, x.chunks, strict=True):
            cuts.setdefault(label, c)
    a = rechunk(a, tuple(cuts[x] for x in la))
    b = rechunk(b, tuple(cuts[x] for x in lb))
    a, b = (x if x.dtype == dtype else cast(x, dtype) for x in (a, b))
    return make("contract", (a, b), (la, lb, lc), tuple(extent[x] for x in lc), dtype, tuple(cuts[x] for x in lc))


# -- movement ---------------------------------------------------------------------------------------------------------

def gather(x: Expr, start: tuple[int, ...], step: tuple[int, ...], chunks: Chunks) -> Expr:
    """A strided box of `x`, cut by `chunks`: slicing and re-blocking in one."""
    shape = tuple(sum(c) for c in chunks)
    if chunks == x.chunks and not any(start) and all(s == 1 for s in step):
        return x
    return make("gather", (x,), (start, step), shape, x.dtype, chunks)


def rechunk(x: Expr, chunks: Chunks) -> Expr:
    """The same array, cut differently."""
    if chunks == x.chunks:
        return x
    if not known(x.chunks) or not known(chunks):
        same = all(a == b or (len(a) == len(b) and any(s != s for s in a)) for a, b in zip(x.chunks, chunks, strict=True))
        if same:
            return x
        require_known(x.chunks, "re-blocking")
    return gather(x, (0,) * x.ndim, (1,) * x.ndim, chunks)


def slice_chunks(sizes: Sequence[int], start: int, step: int, n: int) -> tuple[int, ...]:
    """How a slice of an axis is cut, if each block keeps what it has of it."""
    if n == 0:
        return (0,)
    low, stride = (start, step) if step > 0 else (start + (n - 1) * step, -step)
    out, end, before = [], 0, 0
    for size in sizes:
        end += size
        upto = min(max(-(-(end - low) // stride), 0), n)  # elements of the slice in front of `end`
        if upto > before:
            out.append(upto - before)
        before = upto
    return tuple(out if step > 0 else out[::-1])


def concatenate(parts: Sequence[Expr], axis: int) -> Expr:
    """Arrays one after another along `axis`; other extents must agree (checked by the caller)."""
    first = max(parts, key=_nbytes)
    dtype = np.result_type(*(p.dtype for p in parts))
    parts = [cast(p, dtype) for p in parts]
    parts = [p for p in parts if p.shape[axis] != 0] or parts[:1]
    parts = [rechunk(p, tuple(p.chunks[i] if i == axis else c for i, c in enumerate(first.chunks))) for p in parts]
    if len(parts) == 1:
        return parts[0]
    cut = tuple(c for p in parts for c in p.chunks[axis])
    chunks = tuple(cut if i == axis else c for i, c in enumerate(first.chunks))
    shape = tuple(sum(cut) if i == axis else n for i, n in enumerate(first.shape))
    return make("concat", parts, (axis,), shape, dtype, chunks)


# -- functions of the user and custom graphs --------------------------------------------------------------------------

def blockmap(function: Callable[..., Any] | Opaque, args: Sequence[Expr], labels: Sequence[Sequence[Any]],
             out_labels: Sequence[Any], shape: tuple[Any, ...], dtype: Any, chunks: Chunks, kwargs: Kw = (),
             info: bool | tuple[str, ...] = False, label: str = "", flop: float | None = None) -> Expr:
    """`function` on each tuple of blocks that share labels. Labels the result lacks must not be cut. A result label no
    operand has counts the blocks of `chunks`. With `info`, the function gets `block_info` as a keyword. `flop` is for an
    element of the result; None where nobody can know."""
    params = (function, kwargs, tuple(map(tuple, labels)), tuple(out_labels), info, label, flop)
    return make("map", args, params, shape, dtype, chunks)


def custom(name: str, args: Sequence[Expr], params: tuple[Any, ...], shape: tuple[Any, ...], dtype: Any,
           chunks: Chunks) -> Expr:
    """An operation with a lowering rule of its own (`expr.lower.LOWER[name]`): a small task graph."""
    return make(name, args, params, shape, dtype, chunks)


def update(function: Callable[..., Any] | Opaque, states: Sequence[Expr], args: Sequence[Expr],
           made: Sequence[tuple[tuple[int, ...], Any]], kwargs: Kw = (), label: str = "update",
           flop: float = 0.0) -> tuple[list[Expr], list[Expr]]:
    """`function(*states, *args)` changes the arrays `states` and returns a tuple of others, of which `made` gives shapes
    and dtypes. Gives the states as they are afterwards, and the others. Everything is in one block; a state that is
    donated is changed where it lies."""
    args = [single_block(a) for a in (*states, *args)]
    made = tuple((tuple(shape), np.dtype(dtype).str) for shape, dtype in made)
    node = make("state.update", args, (function, kwargs, len(states), made, label, flop), (), "V", ())
    of_states = [(a.shape, a.dtype) for a in args[:len(states)]]
    parts = [make("pick", (node,), (k,), shape, dtype, tuple((n,) for n in shape))
             for k, (shape, dtype) in enumerate((*of_states, *made))]
    return parts[:len(states)], parts[len(states):]


def pick(x: Expr, k: int, shape: tuple[Any, ...], dtype: Any, chunks: Chunks) -> Expr:
    """Part `k` of an expression whose blocks are tuples; the grid must be that of `x`."""
    assert grid_of(chunks) == x.grid
    return make("pick", (x,), (k,), shape, dtype, chunks)


def single_block(x: Expr) -> Expr:
    return rechunk(x, tuple((n,) for n in x.shape))


def uncut(x: Expr, which: Sequence[int]) -> Expr:
    """`x` with the given axes in one block."""
    return rechunk(x, tuple((n,) if i in which else c for i, (n, c) in enumerate(zip(x.shape, x.chunks, strict=True))))


__all__ = ["Kw", "align", "axes", "blockmap", "broadcast_shape", "broadcast_to", "cast", "common_chunks", "concatenate",
           "contract", "create", "custom", "elementwise", "full", "gather", "leaf", "normalize_axes", "pick", "rechunk",
           "reduce", "single_block", "slice_chunks", "transpose", "uncut", "uniform", "update"]
