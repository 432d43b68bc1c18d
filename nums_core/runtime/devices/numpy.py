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
from nums_core.runtime.devices.contraction import compile_contraction
from nums_core.runtime.devices.fused import compile_program
from nums_core.runtime.devices.reduction import compile_reductions

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
    last = reducers.finisher(reducer, *finish) if finish is not None else None

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        state = tree.evaluate(reducer.combine, blocks) if len(blocks) > 1 else blocks[0]
        return state if last is None else deliver(last(state), out)
    return run


def _full(value: Any, dtype: str) -> Run:
    zero = np.dtype(dtype).kind in "biufc" and not any(np.full(1, value, dtype).tobytes())

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        shape = tuple(n for _, n in args)
        if out is None:  # zeros take no memory before they are written
            return np.zeros(shape, dtype) if zero else np.full(shape, value, dtype)
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
            shape = [blocks[0].shape[i] if n is None else n for i, (n, _) in enumerate(args)]
            out = np.empty(shape, dtype if dtype is not None else np.result_type(*blocks))
        for block, at in zip(blocks, itertools.product(*[pieces for _, pieces in args]), strict=True):
            out[tuple(p[2] for p in at)] = block[tuple(p[1] for p in at)]
        return out
    return run


def _concat(axis: int) -> Run:
    """Blocks side by side along one axis."""
    return lambda args, blocks, out=None: np.concatenate(blocks, axis=axis, out=out)


def _map(function: Callable[..., Any], kwargs: tuple[tuple[str, Any], ...], dtype: np.dtype | None = None,
         places: tuple[Any, ...] | None = None, wants: tuple[str, ...] | bool = ()) -> Run:
    """A function of the user, on whole blocks."""
    from nums_core.runtime.devices.blocks import LibraryFunction, UserFunction

    if hasattr(function, "on_blocks"):
        return LibraryFunction(function, dict(kwargs), dtype)
    return UserFunction(function, dict(kwargs), dtype, places, wants)


KERNELS: dict[str, Callable[..., Run]] = {
    "identity": _identity,
    "pick": _pick,
    "fused": compile_program,
    "reductions": compile_reductions,
    "tree": _tree,
    "full": _full,
    "arange": _arange,
    "eye": _eye,
    "index": _index,
    "gather": _gather,
    "concat": _concat,
    "contract": compile_contraction,
    "map": _map,
}
