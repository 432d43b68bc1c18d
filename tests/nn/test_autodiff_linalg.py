"""Derivatives of contractions and linear algebra."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as na
from nums_core.errors import NoDerivativeError
from nums_core.nn.autodiff import grad
from nums_core.testing.gradients import check_grad

RNG = np.random.default_rng(0)
X = na.asarray(RNG.normal(size=(5, 4))).rechunk((3, 2))
STACK = na.asarray(RNG.normal(size=(2, 3, 3)))
Z = na.asarray(RNG.normal(size=(3, 3)) + 1j * RNG.normal(size=(3, 3)))


def spd(a):
    return a @ na.swapaxes(a, -1, -2) + 3 * na.eye(a.shape[-1])


@pytest.mark.parametrize("f", [
    lambda x: x.T @ x, lambda x: x @ x[0], lambda x: na.einsum("ij,ij->i", x, x), lambda x: na.einsum("ij,kj->ik", x, x * x),
    lambda x: na.einsum("ij,kl->k", x, x * x), lambda x: na.einsum("ij,jk,kl->il", x, x.T, x), lambda x: na.outer(x[0], x[:, 0]),
    lambda x: na.matmul(x[None], x.T), lambda x: na.trace(x @ x.T), lambda x: na.tensordot(x, x, 2), lambda x: na.kron(x[:2], x[2:4]),
    lambda x: na.vdot(x, x * x), lambda x: na.einsum("ii->i", x[:4] @ x[:4].T)])
def test_contractions(f):
    check_grad(lambda x: f(x)**2, X)


@pytest.mark.parametrize("f", [
    na.linalg.inv, na.linalg.det, lambda a: na.linalg.slogdet(a).logabsdet, lambda a: na.linalg.solve(a, a * a),
    lambda a: na.linalg.cholesky(spd(a)), lambda a: na.linalg.cholesky(spd(a), upper=True), na.linalg.qr,
    lambda a: na.linalg.eigh(spd(a)), lambda a: na.linalg.eigvalsh(spd(a)), na.linalg.svd, na.linalg.svdvals])
def test_stacks_of_matrices(f):
    check_grad(lambda a: tuple(f(a)) if isinstance(f(a), tuple) else f(a), STACK)


@pytest.mark.parametrize("f", [
    lambda x: na.linalg.solve(x[:4], x[4]), lambda x: na.linalg.solve(spd(x[:4]), x[4], assume_a="pos"),
    lambda x: na.linalg.solve_triangular(x[:4], x[1:], lower=True), lambda x: na.linalg.solve_triangular(x[:4], x[4]),
    lambda x: na.linalg.qr(x), lambda x: na.linalg.qr(x, mode="r"), lambda x: na.linalg.svd(x, full_matrices=False),
    lambda x: na.linalg.svd(x.T, full_matrices=False), lambda x: na.linalg.svdvals(x), lambda x: na.linalg.matrix_power(x[:4], 3),
    lambda x: na.linalg.eigh(spd(x[:4])).eigenvectors])
def test_single_matrices(f):
    check_grad(lambda x: tuple(f(x)) if isinstance(f(x), tuple) else f(x), X)


@pytest.mark.parametrize("f, order", [
    (na.linalg.inv, 2), (na.linalg.det, 2), (lambda z: na.linalg.slogdet(z).logabsdet, 2), (lambda z: na.linalg.solve(z, z * z), 2),
    (lambda z: na.linalg.eigvalsh(z + na.conj(z.T)), 2), (na.linalg.svdvals, 1), (lambda z: z @ z @ na.conj(z), 2)])
def test_complex_matrices(f, order):
    check_grad(f, Z, order=order)


@pytest.mark.parametrize("f, remedy", [
    (lambda x: na.linalg.svd(x, full_matrices=True).U, "full_matrices=False"), (lambda x: na.linalg.qr(x.T).Q, "as many rows"),
    (lambda x: na.linalg.lu(x)[1], r"solve\(\)"), (lambda x: na.linalg.eig(x[:4]).eigenvalues.real, "eigh")])
def test_what_is_not_unique_has_no_derivative(f, remedy):
    with pytest.raises(NoDerivativeError, match=remedy):
        grad(lambda x: f(x).sum())(X)


def test_blocked_factorizations_say_so():
    big = na.eye(1100)
    with pytest.raises(NoDerivativeError, match="stacks of smaller matrices"):
        grad(lambda x: na.linalg.cholesky(x).sum())(big)


def test_products_keep_the_grid_of_their_operands():
    x, w = na.ones((64, 32), chunks=(16, 8)), na.ones((32, 24), chunks=(8, 12))
    gx, gw = grad(lambda x, w: (x @ w).sum(), (0, 1))(x, w)
    assert (gx.chunks, gw.chunks) == (x.chunks, w.chunks)
