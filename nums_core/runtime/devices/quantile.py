"""Kernels of quantiles: whole lines in a block by NumPy; long lines by exact selection (expr/lowering/quantile.py).

A quantile of n sorted elements lies between elements number `lo` and `hi`, a share `gamma` of the way up. Methods as numbered
by R. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core.runtime.devices.sort import Samples, cut_run

Run = Callable[..., Any]

# Continuous methods: the element numbered (from 0) n q + alpha + q (1 - alpha - beta) - 1, numbers in between by line.
_ALPHA_BETA = {"interpolated_inverted_cdf": (0.0, 1.0), "hazen": (0.5, 0.5), "weibull": (0.0, 0.0),
               "median_unbiased": (1 / 3, 1 / 3), "normal_unbiased": (3 / 8, 3 / 8)}


class Places(NamedTuple):
    """Where quantiles lie: int64, int64 and float64 arrays, one entry a quantile."""

    lo: np.ndarray
    hi: np.ndarray
    gamma: np.ndarray


def places(q: np.ndarray, n: int, method: str) -> Places:
    """Places of the quantiles `q` among `n` >= 1 elements."""
    if method in _DISCRETE:
        at = np.clip(_DISCRETE[method](q, n), 0, n - 1).astype(np.int64)
        return Places(at, at, np.zeros(len(q)))
    at = _continuous(q, n, method)
    lo = np.floor(at)
    gamma = at - lo
    if method == "averaged_inverted_cdf":
        gamma = np.where(gamma == 0, 0.5, 1.0)
    elif method in ("midpoint", "median"):
        gamma = np.where(gamma == 0, 0.0, 0.5)
    lo, hi = (np.clip(x, 0, n - 1).astype(np.int64) for x in (lo, lo + 1))
    return Places(lo, np.where((gamma == 0), lo, hi), gamma)


def _continuous(q: np.ndarray, n: int, method: str) -> np.ndarray:
    if method == "averaged_inverted_cdf":
        return n * q - 1
    if method in ("linear", "midpoint", "median"):
        at = (n - 1) * q
        return 0.5 * (np.floor(at) + np.ceil(at)) if method == "midpoint" else at
    alpha, beta = _ALPHA_BETA[method]
    return n * q + (alpha + q * (1 - alpha - beta)) - 1


def _closest_observation(q: np.ndarray, n: int) -> np.ndarray:
    """Ties to the even element, counted from 1."""
    at = n * q - 1.5
    floor = np.floor(at)
    return np.where((at == floor) & (floor % 2 == 1), floor, floor + 1)


_DISCRETE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "inverted_cdf": lambda q, n: np.ceil(n * q - 1),
    "closest_observation": _closest_observation,
    "lower": lambda q, n: np.floor((n - 1) * q),
    "higher": lambda q, n: np.ceil((n - 1) * q),
    "nearest": lambda q, n: np.rint((n - 1) * q),
}


# -- whole lines in a block -------------------------------------------------------------------------------------------

def quantiles_of_lines(block: np.ndarray, *weights: np.ndarray, q: Sequence[float], q_dtype: str | None,
                       axes: tuple[int, ...], method: str, skip_nan: bool) -> np.ndarray:
    """Quantiles over `axes` of a block, which stay as extents of 1; the quantiles are the first axis.

    `q_dtype` None: one quantile, a Python number (which does not widen the result)."""
    options: dict[str, Any] = {"axis": axes, "keepdims": True}
    function: Callable[..., Any] = np.median if method == "median" else np.quantile
    if method != "median":
        options["q"] = q[0] if q_dtype is None else np.array(q, q_dtype)
        options |= {"method": method, "weights": weights[0] if weights else None}
    empty = None
    if skip_nan and block.dtype.kind == "f":
        function = np.nanmedian if method == "median" else np.nanquantile
        empty = np.isnan(block).all(axis=axes, keepdims=True)  # NumPy warns of these; threads cannot silence a warning
        block = np.where(empty, np.zeros((), block.dtype), block)
    made = np.asanyarray(function(block, **options))
    made = made[None] if q_dtype is None else made
    return made if empty is None else np.where(empty, np.nan, made).astype(made.dtype)


# -- selection --------------------------------------------------------------------------------------------------------

class Brackets(NamedTuple):
    """What the samples tell of the quantiles: their places, and for each two splitters around its elements."""

    places: Places
    lower: tuple[np.ndarray, np.ndarray, np.ndarray]
    upper: tuple[np.ndarray, np.ndarray, np.ndarray]
    valid: bool  # False: there is NaN (or nothing), and so is the result


def _brackets(q: tuple[float, ...], method: str, skip_nan: bool, stride: int) -> Run:
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        samples = Samples(blocks, stride)
        n = samples.n_valid if skip_nan else samples.n
        at = places(np.array(q), max(n, 1), method)
        valid = n > 0 and (skip_nan or samples.n_valid == samples.n)
        return tuple(Brackets(at, samples.splitters(samples.below(at.lo)), samples.splitters(samples.above(at.hi)), valid))
    return run


def _window() -> Run:
    """What of a run lies between the splitters of one quantile, and how many elements of the run are before it."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        values, brackets = blocks[0], Brackets(*blocks[1])
        _, number, k = args
        one = slice(k, k + 1)
        start, stop = (int(cut_run(values, number, tuple(part[one] for part in side))[0])  # type: ignore[arg-type]
                       for side in (brackets.lower, brackets.upper))
        return start, values[start:stop].copy()
    return run


def _select() -> Run:
    """The two elements that a quantile lies between: shape (2,)."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> np.ndarray:
        brackets, windows = Brackets(*blocks[0]), blocks[1:]
        before = sum(start for start, _ in windows)
        values = np.concatenate([v for _, v in windows])
        if not brackets.valid:
            return np.zeros(2, values.dtype)
        lo, hi = (int(x[args[-1]]) - before for x in (brackets.places.lo, brackets.places.hi))
        values.partition((lo, hi))
        return values[[lo, hi]]
    return run


def _blend(method: str, q_dtype: str | None, dtype: str, shape: tuple[int, ...]) -> Run:
    """All quantiles of a line, from their pairs of elements."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        brackets, pairs = Brackets(*blocks[0]), np.stack(blocks[1:])
        if not brackets.valid:
            made = np.full(len(pairs), _nothing(np.dtype(dtype)))
        elif method == "median":
            made = np.mean(pairs, axis=1)
        elif method in _DISCRETE:
            made = pairs[:, 0]
        else:
            made = _lerp(pairs[:, 0], pairs[:, 1], brackets.places.gamma.astype(q_dtype or dtype))
        made = made.astype(dtype, copy=False).reshape(shape)
        if out is None:
            return made
        out[...] = made
        return out
    return run


def _nothing(dtype: np.dtype) -> Any:
    return dtype.type("NaT") if dtype.kind in "mM" else dtype.type(np.nan) if dtype.kind in "fc" else dtype.type(0)


def _lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """From the nearer end, so that t = 1 gives b itself (NumPy's rounding)."""
    step = np.subtract(b, a)
    return np.where(t >= 0.5, b - step * (1 - t), a + step * t)


KERNELS: dict[str, Callable[..., Run]] = {"brackets": _brackets, "window": _window, "select": _select, "blend": _blend}
