"""GGUF files: metadata and tensors of llama.cpp's format, read without trusting the file.

    magic "GGUF" | version | n_tensors | n_metadata | metadata: key, type, value ... | tensors: name, dims, type, offset ...
    | padding | data

Every count is compared with the bytes that are left before anything of that size is made, every offset with the file's
size, so a damaged or hostile file costs no more time or memory than its own length, and ends as a `ModelFileError`.

Source: ggml's `docs/gguf.md`, versions 2 and 3 (which differ only in that 3 allows big-endian files).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nums_core.errors import ModelFileError
from nums_core.llm.weights.mapped import MappedFile, TensorInfo, check_regions

VERSIONS = (2, 3)
MAX_DIMS = 4
MAX_NAME_BYTES = 2**16 - 1  # of keys, by the specification; tensors' names are shorter
MAX_NESTING = 8  # arrays of arrays
MAX_ALIGNMENT = 2**20
DEFAULT_ALIGNMENT = 32

# Element types of metadata: number -> how it is read. Strings (8) and arrays (9) are not of fixed size.
SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
STRING, ARRAY = 8, 9

# Tensor types: number -> (format, elements of a block, bytes of a block). Those that no codec of ours decodes are known
# by their size, so that a file which holds one can still be looked into.
TENSOR_TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 40), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8), 28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17),
}


class GGUFFile:
    """An open GGUF file.

    Attributes
    ----------
    metadata : mapping of str to int, float, bool, str, list of str, or ndarray (arrays of numbers)
    tensors : mapping of str to TensorInfo

    Raises
    ------
    ModelFileError
        The file is no GGUF file, or breaks a rule of the format; names the file, the key or tensor, and the rule.
    """

    def __init__(self, path: str | Path) -> None:
        self.file = MappedFile(path)
        self.path = self.file.path
        header = _Header(self.path, self.file.data)
        n_tensors, n_metadata = header.begin()
        self.metadata: Mapping[str, Any] = MappingProxyType(header.metadata(n_metadata))
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(header.tensors(n_tensors, alignment(self)))
        begin = min(_aligned(header.at, alignment(self)), len(self.file))
        check_regions(self.path, self.tensors.values(), begin, len(self.file))

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor as they lie in the file, uint8 (rows, bytes per row); a view."""
        return self.file.raw(self.tensors[name])

    def array(self, name: str) -> np.ndarray:
        """The values of a tensor whose format is a NumPy dtype; a view."""
        return self.file.array(self.tensors[name])

    def __repr__(self) -> str:
        return f"GGUFFile({str(self.path)!r}: {len(self.tensors)} tensors, {len(self.metadata)} keys)"


def alignment(file: GGUFFile) -> int:
    """Bytes to whose multiples the tensors of a file are aligned."""
    value = file.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
        raise ModelFileError(f"{file.path}: general.alignment is {value!r}; it must be a power of two up to "
                             f"{MAX_ALIGNMENT}: the file is damaged, download it again")
    return value


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


class _Header:
    """A cursor over the bytes before the data; whatever it reads, it has checked to be there."""

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self.path, self.data, self.at = path, memoryview(data), 0  # type: ignore[arg-type]
        self.what = "the header"  # being read, for messages

    def fail(self, rule: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {self.what}: {rule} (at byte {self.at} of {len(self.data)}); the file is "
                              "damaged or not complete: download it again, or convert the model once more")

    def need(self, size_bytes: int) -> int:
        """Claim that many bytes; where they begin."""
        begin, stop = self.at, self.at + size_bytes
        if stop > len(self.data):
            raise self.fail(f"{size_bytes} bytes are announced and {len(self.data) - begin} are left")
        self.at = stop
        return begin

    def number(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.need(struct.calcsize(form)))[0]

    def text(self, limit_bytes: int | None = None) -> str:
        size = self.number("<Q")
        if limit_bytes is not None and size > limit_bytes:
            raise self.fail(f"a name of {size} bytes is longer than the {limit_bytes} allowed")
        begin = self.need(size)
        try:
            return str(self.data[begin:self.at], "utf-8")
        except UnicodeDecodeError:
            raise self.fail("text that is not UTF-8") from None

    # -- the three parts ----------------------------------------------------------------------------------------------

    def begin(self) -> tuple[int, int]:
        """Magic and version; how many tensors and metadata entries follow."""
        if bytes(self.data[:4]) != b"GGUF":
            raise ModelFileError(f"{self.path}: not a GGUF file (it begins with {bytes(self.data[:4])!r}); pass a .gguf file, "
                                 "or a folder with config.json and .safetensors files")
        self.at = 4
        version = self.number("<I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            raise ModelFileError(f"{self.path}: GGUF version {version}{' (big-endian)' if swapped else ''} is not read, only "
                                 f"little-endian versions {' and '.join(map(str, VERSIONS))}; convert the model again "
                                 "with a current llama.cpp")
        n_tensors, n_metadata = self.number("<Q"), self.number("<Q")
        # The shortest entries: an unnamed scalar tensor (24 bytes), an empty key with one byte of value (13 bytes).
        if 24 * n_tensors + 13 * n_metadata > len(self.data) - self.at:
            raise self.fail(f"{n_tensors} tensors and {n_metadata} metadata entries do not fit into the file")
        return n_tensors, n_metadata

    def metadata(self, count: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for k in range(count):
            self.what = f"metadata entry {k}"
            key = self.text(MAX_NAME_BYTES)
            self.what = f"metadata {key!r}"
            if key in out:
                raise self.fail("the key occurs twice")
            out[key] = self.value(self.number("<I"), 0)
        return out

    def value(self, kind: int, depth: int) -> Any:
        if kind in SCALARS:
            return self.numbers(kind, 1)[0].item()
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise self.fail(f"value type {kind} is not known")
        if depth >= MAX_NESTING:
            raise self.fail(f"arrays nested more than {MAX_NESTING} deep")
        kind, count = self.number("<I"), self.number("<Q")
        if kind in SCALARS:
            return self.numbers(kind, count).copy()  # aligned, and apart from the map
        self.must_hold(count, 8 if kind == STRING else 12)
        return self.texts(count) if kind == STRING else [self.value(kind, depth + 1) for _ in range(count)]

    def numbers(self, kind: int, count: int) -> np.ndarray:
        dtype = np.dtype(SCALARS[kind])
        begin = self.need(count * dtype.itemsize)
        values = np.frombuffer(self.data, np.uint8 if kind == 7 else dtype, count, begin)
        if kind == 7:
            if (values > 1).any():
                raise self.fail("a truth value other than 0 and 1")
            values = values.view(bool)
        return values

    def texts(self, count: int) -> list[str]:
        """Many strings: the tokens and merges of a vocabulary, 100,000 of them. One loop with nothing in it."""
        data, at, end, length = self.data, self.at, len(self.data), struct.Struct("<Q").unpack_from
        out = []
        try:
            for _ in range(count):
                begin = at + 8
                stop = begin + length(data, at)[0]
                if stop > end:
                    raise struct.error
                out.append(str(data[begin:stop], "utf-8"))
                at = stop
        except struct.error:
            self.at = at
            raise self.fail(f"string {len(out)} of {count} reaches over the end of the file") from None
        except UnicodeDecodeError:
            self.at = at
            raise self.fail(f"string {len(out)} is not UTF-8") from None
        self.at = at
        return out

    def must_hold(self, count: int, least_bytes: int) -> None:
        if count * least_bytes > len(self.data) - self.at:
            raise self.fail(f"an array of {count} entries does not fit into the {len(self.data) - self.at} bytes left")

    def tensors(self, count: int, align: int) -> dict[str, TensorInfo]:
        """Tensor entries; their offsets, which count from the start of the data, become offsets in the file."""
        found: list[tuple[str, str, tuple[int, ...], int, int]] = []
        names: set[str] = set()
        for k in range(count):
            self.what = f"tensor entry {k}"
            name = self.text(MAX_NAME_BYTES)
            self.what = f"tensor {name!r}"
            if name in names:
                raise self.fail("the name occurs twice")
            names.add(name)
            found.append((name, *self.tensor(align)))
        begin = _aligned(self.at, align)
        return {name: TensorInfo(name, form, shape, begin + offset, size) for name, form, shape, size, offset in found}

    def tensor(self, align: int) -> tuple[str, tuple[int, ...], int, int]:
        """Format, shape, bytes and offset of the entry whose name was just read."""
        n_dims = self.number("<I")
        if n_dims > MAX_DIMS:
            raise self.fail(f"{n_dims} dimensions; at most {MAX_DIMS} are allowed")
        shape = tuple(self.number("<Q") for _ in range(n_dims))[::-1]  # the file has the fastest axis first
        kind, offset = self.number("<I"), self.number("<Q")
        if kind not in TENSOR_TYPES:
            raise self.fail(f"tensor type {kind} is not known")
        form, block, block_bytes = TENSOR_TYPES[kind]
        if math.prod(max(n, 1) for n in shape) * block_bytes >= 2**63:
            raise self.fail(f"shape {shape} is larger than any memory")
        if (shape[-1] if shape else 1) % block:
            raise self.fail(f"rows of {shape[-1] if shape else 1} elements are no whole number of {form} blocks of {block}")
        if offset % align:
            raise self.fail(f"offset {offset} is no multiple of the alignment, {align} bytes")
        return form, shape, math.prod(shape) // block * block_bytes, offset
