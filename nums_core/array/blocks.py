"""Functions of the user on whole blocks: `map_blocks`, `blockwise`, `coarsen`.

A function gets NumPy arrays, one block of each operand, read-only, on any thread, in any order. When no dtype is given, it
is called once, at this line, on a block of ones, to see what it returns.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, known_expr
from nums_core.errors import GridError, ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque, keywords

SAMPLE_ELEMENTS = 4096  # a block up to this size is sampled in its real shape; a larger one by a single element


# -- map_blocks -------------------------------------------------------------------------------------------------------

def map_blocks(func: Callable[..., Any], *args: Any, name: Any = None, token: Any = None, dtype: Any = None,
               chunks: Any = None, drop_axis: Any = None, new_axis: Any = None, enforce_ndim: bool = False,
               meta: Any = None, **kwargs: Any) -> Array:
    """`func` applied to every block, or to blocks of several arrays that lie at the same place in their grids.

    Parameters
    ----------
    func : callable
        Gets one block (ndarray, read-only) of each Array argument. If it has a parameter `block_info` or `block_id`, it is
        told where the block lies, in dask's form.
    *args : Arrays, and other values passed as they are
        Grids are matched from the right by block number. A single block along an axis goes with every block of the
        others, whole; otherwise arrays of one extent are cut alike.
    dtype : dtype, optional
        Of the result. If not given, `func` is called once on ones to find it.
    chunks : tuple, optional
        Extents of the result's blocks, where they differ: for each axis a tuple, or one number for all of its blocks.
        Needed where there is no Array argument.
    drop_axis : int or sequence, optional
        Axes that `func` removes; they are put into one block first.
    new_axis : int or sequence, optional
        Axes that `func` adds, each of extent 1 unless `chunks` says otherwise.
    enforce_ndim : bool
        Refuse results of another number of dimensions even where one element would do.
    **kwargs
        For `func`. Arrays among them are passed whole, as one ndarray.

    Raises
    ------
    ValueError
        The dtype could not be found; or axes and chunks do not fit one another.
    ShapeError
        Arrays of unlike grids and unlike shapes. A block of the wrong shape raises it while computing.
    """
    if not callable(func):
        raise TypeError(f"First argument must be callable function, not {type(func).__name__}; write map_blocks(f, x)")
    arrays = [(a.expr, tuple(range(a.ndim))[::-1]) for a in args if isinstance(a, Array)]
    labels = tuple(range(max((len(names) for _, names in arrays), default=0)))[::-1]
    out, added = _output_labels(labels, drop_axis, new_axis, chunks)
    if chunks is not None and len(chunks) != len(out):
        raise GridError(f"Provided chunks have {len(chunks)} dims; expected {len(out)} dims: give one entry for each "
                        "axis of the result")
    adjust = {} if chunks is None else {x: c for x, c in zip(out, chunks, strict=True) if x not in added}
    call = _Call(func, args, kwargs)
    call.ndim = len(out) if enforce_ndim else None
    return _assemble(call, out, arrays, added, adjust, dtype if meta is None or dtype is not None else meta.dtype,
                     align=False, where="map_blocks", label=str(token or name or call.name), checked=chunks is None)


def _output_labels(labels: tuple[int, ...], drop_axis: Any, new_axis: Any,
                   chunks: Any) -> tuple[tuple[int, ...], dict[int, Any]]:
    """Labels of the result, and the chunks of those that are new."""
    drop = _axis_list(drop_axis)
    ndim = len(labels)
    if any(not -ndim <= a < ndim for a in drop):
        raise ValueError(f"drop_axis out of range (drop_axis={drop}, but output is {ndim}d); axes count from 0")
    drop = [a % ndim for a in drop]
    out = [x for i, x in enumerate(labels) if i not in drop]
    if new_axis is None and chunks is not None and len(out) < len(chunks):
        new_axis = range(len(chunks) - len(out))
    added: dict[int, Any] = {}
    for axis in sorted(_axis_list(new_axis)):
        if not 0 <= axis <= len(out):
            raise ValueError(f"new_axis {axis} does not fit a result of {len(out) + 1} axes; New_axis values do not fill "
                             "in all dimensions: name positions in the result")
        label = ndim + len(added)
        out.insert(axis, label)
        added[label] = 1 if chunks is None or axis >= len(chunks) else chunks[axis]
    return tuple(out), added


def _axis_list(axis: Any) -> list[int]:
    if axis is None:
        return []
    return [operator.index(a) for a in axis] if np.iterable(axis) else [operator.index(axis)]


class _Call:
    """A call of a user's function: which of its arguments are blocks, which are passed as they are."""

    def __init__(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        positions = tuple(i for i, a in enumerate(args) if isinstance(a, Array))
        fixed = tuple((i, a) for i, a in enumerate(args) if not isinstance(a, Array))
        self.whole = {k: known_expr(v) for k, v in kwargs.items() if isinstance(v, Array)}
        self.kwargs = {k: v for k, v in kwargs.items() if k not in self.whole}
        self.wants = tuple(k for k in ("block_info", "block_id") if _takes(func, k) and k not in kwargs)
        self.name = getattr(func, "__name__", type(func).__name__)
        self.function: Callable[..., Any] = func
        self.ndim: int | None = None  # of results, where it is enforced
        if fixed or self.whole:
            self.function = functools.partial(_spread, func, positions, fixed, tuple(self.whole))


def _spread(func: Callable[..., Any], positions: tuple[int, ...], fixed: tuple[tuple[int, Any], ...],
            names: tuple[str, ...], *blocks: Any, **kwargs: Any) -> Any:
    """Calls `func` with its blocks where the arrays stood, other arguments between them, whole arrays by keyword."""
    args: list[Any] = [None] * (len(positions) + len(fixed))
    for i, b in zip(positions, blocks[:len(positions)], strict=True):
        args[i] = b
    for i, value in fixed:
        args[i] = value
    if "block_info" in kwargs:
        info = kwargs["block_info"]
        kwargs["block_info"] = {p: info[k] for k, p in enumerate(positions)} | {None: info[None]}
    return func(*args, **dict(zip(names, blocks[len(positions):], strict=True)), **kwargs)


def _enforced(func: Callable[..., Any], ndim: int, *blocks: Any, **kwargs: Any) -> Any:
    made = func(*blocks, **kwargs)
    if getattr(made, "ndim", None) != ndim:
        raise ValueError(f"Dimension mismatch: expected the function's result to have {ndim} dimensions, got "
                         f"{getattr(made, 'ndim', type(made).__name__)}; correct it, or leave out enforce_ndim=True")
    return made


def _takes(func: Callable[..., Any], keyword: str) -> bool:
    try:
        return keyword in inspect.signature(func).parameters
    except (TypeError, ValueError):
        return False


# -- blockwise --------------------------------------------------------------------------------------------------------

def blockwise(func: Callable[..., Any], out_ind: Any, *args: Any, name: Any = None, token: Any = None,
              dtype: Any = None, adjust_chunks: Mapping[Any, Any] | None = None,
              new_axes: Mapping[Any, Any] | None = None, align_arrays: bool = True, concatenate: bool | None = None,
              meta: Any = None, **kwargs: Any) -> Array:
    """`func` on blocks matched by labels, as in an einsum: `blockwise(f, "ik", x, "ij", y, "jk")`.

    Parameters
    ----------
    func : callable
    out_ind : sequence of labels of the result's axes
    *args : pairs of an array and the labels of its axes; a value with labels None is passed as it is
    new_axes : dict, optional
        Labels that only the result has, and their extents (an int, or a tuple of block extents).
    adjust_chunks : dict, optional
        Extents of blocks along a label that `func` changes: a function of the extent, a number, or a tuple.
    align_arrays : bool
        Cut arrays alike along shared labels; otherwise blocks go by number, whatever their extents.
    concatenate : bool, optional
        Labels the result lacks: True gives `func` one array over all their blocks, otherwise it gets nested lists of
        blocks.

    Raises
    ------
    ShapeError
        Unequal extents along a label.
    """
    if len(args) % 2:
        raise ValueError("blockwise() takes pairs of an array and its labels; write blockwise(f, 'ij', x, 'ij', y, 'ij')")
    out, values, names = tuple(out_ind), args[::2], args[1::2]
    if len(set(out)) != len(out):
        raise ValueError(f"Repeated elements not allowed in output index {out}; name each axis of the result once")
    operands = [v if n is None or isinstance(v, Array) else Array(as_expr(v)) for v, n in zip(values, names, strict=True)]
    arrays = []
    for v, n in zip(operands, names, strict=True):
        if n is not None:
            if len(tuple(n)) != v.ndim:
                raise ValueError(f"labels {n!r} for an array of {v.ndim} dimensions; give one label an axis")
            arrays.append((v.expr, tuple(n)))
    added = dict(new_axes or {})
    unknown = [x for x in out if x not in added and not any(x in n for _, n in arrays)]
    if unknown:
        raise ValueError(f"unknown dimension {unknown[0]!r} of the result, which no operand has; give its extent with "
                         "new_axes=")
    call = _Call(func, operands, kwargs)
    return _assemble(call, out, arrays, added, dict(adjust_chunks or {}),
                     dtype if meta is None or dtype is not None else meta.dtype, align=align_arrays, where="blockwise",
                     label=str(token or name or call.name), listed=not concatenate)


atop = blockwise


# -- the shared part --------------------------------------------------------------------------------------------------

def _assemble(call: _Call, out: tuple[Any, ...], arrays: list[tuple[Expr, tuple[Any, ...]]], added: dict[Any, Any],
              adjust: dict[Any, Any], dtype: Any, *, align: bool, where: str, label: str, checked: bool = False,
              listed: bool = False) -> Array:
    arrays, cuts = aligned(arrays, align)
    function = call.function
    if listed:
        spec = tuple(_splits(e, names, out) for e, names in arrays)
        if any(spec):
            function = functools.partial(_listed, function, spec)
    arrays = [(build.uncut(e, [i for i, x in enumerate(names) if x not in out]), names) for e, names in arrays]
    chunks = tuple(_new_chunks(added[x]) if x in added else _adjusted(cuts[x], adjust.get(x), x) for x in out)
    shape = tuple(sum(c) for c in chunks)
    whole = [(build.single_block(e), tuple(("whole", k, i) for i in range(e.ndim)))
             for k, e in enumerate(call.whole.values())]
    operands = [e for e, _ in arrays + whole]
    labels = [n for _, n in arrays + whole]
    if dtype is None:
        dtype = _sampled(function, call, operands, labels, out, chunks, where, checked)
    if call.ndim is not None:
        function = functools.partial(_enforced, function, call.ndim)
    return Array(build.blockmap(Opaque(function), operands, labels, out, shape, dtype, chunks,
                                keywords(call.kwargs), call.wants, label))


def aligned(arrays: list[tuple[Expr, tuple[Any, ...]]],
            align: bool) -> tuple[list[tuple[Expr, tuple[Any, ...]]], dict[Any, Any]]:
    """The arrays with blocks that correspond along shared labels, and the chunks of every label.

    With `align`, an axis is cut as in the largest array that has it. Without, equal numbers of blocks correspond as they
    are, and only arrays of equal extent are cut anew."""
    cuts: dict[Any, Any] = {}
    ranked = sorted(arrays, key=lambda p: -build._nbytes(p[0])) if align else arrays
    for e, names in ranked:
        for x, n, c in zip(names, e.shape, e.chunks, strict=True):
            have = cuts.get(x)
            if have is None or (sum(have) == 1 and n != 1) or (not align and len(c) > len(have)):
                cuts[x] = c
    out = []
    for e, names in arrays:
        want = []
        for x, n, c in zip(names, e.shape, e.chunks, strict=True):
            total = sum(cuts[x])
            same_extent = n == total or (n != n and total != total and len(c) == len(cuts[x]))
            if same_extent and (align or len(c) != 1):
                want.append(cuts[x] if n == n else c)
            elif (align and n == 1) or (not align and len(c) in (1, len(cuts[x]))):
                want.append(c)
            else:
                raise ShapeError(f"different lengths in arrays: extents {n} and {total} along one axis, in {len(c)} and "
                                 f"{len(cuts[x])} blocks, have no blocks that correspond; give them one shape, or rechunk() "
                                 "one of them to as many blocks as the other")
        out.append((build.rechunk(e, tuple(want)), names))
    return out, cuts


def _new_chunks(c: Any) -> tuple[Any, ...]:
    return tuple(c) if isinstance(c, (tuple, list)) else (c,)


def _adjusted(have: tuple[Any, ...], change: Any, label: Any) -> tuple[Any, ...]:
    """Chunks along one label after `adjust_chunks`."""
    if change is None:
        return have
    if callable(change):
        return tuple(change(c) for c in have)
    if isinstance(change, (tuple, list)):
        if len(change) != len(have):
            raise GridError(f"Dimension {label} has {len(have)} blocks, chunks specified with {len(change)} blocks; give "
                            "one extent for each block")
        return tuple(change)
    return (change,) * len(have)


def _splits(e: Expr, names: tuple[Any, ...], out: tuple[Any, ...]) -> tuple[tuple[int, Any], ...]:
    """Axes of an operand that the result lacks, with their chunks."""
    return tuple((i, e.chunks[i]) for i, x in enumerate(names) if x not in out)


def _listed(func: Callable[..., Any], spec: tuple[Any, ...], *blocks: Any, **kwargs: Any) -> Any:
    """Calls `func` with nested lists of blocks along the axes in `spec`."""
    given = [_nested(b, s) for b, s in zip(blocks, spec, strict=False)] + list(blocks[len(spec):])
    return func(*given, **kwargs)


def _nested(block: np.ndarray, splits: tuple[tuple[int, Any], ...]) -> Any:
    if not splits:
        return block
    (axis, sizes), *rest = splits
    begins = list(itertools.accumulate(sizes, initial=0))
    return [_nested(block[(slice(None),) * axis + (slice(a, b),)], tuple(rest)) for a, b in itertools.pairwise(begins)]


def _sampled(function: Callable[..., Any], call: _Call, operands: list[Expr], labels: list[Any], out: tuple[Any, ...],
             chunks: Any, where: str, checked: bool) -> np.dtype:
    """The dtype of what `function` returns for blocks of ones: in the shape of the first blocks if those are small, or
    of one element."""
    from nums_core.runtime.devices.blocks import UserFunction

    firsts = [tuple(1 if c[0] != c[0] else c[0] for c in e.chunks) for e in operands]
    tiny = [(1,) * e.ndim for e in operands]
    small = max((math.prod(s) for s in firsts), default=1) <= SAMPLE_ELEMENTS
    result = (tuple(sum(c) for c in chunks), chunks, tuple(range(len(out))))
    places: Any = (*((e.shape, e.chunks, (None,) * e.ndim) for e in operands), result)
    probe = UserFunction(function, call.kwargs, None, places, call.wants)
    place = tuple((0, c[0]) for c in chunks)
    problem: Exception | None = None
    for shapes in ([firsts, tiny] if small else [tiny]):
        try:
            extra = {k: probe._info(place) if k == "block_info" else (0,) * len(out) for k in call.wants}
            with np.errstate(all="ignore"):
                made = function(*[np.ones(s, e.dtype) for s, e in zip(shapes, operands, strict=True)], **call.kwargs,
                                **extra)
        except Exception as error:
            problem = problem or error
            continue
        made = np.asanyarray(made)
        if checked and made.ndim not in (0, len(out)):
            raise ShapeError(f"the function returned {made.ndim} dimension(s) where the result of {where} has "
                             f"{len(out)}; name the axes it removes with drop_axis= or adds with new_axis=")
        return made.dtype
    raise ValueError(
        f"`dtype` inference failed in `{where}`: called on a block of ones of shape {(firsts if small else tiny)[:1]}, "
        f"{call.name} raised {type(problem).__name__}: {problem}. Please specify the dtype explicitly using the `dtype` "
        "kwarg, as in dtype=float.") from problem


# -- coarsen ----------------------------------------------------------------------------------------------------------

def coarsen(reduction: Callable[..., Any], x: Any, axes: Mapping[int, int], trim_excess: bool = False,
            **kwargs: Any) -> Array:
    """`reduction` over boxes of neighbouring elements: `coarsen(np.mean, x, {0: 2, 1: 4})`.

    Parameters
    ----------
    reduction : callable with `axis`, such as `numpy.sum`
    axes : dict of axis to the number of elements that become one
    trim_excess : bool
        Drop elements at the end that fill no box.

    Raises
    ------
    ValueError
        An extent is no multiple of its factor and `trim_excess` is off.
    """
    e = known_expr(x)
    factors = [1] * e.ndim
    for axis, f in axes.items():
        factors[build.normalize_axes(axis, e.ndim)[0]] = operator.index(f)
    if any(n % f for n, f in zip(e.shape, factors, strict=True)) and not trim_excess:
        raise ValueError(f"Coarsening factors {tuple(factors)} do not align with block dimensions {e.shape}; use "
                         "trim_excess=True to drop what fills no box")
    cut = tuple(_multiples(c, n - n % f, f) for c, n, f in zip(e.chunks, e.shape, factors, strict=True))
    boxed = build.gather(e, (0,) * e.ndim, (1,) * e.ndim, cut)
    chunks = tuple(tuple(n // f for n in c) for c, f in zip(cut, factors, strict=True))
    call = getattr(np, reduction.__name__, reduction) if type(reduction).__module__.startswith("nums_core") else reduction
    if getattr(call, "__module__", "").startswith("nums_core"):
        call = getattr(np, call.__name__)
    return map_blocks(functools.partial(_boxes, call, tuple(factors)), Array(boxed), chunks=chunks, name="coarsen", **kwargs)


def _multiples(sizes: Sequence[int], n: int, f: int) -> tuple[int, ...]:
    """Chunks of n elements near the given ones, all multiples of `f`."""
    ends = [min(round(end / f) * f, n) for end in itertools.accumulate(sizes)]
    ends[-1] = n
    return tuple(b - a for a, b in itertools.pairwise([0, *ends]) if b > a) or (0,)


def _boxes(reduction: Callable[..., Any], factors: tuple[int, ...], block: np.ndarray, **kwargs: Any) -> Any:
    shape = tuple(itertools.chain.from_iterable((n // f, f) for n, f in zip(block.shape, factors, strict=True)))
    return reduction(block.reshape(shape), axis=tuple(range(1, 2 * block.ndim, 2)), **kwargs)


__all__ = ["atop", "blockwise", "coarsen", "map_blocks"]
