"""What users hand in, checked, and cut for passes over row blocks.

Whether numbers are finite is not asked here: passes see it in their sums (`passes`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import nums_core.array as nc
from nums_core import config, session
from nums_core.array.estimators.base import DataConversionWarning, warn
from nums_core.errors import ShapeError
from nums_core.expr.grid import uniform

BLOCKS_AT_ONCE = 4  # a row block may be this many times config.block_bytes before rows are cut finer


# -- X ----------------------------------------------------------------------------------------------------------------

def fit_matrix(owner: Any, X: Any) -> Any:  # noqa: N803
    """`X` of a fit: an Array (n, d), floating, in row blocks. Sets `n_features_in_` and `feature_names_in_`.

    Raises
    ------
    ShapeError (ValueError), ValueError, TypeError
        Not a matrix, empty, sparse, complex, or text.
    """
    x = matrix(X)
    owner.n_features_in_ = x.shape[1]
    names = _feature_names(X)
    if names is not None:
        owner.feature_names_in_ = names
    elif hasattr(owner, "feature_names_in_"):
        del owner.feature_names_in_
    return x


def new_matrix(owner: Any, X: Any) -> Any:  # noqa: N803
    """`X` of a call after the fit, as `fit_matrix`; its features must be those of the fit."""
    owner._check_fitted()
    _check_names(owner, _feature_names(X))
    x = matrix(X)
    if x.shape[1] != owner.n_features_in_:
        raise ShapeError(f"X has {x.shape[1]} features, but {type(owner).__name__} is expecting {owner.n_features_in_} "
                         "features as input; give the columns that fit() saw, in their order")
    return x


def matrix(X: Any) -> Any:  # noqa: N803
    """`X` as an Array (n, d), floating, in row blocks."""
    x = nc.asarray(numbers(X, "X"))
    if x.ndim != 2:
        raise ShapeError(f"X has shape {x.shape}; it needs two axes, (rows, features). Reshape your data: X.reshape(-1, 1) "
                         "for one feature, X.reshape(1, -1) for one row")
    for n, what in zip(x.shape, ("sample(s)", "feature(s)"), strict=True):
        if n == 0:
            raise ShapeError(f"Found array with 0 {what} (shape={x.shape}) while a minimum of 1 is required.")
    return row_blocks(x if x.dtype in (np.float32, np.float64) else x.astype(float))


def numbers(data: Any, name: str) -> Any:
    """`data` as an Array, a source that is read block by block, or a NumPy array of numbers."""
    if data is None:
        raise ValueError(f"{name} is None; give an array")
    if hasattr(data, "tocsr") or hasattr(data, "todense"):
        raise TypeError(f"{name} is a sparse {type(data).__name__}, and blocks are dense: pass {name}.toarray(), or a "
                        "few columns of it at a time")
    if not _has_blocks(data):
        data = np.asarray(data)
    if data.dtype.kind == "O":
        data = data.astype(float)
    if data.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is {data.dtype}. Give real and imaginary parts as columns of "
                         "their own")
    if data.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {data.dtype}, and numbers are needed; encode it first")
    return data


def _has_blocks(data: Any) -> bool:
    """Whether it can be cut as it is: an Array, a NumPy array or a file that is read by slices."""
    return isinstance(getattr(data, "dtype", None), np.dtype) and hasattr(data, "shape") and hasattr(
        data, "__getitem__") and not hasattr(data, "iloc")


def row_blocks(x: Any) -> Any:
    """`x` with every row in one block; rows are cut finer where blocks would be many times the usual size."""
    rows, width = x.chunks[0], math.prod(x.shape[1:])
    limit = config.get().block_bytes
    if len(x.chunks[1]) > 1 and max(rows) * width * x.itemsize > BLOCKS_AT_ONCE * limit:
        rows = uniform(x.shape[0], max(limit // (width * x.itemsize), 1))
    return x.rechunk((rows, -1))


def _feature_names(X: Any) -> np.ndarray | None:  # noqa: N803
    """Names of the columns of a table, if all are text."""
    columns = getattr(X, "columns", None)
    if columns is None:
        return None
    names = np.asarray(columns, dtype=object)
    text = [isinstance(name, str) for name in names]
    if any(text) and not all(text):
        kinds = sorted({type(name).__name__ for name in names})
        raise TypeError(f"Feature names are only supported if all input features have string names, but your input has "
                        f"{kinds} as feature name / column name types; rename them: X.columns = X.columns.astype(str)")
    return names if len(names) and all(text) else None


def _check_names(owner: Any, names: np.ndarray | None) -> None:
    """Refuse a table whose columns are not those of the fit; say so where only one of the two had names."""
    seen = getattr(owner, "feature_names_in_", None)
    if names is None or seen is None:
        if (names is None) != (seen is None):
            with_names, without = ("X has", "was fitted without") if seen is None else (
                "X does not have valid", "was fitted with")
            warn(UserWarning, f"{with_names} feature names, but {type(owner).__name__} {without} feature names")
        return
    if len(names) == len(seen) and (names == seen).all():
        return
    text = "The feature names should match those that were passed during fit.\n"
    for what, odd in (("Feature names unseen at fit time", set(names) - set(seen)),
                      ("Feature names seen at fit time, yet now missing", set(seen) - set(names))):
        if odd:
            shown = sorted(odd)[:5] + (["..."] if len(odd) > 5 else [])
            text += f"{what}:\n" + "".join(f"- {name}\n" for name in shown)
    if set(names) == set(seen):
        text += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(text)


# -- y and weights ----------------------------------------------------------------------------------------------------

def targets(owner: Any, y: Any, x: Any) -> Any:
    """Numbers to be predicted: an Array (n,), or (n, k) where `owner` takes several, of the dtype of `x` and cut like it.

    Raises
    ------
    ShapeError (ValueError), ValueError
        Missing, of another length than `x`, or not numbers.
    """
    y = nc.asarray(numbers(required(owner, y), "y")).astype(x.dtype)
    if y.ndim == 2 and owner._targets.get("multi_output"):
        _check_length(y, x)
        return y.rechunk((x.chunks[0], -1))
    return one_axis(y, x)


def required(owner: Any, y: Any) -> Any:
    if y is None:
        raise ValueError(f"{type(owner).__name__} requires y to be passed, but the target y is None; call fit(X, y)")
    return y


def one_axis(y: Any, x: Any) -> Any:
    """`y` as one value a row, cut like `x`; a column becomes a line, with a warning."""
    if y.ndim == 2 and y.shape[1] == 1:
        warn(DataConversionWarning, "A column-vector y was passed when a 1d array was expected. Please change the shape of "
                                    "y to (n_samples,), for example using ravel().")
        y = y.reshape(-1)
    _check_length(y, x, 1)
    return y.rechunk((x.chunks[0],))


def _check_length(y: Any, x: Any, ndim: int = 2) -> None:
    if y.ndim != ndim or y.shape[0] != x.shape[0]:
        raise ShapeError(f"X has {x.shape[0]} rows and y shape {y.shape}; y should be a 1d array of one value a row: "
                         "y.ravel()?")


def weights(sample_weight: Any, x: Any) -> Any | None:
    """A weight for each row, an Array (n,) of the dtype of `x` cut like it; None where all count alike."""
    if sample_weight is None:
        return None
    w = nc.asarray(numbers(sample_weight, "sample_weight")).astype(x.dtype)
    if w.ndim == 0:
        w = nc.full((x.shape[0],), float(w), dtype=x.dtype)
    if w.shape != x.shape[:1]:
        raise ShapeError(f"sample_weight has shape {w.shape} and X {x.shape[0]} rows; give one weight a row")
    return w.rechunk((x.chunks[0],))


# -- where data are read ----------------------------------------------------------------------------------------------

def resident(*arrays: Any) -> tuple[Any, ...]:
    """The arrays, made ready to be read again and again: computed and kept where that fits half the memory of all
    workers; otherwise left as they are, so that every pass reads the file, or makes the blocks, anew. None passes."""
    cluster = session.current().executor.cluster
    near = ("held", "array") if cluster.kind == "local" else ("held",)
    far = [k for k, a in enumerate(arrays) if a is not None and not (
        a.expr.op == "leaf" and a.expr.params[0].kind in near)]
    out = list(arrays)
    if far and 2 * sum(arrays[k].nbytes for k in far) <= sum(w.memory_bytes for w in cluster.workers):
        for k, kept in zip(far, nc.persist(*(arrays[k] for k in far)), strict=True):
            out[k] = kept
    return tuple(out)


def answer(like: Any, made: Any) -> Any:
    """A result in the kind of what was asked about: lazy for an Array, NumPy's otherwise."""
    return made if isinstance(like, nc.Array) else made.compute()
