"""Reshape kernels on NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nums_core.runtime.devices.numpy import Run, deliver


def _blocks() -> Run:
    """A block in another shape; a view where the block is contiguous."""
    def run(args: tuple[int, ...], blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        (block,) = blocks
        if out is not None and out.flags.c_contiguous and not block.flags.c_contiguous:
            out.reshape(block.shape)[...] = block
            return out
        return deliver(block.reshape(args), out)
    return run


KERNELS: dict[str, Callable[..., Run]] = {"blocks": _blocks}
