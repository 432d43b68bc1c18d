"""Blocks with halos on NumPy: put together from slices of neighbours, given to a function, cut back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.runtime.devices.blocks import UserFunction
from nums_core.runtime.devices.numpy import deliver

Run = Callable[..., Any]


def _assemble(axes: list[Any], blocks: list[np.ndarray], dtype: np.dtype, values: tuple[Any, ...]) -> np.ndarray:
    """One block with its surroundings; `axes` has (extent, pieces, (pad before, pad after)) for each axis."""
    pads = [p for _, _, p in axes]
    if len(blocks) == 1 and not any(a or b for a, b in pads):
        piece = blocks[0][tuple(pieces[0][1] for _, pieces, _ in axes)]
        if piece.shape == tuple(n for n, _, _ in axes):  # else one element stands for several
            return piece
    out = np.empty([n for n, _, _ in axes], dtype)
    for axis, ((before, after), value) in enumerate(zip(pads, values, strict=True)):  # a later axis wins in the corners
        lead = (slice(None),) * axis
        if before:
            out[(*lead, slice(None, before))] = value
        if after:
            out[(*lead, slice(-after, None))] = value
    for block, at in zip(blocks, itertools.product(*[pieces for _, pieces, _ in axes]), strict=True):
        out[tuple(p[2] for p in at)] = block[tuple(p[1] for p in at)]
    return out


def _map(function: Callable[..., Any] | None, kwargs: tuple[tuple[str, Any], ...], values: tuple[tuple[Any, ...], ...],
         dtypes: tuple[np.dtype, ...], dtype: np.dtype) -> Run:
    call = None if function is None else UserFunction(function, dict(kwargs), dtype, None, ())

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        ndim = len(values[0])
        given, used = [], 0
        for k, (kind, fill) in enumerate(zip(dtypes, values, strict=True)):
            axes = [args[axis][0][k] for axis in range(ndim)]
            count = 1
            for _, pieces, _ in axes:
                count *= len(pieces)
            given.append(_assemble(axes, blocks[used:used + count], kind, fill))
            used += count
        made = given[0] if call is None else call(None, given)
        trims = [args[axis][1] for axis in range(ndim)]
        if any(t is not None for t in trims):
            made = _trimmed(made, trims, args)
        return deliver(made, out)
    return run


def _trimmed(made: np.ndarray, trims: list[Any], args: Any) -> np.ndarray:
    given = tuple(entry[0][0][0] for entry in args[:len(trims)])
    if made.shape[:len(trims)] != given:
        raise ValueError(f"the function returned a block of shape {made.shape} for one of shape {given}, so its halo cannot "
                         "be cut off; return the shape given, or use trim=False with chunks=")
    return made[tuple(slice(a, n - b) for (a, b), n in zip(trims, made.shape, strict=False))]


KERNELS: dict[str, Callable[..., Run]] = {"map": _map}
