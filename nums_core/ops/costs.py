"""Kinds of kernels: which of a machine's speeds decides how long a task takes.

    gemm    products of matrices             select  elements chosen by a mask
    map     elementwise, from memory         sort    sorting, searching, unique values
    cross   the same, across the rows        scan    cumulative sums and the like
    reduce  elementwise, into few values     linalg  factorisations of matrices
    heavy   exp, log, sin, power ...         read    files and other sources, random numbers
    copy    blocks cut, joined, picked       other   sorts of whole blocks, users' functions, all the rest

A kernel's *class* is its kind with the width of its numbers, "gemm.f" for single and "gemm.d" for other precisions: that is
what `runtime.cluster.Worker.rates` are keyed by. How much work a task is stands in the rows of the operations (flop an
element) and in the graph (bytes of blocks).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.ops.elementwise import ELEMENTWISE
from nums_core.ops.program import Program
from nums_core.ops.taskgraph import Kernel

KINDS = ("gemm", "map", "cross", "reduce", "heavy", "copy", "select", "sort", "scan", "linalg", "read", "other")
HEAVY_FLOP = 8.0  # an operation of so many flop an element is no longer a matter of memory

# By the whole name of a kernel, or else by the part before the dot.
_KIND = {"contract": "gemm", "quantized": "gemm", "tree": "map", "full": "map", "arange": "map", "creation": "map",
         "identity": "copy", "pick": "copy", "gather": "copy", "concat": "copy", "index": "copy", "reshape": "copy",
         "divide": "copy", "read": "read", "index.select": "select", "sort": "sort", "unique": "sort", "quantile": "sort",
         "scan": "scan", "linalg": "linalg", "random": "read"}


def kernel_class(kernel: Kernel) -> str:
    """ "gemm.d", "map.f", ...: the kind of a kernel with the width of its numbers."""
    program = _program(kernel)
    if program is not None:
        return f"{_fused_kind(program, kernel.name == 'reductions')}.{_width(program.dtypes)}"
    kind = _KIND.get(kernel.name) or _KIND.get(kernel.name.partition(".")[0], "other")
    return f"{kind}.{_width(kernel.params[3:4]) if kernel.name == 'contract' else 'd'}"


def _program(kernel: Kernel) -> Program | None:
    """What a fused kernel runs."""
    first: Any = kernel.params[0] if kernel.params else None
    return first if kernel.name in ("fused", "reductions") and isinstance(first, Program) else None


def _fused_kind(program: Program, reduces: bool) -> str:
    if any(ELEMENTWISE[i.op].flop >= HEAVY_FLOP for i in program.instrs):
        return "heavy"
    if any(used != sorted(used) for amap in program.maps for used in [[a for a in amap if a is not None]]):
        return "cross"
    return "reduce" if reduces or program.reduction is not None else "map"


def _width(dtypes: Any) -> str:
    """Single precision counts as such where nothing is wider."""
    return "f" if dtypes and all(np.dtype(d).itemsize <= 4 for d in dtypes) else "d"
