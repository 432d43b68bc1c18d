"""CP decomposition of a tensor by alternating least squares.

    T[i,j,..] ~ sum_r weight_r A_1[i,r] A_2[j,r] ..,    columns of unit length

Source     Kolda, Bader, "Tensor decompositions and applications", SIAM Review 51(3), 2009: section 3.4, figure 3.3
Notation   A_n  factor of mode n, (I_n, R)  |  M = T_(n) (A_N (.) .. (.) A_1)  the MTTKRP, A_n left out  |  V  the product,
           entry by entry, of the Gram matrices A_m' A_m, m != n
Departs    (1) |T - T^|^2 = |T|^2 + |T^|^2 - 2 <T, T^> with <T, T^> = sum M * A_N and |T^|^2 = weight' (V * A_N' A_N) weight, so
           that T^ is never formed; the relative error is then right to about 1e-8. (2) M is summed from blocks of T,
           each with its own rows of the Khatri-Rao product
Checked    against a plain NumPy version, and on tensors of known factors, in tests/array/estimators
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

import nums_core.array as nc
from nums_core.array.array import known_expr
from nums_core.array.estimators import inputs, parameters
from nums_core.array.estimators.base import ConvergenceWarning, Estimator, warn
from nums_core.array.estimators.solving import cholesky_solve, least_norm_solve
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.opaque import keywords

RCOND = 1e-12
LETTERS = "abcdefghijklmnopq"


class CPResult(NamedTuple):
    """`weights`, ndarray (R,), descending; `factors`, Arrays (I_n, R) with unit columns, cut as the tensor is;
    `relative_error`, |T - T^| / |T|; iterations."""

    weights: np.ndarray
    factors: list[Any]
    relative_error: float
    n_iter: int

    def full(self) -> Any:
        """T^, a lazy Array of the tensor's shape: as large as the tensor."""
        n = len(self.factors)
        terms = ",".join(f"{c}z" for c in LETTERS[:n])
        return nc.einsum(f"z,{terms}->{LETTERS[:n]}", self.weights, *self.factors)


def mttkrp(tensor: Any, factors: Sequence[Any], mode: int) -> Any:
    """Matricised tensor times Khatri-Rao product: M[i,r] = sum over the other axes of T * prod of their factors' column r.

    Parameters
    ----------
    tensor : array_like, N axes
    factors : N arrays (I_n, R); that of `mode` is not read
    mode : int

    Returns
    -------
    Array, shape (I_mode, R), cut as the tensor is along `mode`

    Notes
    -----
    One task a block, which makes the products of the factors' rows that it needs by itself: 2 R size(T) flop, and nothing moves
    but rows of factors to blocks, R a row, and sums of R numbers a row of the result from blocks that share it. `einsum` would
    make those products once for all, and move R numbers for every pair of rows.
    """
    x = known_expr(tensor)
    if len(factors) != x.ndim or not -x.ndim <= mode < x.ndim:
        raise ShapeError(f"a tensor of {x.ndim} axes needs {x.ndim} factors and a mode below {x.ndim}; got {len(factors)} "
                         f"factors and mode {mode}")
    mode %= x.ndim
    others = [k for k in range(x.ndim) if k != mode]
    given = [known_expr(factors[k]) for k in others]
    _check_factors(x, others, given)
    rank = given[0].shape[1]
    given = [build.rechunk(a, (x.chunks[k], (rank,))) for k, a in zip(others, given, strict=True)]
    chunks = (x.chunks[mode], *((1,) * len(x.chunks[k]) for k in others), (rank,))
    shape = tuple(map(sum, chunks))
    per_block = build.blockmap(_block_mttkrp, [x, *given], [tuple(range(x.ndim)), *((k, "r") for k in others)],
                               (mode, *others, "r"), shape, np.result_type(x.dtype, *(a.dtype for a in given)), chunks,
                               keywords({"mode": mode}), label="mttkrp",
                               flop=2.0 * rank * math.prod(x.shape) / max(math.prod(shape), 1))
    return nc.Array(build.reduce("sum", per_block, tuple(range(1, x.ndim))))


def _check_factors(x: Any, others: Sequence[int], given: Sequence[Any]) -> None:
    shapes = [a.shape for a in given]
    if any(len(s) != 2 or s[0] != x.shape[k] or s[1] != shapes[0][1] for k, s in zip(others, shapes, strict=True)):
        raise ShapeError(f"factors of axes {list(others)} have shapes {shapes}; a tensor of shape {x.shape} needs one of "
                         "(extent, R) for each, R being the same for all")


def _block_mttkrp(t: np.ndarray, *factors: np.ndarray, mode: int) -> np.ndarray:
    """Of one block: axes behind `mode` go by a product of matrices with the block as it lies, those in front after."""
    left, right = _khatri_rao(factors[:mode]), _khatri_rao(factors[mode:])
    front, extent = math.prod(t.shape[:mode]), t.shape[mode]
    if right is None:
        m = t.reshape(front, extent).T @ left
    else:
        m = (t.reshape(front * extent, -1) @ right).reshape(front, extent, -1)
        m = m[0] if left is None else np.einsum("lir,lr->ir", m, left)
    return m.reshape(extent, *(1,) * (t.ndim - 1), -1)


def _khatri_rao(factors: Sequence[np.ndarray]) -> np.ndarray | None:
    """Products of one row of each factor, entry by entry: (product of extents, R), the last factor's rows fastest."""
    if not factors:
        return None
    out = factors[0]
    for a in factors[1:]:
        out = (out[:, None, :] * a).reshape(-1, a.shape[1])
    return out


def cp_als(tensor: Any, rank: int, *, max_iter: int = 100, tol: float = 1e-8, init: Any = "random",
           random_state: Any = None) -> CPResult:
    """CP decomposition of `tensor` of rank `rank`.

    Parameters
    ----------
    tensor : array_like, two axes or more, any chunks
    max_iter : int, sweeps over all modes
    tol : float
        Stop when the relative error falls by less than this in a sweep.
    init : "random", "svd" or a sequence of arrays (I_n, R)
        Normal numbers; the leading left singular vectors of each unfolding, with normal numbers where R is larger than I_n;
        or factors.
    random_state : None, int or numpy random generator

    Returns
    -------
    CPResult

    Raises
    ------
    ValueError
        Fewer than two axes; factors of other shapes; NaN or infinity, or zeros only.

    Notes
    -----
    A sweep is one plan: for each mode an `mttkrp`, a Gram matrix and a system of R numbers. Blocks of the
    tensor stay where they are.
    """
    model = CP(rank, max_iter=max_iter, tol=tol, init=init, random_state=random_state).fit(tensor)
    return CPResult(model.weights_, model.factors_, model.relative_error_, model.n_iter_)


class CP(Estimator):
    """CP decomposition as an estimator: `fit(tensor)`; see `cp_als` for the parameters.

    Attributes
    ----------
    weights_ : ndarray, shape (R,), descending
    factors_ : list of Arrays (I_n, R), unit columns
    relative_error_ : float
    n_iter_ : int
    """

    _rules: ClassVar[dict[str, parameters.Rule]] = {
        "rank": parameters.whole(1), "max_iter": parameters.whole(1), "tol": parameters.real(0),
        "init": parameters.either(parameters.one_of("random", "svd"), parameters.Rule(
            "a sequence of arrays", lambda v: isinstance(v, Sequence) and not isinstance(v, str))),
        "random_state": parameters.SEED}

    def __init__(self, rank: int = 3, max_iter: int = 100, tol: float = 1e-8, init: Any = "random",
                 random_state: Any = None) -> None:
        self.rank, self.max_iter, self.tol, self.init, self.random_state = rank, max_iter, tol, init, random_state

    def fit(self, X: Any, y: Any = None) -> CP:  # noqa: N803
        """Decompose the tensor `X`; `y` is not used."""
        self._check_params()
        tensor = _tensor(X)
        (tensor,) = inputs.resident(tensor)
        size = float(np.sqrt((tensor * tensor).sum(dtype=float).compute()))
        if not (0 < size < np.inf):
            raise ValueError("the tensor holds NaN, infinity or only zeros; clean it first, as in numpy.nan_to_num(x)")
        factors = self._begin(tensor)
        error, iteration, fell = 1.0, 0, np.inf
        while iteration < self.max_iter and fell > self.tol:
            iteration += 1
            factors, weights, now = _swept(tensor, factors, size)
            fell, error = abs(error - now), now
        if fell > self.tol and self.max_iter > 1:
            warn(ConvergenceWarning, f"the relative error still fell by {fell:.2g} in sweep {iteration}, above "
                                     f"tol={self.tol:g}; raise max_iter or tol")
        order = np.argsort(-weights, kind="stable")
        self.weights_, self.factors_ = weights[order], [a[:, order] for a in factors]
        self.relative_error_, self.n_iter_ = error, iteration
        return self

    def _begin(self, tensor: Any) -> list[Any]:
        if not isinstance(self.init, str):
            given = [np.asarray(a, tensor.dtype) for a in self.init]
            if [a.shape for a in given] != [(n, self.rank) for n in tensor.shape]:
                raise ShapeError(f"init has shapes {[a.shape for a in given]}; the tensor of shape {tensor.shape} needs one "
                                 f"array of (extent, {self.rank}) a mode")
        else:
            rng = np.random.default_rng(parameters.seed_of(self.random_state))
            given = [rng.normal(size=(n, self.rank)).astype(tensor.dtype) for n in tensor.shape]
            if self.init == "svd":
                given = [_leading(tensor, mode, a) for mode, a in enumerate(given)]
        return [nc.from_array(a, chunks=(c, (self.rank,))) for a, c in zip(given, tensor.chunks, strict=True)]


def _tensor(X: Any) -> Any:  # noqa: N803
    x = nc.asarray(inputs.numbers(X, "tensor"))
    if x.ndim < 2:
        raise ShapeError(f"the tensor has shape {x.shape}; a CP decomposition needs at least two axes")
    if 0 in x.shape:
        raise ShapeError(f"the tensor has shape {x.shape} and so no elements; give one of extents of at least 1")
    return x if x.dtype in (np.float32, np.float64) else x.astype(float)


def _leading(tensor: Any, mode: int, spare: np.ndarray) -> np.ndarray:
    """Leading eigenvectors of T_(n) T_(n)'; columns of `spare` where there are not enough."""
    letters, other = LETTERS[:tensor.ndim], LETTERS[:mode] + "y" + LETTERS[mode + 1:tensor.ndim]
    gram = nc.einsum(f"{letters},{other}->{LETTERS[mode]}y", tensor, tensor).compute()
    _, vectors = np.linalg.eigh(gram)
    k = min(spare.shape)
    return np.concatenate([vectors[:, ::-1][:, :k], spare[:, k:]], axis=1).astype(spare.dtype)


# -- a sweep ----------------------------------------------------------------------------------------------------------

def _swept(tensor: Any, factors: list[Any], size: float) -> tuple[list[Any], np.ndarray, float]:
    """Factors after one sweep, kept where they were made, their weights, and the relative error. One plan."""
    *factors, weights, inner, square = nc.persist(*_sweep(tensor, factors))
    weights, inner, square = nc.compute(weights, inner, square)
    return list(factors), np.asarray(weights), float(np.sqrt(max(size**2 + square - 2 * inner, 0.0))) / size


def _sweep(tensor: Any, factors: list[Any]) -> tuple[Any, ...]:
    """Every mode's least squares in turn: the factors, the weights, <T, T^> and |T^|^2, all lazy."""
    factors = list(factors)
    grams = [a.T @ a for a in factors]
    for mode in range(tensor.ndim):
        m, v = mttkrp(tensor, factors, mode), _product(grams[:mode] + grams[mode + 1:])
        a = _solved(m, v)
        weights = nc.sqrt((a * a).sum(axis=0))
        factors[mode] = a = a / nc.where(weights > 0, weights, 1)
        grams[mode] = a.T @ a
    inner = ((m * a).sum(axis=0, dtype=float) * weights).sum()
    square = (weights[:, None] * weights * _product(grams)).sum()
    return *factors, weights, inner, square


def _product(grams: Sequence[Any]) -> Any:
    out = grams[0]
    for g in grams[1:]:
        out = out * g
    return out


def _solved(m: Any, v: Any) -> Any:
    """A of A V = M, row block by row block."""
    e, small = m.expr, build.single_block(v.expr)
    return nc.Array(build.blockmap(_solve_rows, [build.uncut(e, [1]), small], [("rows", "r"), ("r", "s")], ("rows", "s"),
                                   e.shape, e.dtype, (e.chunks[0], (e.shape[1],)), label="cp.solve", flop=2.0 * e.shape[1]))


def _solve_rows(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    rhs, v = m.T.astype(float), v.astype(float)
    found = cholesky_solve(v, rhs, RCOND)
    return np.ascontiguousarray((least_norm_solve(v, rhs) if found is None else found).T)
