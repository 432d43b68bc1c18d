"""Medians, quantiles and percentiles, exact however the array is cut.

Lines that fit a block are worked out whole, by NumPy itself. Longer ones by selection: each block is sorted once, samples
bracket the wanted elements, and only what lies within the brackets is looked at again.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, known_expr
from nums_core.array.reductions import into
from nums_core.expr import build, sorting
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque
from nums_core.runtime.devices.quantile import quantiles_of_lines


def quantile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
             keepdims: bool = False, *, weights: Any = None, interpolation: str | None = None, **kwargs: Any) -> Array:
    """Quantiles of `a` over `axis` (an int, a tuple, or None for all), exact by all of NumPy's methods.

    Parameters
    ----------
    q : number or array of numbers from 0 to 1
        Read at once.
    method : str
        NumPy's names of the nine methods of Hyndman and Fan, and "lower", "higher", "midpoint", "nearest".
    weights : array, shape of `a` or (extent of the one axis,), optional
        Lines then have to fit a block. Only for method "inverted_cdf".
    interpolation : an older name of `method`
    overwrite_input, internal_method : accepted; nothing is overwritten, and nothing approximate.

    Returns
    -------
    Array, shape (*shape of `q`, *what is left of `a`)

    Notes
    -----
    n log n for sorting within blocks; beyond that, about one block a quantile is moved.
    """
    return _public(a, q, 1, axis, out, method, keepdims, weights, interpolation, kwargs, False)


def nanquantile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
                method: str = "linear", keepdims: bool = False, *, weights: Any = None, interpolation: str | None = None,
                **kwargs: Any) -> Array:
    """`quantile` of what is not NaN; NaN where nothing is left."""
    return _public(a, q, 1, axis, out, method, keepdims, weights, interpolation, kwargs, True)


def percentile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
               method: str = "linear", keepdims: bool = False, *, weights: Any = None, interpolation: str | None = None,
               **kwargs: Any) -> Array:
    """`quantile` for `q` from 0 to 100."""
    return _public(a, q, 100, axis, out, method, keepdims, weights, interpolation, kwargs, False)


def nanpercentile(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False,
                  method: str = "linear", keepdims: bool = False, *, weights: Any = None,
                  interpolation: str | None = None, **kwargs: Any) -> Array:
    """`nanquantile` for `q` from 0 to 100."""
    return _public(a, q, 100, axis, out, method, keepdims, weights, interpolation, kwargs, True)


def median(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Array:
    """The middle element over `axis`, or the mean of the two in the middle; exact, as `quantile`."""
    return _median(a, axis, out, keepdims, False)


def nanmedian(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Array:
    """`median` of what is not NaN; NaN where nothing is left."""
    return _median(a, axis, out, keepdims, True)


def _median(a: Any, axis: Any, out: Any, keepdims: bool, skip_nan: bool) -> Array:
    x = known_expr(a)
    axes = build.normalize_axes(axis, x.ndim)
    dtype = np.median(np.zeros(2, x.dtype)).dtype  # raises for what has no mean
    return into(out, _shaped(_along(x, 0.5, axes, "median", skip_nan, dtype), (), axes, keepdims))


def _public(a: Any, q: Any, scale: int, axis: Any, out: Any, method: str, keepdims: bool, weights: Any,
            interpolation: str | None, kwargs: dict[str, Any], skip_nan: bool) -> Array:
    kwargs.pop("internal_method", None)
    if kwargs:
        raise TypeError(f"got an unexpected keyword argument {next(iter(kwargs))!r}; quantiles take q, axis, out, method, "
                        "keepdims and weights")
    method = method if interpolation is None else interpolation
    x = known_expr(a)
    axes = build.normalize_axes(axis, x.ndim)
    q = q if type(q) in (int, float) else np.asarray(q)
    function: Any = np.percentile if scale == 100 else np.quantile
    weight = None if weights is None else _weights(weights, x, axes)
    probe = function(np.zeros(1, x.dtype), q, method=method,  # NumPy judges q, method and dtype
                     weights=None if weight is None else np.ones(1))
    if scale == 100:
        q = q / 100
    made = _along(x, q, axes, method, skip_nan, probe.dtype, weight)
    return into(out, _shaped(made, np.shape(q), axes, keepdims))


def _weights(weights: Any, x: Expr, axes: tuple[int, ...]) -> Expr:
    w = as_expr(weights)
    if w.shape == x.shape:
        return w
    if len(axes) != 1 or w.shape != (x.shape[axes[0]],):
        raise ValueError(f"Shape of weights must be consistent with shape of a along specified axis: {w.shape} and "
                         f"{x.shape} over {axes}; broadcast them to the shape of a")
    return build.broadcast_to(build.axes(w, [0 if i == axes[0] else None for i in range(x.ndim)],
                                         tuple(n if i == axes[0] else 1 for i, n in enumerate(x.shape))), x.shape, x.chunks)


def _along(x: Expr, q: Any, axes: tuple[int, ...], method: str, skip_nan: bool, dtype: np.dtype,
           weights: Expr | None = None) -> Expr:
    """The quantiles with `axes` kept at extent 1 and, first, an axis for `q`."""
    flat = tuple(np.ravel(q).tolist())
    q_dtype = None if type(q) in (int, float) else np.asarray(q).dtype.str  # None: does not widen the result
    shape = (len(flat), *(1 if i in axes else n for i, n in enumerate(x.shape)))
    if not flat or 0 in x.shape:
        fill = np.nan if dtype.kind in "fc" else 0
        return build.full(fill, shape, dtype, tuple((n,) for n in shape))
    if weights is None and not sorting.fits(x, axes):
        thin = sorting.single_lines(x, axes)
        chunks = ((len(flat),), *((1,) if i in axes else c for i, c in enumerate(thin.chunks)))
        made = build.custom("quantile.quantile", [thin], (flat, q_dtype, axes, method, skip_nan), shape, dtype, chunks)
    else:
        made = _whole(sorting.whole_lines(x, axes), flat, q_dtype, axes, method, skip_nan, dtype, weights)
    kept = tuple((1,) if i in axes else c for i, c in enumerate(x.chunks))
    return build.rechunk(made, ((len(flat),), *kept))


def _whole(x: Expr, q: tuple[float, ...], q_dtype: str | None, axes: tuple[int, ...], method: str, skip_nan: bool,
           dtype: np.dtype, weights: Expr | None) -> Expr:
    function = Opaque(functools.partial(quantiles_of_lines, q=q, q_dtype=q_dtype, axes=axes, method=method,
                                        skip_nan=skip_nan))
    args = [x] if weights is None else [x, build.rechunk(weights, x.chunks)]
    labels = tuple(range(x.ndim))
    made = tuple(("one", i) if i in axes else i for i in labels)
    shape = (len(q), *(1 if i in axes else n for i, n in enumerate(x.shape)))
    chunks = ((len(q),), *((1,) if i in axes else c for i, c in enumerate(x.chunks)))
    return build.blockmap(function, args, [labels] * len(args), ("q", *made), shape, dtype, chunks, label=method, flop=60.0)


def _shaped(made: Expr, q_shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> Array:
    """With the axis of `q` in its shape, and without the axes worked over."""
    kept = [i for i in range(1, made.ndim) if keepdims or i - 1 not in axes]
    front = [] if not q_shape else [0]
    made = build.axes(made, front + kept, tuple(made.shape[i] for i in front + kept))
    if len(q_shape) < 2:
        return Array(made)
    return Array(made).reshape(q_shape + made.shape[1:])


__all__ = ["median", "nanmedian", "nanpercentile", "nanquantile", "percentile", "quantile"]
