"""QR and SVD: the tree of tall-skinny QR, blocked Householder QR for other large matrices, LAPACK for small ones.

Tall-skinny QR reads row blocks of any heights once for R and once more for Q. Its result is Householder QR's, signs
included, whatever the grid. The SVD of a tall matrix is that of its R; a wide one is turned.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nums_core.array.array import Array
from nums_core.array.linalg.stacks import (
    adjoint,
    apply,
    array,
    blocks,
    column_panels,
    inexact,
    is_small,
    matrices,
    part,
    real,
)
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.grid import offsets, uniform
from nums_core.expr.node import Expr

FAN = 8  # R factors that one task factors together
ROW_BLOCK_BYTES = 16 * 2**20


class QRResult(NamedTuple):
    Q: Array
    R: Array


class SVDResult(NamedTuple):
    U: Array
    S: Array
    Vh: Array


# -- the tree ---------------------------------------------------------------------------------------------------------

class _Tree:
    """The tree over the row blocks of a tall matrix: `groups[0]` holds groups of leaves, `groups[-1]` is the root.

    `heights[l]` are the rows of R of the nodes at level l, the leaves being level 0."""

    def __init__(self, x: Expr, leaf: str, group: str, others: tuple[Expr, ...] = (), width: int = 0) -> None:
        n = x.shape[1]
        self.x, self.n = x, n
        self.heights = [tuple(min(m, n) for m in x.chunks[0])]
        size = float(n * (3 * n + width))
        args = (x, *others)
        self.leaves = blocks(leaf, args, ("same",) * len(args), (len(x.chunks[0]),), x.dtype, (_ones(len(x.chunks[0])),),
                             elements=size, flop=3.0 * max(x.chunks[0]) * n * (n + width))
        self.groups: list[Expr] = []
        below = self.leaves
        while not self.groups or below.shape[0] > 1:
            stacks = [sum(self.heights[-1][i:i + FAN]) for i in range(0, len(self.heights[-1]), FAN)]
            self.heights.append(tuple(min(rows, n) for rows in stacks))
            count = len(stacks)
            made = tuple(float((rows + n) * r + r * width) for rows, r in zip(stacks, self.heights[-1], strict=True))
            below = blocks(group, [below], ("group",), (count,), x.dtype, (_ones(count),), fan=FAN,
                           elements=made, flop=4.0 * FAN * n ** 3)
            self.groups.append(below)

    @property
    def root(self) -> Expr:
        return self.groups[-1]

    def q(self, s: Expr, width: int) -> Expr:
        """Q S from the root's S, an (n, `width`) matrix in the only block of `s`."""
        for level in range(len(self.groups) - 1, 0, -1):
            count = len(self.heights[level])
            s = blocks("tsqr_down", [self.groups[level], s], ("parent", "parent"), (count,), self.x.dtype, (_ones(count),),
                       fan=FAN, task_args=_rows_in_group(self.heights[level]), elements=float(self.n * width))
        rows = self.x.shape[0]
        flop = 5.0 * max(self.x.chunks[0]) * self.n * width
        return blocks("tsqr_q", [self.x, self.leaves, self.groups[0], s], ("same", "same", "parent", "parent"),
                      (rows, width), self.x.dtype, (self.x.chunks[0], (width,)), fan=FAN,
                      task_args=_rows_in_group(self.heights[0]), flop=flop)


def _ones(n: int) -> tuple[int, ...]:
    return (1,) * n


def _rows_in_group(heights: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Where each member's rows stand among those of its group."""
    out = []
    for i in range(0, len(heights), FAN):
        group = heights[i:i + FAN]
        out += [(o, o + h) for o, h in zip(offsets(group), group, strict=True)]
    return tuple(out)


def row_blocks(x: Expr) -> Expr:
    """`x` in row blocks that are tall enough for the tree to pay, and of columns that are not cut.

    The user's rows stay unless most are shorter than twice the width. A source in memory that is hardly cut is cut finer,
    which costs nothing."""
    m, n = x.shape
    rows = x.chunks[0]
    tall = max(4 * n, ROW_BLOCK_BYTES // max(n * x.dtype.itemsize, 1), 1)
    if m < 2 * n * len(rows) and len(rows) > 1:
        rows = uniform(m, tall if m >= 2 * tall else max(m // 2, 2 * n, 1))
    elif len(rows) < 8 and m >= 2 * tall and x.op == "leaf" and x.params[0].kind == "array":
        rows = uniform(m, tall)
    return build.rechunk(x, (rows, (n,)))


def is_tall(x: Expr) -> bool:
    """Whether the tree is the way: its R factors are small beside the row blocks."""
    m, n = x.shape
    return m >= 2 * n and n > 0 and n * n * x.dtype.itemsize <= 4 * ROW_BLOCK_BYTES


def _r_of_rows(x: Expr) -> Expr:
    """R of a tall matrix in row blocks, up to signs: of every block, then by twos. Only R factors travel."""
    m, n = x.shape
    count = len(x.chunks[0])
    factors = blocks("tsqr_r", [x], ("same",), (count,), x.dtype, (_ones(count),), elements=float(n * n),
                     flop=3.0 * max(x.chunks[0]) * n * n)
    return build.custom("linalg.r_of_rows", [factors], (), (min(m, n), n), x.dtype, ((min(m, n),), (n,)))


def _tall_r(x: Expr) -> Expr:
    """R as Householder QR gives it, where no Q is wanted."""
    n = x.shape[1]
    top = build.single_block(build.gather(x, (0, 0), (1, 1), ((n,), (n,))))
    return blocks("tsqr_signed_r", [_r_of_rows(x), top], ("one", "one"), (n, n), x.dtype, ((n,), (n,)), flop=2.0 * n ** 3)


def _tall_qr(x: Expr) -> tuple[Expr, Expr]:
    n = x.shape[1]
    tree = _Tree(x, "tsqr_leaf", "tsqr_group")
    top = build.single_block(build.gather(x, (0, 0), (1, 1), ((n,), (n,))))
    root = blocks("tsqr_root_qr", [tree.root, top], ("one", "one"), (1,), x.dtype, ((1,),), elements=2.0 * n * n,
                  flop=4.0 * n ** 3)
    r = part(root, 1, (n, n), x.dtype, ((n,), (n,)))
    return tree.q(part(root, 0, (n, n), x.dtype, ((n,), (n,))), n), r


def _tall_svd(x: Expr, coerce_signs: bool) -> tuple[Expr, Expr, Expr]:
    n = x.shape[1]
    tree = _Tree(x, "tsqr_leaf", "tsqr_group")
    root = blocks("tsqr_root_svd", [tree.root], ("one",), (1,), x.dtype, ((1,),), params=(coerce_signs,),
                  elements=3.0 * n * n, flop=20.0 * n ** 3)
    u = tree.q(part(root, 0, (n, n), x.dtype, ((n,), (n,))), n)
    return u, part(root, 1, (n,), real(x.dtype), ((n,),)), part(root, 2, (n, n), x.dtype, ((n,), (n,)))


def _tall_svdvals(x: Expr) -> Expr:
    n = x.shape[1]
    return blocks("tsqr_root_svdvals", [_r_of_rows(x)], ("one",), (n,), real(x.dtype), ((n,),), flop=10.0 * n ** 3)


# -- QR ---------------------------------------------------------------------------------------------------------------

def qr(a: Any, mode: str = "reduced") -> Any:
    """QR factorization: `a` = Q R with orthonormal columns in Q and an upper triangle R.

    Parameters
    ----------
    a : array_like, shape (.., m, n), any chunks
    mode : "reduced", "r", "complete" or "raw"
        With k = min(m, n): Q (m, k) and R (k, n); R alone; Q (m, m) and R (m, n); LAPACK's reflectors and factors.

    Returns
    -------
    QRResult of Q and R, or R

    Raises
    ------
    LinAlgError
        Fewer than two dimensions.
    ValueError
        An unknown mode.

    Notes
    -----
    Tall matrices (m >= 2 n): the tree of `tsqr`, which reads row blocks twice; about 6 m n^2 flop, and no intermediate
    of the size of `a`. Other matrices over 8 MiB: blocked Householder QR on column panels, each held with all its rows.
    Stacks, small matrices, and the modes "complete" and "raw": LAPACK on each whole matrix.
    """
    if mode not in ("reduced", "r", "complete", "raw"):
        raise ValueError(f"Unrecognized mode {mode!r}; the modes are 'reduced', 'r', 'complete' and 'raw'")
    x = matrices(a)
    if x.ndim > 2 or is_small(x) or mode in ("complete", "raw"):
        return _whole_qr(x, mode)
    if is_tall(x) and mode == "r":
        return Array(_tall_r(row_blocks(x)))
    if is_tall(x):
        q, r = _tall_qr(row_blocks(x))
    else:
        q, r = _blocked_qr(x)
    return Array(r) if mode == "r" else QRResult(*array(q, r))


def _whole_qr(x: Expr, mode: str) -> Any:
    m, n = x.shape[-2:]
    k, flop = min(m, n), 4.0 * m * n * min(m, n)
    if mode == "r":
        return Array(apply("qr", [x], [((k, n), x.dtype)], flop, mode=mode)[0])
    results = {"reduced": [((m, k), x.dtype), ((k, n), x.dtype)], "complete": [((m, m), x.dtype), ((m, n), x.dtype)],
               "raw": [((n, m), x.dtype), ((k,), x.dtype)]}[mode]
    made = array(*apply("qr", [x], results, flop, mode=mode))
    return tuple(made) if mode == "raw" else QRResult(*made)


def _blocked_qr(x: Expr) -> tuple[Expr, Expr]:
    """Householder QR on column panels; columns beyond the m-th are only updated."""
    m, n = x.shape
    k = min(m, n)
    x = column_panels(x, k)
    widths = x.chunks[1]
    begins = offsets(widths)
    n_panels = sum(1 for b in begins if b < k)
    panels = build.custom("linalg.right_looking", [x], ("qr", n_panels), x.shape, x.dtype, x.chunks)
    packed = tuple((k, b < k) for b in begins)
    r = build.custom("linalg.per_panel", [panels], ("linalg.upper_part", packed, tuple(begins)), (k, n), x.dtype,
                     ((k,), widths))
    q = build.custom("linalg.q_of_panels", [panels], (), (m, k), x.dtype, ((m,), widths[:n_panels]))
    return q, r


def tsqr(data: Any, compute_svd: bool = False, _max_vchunk_size: Any = None) -> tuple[Array, ...]:
    """QR (or SVD) of a tall matrix in row blocks, by the tree, as dask's function of this name.

    Parameters
    ----------
    data : array_like, shape (m, n), columns in one block
    compute_svd : bool
        Return (U, s, Vh) instead; a single block wider than tall gives all of Vh, (n, n).

    Raises
    ------
    ValueError
        The columns are cut, or several row blocks hold a matrix that is wider than tall; `qr` and `svd` take any chunks.
    """
    x = _two_dimensional(data, "tsqr")
    m, n = x.shape
    if len(x.chunks[1]) > 1 or (m < n and len(x.chunks[0]) > 1):
        raise ShapeError(f"tsqr takes matrices in one column of blocks, no wider than tall; this one has shape {x.shape} "
                         f"and chunks {x.chunks}. Use qr() or svd(), which take any chunks, or x.rechunk({{1: -1}})")
    if m < n or n == 0:
        return tuple(svd(data, full_matrices=True)) if compute_svd else tuple(_whole_qr(x, "reduced"))
    return tuple(array(*_tall_svd(row_blocks(x), True) if compute_svd else _tall_qr(row_blocks(x))))


def sfqr(data: Any, name: Any = None) -> tuple[Array, Array]:
    """QR of a matrix in one row of blocks, as dask's function of this name: Q from the first columns, R = Q^H data.

    Raises
    ------
    ValueError
        The rows are cut; `qr` takes any chunks.
    """
    x = _two_dimensional(data, "sfqr")
    if len(x.chunks[0]) > 1:
        raise ShapeError(f"sfqr takes matrices in one row of blocks; this one has chunks {x.chunks}. Use qr(), which "
                         "takes any chunks, or x.rechunk({0: -1})")
    return tuple(qr(Array(x)))


def _two_dimensional(data: Any, name: str) -> Expr:
    x = inexact(data)
    if x.ndim != 2:
        raise ShapeError(f"{name} takes a matrix, Array must be 2D; got shape {x.shape}. For stacks use qr() or svd()")
    return x


# -- SVD --------------------------------------------------------------------------------------------------------------

def svd(a: Any, full_matrices: bool = False, compute_uv: bool = True, hermitian: bool = False,
        coerce_signs: bool = True) -> Any:
    """Singular value decomposition: `a` = U diag(S) Vh.

    Parameters
    ----------
    a : array_like, shape (.., m, n), any chunks
    full_matrices : bool
        False, dask's default: U (m, k) and Vh (k, n) with k = min(m, n). NumPy's default, True, would give a tall matrix
        a U of shape (m, m).
    compute_uv : bool
        False: only the singular values.
    hermitian : bool
        `a` is Hermitian: a faster algorithm.
    coerce_signs : bool
        Make the rows of Vh sum to positive numbers, so that signs depend on neither grid nor LAPACK.

    Returns
    -------
    SVDResult of U, S, Vh, or S; S real, descending

    Raises
    ------
    LinAlgError
        Fewer than two dimensions; while computing, no convergence.

    Notes
    -----
    Over 8 MiB, and m >= 2 n or n >= 2 m: the SVD of R, about 6 m n^2 flop, as `qr`. Otherwise LAPACK on each whole matrix.
    """
    x = matrices(a)
    m, n = x.shape[-2:]
    k = min(m, n)
    if not compute_uv:
        return svdvals(Array(x), hermitian=hermitian)
    if x.ndim == 2 and not (is_small(x) or full_matrices or hermitian):
        if is_tall(x):
            return SVDResult(*array(*_tall_svd(row_blocks(x), coerce_signs)))
        turned = adjoint(x)
        if is_tall(turned):
            v, s, uh = _tall_svd(row_blocks(turned), False)
            return _signed(adjoint(uh), s, adjoint(v), coerce_signs)
    results = [((m, m if full_matrices else k), x.dtype), ((k,), real(x.dtype)), ((n if full_matrices else k, n), x.dtype)]
    return SVDResult(*array(*apply("svd", [x], results, 20.0 * m * n * k, full_matrices=full_matrices,
                                   hermitian=hermitian, coerce_signs=coerce_signs)))


def _signed(u: Expr, s: Expr, vt: Expr, coerce_signs: bool) -> SVDResult:
    u_, s_, vt_ = array(u, s, vt)
    if coerce_signs:
        from nums_core.array.elementwise import real as real_part
        from nums_core.array.elementwise import where

        sums = build.reduce("sum", vt, 1, kw=(("dtype", vt.dtype.str),), dtype=vt.dtype)
        sign = where(real_part(Array(sums)) < 0, -1, 1).astype(s.dtype)
        u_, vt_ = u_ * sign, vt_ * sign[:, None]
    return SVDResult(u_, s_, vt_)


def svdvals(x: Any, /, *, hermitian: bool = False) -> Array:
    """Singular values, descending: shape (.., min(m, n)), real. Costs and errors as `svd`."""
    e = matrices(x)
    m, n = e.shape[-2:]
    if e.ndim == 2 and not is_small(e) and not hermitian:
        for turned in (e, adjoint(e)):
            if is_tall(turned):
                return Array(_tall_svdvals(row_blocks(turned)))
    return Array(apply("svdvals", [e], [((min(m, n),), real(e.dtype))], 10.0 * m * n * min(m, n), hermitian=hermitian)[0])


# -- randomized SVD ---------------------------------------------------------------------------------------------------

def compression_level(n: int, q: int, n_oversamples: int = 10, min_subspace_size: int = 20) -> int:
    """Columns of the sketch of a matrix with `n` columns for rank `q`: q + oversamples, at least 20, at most n."""
    return min(max(min_subspace_size, q + n_oversamples), n)


def compression_matrix(data: Any, q: int, iterator: str = "power", n_power_iter: int = 0, n_oversamples: int = 10,
                       seed: Any = None, compute: bool = False) -> Array:
    """An orthonormal Q^T whose rows nearly span the column space of `data`: shape (level, m).

    References
    ----------
    .. [1] Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011, algorithms 4.3 and 4.4.
    """
    from nums_core.array.products import matmul
    from nums_core.array.random import default_rng

    if iterator not in ("power", "QR"):
        raise ValueError(f"iterator {iterator!r} is not one of 'power' and 'QR'")
    x = Array(_two_dimensional(data, "compression_matrix"))
    m, n = x.shape
    level = min(compression_level(min(m, n), q, n_oversamples), m)
    rng = seed if hasattr(seed, "normal") else default_rng(seed)
    omega = rng.normal(size=(n, level), chunks=(x.chunks[1], (level,))).astype(x.dtype)
    adjoint_x = Array(adjoint(x.expr))
    sketch = matmul(x, omega)
    for _ in range(n_power_iter):
        if iterator == "QR":
            sketch = qr(matmul(adjoint_x, qr(sketch).Q)).Q
        else:
            sketch = matmul(adjoint_x, sketch)
        sketch = matmul(x, sketch)
        if compute:
            sketch = sketch.persist()
    return Array(adjoint(qr(sketch).Q.expr))


def svd_compressed(a: Any, k: int, iterator: str = "power", n_power_iter: int = 0, n_oversamples: int = 10,
                   seed: Any = None, compute: bool = False, coerce_signs: bool = True) -> SVDResult:
    """The `k` largest singular values and their vectors, approximately, from a random sketch.

    Parameters
    ----------
    a : array_like, shape (m, n)
    k : int
    iterator : "power" or "QR"
        "QR" orthonormalizes in every iteration: slower, steadier.
    n_power_iter : int
        Passes over `a` that sharpen the sketch; 2 is plenty for slowly falling singular values.
    seed : int or Generator, optional
    compute : bool
        Keep the sketch of each iteration, so that `a` is not needed again by the next.

    Returns
    -------
    SVDResult of U (m, r), S (r,), Vh (r, n), r = min(k, m, n)

    References
    ----------
    .. [1] Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011, section 5.1.
    """
    from nums_core.array.products import matmul

    x = Array(_two_dimensional(a, "svd_compressed"))
    comp = compression_matrix(x, k, iterator, n_power_iter, n_oversamples, seed, compute)
    small = matmul(comp, x)
    if compute:
        comp, small = comp.persist(), small.persist()
    u, s, vt = svd(small, coerce_signs=coerce_signs)
    u = matmul(Array(adjoint(comp.expr)), u)
    r = min(k, *x.shape)
    return SVDResult(*array(_first(u.expr, r, 1), _first(s.expr, r, 0), _first(vt.expr, r, 0)))


def _first(x: Expr, r: int, axis: int) -> Expr:
    cut = build.slice_chunks(x.chunks[axis], 0, 1, r)
    chunks = tuple(cut if i == axis else c for i, c in enumerate(x.chunks))
    return build.gather(x, (0,) * x.ndim, (1,) * x.ndim, chunks)


__all__ = ["QRResult", "SVDResult", "compression_level", "compression_matrix", "qr", "sfqr", "svd", "svd_compressed",
           "svdvals", "tsqr"]
