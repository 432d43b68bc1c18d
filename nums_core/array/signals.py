"""Derivatives, integrals, convolutions and phases of sampled functions."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import numpy as np

from nums_core.array import elementwise, overlap, reductions, scans
from nums_core.array.array import Array, asarray, known_expr
from nums_core.array.blocks import map_blocks
from nums_core.array.halo import node
from nums_core.array.joining import concatenate
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.lowering.overlap import Window, extents

# -- derivatives ------------------------------------------------------------------------------------------------------

def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Derivative of samples along each axis: central differences inside, one-sided ones at the ends.

    Parameters
    ----------
    f : array
    *varargs : nothing, one spacing for all axes, or one for each: a number, or the coordinates of the samples
    axis : int or sequence, optional
        Axes to differentiate along; all if not given.
    edge_order : 1 or 2
        Accuracy at the ends.

    Returns
    -------
    Array of the shape of `f`, or a tuple of one for each axis

    Notes
    -----
    Each block sees `edge_order` elements of its neighbours; no other data move.
    """
    x = Array(known_expr(asarray(f)))
    axes = build.normalize_axes(axis, x.ndim) if not np.iterable(axis) else tuple(
        build.normalize_axes(a, x.ndim)[0] for a in axis)
    if len(set(axes)) != len(axes):
        raise ValueError("repeated axis in `axis` argument; name each axis once")
    if edge_order not in (1, 2):
        raise ValueError(f"'edge_order' greater than 2 not supported; got {edge_order}: use 1 or 2")
    spacings = list(varargs) or [1.0]
    if len(spacings) == 1 and len(axes) > 1 and not np.ndim(spacings[0]):
        spacings *= len(axes)
    if len(spacings) != len(axes):
        raise TypeError(f"invalid number of arguments: {len(varargs)} spacings for {len(axes)} axes; give one for each")
    made = tuple(_along(x, a, h, edge_order) for a, h in zip(axes, spacings, strict=True))
    return made if len(made) != 1 else made[0]


def _along(x: Array, axis: int, spacing: Any, edge_order: int) -> Array:
    n = x.shape[axis]
    if n < edge_order + 1:
        raise ValueError("Shape of array too small to calculate a numerical gradient, at least (edge_order + 1) elements "
                         f"are required; axis {axis} has {n}")
    coordinates = np.ndim(spacing) == 1
    if np.ndim(spacing) > 1:
        raise ValueError("distances must be either scalars or 1d; give the coordinates along the axis")
    if coordinates and len(spacing) != n:
        raise ValueError(f"when 1d, distances must match the length of the corresponding dimension: {len(spacing)} "
                         f"coordinates for {n} samples")
    places = np.asarray(spacing.compute() if isinstance(spacing, Array) else spacing)
    steps = np.diff(places) if coordinates else places
    if coordinates and (steps == steps[0]).all():  # NumPy's own shortcut, whose formula rounds otherwise
        coordinates, steps = False, steps[0]
    options: dict[str, Any] = {"depth": {axis: edge_order}, "axis": axis, "edge_order": edge_order,
               "dtype": np.gradient(np.ones(3, x.dtype), steps.reshape(-1)[0]).dtype}
    if not coordinates:
        return overlap.map_overlap(_slope, x, spacing=steps[()], **options)
    line = asarray(places, chunks=(x.chunks[axis],)).expr
    shape = tuple(n if i == axis else 1 for i in range(x.ndim))
    beside = Array(build.axes(line, tuple(0 if i == axis else None for i in range(x.ndim)), shape))
    return overlap.map_overlap(_slope_at, x, beside, **options)


def _slope(block: np.ndarray, axis: int, edge_order: int, spacing: Any) -> np.ndarray:
    return np.gradient(block, spacing, axis=axis, edge_order=edge_order)  # type: ignore[call-overload]


def _slope_at(block: np.ndarray, places: np.ndarray, axis: int, edge_order: int) -> np.ndarray:
    """Differences weighted by the distances; the second-order formula of Fornberg (1988) for unequal ones."""
    f = np.moveaxis(block if block.dtype.kind in "fcmM" else block.astype(float), axis, -1)
    h = np.diff(places.ravel())
    out = np.empty(f.shape, np.result_type(f, h) if f.dtype.kind in "fc" else None)
    p, q = h[:-1], h[1:]
    out[..., 1:-1] = (-q / (p * (p + q)) * f[..., :-2] + (q - p) / (p * q) * f[..., 1:-1]
                      + p / (q * (p + q)) * f[..., 2:])
    if edge_order == 1:
        out[..., 0], out[..., -1] = (f[..., 1] - f[..., 0]) / h[0], (f[..., -1] - f[..., -2]) / h[-1]
    else:
        p, q = h[:2]
        out[..., 0] = (-(2.0 * p + q) / (p * (p + q)) * f[..., 0] + (p + q) / (p * q) * f[..., 1]
                       + -p / (q * (p + q)) * f[..., 2])
        p, q = h[-2:]
        out[..., -1] = (q / (p * (p + q)) * f[..., -3] + -(q + p) / (p * q) * f[..., -2]
                        + (2.0 * q + p) / (q * (p + q)) * f[..., -1])
    return np.moveaxis(out, -1, axis)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Array:
    """Integral along an axis by the trapezoidal rule; `x` are the places of the samples, else they lie `dx` apart."""
    y = Array(known_expr(asarray(y)))
    (axis,) = build.normalize_axes(axis, y.ndim)
    d: Any = dx
    if x is not None:
        places = asarray(x)
        if places.ndim == 1:
            d = scans.diff(places)[tuple(slice(None) if i == axis else None for i in range(y.ndim))]
        else:
            d = scans.diff(places, axis=axis)
    lead = (slice(None),) * axis
    return reductions.sum(d * (y[(*lead, slice(1, None))] + y[(*lead, slice(None, -1))]) / 2.0, axis=axis)


def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * np.pi) -> Array:
    """Phases with jumps of more than half a period taken out by adding whole periods."""
    p = Array(known_expr(asarray(p)))
    (axis,) = build.normalize_axes(axis, p.ndim)
    steps = scans.diff(p, axis=axis)
    discont = period / 2 if discont is None else discont
    dtype = np.result_type(steps.dtype, period)
    if dtype.kind in "iu":
        high, rest = divmod(period, 2)
        on_the_edge = rest == 0
    else:
        high, on_the_edge = period / 2, True
    low = -high
    moved = elementwise.remainder(steps - low, period) + low
    if on_the_edge:
        moved = elementwise.where(elementwise.logical_and(elementwise.equal(moved, low), elementwise.greater(steps, 0)),
                                  high, moved)
    correction = elementwise.where(elementwise.less(elementwise.absolute(steps), discont), 0, moved - steps)
    lead = (slice(None),) * axis
    up = p.astype(dtype)
    made = concatenate([up[(*lead, slice(0, 1))], up[(*lead, slice(1, None))] + scans.cumsum(correction, axis=axis)], axis=axis)
    return made.rechunk(p.chunks)


# -- convolutions -----------------------------------------------------------------------------------------------------

def convolve(a: Any, v: Any, mode: str = "full") -> Array:
    """Discrete convolution of two lines: sum of a[m] v[n - m].

    Parameters
    ----------
    mode : "full" (every overlap), "same" (the length of the longer one) or "valid" (complete overlaps)

    Notes
    -----
    The longer line stays cut; each block sees as many elements of its neighbours as the shorter line has.
    """
    x, w = asarray(a), asarray(v)
    if x.ndim != 1 or w.ndim != 1:
        raise ShapeError(f"convolve() takes lines of one axis, not shapes {x.shape} and {w.shape}; use apply_along_axis()")
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"mode must be one of 'valid', 'same', or 'full' (got {mode!r})")
    x, w = (w, x) if len(w) > len(x) else (x, w)
    if not len(w):
        raise ValueError(f"{'a' if not len(x) else 'v'} cannot be empty")
    full = _full(x, w)
    n, m = len(x), len(w)
    if mode == "full":
        return full
    return full[(m - 1) // 2:(m - 1) // 2 + n] if mode == "same" else full[m - 1:n]


def _full(x: Array, w: Array) -> Array:
    e, m = x.expr, len(w)
    dtype = np.convolve(np.ones(1, x.dtype), np.ones(1, w.dtype)).dtype
    wide = overlap.constant(x, 0, m - 1, 0).expr if m > 1 else e
    n = wide.shape[0] - m + 1
    centres = _like(e.chunks[0], n)
    window = Window(centres, 0, m - 1, "none")
    seen = extents(window, wide.shape[0])
    grown = node(None, (), [wide], ((window,),), ((None,),), None, (sum(seen),), x.dtype, (seen,))
    return map_blocks(_valid, grown, w=w, dtype=dtype, chunks=(centres,), name="convolve")


def _like(sizes: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Chunks of `n` elements: `sizes`, and what is left over in the last one."""
    ends = [min(e, n) for e in itertools.accumulate(sizes)]
    ends[-1] = n
    return tuple(b - a for a, b in itertools.pairwise([0, *ends]) if b > a)


def _valid(block: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.convolve(block, w, "valid")


def correlate(a: Any, v: Any, mode: str = "valid") -> Array:
    """Cross-correlation of two lines: sum of a[n + k] conj(v[n])."""
    x, w = asarray(a), asarray(v)
    if x.ndim == 1 == w.ndim and len(w) > len(x):
        return elementwise.conj(correlate(w, x, mode))[::-1]
    return convolve(x, elementwise.conj(w)[::-1], mode)


# -- polynomials ------------------------------------------------------------------------------------------------------

def polyval(p: Any, x: Any) -> Array:
    """A polynomial at the places `x`, by Horner's rule; `p` are its coefficients, the highest power first."""
    coefficients = np.asarray(p.compute() if isinstance(p, Array) else p)
    x = asarray(x)
    y = x * 0
    for c in coefficients:
        y = y * x + c
    return y


def polyfit(x: Any, y: Any, deg: int, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False) -> Array:
    """Least-squares coefficients of a polynomial of degree `deg`, the highest power first.

    `full` and `cov` are not available on blocks: the residuals are `polyval(p, x) - y`.
    """
    from nums_core.array import linalg
    from nums_core.array.ranges import vander

    if full or cov:
        raise ValueError("full= and cov= are not available on blocks; compute them from polyval(p, x) - y")
    x, y = asarray(x).astype(float), asarray(y)
    if x.ndim != 1 or not len(x) or len(x) != len(y):
        raise TypeError(f"polyfit() takes a line x and as many values y; shapes are {x.shape} and {y.shape}")
    left, right = vander(x, operator.index(deg) + 1), y * 1.0
    if w is not None:
        weights = asarray(w)
        left, right = left * weights[:, None], right * (weights if y.ndim == 1 else weights[:, None])
    scale = elementwise.sqrt(reductions.sum(left * left, axis=0))
    solution = linalg.lstsq(left / scale, right, rcond if rcond is not None else len(x) * np.finfo(float).eps)[0]
    return solution / (scale if y.ndim == 1 else scale[:, None])


def _coefficients(function: Any) -> Any:
    """A function of coefficients, which are few: computed at once with NumPy."""
    @functools.wraps(function)
    def small(*args: Any, **kwargs: Any) -> Any:
        values = [np.asarray(a.compute()) if isinstance(a, Array) else a for a in args]
        made = function(*values, **kwargs)
        return tuple(map(asarray, made)) if isinstance(made, tuple) else asarray(made)
    small.__doc__ = f"`numpy.{function.__name__}`; coefficients are computed at once."
    return small


poly = _coefficients(np.poly)
polyadd = _coefficients(np.polyadd)
polyder = _coefficients(np.polyder)
polydiv = _coefficients(np.polydiv)
polyint = _coefficients(np.polyint)
polymul = _coefficients(np.polymul)
polysub = _coefficients(np.polysub)
roots = _coefficients(np.roots)

__all__ = ["convolve", "correlate", "gradient", "poly", "polyadd", "polyder", "polydiv", "polyfit", "polyint", "polymul",
           "polysub", "polyval", "roots", "trapezoid", "unwrap"]
