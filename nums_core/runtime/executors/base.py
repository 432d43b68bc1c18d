"""The boundary between a Plan and whatever runs it.

An executor is one method, `run`: plan and inputs in, results and a Report out. Inputs are numbered; a leaf family's kernel
names the number:

    Kernel("view", (slot,))   blocks are slices of a NumPy array in the driver's memory; the family's args are the slices
    Kernel("view", (slot, shape))   the same of that array reshaped to `shape`; see `viewed`
    Kernel("held", (slot,))   blocks that an executor keeps from an earlier run (`Held`); args, if any, are their rows
    Kernel("read", (slot,))   a *task* that reads a slice of anything with `__getitem__` (memmap, zarr, HDF5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nums_core.ops.taskgraph import Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan
from nums_core.runtime.report import Report

Chunks = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Output:
    """What is wanted of one output family.

    Attributes
    ----------
    chunks : tuple of tuples
        Extents of its blocks along each axis; NaN where they depend on data.
    dtype : str
    keep : bool
        True: leave the blocks where they are and return a `Held`. False: return one NumPy array.
    """

    chunks: Chunks
    dtype: str
    keep: bool = False

    @property
    def unknown(self) -> bool:
        """Whether the shapes of blocks depend on data."""
        return any(math.isnan(c) for sizes in self.chunks for c in sizes)


@dataclass
class Held:
    """Blocks that an executor keeps after a run, in C order of their grid.

    `refs` are the executor's own (arrays, actor-local keys, ...). `home[i]` is the worker that holds block `i`.
    Dropping the last reference frees the blocks.
    """

    refs: list[Any]
    home: np.ndarray
    nbytes: float
    owner: Any = field(default=None, repr=False)
    shapes: list[tuple[int, ...]] | None = None  # of the blocks, where the output's chunks were not all known


def viewed(source: np.ndarray, kernel: Kernel) -> np.ndarray:
    """The array whose slices are the blocks of a view leaf."""
    return source if len(kernel.params) == 1 else source.reshape(kernel.params[1])


class Executor(Protocol):
    """Runs plans. `nums_core.testing.executors.ExecutorSuite` says what every one must do."""

    cluster: Cluster

    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        """Run `plan` and return, for each of `outputs`, an ndarray or a `Held`, and the run's Report.

        `donate` names inputs whose blocks may be overwritten; the caller must not use them afterwards.

        Raises
        ------
        KernelError
            A kernel failed; the message names the operation and the user's line. The executor stays usable.
        MemoryBudgetError
            The working set of one task does not fit a worker's memory. Raised before anything runs.
        """
        ...

    def fetch(self, held: Held) -> list[np.ndarray]:
        """The blocks of `held`, in the driver's memory."""
        ...

    def close(self) -> None:
        """Give back everything the executor holds. May be called twice."""
        ...
