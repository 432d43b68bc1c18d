"""Expr: hash-consed expressions over whole arrays. Equal expressions are the same object.

A node names an operation, its operands and its parameters, and knows its shape, dtype and grid. Nothing is computed here.
The nodes' kinds are few; each has one constructor in `expr.build` and one rule in `expr.lower`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core._util import SourceLine, user_line
from nums_core.expr.grid import Chunks


class Source:
    """Data that exists before a run: what a leaf reads. Compared by identity.

    Attributes
    ----------
    kind : "array", "held" or "reader"
        A NumPy array of this process; blocks an executor holds; anything else with `__getitem__`.
    data : ndarray, Held or reader
    """

    __slots__ = ("__weakref__", "data", "dtype", "kind", "shape")

    def __init__(self, kind: str, data: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.kind, self.data, self.shape, self.dtype = kind, data, shape, dtype


class Const:
    """A scalar of a fixed dtype, compared by its bits (so that 0.0, -0.0, False and NaN stay apart)."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any, dtype: Any) -> None:
        array = np.asarray(value, dtype)
        self.value = array[()]
        self._key = (array.dtype.str, array.tobytes() if not array.dtype.hasobject else id(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return repr(self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Const, (self.value, self._key[0])


class Region(NamedTuple):
    """A strided box of a source: one (start, step) an axis; the node's shape gives the extents.

    With `shape`, of the source reshaped to it (free where the source is contiguous)."""

    start: tuple[int, ...]
    step: tuple[int, ...]
    shape: tuple[int, ...] | None = None


class Expr:
    """One use of an operation. Make nodes with `make`, never directly.

    Attributes
    ----------
    op : str
        "leaf", "ewise", "axes", "reduce", "contract", "gather", "concat", "create", "map", "fused" or a custom row.
    args : tuple of Expr
    params : tuple, hashable
    shape : tuple of int (NaN where it depends on data)
    dtype : dtype
    chunks : tuple of tuples
    line : SourceLine or None
        The user's line that built it first.
    """

    __slots__ = ("__weakref__", "args", "chunks", "dtype", "line", "op", "params", "shape")

    op: str
    args: tuple[Expr, ...]
    params: tuple[Any, ...]
    shape: tuple[Any, ...]
    dtype: np.dtype
    chunks: Chunks
    line: SourceLine | None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(map(len, self.chunks))

    def __repr__(self) -> str:
        return f"<{self.op} {self.params[0] if self.params else ''} {self.dtype}{list(self.shape)} grid {self.grid}>"


_nodes: weakref.WeakValueDictionary[Any, Expr] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def make(op: str, args: Sequence[Expr], params: tuple[Any, ...], shape: tuple[Any, ...], dtype: Any, chunks: Chunks,
         line: SourceLine | None = None) -> Expr:
    """The node with these parts: an existing one if there is one."""
    args = tuple(args)
    dtype = np.dtype(dtype)
    key = (op, params, dtype, chunks, *map(id, args))
    found = _nodes.get(key)
    if found is not None:
        return found
    node = Expr.__new__(Expr)
    node.op, node.args, node.params = op, args, params
    node.shape, node.dtype, node.chunks = shape, dtype, chunks
    node.line = line if line is not None else user_line()
    with _lock:
        return _nodes.setdefault(key, node)


def with_args(node: Expr, args: Sequence[Expr]) -> Expr:
    """`node` over other operands of the same shapes."""
    if len(args) == len(node.args) and all(a is b for a, b in zip(args, node.args, strict=True)):
        return node
    return make(node.op, args, node.params, node.shape, node.dtype, node.chunks, node.line)


def postorder(roots: Iterable[Expr]) -> Iterator[Expr]:
    """Every node once, operands first. Iterative: expressions may be deeper than Python's stack."""
    seen: set[int] = set()
    for root in roots:
        stack: list[tuple[Expr, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                yield node
            elif id(node) not in seen:
                seen.add(id(node))
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(node.args) if id(a) not in seen)


def consumers(roots: Sequence[Expr]) -> dict[int, int]:
    """How many operands (and roots) each node serves, by id."""
    count: dict[int, int] = {}
    for node in postorder(roots):
        for a in node.args:
            count[id(a)] = count.get(id(a), 0) + 1
    for r in roots:
        count[id(r)] = count.get(id(r), 0) + 1
    return count
