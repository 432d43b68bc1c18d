"""Functions with core dimensions, on blocks: `apply_gufunc`, `as_gufunc`, `vectorize`, `apply_along_axis`.

A signature such as "(i,j),(j)->(i)" says which axes a function works on; the others are looped over, block by block.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, asarray, known_expr, wrap
from nums_core.array.blocks import SAMPLE_ELEMENTS, aligned
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque, keywords

_DIMS = r"\(\s*(?:\w+(?:\s*,\s*\w+)*)?\s*,?\s*\)"
_SIGNATURE = re.compile(rf"(?:{_DIMS}(?:\s*,\s*{_DIMS})*)?\s*->\s*{_DIMS}(?:\s*,\s*{_DIMS})*\s*,?")

Dims = tuple[str, ...]


def parse(signature: str) -> tuple[list[Dims], list[Dims], bool]:
    """Core dimensions of the operands and of the results, and whether there is more than one result.

    "(i,j),(j)->(i),()"  ->  [("i", "j"), ("j",)], [("i",), ()], True
    """
    text = re.sub(r"\s+", "", signature)
    if not _SIGNATURE.fullmatch(text):
        raise ValueError(f"Not a valid gufunc signature: {signature}; write one as in '(i,j),(j)->(i)'")
    given, made = text.split("->")
    read = lambda side: [tuple(d for d in dims.split(",") if d) for dims in re.findall(r"\(([^)]*)\)", side)]  # noqa: E731
    outs = read(made)
    return read(given), outs, len(outs) > 1 or made.endswith(",")


def apply_gufunc(func: Callable[..., Any], signature: str, *args: Any, axes: Any = None, axis: int | None = None,
                 keepdims: bool = False, output_dtypes: Any = None, output_sizes: dict[str, int] | None = None,
                 vectorize: bool | None = None, allow_rechunk: bool = True, meta: Any = None, **kwargs: Any) -> Any:
    """`func` over all loop dimensions of its operands.

    Parameters
    ----------
    func : callable
        Takes arrays whose last axes are the core dimensions of `signature`, and broadcasts over the axes before them.
    signature : str
        As in "(i,j),(j)->(i)".
    axes, axis, keepdims
        Where the core dimensions lie, as in NumPy's generalized ufuncs.
    output_dtypes : dtype or list of dtypes, optional
        If not given, `func` is called once on ones to find them.
    output_sizes : dict, optional
        Extents of core dimensions that only results have.
    vectorize : bool
        `func` takes single core arrays; it is looped over by `numpy.vectorize`.

    Returns
    -------
    Array, or a tuple of them if the signature has several results

    Notes
    -----
    Core dimensions are put into one block each; loop dimensions stay cut.
    """
    ins, outs, many = parse(signature)
    if len(args) != len(ins):
        raise ValueError(f"According to `signature` {signature}, `func` requires {len(ins)} arguments, but {len(args)} "
                         "given; pass one array for each group in parentheses")
    if axes is not None and axis is not None:
        raise ValueError("Only one of `axis` or `axes` keyword arguments should be given")
    in_axes, out_axes = _normal_axes(axes, axis, keepdims, ins, outs)
    operands = [_core_last(known_expr(asarray(a)), which, dims) for a, which, dims in
                zip(args, in_axes, ins, strict=True)]
    sizes = _core_sizes(operands, ins, output_sizes or {}, signature)
    loops = [tuple(range(e.ndim - len(d)))[::-1] for e, d in zip(operands, ins, strict=True)]
    labels = [(*loop, *dims) for loop, dims in zip(loops, ins, strict=True)]
    operands = [build.uncut(e, range(e.ndim - len(d), e.ndim)) for e, d in zip(operands, ins, strict=True)]
    pairs, cuts = aligned(list(zip(operands, labels, strict=True)), True)
    operands = [e for e, _ in pairs]
    loop = max(loops, key=len, default=())
    dtypes = _dtypes(output_dtypes, meta, len(outs))
    if vectorize:
        func = np.vectorize(func, signature=signature, otypes=dtypes)
    if dtypes is None:
        dtypes = _sampled(func, operands, kwargs, len(outs), many)
    made = _results(func, operands, labels, loop, cuts, outs, sizes, dtypes, many, kwargs)
    finished = [_place(x, which, dims, keepdims) for x, which, dims in zip(made, out_axes, outs, strict=True)]
    return tuple(finished) if many else finished[0]


def _normal_axes(axes: Any, axis: int | None, keepdims: bool, ins: list[Dims],
                 outs: list[Dims]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """For each operand and result, the axes of its core dimensions."""
    if axis is not None:
        if any(len(d) > 1 for d in ins) or len({d for d in ins if d}) > 1:
            raise ValueError("`axis` can be used only, if one core dimension is present; use axes= for more")
        axes = [(axis,) if d else () for d in ins]
        axes += [(axis,) if d or keepdims else () for d in outs]
    if axes is None:
        usual = [tuple(range(-len(d), 0)) for d in ins + outs]
        if keepdims:
            usual[len(ins):] = [usual[0]] * len(outs)
        return usual[:len(ins)], usual[len(ins):]
    if not isinstance(axes, list):
        raise ValueError(f"`axes` has to be of type list, not {type(axes).__name__}; give one entry an operand and result")
    given = [(a,) if isinstance(a, int) else tuple(a) for a in axes]
    if len(given) == len(ins) and (keepdims or not any(outs)):
        given += [given[0] if keepdims else ()] * len(outs)
    if len(given) != len(ins) + len(outs):
        raise ValueError(f"The number of `axes` entries, {len(given)}, is not equal the number of input and output "
                         f"arguments, {len(ins) + len(outs)}")
    for which, dims in zip(given, ins + outs, strict=True):
        if len(which) != len(dims) and not (keepdims and not dims):
            raise ValueError(f"`axes` entry {which} does not name one axis for each core dimension of {dims}")
    return given[:len(ins)], given[len(ins):]


def _core_last(e: Expr, which: Sequence[int], dims: Dims) -> Expr:
    """`e` with its core axes moved to the end."""
    if e.ndim < len(dims):
        raise ValueError(f"an operand of shape {e.shape} has fewer axes than its core dimensions {dims}; add axes to it")
    core = [build.normalize_axes(a, e.ndim)[0] for a in which]
    perm = [i for i in range(e.ndim) if i not in core] + core
    return e if perm == list(range(e.ndim)) else build.transpose(e, perm)


def _core_sizes(operands: list[Expr], ins: list[Dims], given: dict[str, int], signature: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for e, dims in zip(operands, ins, strict=True):
        for d, n in zip(dims, e.shape[e.ndim - len(dims):], strict=True):
            if sizes.setdefault(d, n) != n:
                raise ShapeError(f"dimension {d!r} of the signature {signature} has different lengths in arrays, {sizes[d]} "
                                 f"and {n}; core dimensions must agree")
    return sizes | given  # a result may have another extent along a dimension of the same name


def _dtypes(given: Any, meta: Any, n: int) -> list[np.dtype] | None:
    if given is None and meta is not None:
        given = [m.dtype for m in meta] if isinstance(meta, (tuple, list)) else meta.dtype
    if given is None:
        return None
    out = [np.dtype(d) for d in given] if isinstance(given, (tuple, list)) else [np.dtype(given)] * n
    if len(out) != n:
        raise ValueError(f"output_dtypes has {len(out)} entries for {n} results; give one for each")
    return out


def _sampled(func: Callable[..., Any], operands: list[Expr], kwargs: dict[str, Any], n: int, many: bool) -> list[np.dtype]:
    """Dtypes of what `func` returns for ones; loop dimensions of extent 1, core dimensions as they are."""
    shapes = [tuple(c[0] if len(c) == 1 and c[0] <= SAMPLE_ELEMENTS else 1 for c in e.chunks) for e in operands]
    try:
        with np.errstate(all="ignore"):
            made = func(*[np.ones(s, e.dtype) for s, e in zip(shapes, operands, strict=True)], **kwargs)
    except Exception as error:
        raise ValueError("`dtype` inference failed in `apply_gufunc`: on blocks of ones of shapes "
                         f"{shapes} the function raised {type(error).__name__}: {error}. Please specify the dtype "
                         "explicitly using the `output_dtypes` kwarg.") from error
    parts = made if many else (made,)
    if not isinstance(parts, (tuple, list)) or len(parts) != n:
        raise ValueError(f"the signature has {n} results, but the function returned "
                         f"{len(parts) if isinstance(parts, (tuple, list)) else type(made).__name__}; change one of them")
    return [np.asarray(p).dtype for p in parts]


def _results(func: Callable[..., Any], operands: list[Expr], labels: list[Any], loop: tuple[int, ...],
             cuts: dict[Any, Any], outs: list[Dims], sizes: dict[str, int], dtypes: list[np.dtype], many: bool,
             kwargs: dict[str, Any]) -> list[Array]:
    for dims in outs:
        missing = next((d for d in dims if d not in sizes), None)
        if missing is not None:
            raise ValueError(f"the extent of dimension {missing!r} of a result is not known; give it, as in "
                             f"output_sizes={{{missing!r}: 3}}")
    chunks = [(*(cuts[x] for x in loop), *((sizes[d],) for d in dims)) for dims in outs]
    shapes = [tuple(sum(c) for c in cut) for cut in chunks]
    name = getattr(func, "__name__", type(func).__name__)
    if not many:
        out_labels = (*loop, *(("out", d) for d in outs[0]))
        return [Array(build.blockmap(Opaque(func), operands, labels, out_labels, shapes[0],
                                     dtypes[0], chunks[0], keywords(kwargs), label=name))]
    split = functools.partial(_as_tuple, func, len(outs))
    loop_chunks = tuple(cuts[x] for x in loop)
    parts = build.blockmap(Opaque(split), operands, labels, loop, tuple(sum(c) for c in loop_chunks),
                           dtypes[0], loop_chunks, keywords(kwargs), label=name)
    return [wrap("pick", (parts,), (k,), s, d, c)
            for k, (s, d, c) in enumerate(zip(shapes, dtypes, chunks, strict=True))]


def _as_tuple(func: Callable[..., Any], n: int, *blocks: Any, **kwargs: Any) -> tuple[Any, ...]:
    made = func(*blocks, **kwargs)
    if not isinstance(made, (tuple, list)) or len(made) != n:
        raise ValueError(f"the signature has {n} results, but the function returned "
                         f"{len(made) if isinstance(made, (tuple, list)) else type(made).__name__}; change one of them")
    return tuple(np.asarray(m) for m in made)


def _place(x: Array, which: Sequence[int], dims: Dims, keepdims: bool) -> Array:
    """A result with its core axes, or with `keepdims` axes of extent 1, where they are wanted."""
    if keepdims and not dims:
        e = x.expr
        ndim = e.ndim + len(which)
        at = {build.normalize_axes(a, ndim)[0] for a in which}
        kept = iter(range(e.ndim))
        source = tuple(None if i in at else next(kept) for i in range(ndim))
        return Array(build.axes(e, source, tuple(1 if s is None else e.shape[s] for s in source)))
    usual = list(range(x.ndim - len(dims), x.ndim))
    want = [build.normalize_axes(a, x.ndim)[0] for a in which]
    if want == usual:
        return x
    perm = [i for i in range(x.ndim) if i not in usual]
    for target, source_axis in sorted(zip(want, usual, strict=True)):
        perm.insert(target, source_axis)
    return Array(build.transpose(x.expr, perm))


class gufunc:  # noqa: N801
    """A function with a signature, ready to be called on arrays; see `apply_gufunc` for the parameters."""

    def __init__(self, pyfunc: Callable[..., Any], *, signature: str | None = None, vectorize: bool = False,
                 axes: Any = None, axis: int | None = None, keepdims: bool = False, output_sizes: Any = None,
                 output_dtypes: Any = None, allow_rechunk: bool = True, meta: Any = None) -> None:
        self.pyfunc, self.signature = pyfunc, signature or "->()"
        self.options = {"vectorize": vectorize, "axes": axes, "axis": axis, "keepdims": keepdims,
                        "output_sizes": output_sizes, "output_dtypes": output_dtypes, "meta": meta}
        self.__name__ = getattr(pyfunc, "__name__", type(pyfunc).__name__)
        self.__doc__ = f"`{self.__name__}` with signature {self.signature}, on blocks.\n\n{pyfunc.__doc__ or ''}"
        parse(self.signature)

    def __call__(self, *args: Any, allow_rechunk: bool = True, **kwargs: Any) -> Any:
        return apply_gufunc(self.pyfunc, self.signature, *args, **self.options, **kwargs)


def as_gufunc(signature: str | None = None, **kwargs: Any) -> Callable[[Callable[..., Any]], gufunc]:
    """A decorator: `@as_gufunc("(i)->()", output_dtypes=float)`."""
    allowed = {"vectorize", "axes", "axis", "keepdims", "output_sizes", "output_dtypes", "allow_rechunk", "meta"}
    unknown = kwargs.keys() - allowed
    if unknown:
        raise TypeError(f"Unsupported keyword argument(s) provided: {', '.join(sorted(unknown))}; as_gufunc takes "
                        f"{', '.join(sorted(allowed))}")
    return lambda pyfunc: gufunc(pyfunc, signature=signature, **kwargs)


class vectorize:  # noqa: N801
    """NumPy's `vectorize`, on blocks: a function of scalars (or, with a signature, of core arrays), looped in Python."""

    def __init__(self, pyfunc: Callable[..., Any], otypes: Any = None, doc: str | None = None, excluded: Any = None,
                 cache: bool = False, signature: str | None = None) -> None:
        self.pyfunc, self.signature = pyfunc, signature
        self.inner = np.vectorize(pyfunc, otypes, doc, excluded, cache, signature)
        self.otypes = None if not otypes else [np.dtype(t) for t in otypes]
        self.__doc__ = doc or pyfunc.__doc__
        self.__name__ = getattr(pyfunc, "__name__", "vectorized")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.signature is None:
            signature = ",".join(["()"] * len(args)) + "->" + ",".join(["()"] * len(self.otypes or [0]))
        else:
            signature = self.signature
        return apply_gufunc(self.inner, signature, *args, output_dtypes=self.otypes, **kwargs)


# -- along axes -------------------------------------------------------------------------------------------------------

def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, dtype: Any = None, shape: Any = None,
                     **kwargs: Any) -> Array:
    """`func1d` of every line along `axis`; its results take that axis's place.

    Parameters
    ----------
    func1d : callable of a 1-D array; may return a scalar or an array
    dtype, shape : optional
        Of one result. If either is not given, `func1d` is called once on ones.
    """
    x = asarray(arr)
    e = known_expr(x)
    (axis,) = build.normalize_axes(axis, e.ndim)
    if dtype is None or shape is None:
        sample = np.asarray(func1d(np.ones(e.shape[axis], e.dtype), *args, **kwargs))
        dtype, shape = sample.dtype if dtype is None else dtype, sample.shape if shape is None else shape
    shape = tuple(shape) if np.iterable(shape) else (shape,)
    chunks = (*e.chunks[:axis], *((n,) for n in shape), *e.chunks[axis + 1:])
    labels = tuple(range(e.ndim))
    out = (*labels[:axis], *(("new", i) for i in range(len(shape))), *labels[axis + 1:])
    block = functools.partial(_along, func1d, axis, args)
    return Array(build.blockmap(Opaque(block), [build.uncut(e, [axis])], [labels], out,
                                tuple(sum(c) for c in chunks), dtype, chunks, keywords(kwargs), label="apply_along_axis"))


def _along(func1d: Callable[..., Any], axis: int, args: tuple[Any, ...], block: np.ndarray, **kwargs: Any) -> Any:
    return np.apply_along_axis(func1d, axis, block, *args, **kwargs)


def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Array:
    """`func(a, axis)` for each of `axes` in turn; axes that it removes come back with extent 1."""
    x = asarray(a)
    for axis in np.atleast_1d(axes).tolist():
        (axis,) = build.normalize_axes(axis, x.ndim)
        made = func(x, axis)
        if made.ndim == x.ndim - 1:
            e = made.expr
            source = (*range(axis), None, *range(axis, e.ndim))
            made = Array(build.axes(e, source, tuple(1 if s is None else e.shape[s] for s in source)))
        elif made.ndim != x.ndim:
            raise ValueError("function is not returning an array of the correct shape; it must keep the axis or drop it")
        x = made
    return x


__all__ = ["apply_along_axis", "apply_gufunc", "apply_over_axes", "as_gufunc", "gufunc", "vectorize"]
