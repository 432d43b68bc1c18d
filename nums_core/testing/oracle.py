"""NumPy as the oracle: one comparison of an Array with what NumPy gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array


def check(made: Any, want: Any, *, rtol: float | None = None) -> None:
    """Asserts that `made` has the shape, dtype and values of `want`; bit for bit unless `rtol` is given.

    An Array must also say before computing what it turns out to be.
    """
    want = np.asarray(want)
    if isinstance(made, Array):
        values = np.asarray(made.compute())
        if not values.ndim and values.dtype.kind in "US":  # NumPy's text scalars are as wide as their text
            values = values.astype(made.dtype)
        assert made.dtype == values.dtype, f"said {made.dtype}, computed {values.dtype}"
        assert made.shape == values.shape, f"said {made.shape}, computed {values.shape}"
    else:
        values = np.asarray(made)
    assert values.dtype == want.dtype, f"dtype {values.dtype}, NumPy has {want.dtype}"
    assert values.shape == want.shape, f"shape {values.shape}, NumPy has {want.shape}"
    if rtol is not None:
        np.testing.assert_allclose(values, want, rtol=rtol, atol=rtol, equal_nan=True)
    else:
        np.testing.assert_array_equal(values, want, strict=True)
        if want.dtype.kind == "f":
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(values[numbers]), np.signbit(want[numbers]))
