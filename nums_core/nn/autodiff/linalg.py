"""Derivatives of contractions and of linear algebra on whole matrices and stacks of them.

Rules of factorizations follow M. B. Giles, "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation", 2008; of QR, H.-J. Liao et al., "Differentiable programming tensor networks", 2019.
Blocked algorithms for large matrices keep their factors packed in column panels and have no rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nums_core.array as na
from nums_core.array.array import Array
from nums_core.array.linalg import stacks
from nums_core.errors import NoDerivativeError
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.nn.autodiff.rule import NONE, Cotangent, Table

# -- contractions -----------------------------------------------------------------------------------------------------

def contract(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Each operand's cotangent is a contraction of `g` with the other operand."""
    (a, b), (la, lb, lc) = node.args, node.params
    return [_contracted(g, lc, b, lb, a, la), _contracted(g, lc, a, la, b, lb)]


def _contracted(g: Array, lc: str, other: Expr, lo: str, like: Expr, labels: str) -> Array:
    """einsum `lc,lo->labels`; labels that only `like` has were summed over, so that `g` is spread along them."""
    found = "".join(x for x in labels if x in lc or x in lo)
    e = build.contract(g.expr, other, lc, lo, found)
    if found != labels:
        source = [found.index(x) if x in found else None for x in labels]
        e = build.axes(e, source, like.shape, like.chunks)
    return Array(e)


# -- whole matrices ---------------------------------------------------------------------------------------------------

def _t(x: Array) -> Array:
    return na.swapaxes(x, -1, -2)


def _h(x: Array) -> Array:
    return na.conjugate(_t(x))


def _options(node: Expr) -> dict[str, Any]:
    return dict(node.params[1][1])


def _only_real(node: Expr, what: str) -> None:
    if node.args[0].dtype.kind == "c":
        raise NoDerivativeError(f"{what} of complex matrices has no derivative here; take the real and imaginary parts "
                                "apart, or wrap it in stop_gradient()")


def _parts(node: Expr, *cores: tuple[tuple[int, ...], Any]) -> list[Array]:
    """Results of a factorization whose blocks are tuples."""
    return [Array(stacks.part(node, k, (*node.shape, *core), dtype, (*node.chunks, *((n,) for n in core))))
            for k, (core, dtype) in enumerate(cores)]


def _inv(node: Expr, g: Array) -> Sequence[Cotangent]:
    y = _t(Array(node))
    return [-(y @ g @ y)]


def _outer(x: Array, y: Array, vector: bool) -> Array:
    return x[..., :, None] * y[..., None, :] if vector else x @ _t(y)


def _solve(node: Expr, g: Array) -> Sequence[Cotangent]:
    """A x = b: db = A^-T g, dA = -db x^T."""
    a, b = node.args
    options = _options(node)
    made = stacks.apply("solve", [_t(Array(a)).expr, g.expr], [(_core(b, options), b.dtype)], a.shape[-1] ** 3,
                        cores=[2, 1 if options["vector"] else 2], **options)
    of_b = Array(made[0])
    return [-_outer(of_b, Array(node), options["vector"]), of_b]


def _solve_triangular(node: Expr, g: Array) -> Sequence[Cotangent]:
    a, b = node.args
    options = _options(node)
    lower, vector = options["lower"], options["vector"]
    made = stacks.apply("solve_triangular", [_t(Array(a)).expr, g.expr], [(_core(b, options), b.dtype)],
                        a.shape[-1] ** 2, cores=[2, 1 if vector else 2], lower=not lower, vector=vector)
    of_b = Array(made[0])
    return [-(na.tril if lower else na.triu)(_outer(of_b, Array(node), vector)), of_b]


def _core(b: Expr, options: dict[str, Any]) -> tuple[int, ...]:
    return b.shape[-1:] if options["vector"] else b.shape[-2:]


def _det(node: Expr, g: Array) -> Sequence[Cotangent]:
    return [(g * Array(node))[..., None, None] * _t(na.linalg.inv(Array(node.args[0])))]


def _slogdet(node: Expr, g: dict[int, Array]) -> Sequence[Cotangent]:
    """The sign of a real determinant is piecewise constant."""
    if 0 in g:
        _only_real(node, "the sign of slogdet()")
    return [g[1][..., None, None] * _t(na.linalg.inv(Array(node.args[0])))] if 1 in g else [None]


def _cholesky(node: Expr, g: Array) -> Sequence[Cotangent]:
    """L^-T P L^-1 with P the lower triangle of L^T g, its diagonal halved; made symmetric."""
    _only_real(node, "cholesky()")
    lower, upper = Array(node), _options(node)["upper"]
    if upper:
        lower, g = _t(lower), _t(g)
    p = na.tril(_t(lower) @ g)
    p = p - 0.5 * _diagonal(p)
    back = na.linalg.inv(lower)
    made = _t(back) @ p @ back
    return [0.5 * (made + _t(made))]


def _diagonal(x: Array) -> Array:
    """`x` with zeros off the diagonal."""
    return x * na.eye(x.shape[-1], dtype=x.dtype)


def _qr(node: Expr, g: Any) -> Sequence[Cotangent]:
    """(dQ + Q sym(M)) R^-T with M = R dR^T - dQ^T Q, where sym copies the lower triangle."""
    _only_real(node, "qr()")
    x, mode = Array(node.args[0]), _options(node)["mode"]
    m, n = x.shape[-2:]
    if mode not in ("reduced", "r") or m < n:
        raise NoDerivativeError(f"qr(mode={mode!r}) of a matrix of {m} x {n} has no derivative, as Q and R are not "
                                "unique functions of it; use mode='reduced' with at least as many rows as columns")
    q, r = na.linalg.qr(x)
    g = {1: g} if mode == "r" else g
    zero = na.zeros((n, n), x.dtype)
    m_ = (r @ _t(g[1]) if 1 in g else zero) - (_t(g[0]) @ q if 0 in g else zero)
    low = na.tril(m_)
    made = q @ (low + _t(low) - _diagonal(low))
    return [(made + g[0] if 0 in g else made) @ _t(na.linalg.inv(r))]


def _inverse_differences(x: Array, y: Array) -> Array:
    """1 / (y_j - x_i), and 0 on the diagonal."""
    apart = y[..., None, :] - x[..., :, None] + na.eye(x.shape[-1], dtype=x.dtype)
    return (1 - na.eye(x.shape[-1], dtype=x.dtype)) / apart


def _eigh(node: Expr, g: dict[int, Array]) -> Sequence[Cotangent]:
    """V (diag(dw) + F * (V^H dV)) V^H, made Hermitian; eigenvalues must differ where eigenvectors are asked for."""
    x = node.args[0]
    n = x.shape[-1]
    w, v = _parts(node, ((n,), stacks.real(x.dtype)), ((n, n), x.dtype))
    inner = na.zeros((n, n), x.dtype)
    if 0 in g:
        inner = inner + g[0][..., None, :] * na.eye(n, dtype=g[0].dtype)
    if 1 in g:
        inner = inner + _inverse_differences(w, w) * (_h(v) @ na.conjugate(g[1]))
    made = v @ inner @ _h(v)
    return [na.conjugate(0.5 * (made + _h(made)))]


def _eigvalsh(node: Expr, g: Array) -> Sequence[Cotangent]:
    _, v = na.linalg.eigh(Array(node.args[0]), _options(node)["uplo"])
    return [na.conjugate((v * g[..., None, :]) @ _h(v))]


def _svdvals(node: Expr, g: Array) -> Sequence[Cotangent]:
    u, _, vh = na.linalg.svd(Array(node.args[0]), full_matrices=False)
    return [na.conjugate((u * g[..., None, :]) @ vh)]


def _svd(node: Expr, g: dict[int, Array]) -> Sequence[Cotangent]:
    """U (diag(ds) + (J + J^T) S + S (K + K^T)) V^T and what leaves the spaces of U and V; singular values must differ
    where vectors are asked for. J = F * (U^T dU), K = F * (V^T dV), F_ij = 1 / (s_j^2 - s_i^2)."""
    x, options = Array(node.args[0]), _options(node)
    m, n = x.shape[-2:]
    k = min(m, n)
    if options["full_matrices"] and m != n:
        raise NoDerivativeError(f"svd(full_matrices=True) of a matrix of {m} x {n} has no derivative, as the added "
                                "vectors are not unique; use full_matrices=False")
    u, s, vh = _parts(node, ((m, k), x.dtype), ((k,), stacks.real(x.dtype)), ((k, n), x.dtype))
    made = na.conjugate((u * g[1][..., None, :]) @ vh) if 1 in g else na.zeros((m, n), x.dtype)
    if 0 in g or 2 in g:
        _only_real(node, "singular vectors")
        f = _inverse_differences(s * s, s * s)
        if 0 in g:
            j = f * (_t(u) @ g[0])
            made = made + u @ ((j + _t(j)) * s[..., None, :]) @ vh
            if m > k:
                made = made + ((g[0] - u @ (_t(u) @ g[0])) / s[..., None, :]) @ vh
        if 2 in g:
            v, gv = _t(vh), _t(g[2])
            j = f * (vh @ gv)
            made = made + (u * s[..., None, :]) @ (j + _t(j)) @ vh
            if n > k:
                made = made + (u / s[..., None, :]) @ _t(gv - v @ (vh @ gv))
    return [made]


BLOCKED = NONE("the factors of a matrix over 8 MiB stay packed in panels; differentiate stacks of smaller matrices, or "
               "write the derivative with solve() in a primitive's backward rule")

LINALG: dict[str, Any] = {
    "inv": _inv,
    "solve": _solve,
    "solve_triangular": _solve_triangular,
    "det": _det,
    "slogdet": _slogdet,
    "cholesky": _cholesky,
    "qr": _qr,
    "eigh": _eigh,
    "eigvalsh": _eigvalsh,
    "svd": _svd,
    "svdvals": _svdvals,
    "lu": NONE("pivots jump as values change; use solve(), slogdet() or cholesky()"),
    "eig": NONE("eigenvectors of matrices that are not Hermitian; use eigh()"),
    "eigvals": NONE("eigenvalues of matrices that are not Hermitian; use eigvalsh()"),
}

PANELS: Table = dict.fromkeys(("linalg.right_looking", "linalg.q_of_panels", "linalg.substitute", "linalg.per_panel",
                               "linalg.lu_lower", "linalg.r_of_rows"), BLOCKED)

__all__ = ["BLOCKED", "LINALG", "PANELS", "contract"]
