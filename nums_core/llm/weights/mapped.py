"""A model file mapped into memory, and the tensors that lie in it: no byte is copied, none outside the file is reached.

GGUF and safetensors files differ in their headers only. Both readers turn theirs into `TensorInfo`s, which are checked
here against the file's size and against one another before any of them is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nums_core.errors import ModelFileError

# Formats whose elements NumPy has as they are. All others are read as rows of bytes.
NUMPY_DTYPES = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "i1",
                "u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "u1", "bool": "?", "c64": "<c8"}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in its file, and how.

    Attributes
    ----------
    format : "f32", "bf16", "q4_1", ...
        Of its elements: a NumPy dtype (`NUMPY_DTYPES`), "bf16", or one of GGUF's blocks of quantised elements.
    shape : tuple of int
        Slowest axis first, as NumPy has it.
    offset_bytes, size_bytes : int
        From the start of the file.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


class MappedFile:
    """The bytes of a file, read-only. They are mapped: reading a tensor costs nothing until its values are used.

    The file must not be cut short while it is open: the system ends a process that reads mapped pages which are gone.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            empty = self.path.stat().st_size == 0
            # The view is an ordinary array over the map: blocks cut from it are views as well.
            self.data = np.zeros(0, np.uint8) if empty else np.memmap(self.path, np.uint8, "r").view(np.ndarray)
        except OSError as error:
            raise ModelFileError(f"{self.path}: cannot be read ({error.strerror or error}); pass the path of an "
                                 "existing file that you may read") from error

    def __len__(self) -> int:
        return len(self.data)

    def raw(self, info: TensorInfo) -> np.ndarray:
        """The bytes of a tensor as rows, uint8 (rows, bytes per row): a row is one run along the last axis."""
        flat = self.data[info.offset_bytes:info.offset_bytes + info.size_bytes]
        rows = math.prod(info.shape[:-1])
        return flat.reshape(rows, info.size_bytes // rows if rows else 0)

    def array(self, info: TensorInfo) -> np.ndarray:
        """The values of a tensor, as a view of the file. (A copy where they do not lie at a multiple of their size.)

        Raises
        ------
        ModelFileError
            NumPy has no dtype for its format; `raw` gives its bytes.
        """
        dtype = NUMPY_DTYPES.get(info.format)
        if dtype is None:
            raise ModelFileError(f"{self.path}: tensor {info.name!r} has elements of format {info.format!r}, which is not a "
                                 "NumPy dtype; read its bytes with raw() and decode them with weights.formats.dequantize")
        view = np.frombuffer(self.data, dtype, math.prod(info.shape), info.offset_bytes) if info.size_bytes else (
            np.zeros(0, dtype))
        return (view if view.flags.aligned else view.copy()).reshape(info.shape)


def check_regions(path: Path, infos: Iterable[TensorInfo], begin_bytes: int, end_bytes: int) -> None:
    """Refuse tensors that reach outside the part of the file that holds data, or into one another.

    Raises
    ------
    ModelFileError
    """
    reached, previous = begin_bytes, None
    for t in sorted(infos, key=lambda t: (t.offset_bytes, t.size_bytes)):
        stop = t.offset_bytes + t.size_bytes
        if t.offset_bytes < begin_bytes or stop > end_bytes:
            raise ModelFileError(f"{path}: tensor {t.name!r} should lie at bytes {t.offset_bytes} to {stop}, but the "
                                 f"file's data are bytes {begin_bytes} to {end_bytes}: it is cut short or damaged; "
                                 "download it again")
        if t.offset_bytes < reached and t.size_bytes:
            raise ModelFileError(f"{path}: tensors {previous!r} and {t.name!r} overlap (the second begins at byte "
                                 f"{t.offset_bytes}, the first ends at {reached}); the file is damaged: download it again")
        if t.size_bytes:
            reached, previous = stop, t.name
