"""Weight formats of GGUF files as the readers use them: sizes of blocks, unpacking and packing of whole tensors.

The layouts and their meaning stand in `ops.quantize`.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops import quantize as codec
from nums_core.runtime.devices.quantized import unpacked

BLOCK: dict[str, tuple[int, int]] = {name: (n, layout.itemsize) for name, (n, layout) in codec.LAYOUTS.items()}
"""Elements and bytes of a block."""


def dequantize(raw: np.ndarray, format: str, n_cols: int) -> np.ndarray:
    """The values of packed rows, equal bit for bit to those that the `gguf` package gives.

    Parameters
    ----------
    raw : uint8 (rows, bytes per row)
    format : str, a key of `BLOCK`
    n_cols : int
        Elements of a row.

    Returns
    -------
    float32 (rows, n_cols)

    Raises
    ------
    ConfigError, ShapeError, DTypeError
        An unknown format, or bytes that are not rows of so many elements.
    """
    codec.check_rows(raw.shape, raw.dtype, format, n_cols)
    return unpacked(raw, format, n_cols)


def quantize(x: np.ndarray, format: str) -> np.ndarray:
    """Rows of numbers (rows, cols) packed: uint8 (rows, bytes per row). See `ops.quantize.encode`."""
    return codec.encode(x, format)


__all__ = ["BLOCK", "dequantize", "quantize"]
