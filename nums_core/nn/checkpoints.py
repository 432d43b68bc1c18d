"""Checkpoints: trees of arrays as safetensors in shards, which exist whole or not at all.

    step-00000200/
        model-00001-of-00002.safetensors ...     tensors under the paths of the tree
        model.safetensors.index.json             which tensor is in which file (Hugging Face's layout)
        state.json                               plain values beside them: step, data position, settings

Everything is written into a hidden folder beside the final one, forced to the disk, and renamed: a crash at any moment
leaves the checkpoints before as they were, and never half a one under a final name.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nums_core import session
from nums_core.array.array import Array, from_array
from nums_core.errors import CheckpointError, ConfigError, MissingBackendError
from nums_core.nn import tree

SHARD_BYTES = 512 * 2**20
INDEX, STATE, PARTIAL = "model.safetensors.index.json", "state.json", ".partial"
_LISTED = 20  # differences spelled out in an error


# -- one checkpoint ---------------------------------------------------------------------------------------------------

def save(folder: str | Path, values: Any, extra: dict[str, Any] | None = None, *,
         shard_bytes: int = SHARD_BYTES) -> Path:
    """Write a tree of arrays into a new folder; one of the same name is replaced once the new one is whole.

    Parameters
    ----------
    values : tree of Arrays (or NumPy arrays)
        Names are the paths of the tree.
    extra : dict, optional
        Plain values that JSON can hold.
    shard_bytes : int, bytes
        Most that one file holds, and so about what is in memory at once; a larger tensor has a file of its own.

    Raises
    ------
    CheckpointError
        A leaf is no array, or `extra` holds what JSON cannot.
    """
    folder = Path(folder)
    arrays, text = _named_arrays(values), _json(extra or {})
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(folder)
    partial.mkdir()
    try:
        _write_shards(partial, arrays, shard_bytes)
        _write_text(partial / STATE, text)
        _sync(partial)
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load(folder: str | Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The tree that was saved, with the structure and the blocks of `like`, and the plain values beside it.

    Raises
    ------
    CheckpointError
        Files are missing or damaged, or names, shapes or dtypes differ from those of `like`: all differences are listed,
        and nothing is loaded.
    """
    folder = Path(folder)
    wanted, stored = _named_arrays(like), describe(folder)
    _refuse_differences(folder, wanted, stored)
    static = tree.flatten(like)[1]
    loaded: dict[str, Array] = {}
    for file in sorted({t.file for t in stored.values()}):
        names = [name for name, t in stored.items() if t.file == file]
        loaded |= _loaded(folder / file, {name: wanted[name] for name in names})
    paths = [path for path, _ in tree.paths(like)]
    return tree.unflatten(static, [loaded[path] for path in paths]), _read_json(folder / STATE)


class Stored(NamedTuple):
    """What a checkpoint says of one tensor."""

    shape: tuple[int, ...]
    dtype: str
    file: str


def describe(folder: str | Path) -> dict[str, Stored]:
    """Names, shapes and dtypes in a checkpoint, without reading the tensors."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; name one that save() wrote")
    where = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(f, str) and Path(f).name == f for f in where.values()):
        raise CheckpointError(f"{folder / INDEX} is no index of tensors; take another checkpoint")
    out: dict[str, Stored] = {}
    for file in sorted(set(where.values())):
        with _opened(folder / file) as tensors:
            for name in tensors.keys():  # noqa: SIM118  -- not a dict
                part = tensors.get_slice(name)
                out[name] = Stored(tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()), file)
    if differing := set(where.items()) ^ {(name, t.file) for name, t in out.items()}:
        raise CheckpointError(f"the files of {folder} do not hold what its index says ({min(differing)[0]}); take "
                              "another checkpoint")
    return out


_DTYPES = {"BOOL": "bool", "F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8", "I16": "int16",
           "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"}


def _named_arrays(values: Any) -> dict[str, Any]:
    """The leaves by path; all must be arrays of a dtype that the format has."""
    out = {}
    for path, leaf in tree.paths(values):
        if not isinstance(leaf, (Array, np.ndarray)):
            raise CheckpointError(f"{path} is a {type(leaf).__name__}, not an array; plain values belong into `extra`")
        if leaf.dtype.name not in _DTYPES.values():
            raise CheckpointError(f"{path} is {leaf.dtype}, which safetensors does not have; cast it to one of "
                                  f"{', '.join(sorted(_DTYPES.values()))}")
        out[path] = leaf
    return out


def _refuse_differences(folder: Path, wanted: dict[str, Any], stored: dict[str, Stored]) -> None:
    lines = [f"missing: {name}" for name in wanted if name not in stored]
    lines += [f"not asked for: {name}" for name in stored if name not in wanted]
    for name, x in wanted.items():
        t = stored.get(name)
        if t is not None and (t.shape, t.dtype) != (tuple(x.shape), x.dtype.name):
            lines.append(f"{name}: {t.dtype}{list(t.shape)} in the file, {x.dtype.name}{list(x.shape)} asked for")
    if lines:
        more = [f"... and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        rule = f"the checkpoint {folder} is of another model; make one of the same settings, or take another checkpoint:"
        raise CheckpointError("\n  ".join([rule, *lines[:_LISTED], *more]))


# -- writing ----------------------------------------------------------------------------------------------------------

def _write_shards(folder: Path, arrays: dict[str, Any], shard_bytes: int) -> None:
    shards = list(_shards(arrays, shard_bytes))
    where: dict[str, str] = {}
    total = sum(int(x.nbytes) for x in arrays.values())
    for k, names in enumerate(shards):
        file = f"model-{k + 1:05}-of-{len(shards):05}.safetensors"
        _write_tensors(folder / file, dict(zip(names, _values([arrays[n] for n in names]), strict=True)))
        where |= dict.fromkeys(names, file)
    _write_text(folder / INDEX, json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1))


def _shards(arrays: dict[str, Any], shard_bytes: int) -> Iterator[list[str]]:
    """Names in order, as many together as fit; one file at least."""
    names: list[str] = []
    held = 0
    for name, x in arrays.items():
        if names and held + x.nbytes > shard_bytes:
            yield names
            names, held = [], 0
        names.append(name)
        held += int(x.nbytes)
    yield names


def _values(arrays: Sequence[Any]) -> list[np.ndarray]:
    lazy = [x.expr for x in arrays if isinstance(x, Array)]
    computed = iter(session.evaluate(lazy) if lazy else [])
    return [np.ascontiguousarray(next(computed)).reshape(x.shape) if isinstance(x, Array) else np.ascontiguousarray(x)
            for x in arrays]


def _write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    _safetensors().numpy.save_file(tensors, path, {"format": "np"})
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def _partial(folder: Path) -> Path:
    """A name of its own beside `folder`, on the same file system, that no reader takes for a checkpoint."""
    return folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def _json(extra: dict[str, Any]) -> str:
    try:
        return json.dumps(extra, indent=1)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the values beside the arrays must be plain ({error}); convert them to numbers, text, lists "
                              "and dicts, and put arrays into the tree") from None


def _sync(folder: Path) -> None:
    """Force a folder's entries to the disk."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give a whole folder its final name; an older one of that name goes once it has made room."""
    if folder.exists():
        before = _partial(folder)
        os.rename(folder, before)
        os.rename(partial, folder)
        shutil.rmtree(before, ignore_errors=True)
    else:
        os.rename(partial, folder)
    _sync(folder.parent)


# -- reading ----------------------------------------------------------------------------------------------------------

def _loaded(path: Path, like: dict[str, Any]) -> dict[str, Array]:
    """The tensors of one file, cut as `like` and kept by the executor: the file is not needed afterwards."""
    with _opened(path) as tensors:
        arrays = [from_array(tensors.get_tensor(name), x.chunks if isinstance(x, Array) else "auto")
                  for name, x in like.items()]
    kept = session.keep([a.expr for a in arrays])
    return {name: Array(e) for name, e in zip(like, kept, strict=True)}


def _opened(path: Path) -> Any:
    st = _safetensors()
    try:
        return st.safe_open(path, framework="np")
    except (OSError, st.SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); take another checkpoint") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); take another checkpoint") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no table of names; take another checkpoint")
    return found


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingBackendError("checkpoints need the package safetensors: pip install 'nums-core[llm]'") from error
    return safetensors


# -- a folder of them -------------------------------------------------------------------------------------------------

class Checkpoints:
    """The checkpoints of one training run: `step-00000200`, ..., of which the last `keep` stay.

    One process writes into a folder at a time; what a crashed one left half-written goes with the next save.
    """

    def __init__(self, folder: str | Path, keep: int = 3, shard_bytes: int = SHARD_BYTES) -> None:
        if keep < 1:
            raise ConfigError(f"Checkpoints(keep={keep}) would keep nothing; give at least 1")
        self.folder, self.keep, self.shard_bytes = Path(folder), keep, shard_bytes

    def steps(self) -> list[int]:
        """Steps of all whole checkpoints, rising."""
        if not self.folder.is_dir():
            return []
        found = (re.fullmatch(r"step-(\d{8,})", entry.name) for entry in self.folder.iterdir() if entry.is_dir())
        return sorted(int(m[1]) for m in found if m)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def save(self, step: int, values: Any, extra: dict[str, Any] | None = None) -> Path:
        """Write one, then delete those before the last `keep`."""
        self._clear()
        made = save(self.path(step), values, {"step": step} | (extra or {}), shard_bytes=self.shard_bytes)
        for old in [s for s in self.steps() if s != step][:-self.keep + 1 or None]:
            self._delete(self.path(old))
        return made

    def load(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The checkpoint of `step`, or the last one; see `load`."""
        have = self.steps()
        if not have or (step is not None and step not in have):
            wanted = "" if step is None else f" of step {step}"
            raise CheckpointError(f"{self.folder} has no checkpoint{wanted}; it has {', '.join(map(str, have)) or 'none'}: "
                                  "save one, or name another folder")
        return load(self.path(have[-1] if step is None else step), like)

    def _clear(self) -> None:
        if self.folder.is_dir():
            for entry in self.folder.glob(f".*{PARTIAL}"):
                shutil.rmtree(entry, ignore_errors=True)

    def _delete(self, path: Path) -> None:
        """Under another name first: half a checkpoint never has a final name, not even while it goes."""
        going = _partial(path)
        os.rename(path, going)
        shutil.rmtree(going, ignore_errors=True)


__all__ = ["Checkpoints", "Stored", "describe", "load", "save"]
