"""The NumPy device: from a Kernel to a Python function that makes one block.

`compile_kernel(Kernel(name, params))` gives `run(args, blocks, out=None)`: `args` are the task's own arguments, `blocks` its
operands, and `out`, if given, is where the block must be written (a view of the user's result, or a donated block).
Kernels of one family live in one module beside this one; a dotted name says which: `linalg.qr` is the row `qr` of
`devices/linalg.py`, imported when first used.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.ops import tree
from nums_core.ops.taskgraph import Kernel
from nums_core.runtime.devices import reducers
from nums_core.runtime.devices.fused import compile_program

Run = Callable[..., Any]


def compile_kernel(kernel: Kernel) -> Run:
    """The function that runs `kernel`."""
    module, _, row = kernel.name.rpartition(".")
    if not module:
        return KERNELS[row](*kernel.params)
    return importlib.import_module(f"nums_core.runtime.devices.{module}").KERNELS[row](*kernel.params)


def deliver(block: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`block`, or `out` with its contents."""
    if out is None:
        return block
    out[...] = block
    return out


def _identity() -> Run:
    return lambda args, blocks, out=None: blocks[0] if out is None else deliver(blocks[0], out)


def _pick(k: int) -> Run:
    """The k-th part of a block that is a tuple."""
    return lambda args, blocks, out=None: deliver(blocks[0][k], out)


def _tree(combine: tuple[Any, ...], finish: tuple[Any, ...] | None) -> Run:
    """The halving tree over any number of partial states, then the finish: squeeze the axes that are not kept."""
    name, axes, kw = combine
    reducer = reducers.make(name, axes, dict(kw))
    drop = finish[0] if finish is not None else ()
    dtype = np.dtype(finish[1]) if finish is not None and finish[1] is not None else None

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        state = tree.evaluate(reducer.combine, blocks) if len(blocks) > 1 else blocks[0]
        if finish is None:
            return state
        block = reducer.finish(state)
        if drop:
            block = block.reshape([n for i, n in enumerate(block.shape) if i not in drop])
        if dtype is not None and block.dtype != dtype:
            block = block.astype(dtype)
        return deliver(block, out)
    return run


def _full(value: Any, dtype: str) -> Run:
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        shape = tuple(n for _, n in args)
        if out is None:
            return np.full(shape, value, dtype)
        out[...] = value
        return out
    return run


def _arange(start: Any, step: Any, dtype: str) -> Run:
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (offset, n), = args
        kind = np.dtype(dtype).kind
        index = np.arange(offset, offset + n, dtype=np.int64 if kind in "iumM" else None)
        block = (index * step + start).astype(dtype, copy=False)
        return deliver(block, out)
    return run


def _eye(k: int, dtype: str) -> Run:
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        (i, n), (j, m) = args
        return deliver(np.eye(n, m, k + i - j, dtype), out)
    return run


def _index(axis: int, dtype: str) -> Run:
    """The position along `axis` of every element."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        offset, n = args[axis]
        line = np.arange(offset, offset + n, dtype=dtype)
        shape = [1] * len(args)
        shape[axis] = n
        return deliver(np.broadcast_to(line.reshape(shape), [n for _, n in args]), out)
    return run


def _gather(dtype: np.dtype | None = None) -> Run:
    """One block from rectangular pieces of several; see `expr.lower` for the arguments."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        if len(blocks) == 1:
            piece = blocks[0][tuple(pieces[0][1] for _, pieces in args)]
            if out is not None:
                return deliver(piece, out)
            return piece if 2 * piece.nbytes >= blocks[0].nbytes else piece.copy()
        if out is None:
            out = np.empty([extent for extent, _ in args], dtype if dtype is not None else np.result_type(*blocks))
        for block, at in zip(blocks, itertools.product(*[pieces for _, pieces in args]), strict=True):
            out[tuple(p[2] for p in at)] = block[tuple(p[1] for p in at)]
        return out
    return run


def _concat(axis: int) -> Run:
    """Blocks side by side along one axis."""
    return lambda args, blocks, out=None: np.concatenate(blocks, axis=axis, out=out)


def _contract(a: str, b: str, c: str, dtype: str) -> Run:
    """Contraction of two blocks, as one matrix product: labels are letters, as in einsum.

    Labels of `a` or `b` alone that `c` lacks are summed first. Everything else is batch, row, column or summed."""
    batch = [x for x in c if x in a and x in b]
    rows = [x for x in c if x in a and x not in b]
    cols = [x for x in c if x in b and x not in a]
    summed = [x for x in a if x in b and x not in c]
    sum_a = tuple(i for i, x in enumerate(a) if x not in b and x not in c)
    sum_b = tuple(i for i, x in enumerate(b) if x not in a and x not in c)
    a_kept, b_kept = [x for x in a if x in b or x in c], [x for x in b if x in a or x in c]
    perm_a = [a_kept.index(x) for x in (*batch, *rows, *summed)]
    perm_b = [b_kept.index(x) for x in (*batch, *summed, *cols)]
    made = [*batch, *rows, *cols]
    perm_c = [made.index(x) for x in c]
    straight = perm_c == list(range(len(perm_c)))
    nb, nr, ns = len(batch), len(rows), len(summed)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        left, right = blocks if len(blocks) == 2 else (blocks[0], blocks[0])
        if sum_a:
            left = left.sum(axis=sum_a)
        if sum_b:
            right = right.sum(axis=sum_b)
        left, right = left.transpose(perm_a), right.transpose(perm_b)
        s, t = left.shape, right.shape
        final = (*s[:nb + nr], *t[nb + ns:])
        n_row, n_sum, n_col = _size(s[nb:nb + nr]), _size(s[nb + nr:]), _size(t[nb + ns:])
        left = left.reshape(*s[:nb], n_row, n_sum)
        right = right.reshape(*t[:nb], n_sum, n_col)
        if out is not None and straight and out.dtype == dtype and (out.ndim == nb + 2 or out.flags.c_contiguous):
            np.matmul(left, right, out=out.reshape(*s[:nb], n_row, n_col))
            return out
        return deliver(np.matmul(left, right).reshape(final).transpose(perm_c), out)
    return run


def _size(dims: tuple[int, ...]) -> int:
    n = 1
    for d in dims:
        n *= d
    return n


def _map(function: Callable[..., Any], kwargs: tuple[tuple[str, Any], ...], dtype: np.dtype | None = None,
         places: tuple[Any, ...] | None = None, wants: tuple[str, ...] | bool = ()) -> Run:
    """A function of the user, on whole blocks."""
    from nums_core.runtime.devices.blocks import UserFunction

    return UserFunction(function, dict(kwargs), dtype, places, wants)


KERNELS: dict[str, Callable[..., Run]] = {
    "identity": _identity,
    "pick": _pick,
    "fused": compile_program,
    "tree": _tree,
    "full": _full,
    "arange": _arange,
    "eye": _eye,
    "index": _index,
    "gather": _gather,
    "concat": _concat,
    "contract": _contract,
    "map": _map,
}
