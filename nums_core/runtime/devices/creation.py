"""Arrays made from the position of their elements alone, with NumPy's bits: `arange`, `linspace`, `tri`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.runtime.devices.numpy import deliver

Run = Callable[..., Any]


def _arange(start: Any, delta: Any, dtype: str) -> Run:
    """start + i * delta, computed as NumPy's fill loop does: in the dtype itself, float16 in float32."""
    kind = np.dtype(dtype).kind
    calc = np.dtype(np.float32 if np.dtype(dtype) == np.float16 else np.int64 if kind in "mMb" else dtype)

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (offset, n), = args
        index = np.arange(offset, offset + n).astype(calc)
        with np.errstate(all="ignore"):
            index *= calc.type(delta)
            index += calc.type(start)
        return deliver(index.astype(dtype, copy=False), out)
    return run


def _linspace(start: Any, delta: Any, step: Any, div: int, stop: Any, num: int, calc: str, dtype: str) -> Run:
    """start + i * step, or start + (i / div) * delta where the step underflows; `stop`, if given, is the last element."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (offset, n), = args
        y = np.arange(offset, offset + n).astype(calc)
        with np.errstate(all="ignore"):
            if step is not None and step == 0:
                y /= div
            y *= delta if step is None or step == 0 else step
            y += start
            if stop is not None and offset <= num - 1 < offset + n:
                y[num - 1 - offset] = stop
            if np.dtype(dtype).kind in "iu":
                np.floor(y, out=y)
            return deliver(y.astype(dtype, copy=False), out)
    return run


def _tri(k: int, dtype: str) -> Run:
    """Ones at and below the k-th diagonal."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (i, n), (j, m) = args
        return deliver(np.tri(n, m, k + i - j, dtype), out)
    return run


KERNELS: dict[str, Callable[..., Run]] = {"arange": _arange, "linspace": _linspace, "tri": _tri}
