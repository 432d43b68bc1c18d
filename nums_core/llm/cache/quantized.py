"""How a cached vector is stored: as it is, in half precision, or as 8- or 4-bit codes.

Codes are made in groups along `head_dim`, never across slots: a slot that is evicted takes no other with it, so every policy
works over every codec. In each group x = low + code * scale, with `low` and `scale` in float16.

Source     group-wise quantisation as in Sheng et al., "FlexGen", ICML 2023, section 4 (there groups of 64, min and max).
           `mixing`: Hadamard matrices before 4-bit caches, as in Ashkboos et al., "QuaRot", arXiv 2404.00456.
Departs    Groups of 32: keys have a few large channels, which spoil only their own group; before they become 4 bits they
           are spread over all channels besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from nums_core.errors import ConfigError

GROUP = 32
LARGEST = np.float32(np.finfo(np.float16).max)

Parts = tuple[np.ndarray, ...]


class Codec(Protocol):
    """Vectors (..., head_dim) in float32 to arrays (..., width) and back. Frozen and hashable.

    Attributes
    ----------
    n_parts : int
        Arrays that a vector becomes.
    direct : bool
        Decoding costs nothing: what is stored can be read where it is.
    form : str
        What native functions call it.
    """

    @property
    def n_parts(self) -> int: ...

    @property
    def direct(self) -> bool: ...

    @property
    def form(self) -> str: ...

    @property
    def coarse(self) -> bool:
        """Vectors should be mixed before they are stored."""
        ...

    def parts(self, head_dim: int) -> list[tuple[int, np.dtype]]:
        """Width and dtype of each part."""
        ...

    def encode(self, x: np.ndarray) -> Parts: ...

    def decode(self, parts: Parts) -> np.ndarray: ...


@dataclass(frozen=True)
class Float:
    """Numbers of `bits` bits, 32 or 16. In float16 what is out of range (65,504) becomes the largest number."""

    bits: int = 32

    n_parts = 1
    coarse = False

    @property
    def direct(self) -> bool:
        return self.bits == 32

    @property
    def form(self) -> str:
        return f"f{self.bits}"

    def parts(self, head_dim: int) -> list[tuple[int, np.dtype]]:
        return [(head_dim, np.dtype(f"f{self.bits // 8}"))]

    def encode(self, x: np.ndarray) -> Parts:
        return (x,) if self.direct else (np.minimum(np.maximum(x, -LARGEST), LARGEST),)

    def decode(self, parts: Parts) -> np.ndarray:
        return parts[0] if self.direct else parts[0].astype(np.float32)


@dataclass(frozen=True)
class Grouped:
    """Codes of 8 or 4 bits (two a byte: element i in the low half, element i + head_dim/2 in the high half), and for each
    group of `group` elements the scale and the least value, float16."""

    bits: int
    group: int = GROUP

    n_parts = 2
    direct = False

    @property
    def form(self) -> str:
        return f"u{self.bits}" if self.group == GROUP else f"u{self.bits}/{self.group}"

    @property
    def coarse(self) -> bool:
        return self.bits == 4

    def parts(self, head_dim: int) -> list[tuple[int, np.dtype]]:
        return [(head_dim * self.bits // 8, np.dtype(np.uint8)), (2 * head_dim // self.group, np.dtype(np.float16))]

    def encode(self, x: np.ndarray) -> Parts:
        groups = x.reshape(*x.shape[:-1], -1, self.group)
        n, top = groups.shape[-2], np.float32(2**self.bits - 1)
        meta = np.empty((*x.shape[:-1], 2 * n), np.float16)
        meta[..., n:] = np.maximum(groups.min(axis=-1), -LARGEST)
        # Codes are made with the least value and scale that are stored, so that rounding these costs nothing more.
        low = meta[..., n:].astype(np.float32)
        meta[..., :n] = (np.minimum(groups.max(axis=-1), LARGEST) - low) / top
        scale = meta[..., :n].astype(np.float32)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        levels = groups - low[..., None]
        levels *= inverse[..., None]
        np.rint(levels, out=levels)
        np.fmax(levels, 0, out=levels)  # NaN, which stays visible in `low`, becomes 0
        np.fmin(levels, top, out=levels)
        codes = levels.astype(np.uint8).reshape(x.shape)
        if self.bits == 8:
            return codes, meta
        half = x.shape[-1] // 2
        return codes[..., :half] | (codes[..., half:] << np.uint8(4)), meta

    def decode(self, parts: Parts) -> np.ndarray:
        codes, meta = parts
        lead, n_groups = codes.shape[:-1], meta.shape[-1] // 2
        out = np.empty((*lead, n_groups * self.group), np.float32)
        if self.bits == 4:
            half = codes.shape[-1]
            np.bitwise_and(codes, 15, out=out[..., :half], casting="unsafe")
            np.right_shift(codes, 4, out=out[..., half:], casting="unsafe")
        else:
            out[...] = codes
        groups, meta = out.reshape(*lead, n_groups, self.group), meta.astype(np.float32)[..., None]
        groups *= meta[..., :n_groups, :]
        groups += meta[..., n_groups:, :]
        return out


@lru_cache(maxsize=8)
def mixing(dim: int) -> np.ndarray | None:
    """An orthonormal, symmetric matrix that spreads each element over all (Hadamard's): products of vectors stay what they
    are if both are multiplied by it, and multiplying again undoes it. None where `dim` is no power of two."""
    if dim & (dim - 1):
        return None
    made = np.ones((1, 1), np.float32)
    while len(made) < dim:
        made = np.block([[made, made], [made, -made]])
    return made * np.float32(dim**-0.5)


def codec_of(bits: int, head_dim: int) -> Codec:
    """The codec that stores a number in `bits` bits.

    Raises
    ------
    ConfigError
        Other than 32, 16, 8 or 4 bits, or `head_dim` cannot be cut into groups.
    """
    if bits in (32, 16):
        return Float(bits)
    if bits not in (8, 4):
        raise ConfigError(f"bits is {bits!r}; a cached number has 32, 16, 8 or 4 bits")
    group = next((g for g in (GROUP, 16, 8) if head_dim % g == 0), 0)
    if not group:
        raise ConfigError(f"heads of {head_dim} elements cannot be cut into groups of 32, 16 or 8; use bits=16 or 32")
    return Grouped(bits, group)
