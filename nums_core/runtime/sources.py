"""How a source of `read` kernels travels to another process: files are opened there, all else is pickled."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


class MappedFile:
    """A memory-mapped array, or any view of one, by the name of its file."""

    def __init__(self, array: np.ndarray, whole: np.memmap) -> None:
        address = lambda a: a.__array_interface__["data"][0]
        self.path, self.offset = str(whole.filename), int(whole.offset) + address(array) - address(whole)
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}

    def __getitem__(self, at: Any) -> np.ndarray:
        if self._array is None:
            raw = np.memmap(self.path, np.uint8, "r")
            self._array = np.ndarray(self.shape, self.dtype, raw, self.offset, self.strides)
        block = np.array(self._array[at])
        drop_pages(self._array)
        return block


class HDF5Dataset:
    """A dataset of an HDF5 file, by the names of both."""

    def __init__(self, dataset: Any) -> None:
        self.path, self.name = dataset.file.filename, dataset.name
        self._dataset: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}

    def __getitem__(self, at: Any) -> Any:
        if self._dataset is None:
            import h5py

            self._dataset = h5py.File(self.path, "r")[self.name]
        return self._dataset[at]


def mapped(source: Any) -> np.memmap | None:
    """The array that maps the file behind `source`; None where it is not a file's contents as they are on disk."""
    while isinstance(source, np.ndarray):
        if isinstance(source, np.memmap) and isinstance(source.base, mmap.mmap):
            return source if source.filename is not None and source.mode != "c" else None
        source = source.base
    return None


def drop_pages(source: Any) -> None:
    """Unmap what was read of a mapped file: its pages count as this process's memory, though the system could take them
    back. (They stay in the system's own cache.)"""
    whole = mapped(source)
    advise = getattr(whole._mmap, "madvise", None) if whole is not None else None  # type: ignore[attr-defined]
    if advise is not None and hasattr(mmap, "MADV_DONTNEED"):
        advise(mmap.MADV_DONTNEED)


def portable(source: Any) -> Any:
    """`source`, or something that reads the same and can be pickled without its data."""
    whole = mapped(source)
    if whole is not None:
        return MappedFile(source, whole)
    if type(source).__module__.startswith("h5py") and hasattr(source, "file"):
        return HDF5Dataset(source)
    return source
