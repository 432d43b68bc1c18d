"""Linear algebra: NumPy and SciPy are the oracle; whole matrices and blocked algorithms alike, on any chunks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core.array.linalg import stacks
from nums_core.errors import DTypeError, KernelError, ShapeError
from nums_core.runtime.devices import tsqr

la = nc.linalg
LinAlgError = np.linalg.LinAlgError
DTYPES = ["f8", "c16"]
TALL = {"even": ((60, 5), (10, 5)), "uneven": ((60, 5), (7, 2)), "empty block": ((60, 5), ((1, 0, 3, 56), (2, 3))),
        "two levels": ((300, 4), (10, 4)), "short blocks": ((40, 3), (2, 3)), "one column": ((9, 1), (2, 1))}
OTHER = {"square": ((150, 150), (40, 70)), "tall": ((200, 70), (64, 30)), "wide": ((70, 200), (30, 30)),
         "tiny": ((5, 5), (2, 2)), "1 x 1": ((1, 1), (1, 1))}
GRIDS = TALL | OTHER
SQUARE = {"blocked": ((150, 150), (40, 70)), "tiny": ((5, 5), (2, 2)), "1 x 1": ((1, 1), (1, 1))}


@pytest.fixture
def way(request, monkeypatch):
    """Nothing is small, so that blocked algorithms run on matrices that a test can afford; or everything is."""
    monkeypatch.setattr(stacks, "SMALL_BYTES", 0 if request.param == "blocked" else 2**30)


def ways(grids):
    """Blocked algorithms on every grid; whole matrices, to which a grid is nothing, on one."""
    whole = next(g for g in ("wide", "blocked") if g in grids)
    cases = [("blocked", g) for g in grids] + [("whole", whole)]
    return pytest.mark.parametrize(("way", "grid"), cases, indirect=["way"])


both_ways = pytest.mark.parametrize("way", ["whole", "blocked"], indirect=True)


@pytest.fixture
def blocked(monkeypatch):
    monkeypatch.setattr(stacks, "SMALL_BYTES", 0)


def matrix(shape, dtype="f8", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def definite(n, dtype="f8"):
    a = matrix((n, n), dtype)
    return (a @ a.conj().T + n * np.eye(n)).astype(dtype)


def cut(x, chunks):
    return nc.from_array(x, chunks=chunks)


def agree(made, expected, digits=1e-9):
    expected = np.asarray(expected)
    got = np.asarray(made.compute())
    assert made.shape == got.shape == expected.shape
    assert made.dtype == got.dtype == expected.dtype
    digits = 2e-2 if expected.dtype.char in "fF" else digits
    np.testing.assert_allclose(got, expected, rtol=digits, atol=digits * max(1, np.abs(expected).max(initial=0)))


# -- QR -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@ways(GRIDS)
def test_qr_is_householders_whatever_the_grid(way, grid, dtype):
    """The tree and the panels give LAPACK's signs too, so results are NumPy's to rounding."""
    shape, chunks = GRIDS[grid]
    a = matrix(shape, dtype)
    q, r = la.qr(cut(a, chunks))
    expected = np.linalg.qr(a)
    agree(q, expected.Q)
    agree(r, expected.R)
    agree(la.qr(cut(a, chunks), mode="r"), expected.R)


@pytest.mark.parametrize("dtype", ["f4", "c8"])
@both_ways
def test_single_precision_stays(way, dtype):
    a, d, b = matrix((80, 80), dtype), definite(80, dtype), matrix(80, dtype)
    x = cut(a, (30, 50))
    agree(la.qr(cut(a[:, :7], 20)).Q, np.linalg.qr(a[:, :7]).Q)
    agree(la.svd(cut(a[:, :7], 20)).S, np.linalg.svd(a[:, :7])[1])
    agree(la.lu(x)[2], scipy.linalg.lu(a)[2])
    agree(la.cholesky(cut(d, 30)), np.linalg.cholesky(d))
    agree(la.solve(cut(d, 30), b), np.linalg.solve(d, b))
    agree(la.slogdet(x).logabsdet, np.linalg.slogdet(a).logabsdet)
    agree(la.eigvalsh(cut(d, 30)), np.linalg.eigvalsh(d))
    agree(la.lstsq(x[:, :7], b)[0], np.linalg.lstsq(a[:, :7], b)[0])


@pytest.mark.parametrize("mode", ["reduced", "complete", "raw", "r"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 5), (0, 3), (3, 0), (2, 0, 3, 3)], ids=str)
def test_qr_modes_and_stacks(mode, shape):
    a = matrix(shape)
    made, expected = la.qr(cut(a, 2), mode), np.linalg.qr(a, mode)
    for x, y in zip(made, expected, strict=True) if mode != "r" else [(made, expected)]:
        agree(x, y)


@pytest.mark.parametrize("case", ["well", "ill", "singular", "zero", "huge", "nan"])
def test_tree_of_ill_conditioned_blocks(blocked, case):
    """Where CholeskyQR2 would lose orthogonality, or overflow, a row block is factored by Householder's method."""
    a = matrix((400, 6))
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    a = {"well": a, "ill": (u * np.logspace(0, -14, 6)) @ vt, "singular": a * [1, 1, 0, 1, 1, 1], "zero": 0 * a,
         "huge": a * 1e200, "nan": np.where(np.arange(400)[:, None] == 7, np.nan, a)}[case]
    q, r = (np.asarray(x.compute()) for x in la.qr(cut(a, (50, 6))))
    if case == "nan":
        assert np.isnan(r).any()
        return
    np.testing.assert_allclose(q.T @ q, np.eye(6), atol=1e-13)
    np.testing.assert_allclose(q @ r, a, atol=1e-13 * np.abs(a).max())


@pytest.mark.parametrize(("condition", "fast"), [(4, True), (10, False)])
def test_fast_leaves_only_where_they_are_orthogonal(condition, fast):
    u, _, vt = np.linalg.svd(matrix((500, 8)), full_matrices=False)
    assert (tsqr.factor((u * np.logspace(0, -condition, 8)) @ vt).first is not None) == fast


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 12), min_size=2, max_size=12), st.integers(0, 99))
def test_tsqr_of_any_row_blocks(n, rows, seed):
    m = sum(rows)
    if m < n:
        rows, m = [*rows, n], m + n
    a = matrix((m, n), seed=seed)
    x = cut(a, (tuple(rows), n))
    q, r = (np.asarray(v.compute()) for v in la.tsqr(x))
    np.testing.assert_allclose(q.T @ q, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(q @ r, a, atol=1e-12)
    np.testing.assert_array_equal(r, np.triu(r))
    np.testing.assert_allclose(np.asarray(la.tsqr(x, compute_svd=True)[1].compute()), np.linalg.svd(a, compute_uv=False),
                               atol=1e-12)


def test_bits_do_not_depend_on_threads(blocked):
    import nums_core

    a = matrix((3000, 12))
    results = []
    for threads in (1, 3):
        with nums_core.init(threads=threads):
            x = cut(a, (100, 12))
            results.append(nc.compute(*la.qr(x), *la.svd(x), x.T @ x, la.lstsq(x, a[:, 0])[0]))
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_dasks_names_keep_dasks_contract():
    tall, wide = nc.ones((20, 4), chunks=(5, 2)), nc.ones((4, 20), chunks=(2, 5))
    with pytest.raises(ShapeError, match=r"Use qr\(\) or svd\(\), which take any chunks"):
        la.tsqr(tall)
    with pytest.raises(ShapeError, match=r"Use qr\(\), which takes any chunks"):
        la.sfqr(wide)
    a = matrix((4, 20))
    q, r = la.sfqr(cut(a, (4, 5)))
    agree(q, np.linalg.qr(a).Q)
    agree(r, np.linalg.qr(a).R)
    u, s, vh = la.tsqr(cut(a, -1), compute_svd=True)
    assert (u.shape, s.shape, vh.shape) == ((4, 4), (4,), (20, 20))


# -- SVD ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@ways(GRIDS)
def test_svd(way, grid, dtype):
    shape, chunks = GRIDS[grid]
    a = matrix(shape, dtype)
    u, s, vh = la.svd(cut(a, chunks))
    expected = np.linalg.svd(a, full_matrices=False)
    agree(s, expected.S)
    agree(la.svdvals(cut(a, chunks)), expected.S)
    agree((u * s) @ vh, a)
    agree(nc.conj(u.T) @ u, np.eye(len(expected.S), dtype=dtype))
    assert (np.asarray(vh.compute()).sum(axis=1).real > -1e-6).all(), "signs are fixed"


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 5), (0, 3), (3, 3)], ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_svd_of_stacks_and_full_matrices(shape, full):
    a = matrix(shape)
    for x, y in zip(la.svd(cut(a, 2), full_matrices=full, coerce_signs=False), np.linalg.svd(a, full), strict=True):
        agree(x, y)
    agree(la.svd(cut(a, 2), compute_uv=False), np.linalg.svd(a, compute_uv=False))


def test_svd_of_a_hermitian_matrix():
    a = definite(6)
    agree(la.svd(cut(a, 4), hermitian=True).S, np.linalg.svd(a, hermitian=True).S)


@pytest.mark.parametrize("iterator", ["power", "QR"])
@pytest.mark.parametrize("compute", [False, True])
def test_svd_compressed_finds_a_low_rank(iterator, compute):
    a = matrix((60, 4)) @ matrix((4, 40), seed=1)
    u, s, vh = la.svd_compressed(cut(a, (20, 15)), 4, iterator=iterator, n_power_iter=1, seed=3, compute=compute)
    assert (u.shape, s.shape, vh.shape) == ((60, 4), (4,), (4, 40))
    agree((u * s) @ vh, a)
    again = la.svd_compressed(cut(a, (20, 15)), 4, iterator=iterator, n_power_iter=1, seed=3)
    np.testing.assert_array_equal(s.compute(), again.S.compute())
    with pytest.raises(ValueError, match="not one of 'power' and 'QR'"):
        la.svd_compressed(cut(a, 20), 2, iterator="none")


# -- triangular factors and what they solve -----------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@ways(OTHER)
def test_lu(way, grid, dtype):
    shape, chunks = OTHER[grid]
    a = matrix(shape, dtype)
    for made, expected in zip(la.lu(cut(a, chunks)), scipy.linalg.lu(a), strict=True):
        agree(made, np.real(expected) if made.dtype.kind == "f" else expected)


@pytest.mark.parametrize("dtype", DTYPES)
@ways(SQUARE)
def test_cholesky_reads_one_triangle(way, grid, dtype):
    shape, chunks = SQUARE[grid]
    a = definite(shape[0], dtype)
    agree(la.cholesky(cut(np.tril(a), chunks)), np.linalg.cholesky(a))
    agree(la.cholesky(cut(np.triu(a), chunks), upper=True), np.linalg.cholesky(a, upper=True))
    agree(la.cholesky(cut(a, chunks), lower=False), np.linalg.cholesky(a, upper=True))


@pytest.mark.parametrize("dtype", DTYPES)
@ways(SQUARE)
@pytest.mark.parametrize("columns", [(), (3,), (70,)], ids=str)
def test_solve(way, grid, dtype, columns):
    shape, chunks = SQUARE[grid]
    a, d, b = matrix(shape, dtype), definite(shape[0], dtype), matrix((shape[0], *columns), dtype, 1)
    agree(la.solve(cut(a, chunks), cut(b, 2 if not columns else (40, 25))), np.linalg.solve(a, b))
    agree(la.solve(cut(d, chunks), cut(b, -1), assume_a="pos"), np.linalg.solve(d, b))
    for lower in (True, False):
        t = (a + 2 * shape[0] * np.eye(shape[0])).astype(dtype)
        agree(la.solve_triangular(cut(t, chunks), cut(b, 31), lower=lower), scipy.linalg.solve_triangular(t, b, lower=lower))


@pytest.mark.parametrize("dtype", DTYPES)
@ways(SQUARE)
def test_inverse_and_determinant(way, grid, dtype):
    shape, chunks = SQUARE[grid]
    a = matrix(shape, dtype) / 8
    agree(la.inv(cut(a, chunks)), np.linalg.inv(a))
    agree(la.det(cut(a, chunks)), np.linalg.det(a))
    for made, expected in zip(la.slogdet(cut(a, chunks)), np.linalg.slogdet(a), strict=True):
        agree(made, expected)


def test_operands_promote_and_solutions_broadcast():
    a, b = matrix((3, 4, 4)), matrix((2, 1, 4, 2), "c16")
    agree(la.solve(cut(a, 2), cut(b, 1)), np.linalg.solve(a, b))
    agree(la.solve(cut(a[0], 3), cut(b, 1)), np.linalg.solve(a[0], b))
    agree(la.solve(cut(a, 2), b[0, 0, :, 0]), np.linalg.solve(a, b[0, 0, :, 0]))
    agree(la.inv(cut((4 * np.eye(3)).astype("i8"), 2)), np.linalg.inv(4 * np.eye(3)))
    agree(la.solve(definite(3)[None], b[0, :, :3], assume_a="pos"), np.linalg.solve(definite(3)[None], b[0, :, :3]))
    agree(la.solve_triangular(a, cut(b[0, 0, :, :1], 2)), np.linalg.solve(np.triu(a), b[0, 0, :, :1]))


@pytest.mark.parametrize("name", ["inv", "det", "cholesky", "svdvals", "eigvalsh", "pinv", "cond", "matrix_rank"])
def test_stacks_stay_cut(name):
    a = matrix((3, 4, 4))
    a = a @ a.transpose(0, 2, 1) + np.eye(4)
    made = getattr(la, name)(cut(a, (2, 3, 1)))
    agree(made, getattr(np.linalg, name)(a))
    assert made.chunks[0] == (2, 1)


def test_sym_pos_warns_as_in_dask():
    a, b = definite(4), matrix(4)
    with pytest.warns(FutureWarning, match="sym_pos keyword is deprecated"):
        made = la.solve(cut(a, 2), b, sym_pos=True)
    agree(made, np.linalg.solve(a, b))


# -- least squares, rank, condition ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_lstsq(grid, dtype):
    shape, chunks = GRIDS[grid]
    a = matrix(shape, dtype)
    for b in (matrix(shape[:1], dtype, 1), matrix((shape[0], 3), dtype, 1)):
        made, expected = la.lstsq(cut(a, chunks), cut(b, 4)), np.linalg.lstsq(a, b)
        for x, y in zip(made, expected, strict=True):
            agree(x, np.asarray(y, np.intp if x.dtype.kind == "i" else None), 1e-7)


def test_lstsq_of_deficient_rank():
    a, b = matrix((30, 4)), matrix(30, seed=1)
    a[:, 2] = a[:, 1]
    x, residuals, rank, s = la.lstsq(cut(a, (7, 2)), b)
    expected = np.linalg.lstsq(a, b)
    agree(x, expected[0])
    agree(s, expected[3])
    assert rank.compute() == 3 and residuals.shape == (1,)
    assert la.lstsq(a, b, rcond=0.9)[2].compute() == np.linalg.lstsq(a, b, rcond=0.9)[2]


@ways(["uneven", "square", "wide"])
def test_pinv_rank_cond(way, grid):
    shape, chunks = GRIDS[grid]
    a = matrix(shape, "c16")
    a[:, -1] = a[:, 0]
    agree(la.pinv(cut(a, chunks), rcond=1e-10), np.linalg.pinv(a, rcond=1e-10), 1e-8)
    assert la.matrix_rank(cut(a, chunks)).compute() == np.linalg.matrix_rank(a)
    assert la.matrix_rank(cut(a, chunks), tol=3.0).compute() == np.linalg.matrix_rank(a, tol=3.0)
    assert la.matrix_rank(cut(a, chunks), rtol=0.5).compute() == np.linalg.matrix_rank(a, rtol=0.5)
    b = matrix(shape)
    for p in (None, 2, -2):
        agree(la.cond(cut(b, chunks), p), np.linalg.cond(b, p), 1e-6)


@pytest.mark.parametrize("p", [None, 2, -2, 1, -1, "fro", np.inf, -np.inf])
def test_cond_of_regular_singular_and_missing(p):
    a = np.stack([matrix((3, 3)), np.ones((3, 3)), np.full((3, 3), np.nan)])
    a = a if p not in (None, 2, -2) else a[:2]  # singular values of NaN are an error, as in NumPy
    made = la.cond(cut(a, 2), p).compute()
    np.testing.assert_allclose(made[0], np.linalg.cond(a[0], p))
    assert (made[1] > 1e15 or made[1] < 1e-15) and np.isnan(made[2:]).all()


def test_rank_of_vectors_and_empty():
    assert la.matrix_rank(np.array([0.0, 2.0])).compute() == 1
    assert la.matrix_rank(np.zeros(3)).compute() == 0
    agree(la.matrix_rank(nc.zeros((0, 3))), np.linalg.matrix_rank(np.zeros((0, 3))))
    agree(la.pinv(nc.zeros((2, 0, 3))), np.linalg.pinv(np.zeros((2, 0, 3))))


# -- eigenvalues ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("uplo", ["L", "u"])
def test_eigh(dtype, uplo):
    a = definite(6, dtype)
    made, expected = la.eigh(cut(a, (4, 5)), uplo), np.linalg.eigh(a, uplo)
    agree(made.eigenvalues, expected.eigenvalues)
    agree(cut(a, 2) @ made.eigenvectors, (made.eigenvectors * made.eigenvalues).compute())
    agree(la.eigvalsh(cut(a, 4), uplo), expected.eigenvalues)


def test_eig_is_complex_whatever_the_data():
    a = np.diag([3.0, 1.0, 2.0])
    made = la.eig(cut(a, 2))
    agree(made.eigenvalues, np.linalg.eig(a).eigenvalues.astype(complex))
    agree(made.eigenvectors, np.linalg.eig(a).eigenvectors.astype(complex))
    agree(la.eigvals(cut(matrix((3, 3)), 2)), np.linalg.eigvals(matrix((3, 3))).astype(complex))


# -- norms ------------------------------------------------------------------------------------------------------------------

ORDERS = [None, 0, 1, 2, -1, -2, 3, 0.5, np.inf, -np.inf, "fro", "nuc"]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (0,), (0, 3)], ids=str)
def test_norm(shape, order):
    """The same values, or the same words, for every kind of axis."""
    a = matrix(shape) if shape[-1] else np.zeros(shape)
    with np.errstate(all="ignore"):
        for axis, keepdims in ((None, True), (0, False), (-1, True), ((0, 1), False), ((-1, 0), True), ((0,), False)):
            compare_norms(a, order, axis, keepdims)


@pytest.mark.parametrize("dtype", ["f4", "c8", "i4", "?"])
@pytest.mark.parametrize("order", [None, 1, 3, np.inf, "nuc"], ids=str)
def test_norm_dtypes(dtype, order):
    a = (matrix((3, 4), "c8" if dtype == "c8" else "f8") * 4).astype(dtype)
    compare_norms(a, order, (0, 1) if order != 3 else 1, False)


def compare_norms(a, order, axis, keepdims):
    try:
        expected = np.linalg.norm(a, order, axis, keepdims)
    except ValueError as error:
        words = str(error)[:14]
        with pytest.raises(ValueError, match=words.replace("(", ".")):
            la.norm(cut(a, 2), order, axis, keepdims)
        return
    agree(la.norm(cut(a, 2), order, axis, keepdims), expected, 1e-6)


def test_norms_of_the_standard():
    a = matrix((2, 3, 4))
    for order in (1, 2, np.inf, 3.5):
        agree(la.vector_norm(cut(a, 2), axis=(0, 2), ord=order), np.linalg.vector_norm(a, axis=(0, 2), ord=order))
    for order in ("fro", "nuc", 2, -1):
        agree(la.matrix_norm(cut(a, 2), ord=order, keepdims=True), np.linalg.matrix_norm(a, ord=order, keepdims=True))


# -- products under linalg ----------------------------------------------------------------------------------------------------

def test_products_of_the_standard():
    a, b = matrix((2, 4, 4)), matrix((2, 4, 3))
    agree(la.trace(cut(a, 3), offset=1), np.linalg.trace(a, offset=1))
    agree(la.diagonal(cut(a, 3), offset=-1), np.linalg.diagonal(a, offset=-1))
    agree(la.matrix_transpose(cut(a, 3)), np.linalg.matrix_transpose(a))
    agree(la.outer(cut(a[0, 0], 3), b[0, 0]), np.linalg.outer(a[0, 0], b[0, 0]))
    agree(la.cross(cut(b, 2), cut(b[:, ::-1], 2)), np.linalg.cross(b, b[:, ::-1]))
    agree(la.vecdot(cut(b, 2), b, axis=1), np.linalg.vecdot(b, b, axis=1))
    agree(la.multi_dot([cut(a[0], 2), a[1], b[0], b[1, 0]]), np.linalg.multi_dot([a[0], a[1], b[0], b[1, 0]]))


@pytest.mark.parametrize("n", [-3, -1, 0, 1, 2, 3, 6])
def test_matrix_power(n):
    a = matrix((2, 3, 3)) + 2 * np.eye(3)
    agree(la.matrix_power(cut(a, 2), n), np.linalg.matrix_power(a, n))


def test_tensorsolve_and_tensorinv():
    a, b = matrix((2, 3, 6)), matrix((2, 3), seed=1)
    agree(la.tensorsolve(cut(a, 2), cut(b, 2)), np.linalg.tensorsolve(a, b))
    turned = a.transpose(2, 0, 1)
    agree(la.tensorsolve(cut(turned, 2), b, axes=(0,)), np.linalg.tensorsolve(turned, b, axes=(0,)))
    agree(la.tensorinv(cut(a, 2), 2), np.linalg.tensorinv(a, 2))


# -- errors -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "args", "kind", "words"), [
    ("inv", (np.ones(3),), LinAlgError, "1-dimensional array given. Array must be at least two-dimensional.*x\\[:, None\\]"),
    ("inv", (np.ones((3, 2)),), LinAlgError, "Last 2 dimensions of the array must be square; they are 3 x 2: .* use lstsq"),
    ("inv", (np.ones((3, 3), "f2"),), DTypeError, "array type float16 is unsupported in linalg; cast it"),
    ("inv", (np.ones((3, 3), "m8[s]"),), TypeError, "unsupported in linalg"),
    ("qr", (np.ones((3, 3)), "x"), ValueError, "Unrecognized mode 'x'; the modes are"),
    ("svd", (np.ones(3),), ValueError, "Array must be 2D"),
    ("tsqr", (np.ones((2, 2, 2)),), ShapeError, "Array must be 2D; got shape"),
    ("solve", (np.ones((3, 3)), np.ones(4)), ValueError, r"solve1: .*\(size 4 is different from 3\); the right-hand side"),
    ("solve", (np.ones((3, 3)), np.ones((4, 4))), ValueError, "solve: Input operand 1 has a mismatch in its core dimension 0"),
    ("solve", (np.ones((3, 3)), 3), ValueError, "does not have enough dimensions .*give a vector"),
    ("lstsq", (np.ones((3, 2)), np.ones(4)), LinAlgError, "Incompatible dimensions: 3 rows and 4"),
    ("lstsq", (np.ones((3, 2, 2)), np.ones(4)), LinAlgError, "3-dimensional array given. Array must be two-dimensional"),
    ("eigh", (np.eye(3), "Q"), ValueError, "UPLO argument must be 'L' or 'U'"),
    ("norm", (np.ones((3, 2)), 5), ValueError, "Invalid norm order for matrices.*'fro', 'nuc'"),
    ("norm", (np.ones((3, 2, 2)), 2), ValueError, "Improper number of dimensions to norm.*axis="),
    ("norm", (np.ones((3, 2)), None, (0, 0)), ValueError, "Duplicate axes given"),
    ("matrix_power", (np.eye(3), 1.5), TypeError, "exponent must be an integer"),
    ("matrix_power", (np.ones((3, 2)), 1), LinAlgError, "must be square"),
    ("multi_dot", ([np.ones(3)],), ValueError, "Expecting at least two arrays"),
    ("multi_dot", ([np.ones((3, 2)), np.ones((3, 2))],), ValueError, "not aligned"),
    ("cond", (np.ones((0, 3)),), LinAlgError, "cond is not defined on empty arrays"),
    ("outer", (np.ones((3, 2)), np.ones(3)), ValueError, "must be one-dimensional, but they are x1.ndim=2"),
    ("cross", (np.ones((3, 2)), np.ones((3, 2))), ValueError, "3-dimensional vectors, but they are 2 and 2"),
    ("tensorsolve", (np.ones((3, 2, 5)), np.ones((3, 2))), LinAlgError, "must satisfy the requirement"),
    ("tensorinv", (np.ones((3, 3)), 0), ValueError, "Invalid ind argument"),
    ("matrix_rank", (np.eye(2), 1.0, False), None, None),
], ids=lambda v: v if isinstance(v, str) else "")
def test_refusals_at_the_line_that_asks(name, args, kind, words):
    if kind is None:
        with pytest.raises(ValueError, match="can't be both set; give one"):
            la.matrix_rank(*args, rtol=1.0)
        return
    with pytest.raises(kind, match=words):
        getattr(la, name)(*args)


@pytest.mark.parametrize(("name", "a", "words"), [
    ("inv", np.zeros((150, 150)), "Singular matrix"), ("cholesky", -np.eye(150), "Matrix is not positive definite"),
    ("eigvals", np.full((3, 3), np.nan), "Array must not contain infs or NaNs"),
])
@both_ways
def test_what_depends_on_values_names_the_line(way, name, a, words):
    lazy = getattr(la, name)(cut(a, 40))
    with pytest.raises(LinAlgError, match=rf"{words}[\s\S]*test_linalg.py:\d+") as error:
        lazy.compute()
    assert isinstance(error.value, KernelError)


@pytest.mark.parametrize("lower", [True, False])
@both_ways
def test_singular_triangles(way, lower):
    a = np.eye(150)
    a[140, 140] = 0
    with pytest.raises(LinAlgError, match=r"[Ss]ingular"):
        la.solve_triangular(cut(a, 40), np.ones(150), lower=lower).compute()


def test_unknown_extents_are_computed_first():
    a = matrix((40, 3))
    x = cut(a, (10, 3))
    agree(la.qr(x[x[:, 0] > 0]).R, np.linalg.qr(a[a[:, 0] > 0]).R)
