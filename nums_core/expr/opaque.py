"""Opaque: a value of the user's (a function, its keywords, an array among them) as a parameter of a node.

Parameters of nodes are compared and hashed, which a list cannot be, and which takes 1, 1.0 and True for the same. An Opaque
compares scalars by type and bits, containers by their items, and functions without a closure by their code, so that
the same lambda written in a loop is planned once. Everything else is compared by identity.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from types import FunctionType
from typing import Any

import numpy as np


class Opaque:
    """`value`, hashable. Lists and dicts are copied: what the caller does with them later changes nothing."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = _copied(value)
        self._key = _key(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return getattr(self.value, "__name__", None) or repr(self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Opaque, (self.value,)


def value_of(x: Any) -> Any:
    """What an Opaque holds; anything else as it is."""
    return x.value if isinstance(x, Opaque) else x


def keywords(kwargs: dict[str, Any]) -> tuple[tuple[str, Opaque], ...]:
    """Keyword arguments as a parameter of a node."""
    return tuple((name, Opaque(v)) for name, v in sorted(kwargs.items()))


def _copied(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {k: _copied(v) for k, v in value.items()}
    return value


def _keys(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(map(_key, values))


def _key(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes, type, np.dtype):
        return kind, value
    if kind is float:
        return kind, struct.pack("d", value)
    if kind is complex:
        return kind, struct.pack("dd", value.real, value.imag)
    if kind in (list, tuple):
        return kind, _keys(value)
    if kind is slice:
        return kind, _keys((value.start, value.stop, value.step))
    if kind is dict:
        return kind, _keys(value), _keys(value.values())
    if kind is functools.partial:
        return kind, _key(value.func), _keys(value.args), _key(value.keywords)
    if kind is FunctionType and value.__closure__ is None and not value.__dict__:
        return kind, value.__code__, id(value.__globals__), _key(value.__defaults__), _key(value.__kwdefaults__)
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return "scalar", value.dtype, value.tobytes()
    return "object", id(value)
