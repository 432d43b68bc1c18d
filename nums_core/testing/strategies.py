"""Hypothesis strategies: shapes, grids, arrays, and random programs with their NumPy twins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core.array.array import Array

Chunks = tuple[tuple[int, ...], ...]


def shapes(min_dims: int = 0, max_dims: int = 3, max_side: int = 9) -> st.SearchStrategy[tuple[int, ...]]:
    """Small shapes, empty and single extents among them."""
    return st.lists(st.integers(0, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def chunks_for(draw: Any, shape: Sequence[int]) -> Chunks:
    """Any way to cut an array of that shape."""
    out = []
    for n in shape:
        cuts = draw(st.lists(st.integers(1, n - 1), unique=True, max_size=4)) if n > 1 else []
        edges = [0, *sorted(cuts), n]
        out.append(tuple(b - a for a, b in itertools.pairwise(edges)))
    return tuple(out)


def values(shape: Sequence[int], dtype: Any, seed: int) -> np.ndarray:
    """Small numbers of any kind, exact in every dtype; NaN, infinity and signed zeros among the floats."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    made = rng.integers(0 if dtype.kind == "u" else -6, 9, shape)
    if dtype.kind == "f":
        special = rng.choice(np.array([np.nan, np.inf, -0.0]), shape)
        return np.where(rng.random(shape) < 0.15, special, made / 2).astype(dtype)
    if dtype.kind == "c":
        return (made + 1j * rng.integers(-3, 4, shape)).astype(dtype)
    return made.astype(dtype)


# Operations with exact results, so that any grid and any order gives the same bits.
UNARY: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("negative", lambda np_, x: np_.negative(x)),
    ("absolute", lambda np_, x: np_.absolute(x)),
    ("square", lambda np_, x: np_.square(x)),
    ("T", lambda np_, x: x.T),
    ("+1", lambda np_, x: x + 1),
    ("*1", lambda np_, x: x * 1),
    ("cast", lambda np_, x: x.astype("f4")),
    ("isnan", lambda np_, x: np_.isnan(x)),
    ("[..., None]", lambda np_, x: x[..., None]),
    ("[1:]", lambda np_, x: x[1:] if x.ndim else x),
    ("[..., ::2]", lambda np_, x: x[..., ::2] if x.ndim else x),
    ("[::-1]", lambda np_, x: x[::-1] if x.ndim else x),
    ("flip", lambda np_, x: np_.flip(x)),
    ("max(0)", lambda np_, x: x.max(axis=0, keepdims=True) if x.ndim and x.shape[0] else x),
    ("any(-1)", lambda np_, x: np_.isfinite(x).any(axis=-1) if x.ndim else x),
    ("ravel", lambda np_, x: x.ravel()),
]
BINARY: list[tuple[str, Callable[[Any, Any, Any], Any]]] = [
    ("add", lambda np_, x, y: x + y),
    ("subtract", lambda np_, x, y: np_.subtract(x, y)),
    ("maximum", lambda np_, x, y: np_.maximum(x, y)),
    ("less", lambda np_, x, y: x < y),
    ("where", lambda np_, x, y: np_.where(x > 0, x, y)),
    ("concatenate", lambda np_, x, y: np_.concatenate([x, y]) if x.ndim and x.shape[1:] == y.shape[1:] else x),
]


@st.composite
def programs(draw: Any, max_steps: int = 7) -> tuple[list[Array], list[np.ndarray], list[str]]:
    """A random program over a few arrays on random grids: all intermediate results, lazily and with NumPy, and the
    names of its steps."""
    shape = draw(shapes(min_dims=1, max_dims=2, max_side=6))
    lazy: list[Any] = []
    eager: list[np.ndarray] = []
    for k in range(draw(st.integers(1, 3))):
        given = values(shape, draw(st.sampled_from(["f8", "f4", "i4", "i8"])), draw(st.integers(0, 99)) + k)
        eager.append(given)
        lazy.append(nc.from_array(given, chunks=draw(chunks_for(shape))))
    names = []
    for _ in range(draw(st.integers(1, max_steps))):
        i = draw(st.integers(0, len(eager) - 1))
        partners = [j for j, e in enumerate(eager) if e.shape == eager[i].shape and e.dtype.kind != "b"]
        if draw(st.booleans()) and eager[i].dtype.kind != "b":
            j = draw(st.sampled_from(partners))
            name, step = draw(st.sampled_from(BINARY))
            arguments = (i, j)
        else:
            name, unary = draw(st.sampled_from(UNARY if eager[i].dtype.kind != "b" else UNARY[3:4] + UNARY[8:13]))
            step, arguments = unary, (i,)  # type: ignore[assignment]
        with np.errstate(all="ignore"):
            eager.append(np.asarray(step(np, *(eager[k] for k in arguments))))
        lazy.append(step(nc, *(lazy[k] for k in arguments)))
        names.append(f"{name}{arguments}")
    return lazy, eager, names
