"""Blocks on their way between processes or to disk, so that pickle-5 moves their memory without copying it.

Pickle hands over the memory of an array as it is only for plain dtypes and for one contiguous run of memory, and each
such buffer costs some microseconds. So extension dtypes (bfloat16, fp8, datetime64) travel as integers, small blocks of
one dtype travel as one array, and arrays with gaps travel in memory of their own.

A block arrives with the *layout* it left with: the order of its axes in memory, their directions, and which of them run
on into one another. The last bits of a sum depend on all of these, since NumPy walks memory in its own order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

# Blocks up to this size are joined; a buffer of their own would cost more than copying them.
SMALL_BYTES = 4096

_SMALL, _ARRAY, _OTHER, _TUPLE = range(4)
Code = tuple[Any, ...]


def pack(blocks: list[Any]) -> Any:
    """One picklable object for a list of blocks (arrays, numbers, tuples of them, or anything that pickles)."""
    alike = _alike(blocks)
    if alike is not None:
        dtype, shape = alike
        carrier = _carrier(dtype)
        joined = _joined(blocks if len(shape) == 1 else [b.reshape(-1) for b in blocks], dtype)
        return "alike", len(blocks), dtype, shape, joined if carrier is None else joined.view(carrier)
    packer = _Packer()
    codes = [packer.code(b) for b in blocks]
    return "mixed", codes, packer.dtypes, packer.joined(), packer.parts


def unpack(payload: Any) -> list[Any]:
    """The blocks that `pack` was given. They may be read-only, and small ones may share memory."""
    if payload[0] == "alike":
        _, n, dtype, shape, flat = payload
        if shape == ():
            return [row.reshape(()) for row in _as(flat, dtype).reshape(n, 1)]
        return list(_as(flat, dtype).reshape(n, *shape))
    _, codes, dtypes, joined, parts = payload
    reader = _Unpacker(dtypes, joined, parts)
    return [reader.block(c) for c in codes]


def packed_bytes(payload: Any) -> float:
    """Bytes of the arrays in a payload. Gaps that keep a layout (an element a row, see `laid_out`) are not counted, nor are
    numbers that stand beside arrays in a state."""
    if payload[0] == "alike":
        return float(payload[-1].nbytes)
    _, codes, _, joined, parts = payload
    alone = (c for c in _flat(codes) if c[0] in (_ARRAY, _OTHER))
    return float(sum(a.nbytes for a in joined if a is not None)
                 + sum(_own_bytes(c, part) for c, part in zip(alone, parts, strict=True)))


def _flat(codes: Iterable[Code]) -> Iterator[Code]:
    for c in codes:
        if c[0] == _TUPLE:
            yield from _flat(c[1])
        else:
            yield c


def _own_bytes(code: Code, part: Any) -> int:
    if isinstance(part, tuple):  # a named one, which pickles as it is
        return sum(_own_bytes((_OTHER,), p) for p in part)
    if code[0] == _OTHER:
        return getattr(part, "nbytes", 0)
    return part.nbytes if code[2] is None else math.prod(code[2][0]) * part.itemsize


def _joined(blocks: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """One after the other, in their own byte order: `concatenate` gives the machine's."""
    made = np.concatenate(blocks)
    return made if made.dtype == dtype else made.astype(dtype)


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array if array.dtype == dtype else array.view(dtype)


def _alike(blocks: list[Any]) -> tuple[np.dtype, tuple[int, ...]] | None:
    """The dtype and shape that all blocks share, if they are small contiguous arrays; otherwise None."""
    first = blocks[0] if blocks else None
    if type(first) is not np.ndarray or not 0 < first.nbytes <= SMALL_BYTES or not _joinable(first.dtype):
        return None
    dtype, shape = first.dtype, first.shape
    for b in blocks:
        if type(b) is not np.ndarray or b.shape != shape or b.dtype != dtype or not b.flags.c_contiguous:
            return None
    return dtype, shape


def _joinable(dtype: np.dtype) -> bool:
    return not dtype.hasobject and dtype.kind != "T"


def _carrier(dtype: np.dtype) -> np.dtype | None:
    """The plain dtype that carries one which pickle would copy; None where it need not be carried."""
    if not _joinable(dtype) or not dtype.itemsize or not _extension(dtype):
        return None
    return np.dtype(f"u{dtype.itemsize}" if dtype.itemsize in (1, 2, 4, 8) else f"V{dtype.itemsize}")


def _extension(dtype: np.dtype) -> bool:
    """Whether the dtype, or one of its fields, has no name in Python's buffer protocol."""
    if dtype.subdtype is not None:
        return _extension(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_extension(dtype[name]) for name in dtype.names)
    return dtype.kind in "mMV" or dtype.isbuiltin == 2


class _Packer:
    def __init__(self) -> None:
        self.dtypes: list[np.dtype] = []
        self.number: dict[np.dtype, int] = {}
        self.small: list[list[np.ndarray]] = []
        self.parts: list[Any] = []

    def code(self, block: Any) -> Code:
        if type(block) is tuple:
            return _TUPLE, tuple(self.code(b) for b in block)
        if type(block) is not np.ndarray or not _joinable(block.dtype):
            self.parts.append(block)
            return (_OTHER,)
        d = self._dtype(block.dtype)
        if block.nbytes <= SMALL_BYTES and block.flags.c_contiguous:
            self.small[d].append(block.reshape(-1))
            return _SMALL, d, block.shape
        carrier = _carrier(block.dtype)
        if not block.flags.c_contiguous and not block.flags.f_contiguous:
            memory, offset, strides = laid_out(block)
            self.parts.append(memory if carrier is None else memory.view(carrier))
            return _ARRAY, d, (block.shape, offset, strides)
        self.parts.append(block if carrier is None else block.view(carrier))
        return _ARRAY, d, None

    def _dtype(self, dtype: np.dtype) -> int:
        if dtype not in self.number:
            self.number[dtype] = len(self.dtypes)
            self.dtypes.append(dtype)
            self.small.append([])
        return self.number[dtype]

    def joined(self) -> list[np.ndarray | None]:
        out: list[np.ndarray | None] = []
        for dtype, blocks in zip(self.dtypes, self.small, strict=True):
            carrier = _carrier(dtype)
            flat = _joined(blocks, dtype) if blocks else None
            out.append(flat if flat is None or carrier is None else flat.view(carrier))
        return out


def laid_out(block: np.ndarray) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """`block` in memory of its own, with the layout kept but gaps cut down to one element.

    Returns
    -------
    memory : one-axis array
    offset : int, bytes
        Where the first element stands.
    strides : tuple of int, bytes
    """
    size = block.itemsize
    strides = [0] * block.ndim
    offset, end, inner, run = 0, size, 0, 0  # run: the stride that would continue the axis inside of this one
    for axis in sorted(range(block.ndim), key=lambda a: (abs(block.strides[a]), -a)):
        n, stride = block.shape[axis], block.strides[axis]
        if n == 1 or stride == 0:  # no step is ever taken, or it leads nowhere
            continue
        if not inner:
            step = size if abs(stride) == size else 2 * size
        else:
            step = end if stride == run else end + size
        inner, run = stride, stride * n
        strides[axis] = step if stride > 0 else -step
        offset += (n - 1) * step if stride < 0 else 0
        end = step * n
    memory = np.empty(max(end // size, 1), block.dtype)
    _laid(memory, block.shape, offset, tuple(strides))[...] = block
    return memory, offset, tuple(strides)


def _laid(memory: np.ndarray, shape: tuple[int, ...], offset: int, strides: tuple[int, ...]) -> np.ndarray:
    return np.ndarray(shape, memory.dtype, memory, offset, strides)


def copied(block: np.ndarray) -> np.ndarray:
    """A copy in memory of its own, with the same layout."""
    if block.flags.c_contiguous or block.flags.f_contiguous:
        return np.array(block, order="K")
    memory, offset, strides = laid_out(block)
    return _laid(memory, block.shape, offset, strides)


class _Unpacker:
    def __init__(self, dtypes: list[np.dtype], joined: list[np.ndarray | None], parts: list[Any]) -> None:
        self.dtypes, self.parts = dtypes, iter(parts)
        self.small = [None if j is None else _as(j, d) for j, d in zip(joined, dtypes, strict=True)]
        self.at = [0] * len(joined)

    def block(self, code: Code) -> Any:
        kind = code[0]
        if kind == _TUPLE:
            return tuple(self.block(c) for c in code[1])
        if kind == _OTHER:
            return next(self.parts)
        if kind == _SMALL:
            _, d, shape = code
            small, start = self.small[d], self.at[d]
            assert small is not None
            n = 1
            for extent in shape:
                n *= extent
            self.at[d] = start + n
            return small[start:start + n].reshape(shape)
        array = _as(next(self.parts), self.dtypes[code[1]])
        return array if code[2] is None else _laid(array, *code[2])
