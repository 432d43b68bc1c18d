"""Operations with the fewest bytes that any placement can move between workers: cases for bench/lshs.py and the tests.

One row a case: how the arrays are cut, the expression, and the bound for k workers that all hold blocks. Inputs are made by
tasks, one run of blocks after the other on the workers of the packed layout, and results are wanted at theirs.

    sums, X^T Y, double contraction     k - 1 partial results meet in one
    X @ y, broadcast                    k - 1 copies
    TSQR (R alone)                      k - 1 factors of d^2
    MTTKRP                              factor matrices go out, or partial results come in; the tensor stays
    Newton step                         beta goes out (d), gradient (d) and Hessian (d^2) come in
    outer product                       every worker lacks its row and column panels, but for what it made itself
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import nums_core.array as np
from nums_core.expr.lower import lower
from nums_core.expr.optimise import optimise
from nums_core.ops.taskgraph import TaskGraph
from nums_core.session import structure

ITEM = 8  # bytes


class Size(NamedTuple):
    """Extents: rows of a block and columns `d` of tall arrays; a tensor's uncut `side`, its `rank`; `edge` of square blocks."""

    rows: int = 8192
    d: int = 16
    side: int = 64
    rank: int = 4
    edge: int = 32


SMALL, LARGE = Size(), Size(2**16, 256, 512, 32, 1024)


def graph_of(*results: Any) -> TaskGraph:
    """The task graph that computing arrays would plan."""
    roots = [r.expr for r in results]
    _, sources = structure(roots)
    return lower(optimise(roots), {s: i for i, s in enumerate(sources)})


@dataclass(frozen=True)
class Case:
    """`make(n, size)` builds the results from arrays in `n` blocks; `least(k, size)` is the bound in bytes."""

    name: str
    make: Callable[[int, Size], Any]
    least: Callable[[int, Size], float]

    def graph(self, n: int, size: Size = SMALL) -> TaskGraph:
        made = self.make(n, size)
        return graph_of(*(made if isinstance(made, tuple) else (made,)))


def _random(*shape: int, cut: int | None = 0, n: int = 1, seed: int = 1) -> Any:
    """Values made by tasks, in `n` blocks along the axis `cut`."""
    chunks = tuple(-(-extent // n) if axis == cut else extent for axis, extent in enumerate(shape))
    return np.random.default_rng(seed).random(shape, chunks=chunks)


def _tall(n: int, size: Size, seed: int = 1) -> Any:
    return _random(size.rows * n, size.d, n=n, seed=seed)


def _newton(n: int, size: Size) -> tuple[Any, Any]:
    x, y, beta = _tall(n, size), _random(size.rows * n, n=n), _random(size.d)
    mu = 1 / (1 + np.exp(-(x @ beta)))
    return x.T @ (mu - y), x.T @ ((mu * (1 - mu))[:, None] * x)


def _mttkrp(cut: int) -> Callable[[int, Size], Any]:
    """sum over j, k of X[i, j, k] B[j, r] C[k, r]; X, and the factor along the same axis, are cut."""
    def make(n: int, size: Size) -> Any:
        extents = [size.side if axis != cut else size.side * n for axis in range(3)]
        b, c = (_random(extents[axis], size.rank, n=n if axis == cut else 1, seed=axis) for axis in (1, 2))
        return np.einsum("ijk,jr,kr->ir", _random(*extents, cut=cut, n=n), b, c)
    return make


def _double(n: int, size: Size) -> Any:
    """X[a, j, k] Y[j, k, b] over j, which is cut, and k."""
    return np.tensordot(_random(size.d, size.rank * n, size.side, cut=1, n=n),
                        _random(size.rank * n, size.side, size.d, n=n, seed=2), axes=2)


def _factors(k: int, size: Size) -> float:
    return (k - 1) * 2 * size.side * size.rank * ITEM


def _line(k: int, size: Size) -> float:
    return (k - 1) * size.d * ITEM


def _square(k: int, size: Size) -> float:
    return (k - 1) * size.d * size.d * ITEM


CASES = [
    Case("sum of rows", lambda n, s: _tall(n, s).sum(axis=0), _line),
    Case("sum of all", lambda n, s: _tall(n, s).sum(), lambda k, s: (k - 1) * ITEM),
    Case("X^T Y", lambda n, s: _tall(n, s).T @ _tall(n, s, 2), _square),
    Case("X^T y", lambda n, s: _tall(n, s).T @ _random(s.rows * n, n=n), _line),
    Case("X @ y", lambda n, s: _tall(n, s) @ _random(s.d), _line),
    Case("broadcast", lambda n, s: _tall(n, s) * _random(s.d), _line),
    Case("TSQR", lambda n, s: np.linalg.qr(_tall(n, s), mode="r"), _square),
    Case("MTTKRP, i cut", _mttkrp(0), _factors),
    Case("MTTKRP, j cut", _mttkrp(1), _factors),
    Case("MTTKRP, k cut", _mttkrp(2), _factors),
    Case("double contraction", _double, _square),
    Case("Newton step", _newton, lambda k, s: 2 * _line(k, s) + _square(k, s)),
]


def outer(n: int, size: Size = SMALL) -> TaskGraph:
    """X Y^T of two tall arrays of `n` row blocks of `edge` rows."""
    x, y = (_random(size.edge * n, size.d, n=n, seed=s) for s in (1, 2))
    return graph_of(x @ y.T)


def outer_least(n: int, r: int, size: Size = SMALL) -> int:
    """Bytes on r x r workers, n a multiple of r^2: each lacks 2 panels of n / r blocks, but for the n / r^2 of X that it
    made (its row panel is made by its row of workers), and those of Y on the diagonal."""
    blocks = r**2 * 2 * (n // r) - r**2 * (n // r**2) - r * (n // r**2)
    return blocks * size.edge * size.d * ITEM


def gemm(g: int, size: Size = SMALL) -> TaskGraph:
    """Square product of g x g blocks."""
    a, b = (np.random.default_rng(s).random((g * size.edge, g * size.edge), chunks=size.edge) for s in (1, 2))
    return graph_of(a @ b)


def gemm_least(g: int, r: int, size: Size = SMALL) -> int:
    """Owner-computes on r x r workers: 2 (g / r) (g - g / r) blocks into each."""
    return 2 * (g // r) * (g - g // r) * r * r * size.edge * size.edge * ITEM
