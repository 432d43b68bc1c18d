"""Functions of the user on whole blocks: what they are given, and what is checked of what they return."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np


class UserFunction:
    """The kernel `map`. A task's arguments are (number, extent) of its block along each axis of the result.

    The function sees its blocks read-only: they may be views of the user's own arrays, or be read by other tasks.

    Parameters
    ----------
    function : callable
    kwargs : dict
        Given to every call.
    dtype : dtype or None
        Of the result; None or a dtype without size where a block is a tuple.
    places : tuple or None
        (shape, chunks, loops) of each operand and of the result, for `block_info`.
    wants : tuple of str, or True
        Which of "block_info" and "block_id" the function takes; True means `block_info`.
    """

    def __init__(self, function: Callable[..., Any], kwargs: dict[str, Any], dtype: np.dtype | None,
                 places: tuple[Any, ...] | None, wants: tuple[str, ...] | bool) -> None:
        self.function, self.kwargs, self.dtype, self.places = function, kwargs, dtype, places
        self.wants = ("block_info",) if wants is True else tuple(wants or ())

    def __call__(self, args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        given = [_read_only(b) for b in blocks]
        extra = {name: self._info(args) if name == "block_info" else tuple(i for i, _ in args)
                 for name in self.wants}
        try:
            block = self.function(*given, **self.kwargs, **extra)
        except ValueError as error:
            if "read-only" in str(error):
                raise ValueError(f"{error}: blocks are shared and may not be written; start the function with "
                                 "`block = block.copy()`") from error
            raise
        if isinstance(block, (tuple, dict)):
            return block
        return self._delivered(block, args, out)

    def _delivered(self, block: Any, args: Any, out: np.ndarray | None) -> Any:
        block = np.asanyarray(block)
        if self.dtype is not None and block.dtype != self.dtype:
            block = block.astype(self.dtype)
        if args is not None:
            want = tuple(n for _, n in args)
            if not block.ndim and all(n == 1 for n in want):
                block = block.reshape(want)
            if block.shape != want and not _fits(block.shape, want):
                raise ValueError(f"the function returned a block of shape {block.shape} where the result's chunks have "
                                 f"{want}; tell the shape of its results with chunks=, drop_axis= or new_axis=")
        if out is None:
            return block
        out[...] = block
        return out

    @cached_property
    def _begins(self) -> list[list[list[Any]]]:
        """For each operand and the result, for each axis, where every block begins, and the end."""
        assert self.places is not None
        return [[list(itertools.accumulate(c, initial=0)) for c in chunks] for _, chunks, _ in self.places]

    def _info(self, args: Any) -> dict[Any, Any]:
        """dask's `block_info`: for each operand, and under None for the result, where this block lies."""
        assert self.places is not None
        at = [i for i, _ in args]
        out: dict[Any, Any] = {}
        for k, ((shape, chunks, loops), begins) in enumerate(zip(self.places, self._begins, strict=True)):
            where = tuple(0 if loop is None else at[loop] for loop in loops)
            out[k] = {"shape": shape, "num-chunks": tuple(map(len, chunks)), "chunk-location": where,
                      "array-location": [(b[i], b[i + 1]) for b, i in zip(begins, where, strict=True)]}
        made = out.pop(len(self.places) - 1)
        out[None] = made | {"chunk-shape": tuple(n for _, n in args), "dtype": self.dtype}
        return out


class LibraryFunction(UserFunction):
    """The kernel `map` for a function of the library's floors above, at a third of the cost.

    Such a function has a method `on_blocks(**kwargs)` that says what to call with the blocks. The shape of what a task
    makes is checked once, not in every run.
    """

    def __init__(self, function: Any, kwargs: dict[str, Any], dtype: np.dtype | None) -> None:
        super().__init__(function, kwargs, dtype, None, ())
        self.run, self.checked = function.on_blocks(**kwargs), None

    def __call__(self, args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        if args is not self.checked:
            block, self.checked = super().__call__(args, blocks, out), args
            return block
        block = self.run(*[_read_only(b) for b in blocks])
        if type(block) is not np.ndarray or block.dtype != self.dtype or out is not None:
            return block if isinstance(block, tuple) else self._delivered(block, args, out)
        return block


def _read_only(block: Any) -> Any:
    if isinstance(block, np.ndarray) and block.flags.writeable:
        block = block.view()
        block.flags.writeable = False
    return block


def _fits(shape: Sequence[int], want: Sequence[Any]) -> bool:
    """Whether a block has the shape declared; an unknown extent (NaN) fits any."""
    return len(shape) == len(want) and all(n == w or w != w for n, w in zip(shape, want, strict=True))
