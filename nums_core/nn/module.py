"""Module: a part of a model, as an immutable dataclass whose fields are parameters.

    class Linear(Module):
        weight: Array                                   # (out_features, in_features)
        bias: Array | None = None
        scale: float = static(default=1.0)              # a setting: not a leaf of the tree

        def __call__(self, x): ...

A subclass becomes a frozen dataclass by being written. Its fields are children (arrays, modules, containers of them, None)
unless declared `static()`; static values must be hashable. A module is a tree (`nn.tree`): `jit` and `grad` take and return
it whole. Nothing is ever changed in place: `replace` and `with_parameters` give new modules.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Mapping
from typing import Any, Self, dataclass_transform

from nums_core.array.array import Array
from nums_core.errors import ConfigError, ShapeError
from nums_core.nn import tree


def static(*, default: Any = dataclasses.MISSING, default_factory: Any = dataclasses.MISSING) -> Any:
    """A field that is a setting and no child: hashable, part of a compiled function's signature."""
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata={"static": True})
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(static, dataclasses.field))
class Module:
    """Base of all modules; see the head of this file. Compared by identity."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)

    # -- as a tree ----------------------------------------------------------------------------------------------------

    def tree_flatten(self) -> tuple[list[Any], tuple[Any, ...]]:
        return ([getattr(self, name) for name in _children(type(self))],
                tuple(getattr(self, name) for name in _settings(type(self))))

    @classmethod
    def tree_unflatten(cls, rest: tuple[Any, ...], children: list[Any]) -> Self:
        made = object.__new__(cls)
        for name, value in (*zip(_children(cls), children, strict=True), *zip(_settings(cls), rest, strict=True)):
            object.__setattr__(made, name, value)
        return made

    def tree_names(self) -> list[str]:
        return _children(type(self))

    # -- parameters ---------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Array]:
        """Every array of the module by its path, such as "layers.0.attn.q.weight"."""
        return {path: leaf for path, leaf in tree.paths(self) if isinstance(leaf, Array)}

    def with_parameters(self, values: Mapping[str, Any]) -> Self:
        """The module with other arrays at the given paths; the rest stays.

        Raises
        ------
        ConfigError
            A path that the module does not have; the message gives the nearest.
        ShapeError
            An array of another shape than the one it stands for.
        """
        have = self.parameters()
        for path, value in values.items():
            if path not in have:
                raise ConfigError(f"{type(self).__name__} has no parameter {path!r}; {_nearest(path, have)}")
            if tuple(value.shape) != have[path].shape:
                raise ShapeError(f"parameter {path} has shape {have[path].shape} and was given {tuple(value.shape)}; give an "
                                 "array of the module's shape, or build the module with other extents")
        leaves = [values.get(path, leaf) for path, leaf in tree.paths(self)]
        return tree.unflatten(tree.flatten(self)[1], leaves)

    def replace(self, **fields: Any) -> Self:
        """The module with other values of these fields.

        Raises
        ------
        ConfigError
            A field that it does not have; the message gives the nearest.
        """
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        for name in fields:
            if name not in names:
                raise ConfigError(f"{type(self).__name__} has no field {name!r}; {_nearest(name, names)}")
        return dataclasses.replace(self, **fields)  # type: ignore[type-var]

    def __repr__(self) -> str:
        count = sum(math.prod(p.expr.shape) for p in self.parameters().values())
        return f"{type(self).__name__}  # {count:,} parameters\n" + "\n".join(_lines(self, "  "))


_NAMES: dict[type, tuple[list[str], list[str]]] = {}


def _names(cls: type) -> tuple[list[str], list[str]]:
    """Names of children and of settings; remembered, since a call of a jitted function asks for those of a whole model."""
    if cls not in _NAMES:
        fields = dataclasses.fields(cls)
        _NAMES[cls] = ([f.name for f in fields if not f.metadata.get("static")],
                       [f.name for f in fields if f.metadata.get("static")])
    return _NAMES[cls]


def _children(cls: type) -> list[str]:
    return _names(cls)[0]


def _settings(cls: type) -> list[str]:
    return _names(cls)[1]


def _nearest(name: str, names: Any) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, 1, 0.0)
    return f"the nearest is {near[0]!r}" if near else "it has none"


def _lines(value: Any, indent: str) -> list[str]:
    """One line a field, what it holds indented below it; equal neighbours in a list are told once: `0 to 7: Block`."""
    named = list(tree._children(value) or [])
    if isinstance(value, Module):
        named += [(name, getattr(value, name)) for name in _settings(type(value))]
    told = [(name, _field(child, indent)) for name, child in named]
    out: list[str] = []
    for _, group in itertools.groupby(told, key=lambda p: p[1] if isinstance(value, (list, tuple)) else p[0]):
        (first, text), *others = group
        name = f"{first} to {others[-1][0]}" if others else first
        out += f"{indent}{name}: {text}".split("\n")
    return out


def _field(child: Any, indent: str) -> str:
    if isinstance(child, Array):
        return f"{child.dtype} {tuple(child.expr.shape)}"
    if isinstance(child, (Module, list, tuple, dict)) and (inner := _lines(child, indent + "  ")):
        return "\n".join([type(child).__name__, *inner])
    return repr(child)


__all__ = ["Module", "static"]
