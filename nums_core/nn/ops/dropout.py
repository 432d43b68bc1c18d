"""Dropout whose bits are a function of key, step and position: the backward pass draws them again and keeps nothing."""

from __future__ import annotations

import functools

import numpy as np

from nums_core.array import creation, ranges
from nums_core.array.array import Array
from nums_core.errors import ConfigError
from nums_core.nn.init import Keys
from nums_core.nn.primitives import Call, primitive
from nums_core.runtime.devices.random import Draw, RandomSource

_STRIDE = 0x9E3779B97F4A7C15  # odd, so that steps visit all 64-bit numbers; 2**64 / golden ratio spreads neighbours


def dropout(x: Array, rate: float, key: Keys | None) -> Array:
    """Every element 0 with probability `rate`, else x / (1 - rate), so that the mean stays.

    Parameters
    ----------
    x : Array, floating
    rate : float
        0 ≤ rate < 1.
    key : Keys, or None
        None leaves `x` as it is: evaluation. In a jitted step pass `keys.at(step)`, or every call drops the same elements;
        and `keys.split(name)` for each use of its own.

    Raises
    ------
    ConfigError
        A rate out of range.

    Notes
    -----
    An element's fate depends on key, step and its position in C order, not on blocks or threads. The derivative
    draws the same bits again.

    References
    ----------
    .. [1] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014, section 10.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"dropout rate {rate} is out of range; give a probability of at least 0 and less than 1")
    if key is None or rate == 0:
        return x
    step = key.step if key.step is not None else creation.zeros((1,), np.int64)
    lead = "abcdefghijklmnop"[:x.ndim]
    places = [ranges.arange(n, dtype=np.int64, chunks=(c,)) for n, c in zip(x.shape, x.chunks, strict=True)]
    return dropped.bind([x, step, *places], f"{lead},1,{','.join(lead)}->{lead}", [(x.shape, x.dtype)], rate=float(rate),
                        key=key.key, call=key.call, shape=x.shape)


@primitive(label="dropout", flop=20)
def dropped(x: np.ndarray, step: np.ndarray, *places: np.ndarray, rate: float, key: tuple[int, int], call: int,
            shape: tuple[int, ...]) -> np.ndarray:
    """`places` say where the block stands in an array of this shape: the positions along each axis."""
    draw = Draw("random", (), "<f4", key, (call + int(step[0]) * _STRIDE) % 2**64)
    box = tuple(slice(int(p[0]), int(p[-1]) + 1) for p in places) if x.size else (slice(0),) * x.ndim
    keep = RandomSource(draw, shape)[box] >= np.float32(rate)
    return np.multiply(x * x.dtype.type(1 / (1 - rate)), keep, dtype=x.dtype)


@dropped.defbackward
def _dropped_backward(call: Call, g: Array | None) -> list[Array | None]:
    _, step, *places = call.args
    rest: list[Array | None] = [None] * (1 + len(places))
    if g is None:
        return [None, *rest]
    again = functools.partial(dropped.bind, [g, step, *places], call.labels, [(g.shape, g.dtype)])
    return [again(**call.static), *rest]


__all__ = ["dropout"]
