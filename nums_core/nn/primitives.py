"""Primitives: fused operations made of one NumPy function on whole blocks, with a derivative of their own.

    @primitive(backward=_attention_backward, n_out=2)
    def attention(q, k, v, *, causal): ...          # gets ndarrays, read-only; returns an ndarray, or a tuple of n_out

    out, lse = attention.bind([q, k, v], "bhsd,bhTd,bhTd->bhsD,bhs1", [(q.shape, "f4"), ((b, h, s, 1), "f4")],
                              causal=True)

Labels are letters as in einsum, one an axis, `1` an axis of extent 1. Where every result has the same lower-case label
at the same place, the function is run block by block along it; labels that the results lack, that are upper-case
anywhere, or that stand opposite another label (`d` and `1` above) are put into one block first. All results have as
many axes, and one grid.

`backward(call, *cotangents)` gets the `Call` and, for each result, its cotangent (an Array in the result's shape and
dtype) or None where nothing depends on it; it returns a cotangent or None for every argument, made of Arrays, as a rule
by another primitive. Shapes must be the arguments'; dtypes and grids are put right by the caller.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.grid import Chunks, require_known
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque, keywords, value_of

Outs = tuple[tuple[tuple[int, ...], str], ...]  # shape and dtype of each result


class Call(NamedTuple):
    """One use of a primitive, as its backward rule sees it.

    Attributes
    ----------
    args : tuple of Array
    outs : tuple of Array
        What the forward pass made (nothing is computed again for reading them).
    labels : str
    static : dict
        The other arguments of `bind`.
    """

    args: tuple[Array, ...]
    outs: tuple[Array, ...]
    labels: str
    static: dict[str, Any]


Backward = Callable[..., Sequence[Array | None]]


class Primitive:
    """A NumPy function on blocks as an operation on Arrays; see the head of this module. Compared by identity.

    Parameters
    ----------
    forward : callable
        A module-level function, so that plans can be sent to other processes.
    backward : callable, optional
        Without one the primitive has no derivative.
    label : str
        Name in plans and reports.
    n_out : int
        Number of results.
    flop : number or callable, optional
        For an element of the first result; or `flop(*shapes of arguments, **static)`, of all.
    """

    __name__: str  # of `forward`, as is all that `functools.update_wrapper` copies

    def __init__(self, forward: Callable[..., Any], backward: Backward | None = None, label: str = "", n_out: int = 1,
                 flop: float | Callable[..., float] | None = None) -> None:
        functools.update_wrapper(self, forward)
        self.forward, self.backward, self.n_out, self.flop = forward, backward, n_out, flop
        self.label = label or forward.__name__.lstrip("_")

    def __call__(self, *blocks: np.ndarray, signature: Any, **static: Any) -> Any:
        """The kernel: what a task runs."""
        made = self.forward(*blocks, **static)
        if self.n_out > 1 and (not isinstance(made, tuple) or len(made) != self.n_out):
            raise ValueError(f"the primitive {self.label} is declared with n_out={self.n_out} and returned "
                             f"{len(made) if isinstance(made, tuple) else type(made).__name__}; return a tuple of "
                             f"{self.n_out} arrays")
        return made

    def on_blocks(self, *, signature: Any, **static: Any) -> Callable[..., Any]:
        """What a task calls in its later runs."""
        return functools.partial(self.forward, **static) if static else self.forward

    def __reduce__(self) -> Any:
        if getattr(sys.modules.get(self.__module__), self.__name__, None) is self:
            return self.__name__  # a global of its module, as functions are
        return Primitive, (self.forward, None, self.label, self.n_out)

    def __repr__(self) -> str:
        return f"<primitive {self.label}>"

    def defbackward(self, backward: Backward) -> Backward:
        """Decorator: set the derivative after the fact, where it needs the primitive itself."""
        self.backward = backward
        return backward

    def bind(self, args: Sequence[Array], labels: str, outs: Sequence[tuple[Sequence[int], Any]], **static: Any) -> Any:
        """The primitive on Arrays.

        Parameters
        ----------
        args : sequence of Array
        labels : str
            "ab,bc->ac": labels of each argument and each result.
        outs : sequence of (shape, dtype)
        **static : hashable
            Keywords of the function.

        Returns
        -------
        Array, or tuple of Array where `n_out` > 1

        Raises
        ------
        ShapeError
            Labels, arguments and results do not fit one another.
        """
        made: Outs = tuple((tuple(map(int, shape)), np.dtype(dtype).str) for shape, dtype in outs)
        return self._bind([a.expr for a in args], labels, made, static)

    def _bind(self, args: Sequence[Expr], labels: str, outs: Outs, static: dict[str, Any]) -> Any:
        layout = _layout(self.label, args, labels, outs)
        if len(outs) != self.n_out:
            raise ShapeError(f"{self.label}: {len(outs)} results where it is declared with n_out={self.n_out}; give a "
                             "(shape, dtype) for each")
        shape, dtype = outs[0]
        elements = max(math.prod(shape), 1)
        if self.n_out > 1:  # a block is a tuple: an element of the first result stands for its share of all of them
            total = sum(math.prod(s) * np.dtype(d).itemsize for s, d in outs)
            dtype = f"V{-(-total // elements)}"
        flop = self.flop if not callable(self.flop) else self.flop(*(a.shape for a in args), **static) / elements
        node = build.blockmap(Opaque(self), layout.args, layout.labels, layout.out_labels, shape, dtype,
        layout.chunks[0],
                              (*keywords(static), ("signature", Opaque((labels, outs)))), label=self.label, flop=flop)
        if self.n_out == 1:
            return Array(node)
        return tuple(map(Array, _results(node, outs, layout.chunks)))


def primitive(forward: Callable[..., Any] | None = None, *, backward: Backward | None = None, label: str = "",
              n_out: int = 1, flop: float | Callable[..., float] | None = None) -> Any:
    """A `Primitive` of `forward`; a decorator where that is not given."""
    if forward is None:
        return functools.partial(primitive, backward=backward, label=label, n_out=n_out, flop=flop)
    return Primitive(forward, backward, label, n_out, flop)


def call_of(node: Expr) -> Call:
    """The call that built a "map" node of a primitive."""
    function, static = value_of(node.params[0]), {name: value_of(v) for name, v in node.params[1]}
    labels, outs = static.pop("signature")
    made: Sequence[Expr] = [node]
    if function.n_out > 1:
        made = _results(node, outs, [_with_shape(node.chunks, shape) for shape, _ in outs])
    return Call(tuple(map(Array, node.args)), tuple(map(Array, made)), labels, static)


def _results(node: Expr, outs: Outs, chunks: Sequence[Chunks]) -> list[Expr]:
    return [build.pick(node, k, shape, dtype, c) for k, ((shape, dtype), c) in enumerate(zip(outs, chunks,
    strict=True))]


def _with_shape(like: Chunks, shape: Sequence[int]) -> Chunks:
    """The grid `like`, of a result whose uncut axes may have other extents."""
    return tuple(c if len(c) > 1 else (n,) for c, n in zip(like, shape, strict=True))


# -- labels -----------------------------------------------------------------------------------------------------------

class _Layout(NamedTuple):
    """Arguments cut as they must be, their labels and the result's for `build.blockmap`, chunks of every result."""

    args: list[Expr]
    labels: list[tuple[Any, ...]]
    out_labels: tuple[Any, ...]
    chunks: list[Chunks]


def _layout(name: str, args: Sequence[Expr], text: str, outs: Outs) -> _Layout:
    of_args, of_outs = _parse(name, args, text, outs)
    _check_extents(name, text, [a.shape for a in args] + [shape for shape, _ in outs], of_args + of_outs)
    columns = [set(column) for column in zip(*of_outs, strict=True)]
    runs = [next(iter(c)) if len(c) == 1 and next(iter(c)) != "1" else None for c in columns]
    known = {x for labels in of_args for x in labels}
    marked = {x.lower() for x in text if x.isupper()}
    along = [x if x in known and x not in marked else None for x in runs]  # labels that may be cut
    cuts: dict[str, tuple[int, ...]] = {}
    for a, labels in sorted(zip(args, of_args, strict=True), key=lambda p: -build._nbytes(p[0])):
        require_known(a.chunks, name)
        for x, c in zip(labels, a.chunks, strict=True):
            cuts.setdefault(x, c if x in along else (sum(c),))
    cut = [build.rechunk(a, tuple((1,) if x == "1" else cuts[x] for x in labels))
           for a, labels in zip(args, of_args, strict=True)]
    chunks = [tuple(cuts[x] if x is not None else (n,) for x, n in zip(along, shape, strict=True)) for shape, _ in outs]
    names = [tuple((k, i) if x == "1" else x for i, x in enumerate(labels)) for k, labels in enumerate(of_args)]
    return _Layout(cut, names, tuple(x if x is not None else ("new", i) for i, x in enumerate(along)), chunks)


def _parse(name: str, args: Sequence[Expr], text: str, outs: Outs) -> tuple[list[str], list[str]]:
    """Labels of arguments and results, in lower case."""
    left, arrow, right = text.replace(" ", "").lower().partition("->")
    of_args, of_outs = left.split(",") if left or args else [], right.split(",")
    if not arrow or [*map(len, of_args)] != [a.ndim for a in args] or [*map(len, of_outs)] != [len(s) for s, _ in outs]:
        raise ShapeError(f"{name}: labels {text!r} for arguments of shapes {[a.shape for a in args]} and results of "
                         f"shapes {[s for s, _ in outs]}; write one group an array and one letter an axis, as in "
                         "'ab,bc->ac'")
    if len({*map(len, of_outs)}) != 1:
        raise ShapeError(f"{name}: results {right!r} have unlike numbers of axes; they share one grid, so keep a "
                         "reduced axis with extent 1 (label 1)")
    twice = [g for g in of_args + of_outs if len(set(g.replace("1", ""))) != len(g.replace("1", ""))]
    if twice:
        raise ShapeError(f"{name}: a label stands twice in {twice[0]!r}; give each axis of an array a label of its own")
    return of_args, of_outs


def _check_extents(name: str, text: str, shapes: Sequence[tuple[int, ...]], labels: Sequence[str]) -> None:
    extent: dict[str, int] = {"1": 1}
    for shape, group in zip(shapes, labels, strict=True):
        for x, n in zip(group, shape, strict=True):
            if extent.setdefault(x, n) != n:
                raise ShapeError(f"{name}: label {x!r} of {text!r} has extents {extent[x]} and {n} in the shapes "
                                 f"{list(shapes)}; axes of one label must be of one extent")


__all__ = ["Call", "Primitive", "call_of", "primitive"]
