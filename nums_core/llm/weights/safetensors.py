"""Safetensors files, single or in shards, read without trusting the file.

    header length, u64 | header, JSON: {name: {"dtype", "shape", "data_offsets"}, "__metadata__": {...}} | data

The tensors must fill the data without gaps or overlaps, as the format demands. Other weight files of Hugging Face folders
are pickles, which run code when they are opened: they are refused.

Source: the format's description in the safetensors README.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nums_core.errors import ModelFileError
from nums_core.llm.weights.mapped import MappedFile, TensorInfo, check_regions

MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

# dtype -> (our name of the format, bytes of an element)
DTYPES = {"F64": ("f64", 8), "F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2), "I64": ("i64", 8), "I32": ("i32", 4),
          "I16": ("i16", 2), "I8": ("i8", 1), "U64": ("u64", 8), "U32": ("u32", 4), "U16": ("u16", 2), "U8": ("u8", 1),
          "BOOL": ("bool", 1), "F8_E4M3": ("f8_e4m3", 1), "F8_E5M2": ("f8_e5m2", 1), "C64": ("c64", 8)}


class SafetensorsFile:
    """An open safetensors file.

    Attributes
    ----------
    metadata : mapping of str to str
    tensors : mapping of str to TensorInfo

    Raises
    ------
    ModelFileError
        The file breaks a rule of the format; names the file, the tensor, and the rule.
    """

    def __init__(self, path: str | Path) -> None:
        refuse_pickle(Path(path))
        self.file = MappedFile(path)
        self.path = self.file.path
        header, begin = _header(self.path, self.file.data)
        self.metadata: Mapping[str, str] = MappingProxyType(_metadata(self.path, header.pop("__metadata__", {})))
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: _tensor(self.path, name, entry, begin) for name, entry in header.items()})
        check_regions(self.path, self.tensors.values(), begin, len(self.file))
        unclaimed = len(self.file) - begin - sum(t.size_bytes for t in self.tensors.values())
        if unclaimed:  # without overlaps, what the sizes do not add up to are gaps
            raise ModelFileError(f"{self.path}: {unclaimed} bytes belong to no tensor; the format allows no gaps and nothing "
                                 "after the last tensor: the file is damaged, download it again")

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor, uint8 (rows, bytes per row); a view of the file."""
        return self.file.raw(self.tensors[name])

    def array(self, name: str) -> np.ndarray:
        """The values of a tensor whose dtype NumPy has; a view of the file."""
        return self.file.array(self.tensors[name])


def _header(path: Path, data: np.ndarray) -> tuple[dict[str, Any], int]:
    """The header as a dictionary, and where the data begin."""
    size = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ModelFileError(f"{path}: a header of {size} bytes is announced and {max(len(data) - 8, 0)} are left; the file "
                             "is no safetensors file, or cut short: download it again")
    if size > MAX_HEADER_BYTES:
        raise ModelFileError(f"{path}: a header of {size} bytes is longer than the {MAX_HEADER_BYTES} allowed; the file is "
                             "no safetensors file, or damaged: download it again")
    try:
        header = json.loads(data[8:8 + size].tobytes().decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError, JSONDecodeError, and integers without end
        raise ModelFileError(f"{path}: the header is no valid JSON ({str(error)[:200]}); the file is no safetensors file, or "
                             "damaged: download it again") from None
    if not isinstance(header, dict):
        raise ModelFileError(f"{path}: the header must be a JSON object, not {type(header).__name__}; the file is no "
                             "safetensors file, or damaged: download it again")
    return header, 8 + size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:100]!r} occurs twice")
    return out


def _metadata(path: Path, entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
        raise ModelFileError(f"{path}: __metadata__ must map text to text; the file is damaged: download it again")
    return entry


def _tensor(path: Path, name: str, entry: Any, begin: int) -> TensorInfo:
    """One entry of the header, with its offsets counted from the start of the file."""
    def fail(rule: str) -> ModelFileError:
        return ModelFileError(f"{path}: tensor {name[:200]!r}: {rule}; the file is damaged: download it again")

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise fail("its entry must have dtype, shape and data_offsets, and nothing else")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise fail(f"dtype {str(entry['dtype'])[:40]!r} is not one of {', '.join(DTYPES)}")
    form, itemsize = DTYPES[entry["dtype"]]
    if not _counts(entry["shape"]) or len(entry["shape"]) > 32:
        raise fail("its shape must be a list of at most 32 whole numbers, none negative")
    if not _counts(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
        raise fail("data_offsets must be two whole numbers, none negative")
    shape, (start, stop) = tuple(entry["shape"]), entry["data_offsets"]
    if math.prod(max(n, 1) for n in shape) * itemsize >= 2**63:
        raise fail(f"shape {shape} is larger than any memory")
    size = math.prod(shape) * itemsize
    if stop - start != size:
        raise fail(f"shape {shape} of {entry['dtype']} takes {size} bytes, but data_offsets {start} to {stop} span "
                   f"{stop - start}")
    return TensorInfo(name, form, shape, begin + start, size)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


# -- folders ----------------------------------------------------------------------------------------------------------

class SafetensorsFolder:
    """All safetensors files of a folder as one: `model.safetensors`, or the shards its index names.

    Raises
    ------
    ModelFileError
        The folder has no safetensors file, the index and the shards disagree, or a file is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        index = self.path / INDEX
        places = _read_index(index) if index.is_file() else None
        files = sorted(set(places.values())) if places is not None else [self._single()]
        self._files = {f: SafetensorsFile(self.path / f) for f in files}
        self._where: dict[str, str] = {}
        for f, opened in self._files.items():
            for name in opened.tensors:
                if name in self._where:
                    raise ModelFileError(f"{self.path}: tensor {name!r} is in {self._where[name]} and in {f}; keep one of them")
                self._where[name] = f
        for name, f in (places or {}).items():
            if self._where.get(name) != f:
                raise ModelFileError(f"{index}: tensor {name!r} should be in {f} and is not; download index and shards "
                                     "again, from one version of the model")
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: self._files[f].tensors[name] for name, f in self._where.items()})

    def _single(self) -> str:
        found = sorted(p.name for p in self.path.glob("*.safetensors"))
        if "model.safetensors" in found or len(found) == 1:
            return "model.safetensors" if "model.safetensors" in found else found[0]
        if found:
            raise ModelFileError(f"{self.path}: {len(found)} safetensors files and no {INDEX} to say which belong together; "
                                 "add the index of the model")
        for p in sorted(self.path.iterdir()):
            refuse_pickle(p)
        raise ModelFileError(f"{self.path}: no .safetensors file; pass a folder with the weights of a model, or a .gguf file")

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor, uint8 (rows, bytes per row); a view of its file."""
        return self._files[self._where[name]].raw(name)

    def array(self, name: str) -> np.ndarray:
        """The values of a tensor whose dtype NumPy has; a view of its file."""
        return self._files[self._where[name]].array(name)


def _read_index(path: Path) -> dict[str, str]:
    """tensor -> shard, of an index whose shards lie beside it."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelFileError(f"{path}: weight_map must map the names of tensors to files; download the index again")
    for f in places.values():
        if not isinstance(f, str) or Path(f).name != f or not f.endswith(".safetensors"):
            raise ModelFileError(f"{path}: {str(f)[:200]!r} is no name of a .safetensors file in the same folder; shards lie "
                                 "beside their index, and pickles are not opened: convert them to safetensors")
    return places


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object.

    Raises
    ------
    ModelFileError
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}); a model's folder has config.json beside "
                             "its .safetensors files") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no valid JSON ({str(error)[:200]}); download it again") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path}: must hold a JSON object, not {type(found).__name__}; download it again")
    return found


def refuse_pickle(path: Path) -> None:
    """Say how to convert a file that would run code when opened.

    Raises
    ------
    ModelFileError
        Its name ends as those of pickles do.
    """
    if path.suffix in PICKLES:
        raise ModelFileError(f"{path}: a pickle, which can run any code when it is opened, so it is not; convert it once where "
                             "you trust it: in transformers, AutoModelForCausalLM.from_pretrained(folder)"
                             ".save_pretrained(new_folder) writes safetensors")
