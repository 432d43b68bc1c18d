"""The experiments of "NumS" (arXiv 2206.14276) as programs in NumPy syntax, with inputs cut into so many blocks.

Each is written once and runs on anything with NumPy's names (nums_core, dask.array). Inputs are made by tasks, block
by block from (seed, position), so that every library has the same data and no driver ever holds it.

    newton      a step of Newton's method for logistic regression: X is rows x 256, cut along its rows
    add         X + Y                          both cut alike
    matvec      X y
    sum         X summed over its rows
    xty         X^T Y                          partial results of 256 x 256
    tsqr        Q, R of X
    gemm        A B                            square, cut into a square grid
    mttkrp      X_ijk B_jr C_kr -> M_ir        a cube cut along all axes alike; B and C cut along j and k
    tensordot   X_ijk Y_jkr -> Z_ir            the double contraction, cut the same way
    *-jk                                       both with the cube cut along j and k only: the axes that are summed

Sizes are ours: the paper's are not known to us. `n_bytes` is the size of the largest input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from nums_core.scheduler.layout import factorise

COLUMNS = 256  # so that partial results of X^T Y (512 KiB) are above the 100 KB that Ray sends inside a reply
RANK = 32
ITEM = 8  # bytes of a float64


@dataclass(frozen=True)
class Cut:
    """An input: its shape, its grid of blocks, and what fills it ("uniform" on [-1/2, 1/2), "labels", "zeros")."""

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    fill: str = "uniform"

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(n // g + (i < n % g) for i in range(g)) for n, g in zip(self.shape, self.grid, strict=True))

    @property
    def nbytes(self) -> int:
        return ITEM * math.prod(self.shape)

    def array(self, np: Any, seed: int) -> Any:
        """The input, lazy, in the library whose names `np` has."""
        if self.fill == "zeros":
            return np.zeros(self.shape, chunks=self.chunks)
        x = np.map_blocks(uniform, chunks=self.chunks, dtype=float, meta=numpy.empty((0,) * len(self.shape)), seed=seed)
        return (x < 0).astype(float) if self.fill == "labels" else x


def uniform(seed: int, block_info: Any = None) -> numpy.ndarray:
    """A block of an input."""
    place = block_info[None]["array-location"]
    rng = numpy.random.default_rng([seed, *(start for start, _ in place)])
    block = rng.random([stop - start for start, stop in place])
    block -= 0.5
    return block


Inputs = Callable[[float, int], tuple[Cut, ...]]  # (bytes of the largest input, blocks of it)


@dataclass(frozen=True)
class Experiment:
    """`steps` runs of `program`; with `carried`, so many of a step's results are the last inputs of the next."""

    inputs: Inputs
    program: Callable[..., tuple[Any, ...]]
    steps: int = 1
    carried: int = 0

    def arrays(self, np: Any, n_bytes: float, blocks: int) -> tuple[Any, ...]:
        return tuple(cut.array(np, seed) for seed, cut in enumerate(self.inputs(n_bytes, blocks)))

    def run(self, np: Any, arrays: tuple[Any, ...],
            persist: Callable[..., tuple[Any, ...]] | None = None) -> Iterator[tuple[Any, ...]]:
        """The results of each step, left where they were computed. `persist` is the library's (default: `np.persist`)."""
        for _ in range(self.steps):
            results = (persist or np.persist)(*self.program(np, *arrays))
            if self.carried:
                arrays = arrays[:-self.carried] + tuple(results[:self.carried])
            yield results


def newton_step(np, x, y, beta):
    mu = 1 / (1 + np.exp(-(x @ beta)))
    gradient = x.T @ (mu - y)
    hessian = x.T @ ((mu * (1 - mu))[:, None] * x)
    return (beta - np.linalg.solve(hessian, gradient),)


def _rows(n_bytes: float, blocks: int, columns: int = COLUMNS) -> int:
    """Rows of an array of about `n_bytes`: as many in each block."""
    return blocks * max(1, round(n_bytes / (ITEM * columns * blocks)))


def _tall(count: int) -> Inputs:
    return lambda n_bytes, blocks: (Cut((_rows(n_bytes, blocks), COLUMNS), (blocks, 1)),) * count


def _newton(n_bytes: float, blocks: int) -> tuple[Cut, ...]:
    rows = _rows(n_bytes, blocks)
    return (Cut((rows, COLUMNS), (blocks, 1)), Cut((rows,), (blocks,), "labels"), Cut((COLUMNS,), (1,), "zeros"))


def _matvec(n_bytes: float, blocks: int) -> tuple[Cut, ...]:
    return (Cut((_rows(n_bytes, blocks), COLUMNS), (blocks, 1)), Cut((COLUMNS,), (1,)))


def _square(n_bytes: float, blocks: int) -> tuple[Cut, ...]:
    g = math.isqrt(blocks)
    n = g * max(1, round(math.sqrt(n_bytes / ITEM) / g))
    return (Cut((n, n), (g, g)),) * 2


def _cube(n_bytes: float, grid: tuple[int, ...]) -> tuple[int, ...]:
    n = max(grid) * max(1, round((n_bytes / ITEM) ** (1 / 3) / max(grid)))
    return n, n, n


def _even(blocks: int) -> tuple[int, ...]:
    """A grid of so many blocks, cut along all axes alike."""
    return factorise((2**20,) * 3, blocks)


def _summed(blocks: int) -> tuple[int, ...]:
    """A grid of so many blocks, cut along the axes that are summed."""
    return (1, *factorise((2**20,) * 2, blocks))


Grid = Callable[[int], tuple[int, ...]]


def _mttkrp(grid_of: Grid) -> Inputs:
    def inputs(n_bytes: float, blocks: int) -> tuple[Cut, ...]:
        grid = grid_of(blocks)
        n, *_ = shape = _cube(n_bytes, grid)
        return (Cut(shape, grid), Cut((n, RANK), (grid[1], 1)), Cut((n, RANK), (grid[2], 1)))
    return inputs


def _tensordot(grid_of: Grid) -> Inputs:
    def inputs(n_bytes: float, blocks: int) -> tuple[Cut, ...]:
        grid = grid_of(blocks)
        n, *_ = shape = _cube(n_bytes, grid)
        return (Cut(shape, grid), Cut((n, n, RANK), (*grid[1:], 1)))
    return inputs


def mttkrp(np, x, b, c):
    return (np.einsum("ijk,jr,kr->ir", x, b, c, optimize=True),)


def tensordot(np, x, y):
    return (np.tensordot(x, y, axes=((1, 2), (0, 1))),)


EXPERIMENTS: dict[str, Experiment] = {
    "newton": Experiment(_newton, newton_step, steps=3, carried=1),
    "add": Experiment(_tall(2), lambda np, x, y: (x + y,)),
    "matvec": Experiment(_matvec, lambda np, x, y: (x @ y,)),
    "sum": Experiment(_tall(1), lambda np, x: (x.sum(axis=0),)),
    "xty": Experiment(_tall(2), lambda np, x, y: (x.T @ y,)),
    "tsqr": Experiment(_tall(1), lambda np, x: tuple(np.linalg.qr(x))),
    "gemm": Experiment(_square, lambda np, a, b: (a @ b,)),
    "mttkrp": Experiment(_mttkrp(_even), mttkrp),
    "mttkrp-jk": Experiment(_mttkrp(_summed), mttkrp),
    "tensordot": Experiment(_tensordot(_even), tensordot),
    "tensordot-jk": Experiment(_tensordot(_summed), tensordot),
}
