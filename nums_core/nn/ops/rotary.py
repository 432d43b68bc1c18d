"""Rotary position embedding of a block: pairs of features turn by an angle that grows with the position.

    (x_i, x_j) -> (x_i cos t - x_j sin t, x_j cos t + x_i sin t)        t = position · frequency of the pair

The pairs are (i, i + dim/2) ("rotate half", as in Hugging Face's models), or (2i, 2i + 1) where interleaved. Turning back is
turning by the negative angle: the operation's derivative is itself.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.errors import ConfigError, DTypeError, ShapeError
from nums_core.nn.primitives import Call, primitive
from nums_core.runtime.devices import scratch

Scaling = tuple[tuple[str, Any], ...] | None  # items of Hugging Face's `rope_scaling`
REMEMBERED = 1024  # positions of one call whose waves are kept for the next layer


def rotate(x: Array, positions: Array, *, dim: int, base: float = 10000.0, scaling: Scaling = None,
           interleaved: bool = False) -> Array:
    """`x` turned by its positions.

    Parameters
    ----------
    x : Array, shape (*lead, heads, d)
    positions : Array, integer, of a shape that broadcasts to `lead` from the right
    dim : int, even
        Features that turn; those from `dim` on pass.
    """
    check(x.shape[-1] if x.ndim else 0, dim)
    lead = "abcdefghijklmnop"[:x.ndim - 2]
    if positions.dtype.kind not in "iu":
        raise DTypeError(f"rotary positions are integers, got {positions.dtype}; cast with positions.astype('int32')")
    if x.ndim < 2 or positions.ndim > len(lead) or any(
            n not in (1, m) for n, m in zip(positions.shape[::-1], x.shape[:-2][::-1], strict=False)):
        raise ShapeError(f"positions {positions.shape} do not broadcast to the leading axes {x.shape[:-2]} of x {x.shape}; "
                         "give one position a token, x being (*tokens, heads, d)")
    at = "".join("1" if n == 1 and x.shape[len(lead) - positions.ndim + i] != 1 else letter
                 for i, (n, letter) in enumerate(zip(positions.shape, lead[len(lead) - positions.ndim:], strict=True)))
    return turn.bind([x, positions], f"{lead}yZ,{at}->{lead}yZ", [(x.shape, x.dtype)], dim=dim, base=float(base),
                     scaling=scaling, interleaved=bool(interleaved), back=False)


def check(d: int, dim: int) -> None:
    if dim % 2 or not 0 < dim <= d:
        raise ShapeError(f"rotary embedding of {dim} of {d} features; give an even number from 2 to the head's {d}")


# -- frequencies ------------------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=16)
def frequencies(dim: int, base: float, scaling: Scaling) -> np.ndarray:
    """Of each pair, per position, in float32 as the models were trained: base^(-2 i / dim), scaled for long contexts.

    Raises
    ------
    ConfigError
        A kind of scaling that is not known.
    """
    made: np.ndarray
    plain = 1.0 / np.float32(base) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    settings = dict(scaling or ())
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind in ("default", None):
        made = plain
    elif kind == "linear":
        made = plain / np.float32(_needed(settings, "factor")[0])
    elif kind == "llama3":
        made = _by_wavelength(plain, settings)
    elif kind == "factors":  # GGUF files have a divisor for each pair
        made = plain / np.asarray(settings["factors"], np.float32)
    else:
        raise ConfigError(f"rotary scaling of kind {kind!r} is not known; known are 'default', 'linear', 'llama3' "
                          "and 'factors'")
    made = made.astype(np.float32)
    made.flags.writeable = False
    return made


def _by_wavelength(plain: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Llama 3: long waves are stretched by `factor`, short ones stay, those between are interpolated."""
    factor, low, high, context = _needed(settings, "factor", "low_freq_factor", "high_freq_factor",
                                         "original_max_position_embeddings")
    wave = 2 * math.pi / plain
    mix = np.clip((context / wave - low) / (high - low), 0, 1)
    return plain * (mix + (1 - mix) / factor)


def _needed(settings: dict[str, Any], *names: str) -> list[float]:
    missing = [name for name in names if name not in settings]
    if missing:
        raise ConfigError(f"rotary scaling lacks {', '.join(missing)}; take rope_scaling as it is from the model's config.json")
    return [float(settings[name]) for name in names]


def _waves(positions: np.ndarray, dim: int, base: float, scaling: Scaling, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of each position's angles: (*positions, 1, dim / 2)."""
    if positions.size <= REMEMBERED:
        return _remembered(positions.tobytes(), positions.shape, positions.dtype, dim, base, scaling, kind)
    return _computed(positions, dim, base, scaling, kind)


def _computed(positions: np.ndarray, dim: int, base: float, scaling: Scaling,
              kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    angles = positions[..., None, None].astype(np.float32) * frequencies(dim, base, scaling)
    return np.cos(angles).astype(kind, copy=False), np.sin(angles).astype(kind, copy=False)


@functools.lru_cache(maxsize=8)
def _remembered(positions: bytes, shape: tuple[int, ...], dtype: np.dtype, dim: int, base: float, scaling: Scaling,
                kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The same for a few positions: all layers of a step ask for the same, and turning costs less than these."""
    return _computed(np.frombuffer(positions, dtype).reshape(shape), dim, base, scaling, kind)


# -- on blocks --------------------------------------------------------------------------------------------------------

@primitive(label="rotary", flop=4)
def turn(x: np.ndarray, positions: np.ndarray, *, dim: int, base: float, scaling: Scaling, interleaved: bool,
         back: bool) -> np.ndarray:
    """`x` (*lead, heads, d) turned by its positions, in its dtype; `back` turns the other way."""
    kind = np.result_type(x.dtype, np.float32)
    cos, sin = _waves(positions, dim, base, scaling, kind)
    if back:
        sin = -sin
    pairs = (slice(0, dim, 2), slice(1, dim, 2)) if interleaved else (slice(0, dim // 2), slice(dim // 2, dim))
    (a, b), out = (x[..., p] for p in pairs), np.empty(x.shape, x.dtype)
    t = scratch.empty("rotary", a.shape, kind)
    for p, one, other, sign in ((pairs[0], a, b, np.subtract), (pairs[1], b, a, np.add)):
        made = out[..., p] if x.dtype == kind else np.empty(a.shape, kind)
        np.multiply(one, cos, out=made)
        np.multiply(other, sin, out=t)
        sign(made, t, out=made)
        if x.dtype != kind:
            out[..., p] = made
    if dim < x.shape[-1]:
        out[..., dim:] = x[..., dim:]
    return out


@turn.defbackward
def _turn_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None, None]
    static = {**call.static, "back": not call.static["back"]}
    return [turn.bind([g, call.args[1]], call.labels, [(g.shape, g.dtype)], **static), None]


__all__ = ["frequencies", "rotate", "turn"]
