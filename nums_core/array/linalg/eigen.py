"""Eigenvalues: LAPACK on each whole matrix, which is brought into one block; stacks stay cut."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array
from nums_core.array.linalg.stacks import apply, array, real, square


class EigResult(NamedTuple):
    eigenvalues: Array
    eigenvectors: Array


class EighResult(NamedTuple):
    eigenvalues: Array
    eigenvectors: Array


def _triangle(uplo: str) -> str:
    if uplo.upper() not in ("L", "U"):
        raise ValueError(f"UPLO argument must be 'L' or 'U', not {uplo!r}")
    return uplo.upper()


def eigh(a: Any, UPLO: str = "L") -> EighResult:  # noqa: N803
    """Eigenvalues (.., n), real, ascending, and eigenvectors (.., n, n) of Hermitian matrices, from one triangle.

    Raises
    ------
    LinAlgError
        Not square; while computing, no convergence.
    """
    x, uplo = square(a), _triangle(UPLO)
    n = x.shape[-1]
    return EighResult(*array(*apply("eigh", [x], [((n,), real(x.dtype)), ((n, n), x.dtype)], 9.0 * n ** 3, uplo=uplo)))


def eigvalsh(a: Any, UPLO: str = "L") -> Array:  # noqa: N803
    """Eigenvalues of Hermitian matrices: shape (.., n), real, ascending. Errors as `eigh`."""
    x, uplo = square(a), _triangle(UPLO)
    n = x.shape[-1]
    return Array(apply("eigvalsh", [x], [((n,), real(x.dtype))], 4.0 * n ** 3 / 3, uplo=uplo)[0])


def eig(a: Any) -> EigResult:
    """Eigenvalues (.., n) and eigenvectors (.., n, n), always complex: NumPy's are real where all eigenvalues are, but a
    dtype cannot depend on data.

    Raises
    ------
    LinAlgError
        Not square; while computing, "Array must not contain infs or NaNs" or no convergence.
    """
    x = square(a)
    n, kind = x.shape[-1], np.result_type(x.dtype, np.complex64)
    return EigResult(*array(*apply("eig", [x], [((n,), kind), ((n, n), kind)], 25.0 * n ** 3)))


def eigvals(a: Any) -> Array:
    """Eigenvalues: shape (.., n), always complex (see `eig`). Errors as `eig`."""
    x = square(a)
    n = x.shape[-1]
    return Array(apply("eigvals", [x], [((n,), np.result_type(x.dtype, np.complex64))], 10.0 * n ** 3)[0])


__all__ = ["EigResult", "EighResult", "eig", "eigh", "eigvals", "eigvalsh"]
