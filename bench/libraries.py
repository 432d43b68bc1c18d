"""The libraries a benchmark runs on, each behind the same few words.

A library is imported where it is opened, in its own process. Dask's documentation advises one BLAS thread where
its own threads run the blocks; both of its kind are run so. dask-array runs on Dask's threaded scheduler: the
scheduler in Rust made for it (frisky) is a server, to which arrays in memory are sent anew at each `compute`; it
was ten times slower here on a sum of 200 MB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy

from bench.harness import Run, Start

Arrays = tuple[numpy.ndarray, ...]
Program = Callable[..., tuple[Any, ...]]  # (library, *arrays of the library) -> lazy results
Chunks = Any  # whatever `from_array(chunks=...)` takes


@dataclass(frozen=True)
class Library:
    """`np` has NumPy's names; `array(x, chunks)` wraps an ndarray; `compute(*lazy)` gives ndarrays.

    `modes` are the ways to run that are worth trying where overhead counts: name -> switch to it. `tasks` says how
    many the last `compute` ran, 0 where that is not known.
    """

    np: Any
    array: Callable[[numpy.ndarray, Chunks], Any]
    compute: Callable[..., tuple[Any, ...]]
    modes: Mapping[str, Callable[[], object]] = field(default_factory=lambda: {"": lambda: None})
    tasks: Callable[[], int] = int


def _numpy() -> Library:
    return Library(numpy, lambda x, chunks: x, lambda *values: values)


def _dask() -> Library:
    import dask.array

    return _of_dask(dask.array)


def _dask_array() -> Library:
    import dask_array

    return _of_dask(dask_array)


def _of_dask(module: Any) -> Library:
    import dask
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
    modes = {mode: lambda mode=mode: dask.config.set(scheduler=mode) for mode in ("threads", "sync")}
    modes["threads"]()
    # name=False: without it the whole array is hashed.
    return Library(module, lambda x, chunks: module.from_array(x, chunks=chunks, name=False), dask.compute, modes)


def _nums() -> Library:
    import nums_core
    import nums_core.array

    np = nums_core.array
    return Library(
        np,
        lambda x, chunks: np.from_array(x, chunks=chunks),
        nums_core.compute,
        tasks=lambda: nums_core.last_report().n_tasks,
    )


def _nums_unmerged() -> Library:
    """Each block a task, also where small blocks of one array in memory could be read together."""
    from nums_core import config

    config.set(merge_bytes=0)
    return _nums()


LIBRARIES: dict[str, Callable[[], Library]] = {
    "numpy": _numpy,
    "dask": _dask,
    "dask-array": _dask_array,
    "nums": _nums,
    "nums-unmerged": _nums_unmerged,
}
USUAL = ["numpy", "dask", "dask-array", "nums"]


@dataclass(frozen=True)
class Prepared:
    """A program with its arrays, ready to run."""

    lib: Library
    program: Program
    arrays: tuple[Any, ...]

    def __call__(self) -> tuple[Any, ...]:
        return tuple(self.lib.compute(*self.program(self.lib, *self.arrays)))

    def tasks(self) -> int:
        return self.lib.tasks()


def start(
    name: str, program: Program, arrays: Arrays, cuts: Mapping[str, tuple[Chunks, ...]], *, modes: bool = False
) -> Start:
    """`program` in a library, for a race: a variant for each way to cut `arrays`, and for each mode if asked."""

    def variants() -> dict[str, Callable[[], Run]]:
        lib = LIBRARIES[name]()
        ways = cuts if name != "numpy" else {"": (None,) * len(arrays)}
        switches = lib.modes if modes else {"": lambda: None}
        return {
            f"{cut} {mode}".strip(): lambda chunks=chunks, switch=switch: prepare(lib, chunks, switch)
            for cut, chunks in ways.items()
            for mode, switch in switches.items()
        }

    def prepare(lib: Library, chunks: tuple[Chunks, ...], switch: Callable[[], object]) -> Run:
        switch()
        return Prepared(lib, program, tuple(lib.array(x, each) for x, each in zip(arrays, chunks, strict=True)))

    return variants
