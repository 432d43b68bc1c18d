"""What all of `linalg` shares: checks in NumPy's words, and functions of whole matrices mapped over stacks of them.

The last two axes are a matrix's; it is brought into one block, the axes before it stay cut. That is also how a single matrix
is handled that is small, or for which no blocked algorithm is worth its tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr
from nums_core.errors import DTypeError
from nums_core.expr import build
from nums_core.expr.grid import uniform
from nums_core.expr.node import Expr

LinAlgError = np.linalg.LinAlgError

SMALL_BYTES = 8 * 2**20  # a matrix up to this size is one task's work
PANEL_BYTES = 64 * 2**20  # a column panel is no larger


def inexact(a: Any) -> Expr:
    """`a` with the dtype linear algebra works in: integers become float64; NumPy's TypeError for what LAPACK lacks."""
    x = known_expr(a)
    if x.dtype.char in "fdFD":
        return x
    if x.dtype.kind in "biu":
        return build.cast(x, float)
    raise DTypeError(f"array type {x.dtype.name} is unsupported in linalg; cast it with x.astype(float)")


def matrices(a: Any) -> Expr:
    """`a` as a matrix or a stack of matrices."""
    x = inexact(a)
    if x.ndim < 2:
        raise LinAlgError(f"{x.ndim}-dimensional array given. Array must be at least two-dimensional. Array must be 2D, or "
                          "a stack of 2D arrays: add an axis with x[:, None]")
    return x


def square(a: Any) -> Expr:
    x = matrices(a)
    if x.shape[-1] != x.shape[-2]:
        raise LinAlgError(f"Last 2 dimensions of the array must be square; they are {x.shape[-2]} x {x.shape[-1]}: for a "
                          "least-squares solution use lstsq or pinv")
    return x


def common(*operands: Expr) -> list[Expr]:
    """Operands in their common dtype."""
    dtype = np.result_type(*(x.dtype for x in operands))
    return [build.cast(x, dtype) for x in operands]


def real(dtype: np.dtype) -> np.dtype:
    """The real dtype of the same precision."""
    return np.zeros(0, dtype).real.dtype


def is_small(x: Expr) -> bool:
    return math.prod(x.shape) * x.dtype.itemsize <= SMALL_BYTES


def whole(x: Expr, core: int = 2) -> Expr:
    """`x` with each matrix in one block."""
    return build.uncut(x, range(x.ndim - core, x.ndim))


def adjoint(x: Expr) -> Expr:
    """Conjugate transpose of each matrix."""
    turned = build.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
    return build.elementwise("conjugate", [turned]) if x.dtype.kind == "c" else turned


# -- nodes ------------------------------------------------------------------------------------------------------------

def blocks(kernel: str, args: Sequence[Expr], reads: tuple[str, ...], shape: tuple[int, ...], dtype: Any, chunks: Any, *,
           params: tuple[Any, ...] = (), fan: int = 1, task_args: Any = None, elements: float | tuple[float, ...] = 0,
           flop: float = 0) -> Expr:
    """A kernel over a list of blocks: `expr.lowering.linalg._blocks`. `elements` of a block, or of each."""
    return build.custom("linalg.blocks", args, (f"linalg.{kernel}", params, reads, fan, task_args, elements, flop),
                        shape, dtype, chunks)


def part(x: Expr, k: int, shape: tuple[int, ...], dtype: Any, chunks: Any) -> Expr:
    """Part `k` of blocks that are tuples; the grids may differ by axes that are not cut."""
    return build.custom("linalg.blocks", [x], ("pick", (k,), ("same",), 1, None, 0, 0), shape, dtype, chunks)


def apply(name: str, operands: Sequence[Expr], results: Sequence[tuple[tuple[int, ...], Any]], flop: float = 0.0,
          cores: Sequence[int] | None = None, **options: Any) -> list[Expr]:
    """A row of `devices.linalg.WHOLE` on each matrix.

    Parameters
    ----------
    operands : the last `cores[i]` axes (2) of each are its matrix's; axes before them are broadcast
    results : core shape and dtype of each result; several come as one tuple a block
    """
    cores = cores or [2] * len(operands)
    batch = build.broadcast_shape([x.shape[:x.ndim - n] for x, n in zip(operands, cores, strict=True)])
    largest = max(operands, key=lambda x: math.prod(x.shape))
    cuts = largest.chunks[:len(batch)] if largest.shape[:len(batch)] == batch else tuple((n,) for n in batch)
    args = [_over(x, n, batch, cuts) for x, n in zip(operands, cores, strict=True)]
    params = (name, tuple(sorted(options.items())))
    tail = [tuple((n,) for n in core) for core, _ in results]
    per_block = flop * math.prod(max(c, default=0) for c in cuts)
    reads = ("same",) * len(args)
    if len(results) == 1:
        (core, dtype), = results
        return [blocks("apply", args, reads, (*batch, *core), dtype, (*cuts, *tail[0]), params=params, flop=per_block)]
    made = blocks("apply", args, reads, batch, results[0][1], cuts, params=params, flop=per_block,
                  elements=sum(math.prod(core) for core, _ in results) * math.prod(max(c, default=0) for c in cuts))
    return [part(made, k, (*batch, *core), dtype, (*cuts, *t))
            for k, ((core, dtype), t) in enumerate(zip(results, tail, strict=True))]


def _over(x: Expr, core: int, batch: tuple[int, ...], cuts: Any) -> Expr:
    """`x` over all of `batch`, each of its matrices in one block."""
    shape = (*batch, *x.shape[x.ndim - core:])
    x = x if x.shape == shape else build.broadcast_to(x, shape)
    return build.rechunk(x, (*cuts, *((n,) for n in shape[len(batch):])))


def panel_width(rows: int, columns: int, dtype: np.dtype) -> int:
    """Columns of a panel: about 16 panels, of 64 to 512 columns, none over `PANEL_BYTES`."""
    fits = PANEL_BYTES // max(rows * dtype.itemsize, 1)
    return max(1, min(512, max(64, columns // 16), max(fits, 16), columns))


def column_panels(x: Expr, split: int | None = None) -> Expr:
    """`x` in column panels, with a border at column `split` if given."""
    rows, columns = x.shape
    first = columns if split is None else min(split, columns)
    width = panel_width(rows, max(first, 1), x.dtype)
    cut = uniform(first, width) + (uniform(columns - first, width) if columns > first else ())
    return build.rechunk(x, ((rows,), cut))


def array(*exprs: Expr) -> list[Array]:
    return [Array(e) for e in exprs]


__all__: list[str] = []
