"""Trees: nested containers of arrays, taken apart and put together.

    leaves, static = flatten({"w": w, "b": b})          [w, b], and a hashable description of the rest
    unflatten(static, leaves)                           the same tree
    map(lambda p, g: p - 0.1 * g, params, grads)
    paths(model)                                        [("layers.0.attn.q.weight", leaf), ...]

Containers are tuples, lists, named tuples, dicts, None (which holds nothing), and any object with `tree_flatten()` and a
class method `tree_unflatten(rest, children)`, such as a `Module`; such an object may name its children with `tree_names()`.
They are what `jit` takes and returns: the walk itself is `session.flatten`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

from nums_core import session
from nums_core.errors import ShapeError


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves in order, and a hashable description of everything else."""
    return session.flatten(tree)


def unflatten(static: Any, leaves: Any) -> Any:
    """The tree that `flatten` took apart, with these leaves.

    Raises
    ------
    ShapeError
        Not as many leaves as the tree has places.
    """
    leaves = list(leaves)
    wanted = _places(static)
    if len(leaves) != wanted:
        raise ShapeError(f"unflatten() got {len(leaves)} leaves for a tree of {wanted}; give one for each that flatten() found")
    return session.unflatten(leaves, static)


def _places(static: Any) -> int:
    if static is None:
        return 0
    if static == "*":
        return 1
    kind = static[0]
    if kind is dict or hasattr(kind, "tree_unflatten"):
        return _places(static[2])
    return sum(builtins.map(_places, static[1:]))


def map(f: Callable[..., Any], *trees: Any) -> Any:  # noqa: A001
    """`f` of the leaves that stand at the same place in each tree, in a tree like the first.

    Raises
    ------
    ShapeError
        The trees differ in structure; the message names the first place where they do.
    """
    leaves, static = flatten(trees[0])
    others = []
    for other in trees[1:]:
        flat, structure = flatten(other)
        if structure != static:
            raise ShapeError(f"map() got trees of unlike structure: {_difference(trees[0], other)}; build both from one tree, "
                             "as with tree.map(f, tree)")
        others.append(flat)
    return unflatten(static, [f(*group) for group in zip(leaves, *others, strict=True)])


def paths(tree: Any) -> list[tuple[str, Any]]:
    """Every leaf with the names that lead to it, joined by dots, in the order of `flatten`."""
    return [(".".join(names), leaf) for names, leaf in _walk(tree, ())]


def _walk(tree: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = _children(tree)
    if children is None:
        yield names, tree
        return
    for name, child in children:
        yield from _walk(child, (*names, name))


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """What a container holds, by name; None for a leaf."""
    if tree is None:
        return []
    if isinstance(tree, (tuple, list)):
        return list(zip(getattr(tree, "_fields", builtins.map(str, range(len(tree)))), tree, strict=True))
    if isinstance(tree, dict):
        return [(str(k), v) for k, v in tree.items()]
    if hasattr(type(tree), "tree_flatten"):
        children = list(tree.tree_flatten()[0])
        names = tree.tree_names() if hasattr(tree, "tree_names") else builtins.map(str, range(len(children)))
        return list(zip(names, children, strict=True))
    return None


def _difference(a: Any, b: Any) -> str:
    left, right = [path for path, _ in paths(a)], [path for path, _ in paths(b)]
    for x, y in zip(left, right, strict=False):
        if x != y:
            return f"{x!r} stands where the other has {y!r}"
    if len(left) != len(right):
        extra = (left if len(left) > len(right) else right)[min(len(left), len(right))]
        return f"{extra!r} is in one of them only"
    return "their containers or settings differ"


__all__ = ["flatten", "map", "paths", "unflatten"]
