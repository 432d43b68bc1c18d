"""Block formats of quantised weights: how they lie in bytes, and their codecs in NumPy.

A matrix is stored row by row, a row as blocks of 1, 32 or 256 elements. In a block of q4_0, for example, element i is
d·(q_i - 8), with one scale d and 16 levels q. The layouts are those of GGUF files.

    name    elements  bytes   element
    f32, f16, bf16     1   4, 2, 2    itself
    q8_0    32        34      d q                       q: int8
    q4_0    32        18      d (q - 8)                 q: 4 bits
    q4_1    32        20      d q + m                   q: 4 bits
    q4_k    256      144      d s_j q - e m_j           q: 4 bits; s, m: 6 bits each, for 32 elements
    q6_k    256      210      d s_j (q - 32)            q: 6 bits; s: int8, for 16 elements

d, m and e are float16. Decoding is exact but for one rounding to float32, done in the order of the `gguf` package, so that the
results are equal to its bit for bit; encoding equals it where it encodes (all but q4_k and q6_k).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nums_core.errors import ConfigError, DTypeError, ShapeError

TILE_ELEMENTS = 2**17  # that are coded together: whatever is made on the way stays in the cache

LAYOUTS: dict[str, tuple[int, np.dtype]] = {
    "f32": (1, np.dtype([("x", "<f4")])),
    "f16": (1, np.dtype([("x", "<f2")])),
    "bf16": (1, np.dtype([("x", "<u2")])),
    "q8_0": (32, np.dtype([("d", "<f2"), ("q", "i1", 32)])),
    "q4_0": (32, np.dtype([("d", "<f2"), ("q", "u1", 16)])),
    "q4_1": (32, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])),
    "q4_k": (256, np.dtype([("d", "<f2"), ("e", "<f2"), ("s", "u1", (3, 4)), ("q", "u1", (4, 32))])),
    "q6_k": (256, np.dtype([("low", "u1", (2, 2, 32)), ("high", "u1", (2, 32)), ("s", "i1", 16), ("d", "<f2")])),
}


def row_bytes(form: str, n_cols: int) -> int:
    """Bytes of a row.

    Raises
    ------
    ConfigError
        An unknown format.
    ShapeError
        `n_cols` is no whole number of blocks.
    """
    if form not in LAYOUTS:
        raise ConfigError(f"the weight format {form!r} is not known; use one of {', '.join(LAYOUTS)}")
    elements, layout = LAYOUTS[form]
    if n_cols % elements:
        raise ShapeError(f"rows of {n_cols} elements are no whole number of {form} blocks of {elements}; pad them to "
                         f"{-(-n_cols // elements) * elements}, or keep this matrix in f16")
    return n_cols // elements * layout.itemsize


def check_rows(shape: tuple[int, ...], dtype: np.dtype, form: str, n_cols: int) -> None:
    """Refuse bytes that are not rows of `n_cols` elements.

    Raises
    ------
    ConfigError, DTypeError, ShapeError
    """
    want = row_bytes(form, n_cols)
    if dtype != np.uint8:
        raise DTypeError(f"rows of {form} have dtype {dtype}; give their bytes, x.view(numpy.uint8)")
    if len(shape) != 2 or shape[1] != want:
        raise ShapeError(f"rows of {n_cols} elements in {form} take {want} bytes, so the bytes have shape (rows, {want}), "
                         f"not {tuple(shape)}; check the format and the number of columns")


# -- decoding ---------------------------------------------------------------------------------------------------------

def decode(raw: np.ndarray, form: str, n_cols: int, out: np.ndarray | None = None) -> np.ndarray:
    """The values of packed rows.

    Parameters
    ----------
    raw : uint8 (rows, bytes per row)
    n_cols : int
        Elements of a row.
    out : float32 (rows, n_cols), optional
        Where to write.

    Returns
    -------
    float32 (rows, n_cols)
    """
    check_rows(raw.shape, raw.dtype, form, n_cols)
    if out is None:
        out = np.empty((len(raw), n_cols), np.float32)
    layout = LAYOUTS[form][1]
    for rows in _tiles(len(raw), n_cols):
        blocks = np.ascontiguousarray(raw[rows]).view(layout)
        out[rows] = _DECODE[form](blocks.reshape(-1)).reshape(blocks.shape[0], n_cols)
    return out


def _tiles(n_rows: int, n_cols: int) -> list[slice]:
    step = max(TILE_ELEMENTS // max(n_cols, 1), 1)
    return [slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step)]


def _wide(x: np.ndarray, ndim: int = 2) -> np.ndarray:
    """float32, with axes of extent 1 at the end."""
    return x.astype(np.float32).reshape(x.shape + (1,) * (ndim - x.ndim))


def _nibbles(q: np.ndarray) -> np.ndarray:
    """4-bit numbers, two a byte: along the last axis all the low ones, then all the high ones."""
    return np.concatenate([q & 15, q >> 4], axis=-1)


def _decode_q4_k(b: np.ndarray) -> np.ndarray:
    s, m = unpacked_scales(b["s"])
    scale, offset = _wide(b["d"]) * _wide(s), _wide(b["e"]) * _wide(m)
    return scale[..., None] * _wide(_nibbles(b["q"]).reshape(-1, 8, 32)) - offset[..., None]


def unpacked_scales(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 6-bit scales and minima of q4_k: two arrays (n, 8) from bytes (n, 3, 4).

    The first four of each lie in the low six bits of bytes 0 to 3 and 4 to 7, and their other two bits are the upper bits of
    the last four, whose lower bits are the nibbles of bytes 8 to 11."""
    first, second, low = packed[:, 0], packed[:, 1], packed[:, 2]
    scales = np.concatenate([first & 63, low & 15 | first >> 6 << 4], axis=1)
    return scales, np.concatenate([second & 63, low >> 4 | second >> 6 << 4], axis=1)


def _decode_q6_k(b: np.ndarray) -> np.ndarray:
    high = b["high"]
    upper = np.stack([high << 4, high << 2, high, high >> 2], axis=2) & 48  # (n, half, quarter, 32)
    lower = np.concatenate([b["low"] & 15, b["low"] >> 4], axis=2)
    q = (lower | upper).astype(np.int8) - np.int8(32)
    scale = _wide(b["d"]) * _wide(b["s"])
    return scale[..., None] * _wide(q.reshape(-1, 16, 16))


_DECODE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f32": lambda b: b["x"],
    "f16": lambda b: b["x"].astype(np.float32),
    "bf16": lambda b: (b["x"].astype(np.uint32) << 16).view(np.float32),
    "q8_0": lambda b: _wide(b["d"]) * _wide(b["q"]),
    "q4_0": lambda b: _wide(b["d"]) * _wide(_nibbles(b["q"]).astype(np.int8) - np.int8(8)),
    "q4_1": lambda b: _wide(b["d"]) * _wide(_nibbles(b["q"])) + _wide(b["m"]),
    "q4_k": _decode_q4_k,
    "q6_k": _decode_q6_k,
}


# -- encoding ---------------------------------------------------------------------------------------------------------

def encode(x: np.ndarray, form: str) -> np.ndarray:
    """Rows of numbers, packed.

    Parameters
    ----------
    x : (rows, cols), real; taken as float32

    Returns
    -------
    uint8 (rows, bytes per row)

    Raises
    ------
    ConfigError
        An unknown format.
    ShapeError
        Not a matrix, or rows that are no whole number of blocks.
    DTypeError
        Complex numbers, or values that the format cannot hold: NaN and infinities in a block with a scale, or scales over
        what float16 holds.
    """
    if x.ndim != 2:
        raise ShapeError(f"weights of shape {x.shape} are not a matrix; reshape to (rows, columns), as in "
                         "x.reshape(-1, x.shape[-1])")
    if x.dtype.kind not in "biuf":
        raise DTypeError(f"weights of dtype {x.dtype} cannot be packed; cast with x.astype(numpy.float32)")
    n_rows, n_cols = x.shape
    out = np.empty((n_rows, row_bytes(form, n_cols)), np.uint8)
    elements, layout = LAYOUTS[form]
    for rows in _tiles(n_rows, n_cols):
        values = np.ascontiguousarray(x[rows], np.float32).reshape(-1, elements)
        blocks = np.empty(len(values), layout)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            _ENCODE[form](values, blocks)
        if elements > 1:
            _check_scales(values, blocks, form)
        out[rows] = blocks.view(np.uint8).reshape(out[rows].shape)
    return out


def _check_scales(values: np.ndarray, blocks: np.ndarray, form: str) -> None:
    fine = np.isfinite(values).all()
    for name in {"d", "m", "e"} & set(blocks.dtype.names or ()):
        fine &= np.isfinite(blocks[name]).all()
    if not fine:
        most = np.abs(values[np.isfinite(values)]).max(initial=0)
        bad = math.prod(values.shape) - int(np.isfinite(values).sum())
        raise DTypeError(f"{form} has float16 scales, which cannot hold these weights: {bad} are NaN or infinite, the largest "
                         f"other is {most:g}; find where they come from, or keep the matrix in bf16 or f32")


def _inverse(d: np.ndarray) -> np.ndarray:
    """1 / d, and 0 for 0."""
    return np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)


def _rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest integer, halves away from zero."""
    a = np.abs(x)
    whole = np.floor(a)
    return np.copysign(whole + np.floor(2 * (a - whole)), x)


def _levels(x: np.ndarray, top: int) -> np.ndarray:
    """x rounded to 0 .. top, as uint8."""
    return np.clip(np.trunc(x + np.float32(0.5)), 0, top).astype(np.uint8)


def _joined(q: np.ndarray) -> np.ndarray:
    """The inverse of `_nibbles`."""
    low, high = np.split(q, 2, axis=-1)
    return low | high << 4


def _encode_bf16(x: np.ndarray, b: np.ndarray) -> None:
    """Round to nearest, ties to even; a NaN stays one."""
    bits = x.view(np.uint32)[:, 0]
    rounded = (bits.astype(np.uint64) + (0x7FFF + (bits >> 16 & 1))) >> 16
    quiet = (bits >> 16) | 64
    b["x"] = np.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet, rounded)


def _encode_f16(x: np.ndarray, b: np.ndarray) -> None:
    b["x"] = x[:, 0]


def _encode_q8_0(x: np.ndarray, b: np.ndarray) -> None:
    d = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    b["d"], b["q"] = d[:, 0], np.nan_to_num(_rounded(x * _inverse(d)))


def _encode_q4_0(x: np.ndarray, b: np.ndarray) -> None:
    """The element of largest magnitude gets level 0, so that it is exact on its side."""
    peak = np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)
    d = peak / np.float32(-8)
    q = np.nan_to_num(np.trunc(x * _inverse(d) + np.float32(8.5)))
    b["d"], b["q"] = d[:, 0], _joined(np.clip(q, 0, 15).astype(np.uint8))


def _encode_q4_1(x: np.ndarray, b: np.ndarray) -> None:
    low = x.min(axis=1, keepdims=True)
    d = (x.max(axis=1, keepdims=True) - low) / np.float32(15)
    b["d"], b["m"], b["q"] = d[:, 0], low[:, 0], _joined(_levels(np.nan_to_num((x - low) * _inverse(d)), 15))


# -- encoding: super-blocks, whose scales are quantised too -----------------------------------------------------------

def _encode_q4_k(x: np.ndarray, b: np.ndarray) -> None:
    parts = np.nan_to_num(x).reshape(-1, 8, 32)
    scale, offset = _affine_fit(parts, 15)
    d, e = scale.max(axis=1, keepdims=True) / 63, offset.max(axis=1, keepdims=True) / 63
    b["d"], b["e"] = d[:, 0], e[:, 0]
    d, e = _wide(b["d"]), _wide(b["e"])  # as they will be read
    s, m = _levels(scale * _inverse(d), 63), _levels(offset * _inverse(e), 63)
    b["s"] = _packed_scales(s, m)
    q = (parts + (e * m)[..., None]) * _inverse(d * s)[..., None]
    b["q"] = _joined(_levels(np.nan_to_num(q), 15).reshape(-1, 4, 64))


def _packed_scales(s: np.ndarray, m: np.ndarray) -> np.ndarray:
    """The inverse of `unpacked_scales`."""
    low = s[:, 4:] & 15 | m[:, 4:] << 4
    return np.stack([s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6, low], axis=1)


def _affine_fit(x: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """scale, offset >= 0 so that scale·q - offset with q in 0 .. top is near x, for each last axis.

    Levels are laid over the range of x, shrunk a little in several ways; for each, scale and offset are then fitted by least
    squares, and the fit of least squared error is kept."""
    low, high = np.minimum(x.min(axis=-1), 0), x.max(axis=-1)
    best = (high - low) / np.float32(top), -low
    error = _squared_error(x, *best, top)
    for shrink in (0.0, 0.3, 0.6, 0.9, 1.2, 1.5):
        q = _levels((x - low[..., None]) * _inverse((high - low) / np.float32(top - shrink))[..., None], top)
        fit = _least_squares(x, q.astype(np.float32))
        tried = _squared_error(x, *fit, top)
        better = tried < error
        best = (np.where(better, fit[0], best[0]), np.where(better, fit[1], best[1]))
        error = np.where(better, tried, error)
    return best


def _least_squares(x: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and offset that make scale·q - offset nearest to x, neither below 0."""
    n = np.float32(x.shape[-1])
    sum_q, sum_x, sum_qq, sum_qx = q.sum(-1), x.sum(-1), (q * q).sum(-1), (q * x).sum(-1)
    scale = (n * sum_qx - sum_q * sum_x) * _inverse(n * sum_qq - sum_q * sum_q)
    offset = (scale * sum_q - sum_x) / n
    through_zero = sum_qx * _inverse(sum_qq)
    scale = np.where(offset < 0, through_zero, scale)
    return np.maximum(scale, 0), np.maximum(offset, 0)


def _squared_error(x: np.ndarray, scale: np.ndarray, offset: np.ndarray, top: int) -> np.ndarray:
    q = _levels((x + offset[..., None]) * _inverse(scale)[..., None], top)
    return np.square(scale[..., None] * q - offset[..., None] - x).sum(-1)


def _encode_q6_k(x: np.ndarray, b: np.ndarray) -> None:
    parts = np.nan_to_num(x).reshape(-1, 16, 16)
    scale = _symmetric_fit(parts, 32)
    peak = np.take_along_axis(scale, np.abs(scale).argmax(axis=1, keepdims=True), axis=1)
    b["d"] = peak[:, 0] / np.float32(-128)
    d = _wide(b["d"])
    b["s"] = np.clip(np.rint(scale * _inverse(d)), -128, 127)
    q = np.rint(parts * _inverse(d * b["s"])[..., None])
    levels = (np.clip(q, -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    b["low"] = levels[:, :, :2] & 15 | levels[:, :, 2:] << 4
    b["high"] = np.bitwise_or.reduce((levels >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2)


def _symmetric_fit(x: np.ndarray, top: int) -> np.ndarray:
    """The scale so that scale·q with q in -top .. top - 1 is near x, for each last axis: the element of largest magnitude is
    laid near -top, in several ways; the scale of each is fitted by least squares."""
    peak = np.take_along_axis(x, np.abs(x).argmax(axis=-1, keepdims=True), axis=-1)
    best: np.ndarray = peak[..., 0] / np.float32(-top)
    gain = np.full(best.shape, -1.0, np.float32)  # squared error saved, over that of zero
    for wider in np.arange(-9, 10, dtype=np.float32) / 10:
        q = np.clip(np.rint(x * (_inverse(peak) * -(np.float32(top) + wider))), -top, top - 1)
        qx, qq = (q * x).sum(-1), (q * q).sum(-1)
        saved = qx * qx * _inverse(qq)
        best, gain = np.where(saved > gain, qx * _inverse(qq), best), np.maximum(saved, gain)
    return best


def _encode_f32(x: np.ndarray, b: np.ndarray) -> None:
    b["x"] = x[:, 0]


_ENCODE: dict[str, Callable[[np.ndarray, np.ndarray], None]] = {
    "f32": _encode_f32, "f16": _encode_f16, "bf16": _encode_bf16, "q8_0": _encode_q8_0, "q4_0": _encode_q4_0,
    "q4_1": _encode_q4_1, "q4_k": _encode_q4_k, "q6_k": _encode_q6_k,
}


__all__ = ["LAYOUTS", "check_rows", "decode", "encode", "row_bytes", "unpacked_scales"]
