"""How contractions run: their grids, what is fused into them, which form each block's product takes."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core.expr import lower, optimise
from nums_core.ops.program import Instr, Program
from nums_core.runtime.devices import contraction
from nums_core.runtime.devices.contraction import compile_contraction
from nums_core.session import structure


def graph(*arrays):
    roots = [a.expr for a in arrays]
    _, sources = structure(roots)
    made = lower.lower(optimise.optimise(roots), {s: i for i, s in enumerate(sources)})
    made.validate()
    return made


def tasks(*arrays):
    """Number of tasks by the first word of their label, leaves left out."""
    made: Counter[str] = Counter()
    for f in graph(*arrays).families:
        made[f.label.partition(" ")[0]] += f.count if f.role != "leaf" else 0
    return {k: n for k, n in made.items() if n}


def source(*shape, chunks=-1):
    """A large array in memory that takes none."""
    return nc.from_array(np.broadcast_to(np.ones(()), shape), chunks=chunks)


# -- grids of products in memory ----------------------------------------------------------------------------------------

def test_sum_is_not_cut_where_the_result_has_enough_blocks():
    a, b = source(4096, 4096, chunks=(1024, 2048)), source(4096, 4096, chunks=(1024, 2048))
    assert tasks(a @ b) == {"contract": 4 * 2}


def test_one_block_is_cut_for_speed_and_put_together():
    a = source(4096, 4096)
    made = tasks(a @ a)
    assert made["contract"] == 32 and made["gather"] == 1 and "contract.tree" not in made


def test_tall_gram_is_cut_along_the_sum():
    x = source(1_000_000, 100)
    made = tasks(x.T @ x)
    assert 8 <= made["contract"] <= 32 and made["contract.tree"] == 1


def test_the_users_grid_stays_where_it_is_good():
    x = source(1_000_000, 100, chunks=(20_000, 100))
    assert tasks(x.T @ x) == {"contract": 50, "contract.tree": 1}


@pytest.mark.parametrize("chunks", [(100, 128, 128), (-1, 256, -1), (50, -1, -1), -1])
def test_a_long_sum_is_cut_where_rows_would_read_the_other_operand_again_and_again(chunks):
    x, b = source(400, 512, 512, chunks=chunks), source(512, 512, 64)
    made = tasks(nc.tensordot(x, b, axes=((1, 2), (0, 1))))
    assert 8 <= made["contract"] <= 32
    assert made["contract.tree"] == 1, "the small result is not cut"


def test_a_fine_grid_of_the_result_is_never_made_coarser():
    """Fewer tasks read fewer bytes, but a cluster needs them."""
    a = source(4096, 4096, chunks=128)
    assert tasks(a @ a) == {"contract": 1024}


def test_tiny_products_are_one_task():
    x = source(100, 20, chunks=(5, 20))
    assert tasks(x.T @ x) == {"contract": 1}


def test_computed_operands_keep_their_grid():
    x = nc.from_array(np.random.default_rng(0).random((4000, 40)), chunks=(500, 40))
    y = x.cumsum(axis=0)
    assert tasks(y.T @ y)["contract"] == 8


def test_mttkrp_cuts_only_the_first_mode():
    x, b, c = source(500, 500, 500, chunks=(125, 125, 125)), source(500, 32), source(500, 32)
    made = tasks(nc.einsum("ijk,jr,kr->ir", x, b, c))
    assert made == {"contract": 4 + 4}, "an intermediate that only the next product reads is cut as that likes"


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 200)] * 3), st.tuples(*[st.integers(1, 200)] * 3), st.booleans())
def test_any_grid_gives_the_same_values(shape, chunks, gram):
    n, k, m = shape
    rng = np.random.default_rng(0)
    a, b = rng.random((n, k)), rng.random((k, m))
    x, y = nc.from_array(a, chunks=chunks[:2]), nc.from_array(b, chunks=chunks[1:])
    np.testing.assert_allclose((x @ x.T if gram else x @ y).compute(), a @ (a.T if gram else b))


@pytest.mark.parametrize("shape", [(64, 6000, 70), (900, 3000, 40), (300, 300, 300)], ids=str)
def test_cut_products_are_right(shape):
    n, k, m = shape
    a, b = np.random.default_rng(0).random((n, k)), np.random.default_rng(1).random((k, m))
    x, y = nc.from_array(a, chunks=-1), nc.from_array(b, chunks=-1)
    np.testing.assert_allclose((x @ y).compute(), a @ b)
    np.testing.assert_allclose((y.T @ y).compute(), b.T @ b)


# -- order and fusion ----------------------------------------------------------------------------------------------------

def test_chains_are_ordered_by_cost():
    a, v = source(2000, 2000), source(2000)
    assert graph((a @ a) @ v).flop.sum() < 2.1 * 2 * 2000**2


def test_reordered_chain_still_reads_sources_as_views():
    a, v = source(2000, 2000, chunks=(500, 2000)), source(2000, chunks=300)
    assert "gather" not in tasks((a @ a) @ v)


def values(n=4000, k=12):
    rng = np.random.default_rng(0)
    return rng.random((n, k)), rng.random(n)


@pytest.mark.parametrize("make", [
    lambda x, w: x.T @ (w[:, None] * x), lambda x, w: (x - 1).T @ (x - 1), lambda x, w: (x * 2).T @ (x + 1),
    lambda x, w: x.T @ (w - x[:, 0]), lambda x, w: (2 * w) @ x,
], ids=["weighted gram", "the same twice", "two groups", "vector", "vector first"])
def test_elementwise_operands_are_made_where_they_are_used(make):
    a, w = values()
    x, y = nc.from_array(a, chunks=(700, 12)), nc.from_array(w, chunks=700)
    assert not any("+" in k or k in ("multiply", "add", "subtract") for k in tasks(make(x, y)))
    np.testing.assert_allclose(make(x, y).compute(), make(a, w))


def test_operands_of_several_products_are_made_once():
    a, _ = values()
    x = nc.from_array(a, chunks=(700, 12)) + 1
    made = tasks(x.T @ x, x @ nc.ones(12))
    assert made["add"] == 6
    z = nc.from_array(a, chunks=(700, 4)) * 2
    assert tasks(z @ z.T)["multiply"] == 18, "each block would be made for several tasks"
    np.testing.assert_allclose((z @ z.T).compute(), 4 * a @ a.T)


def test_a_permuted_group_is_an_operand_of_its_own():
    a, _ = values()
    x = nc.from_array(a, chunks=(700, 12))
    y = (x * x).T
    np.testing.assert_allclose((y @ nc.from_array(a, chunks=(700, 12))).compute(), (a * a).T @ a)
    both = nc.compute(y @ x, y + 1)
    np.testing.assert_allclose(both[0], (a * a).T @ a)
    np.testing.assert_allclose(both[1], (a * a).T + 1)


# -- kernels -------------------------------------------------------------------------------------------------------------

def scattered(rng, labels, extent, dtype):
    """A block with its axes in any memory order, perhaps with gaps."""
    x = rng.random([extent[c] for c in labels]) * 4 - (0 if dtype in ("u1", "?") else 2)
    order = rng.permutation(len(labels))
    x = np.array(np.asarray(x).transpose(order), order="C").transpose(np.argsort(order) if labels else None)
    if labels and x.size and rng.random() < 0.2:
        x = np.repeat(x, 2, axis=0)[::2]
    return np.asarray(x) > 0.5 if dtype == "?" else np.asarray(x).astype(dtype, order="K")


@pytest.mark.parametrize("dtype", ["f8", "f4", "c16", "i8", "u1", "?", "f2"])
def test_every_form_of_a_product(dtype):
    """Random labels, extents, memory orders and result places, against NumPy's einsum."""
    chooser, rng = random.Random(1), np.random.default_rng(2)
    for _ in range(400):
        extent = {c: chooser.choice([1, 2, 3, 5] + [0] * (chooser.random() < 0.05)) for c in "abcdef"}
        a, b = (chooser.sample("abcdef", chooser.randint(0, 4)) for _ in range(2))
        pool = sorted(set(a + b))
        c = chooser.sample(pool, chooser.randint(0, len(pool)))
        left, right = scattered(rng, a, extent, dtype), scattered(rng, b, extent, dtype)
        run = compile_contraction("".join(a), "".join(b), "".join(c), np.dtype(dtype).str)
        expected = np.einsum(f"{''.join(a)},{''.join(b)}->{''.join(c)}", left, right)
        order = rng.permutation(len(c))
        out = np.empty([extent[c[i]] for i in order], dtype).transpose(np.argsort(order) if c else None)
        made, given_out = run(None, [left, right]), run(None, [left, right], out)
        assert given_out is out and made.dtype == out.dtype == np.dtype(dtype)
        digits = {"f2": 5e-2, "f4": 1e-4}.get(dtype, 1e-10)
        for got in (made, out):
            np.testing.assert_allclose(np.asarray(got, complex), np.asarray(expected, complex), rtol=digits, atol=digits)


def form_of(a, b, c, left, right, out=None):
    product = contraction._Product(a, b, c, np.dtype(float))
    product(left, right, out)
    (form,) = product.forms.values()
    return product, form


def test_no_copy_where_the_strides_allow_it():
    x, b = np.ones((6, 500, 400)), np.ones((400, 32))
    product, form = form_of("ijk", "kr", "ijr", x, b)
    assert form.loops == () and product._cost(form, x, b, None, {"i": 6, "j": 500, "k": 400, "r": 32}) < 1
    cut = np.ones((6, 700, 400))[:, :500]
    product, form = form_of("ijk", "kr", "ijr", cut, b)
    assert form.loops == ("i",), "rows that do not merge are looped over, not copied"
    product, form = form_of("ijk", "jr", "ikr", x, np.ones((500, 32)))
    assert form.loops == ("i",)
    product, form = form_of("ab", "bc", "ca", np.ones((300, 200)), np.ones((200, 100)))
    assert form.swap, "a transposed result is the product of the transposes"


def test_a_product_with_itself_is_symmetric_to_the_bit():
    """NumPy calls syrk for one and the same array, at half the work."""
    x = np.random.default_rng(0).random((500, 30))
    made = compile_contraction("ka", "kb", "ab", "<f8")(None, [x, x])
    np.testing.assert_array_equal(made, x.T @ x)
    np.testing.assert_array_equal(made, made.T)


@pytest.mark.parametrize("dtype, cols", [("<f8", 1536), ("<f4", 3072), ("<c16", 512)])
@pytest.mark.parametrize("rows", [128, 2100])
def test_rows_that_collide_in_the_cache_go_through_tiles(dtype, cols, rows):
    """The tiles depend on the extents alone: the bits are the same wherever the result lies."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 260)).astype(dtype), rng.normal(size=(260, cols)).astype(dtype)
    assert contraction._rows_collide(x, y) and not contraction._rows_collide(x, y[:, 1:])
    run = compile_contraction("ik", "kj", "ij", dtype)
    made, wide = run(None, [x, y]), np.full((rows, 2 * cols + 1), np.nan, dtype)
    run(None, [x, y], wide[:, cols:2 * cols])
    np.testing.assert_array_equal(made, wide[:, cols:2 * cols])
    assert np.isnan(wide[:, :cols]).all() and np.isnan(wide[:, 2 * cols:]).all()
    np.testing.assert_allclose(made, x @ y, rtol=1e-4 if dtype == "<f4" else 1e-10, atol=1e-4 if dtype == "<f4" else 1e-10)


def test_a_wide_product_with_itself_stays_symmetric_to_the_bit():
    x = np.random.default_rng(0).random((300, 512))
    made = compile_contraction("ka", "kb", "ab", "<f8")(None, [x, x])
    np.testing.assert_array_equal(made, made.T)


@pytest.mark.parametrize("n", [0, 1, 63, 4000, 50_000])
def test_operands_made_in_tiles(n):
    a, w = values(n, 8)
    weighted = Program(2, ((0, None), (0, 1)), ("<f8", "<f8"), (), (Instr("multiply", (0, 1), "<f8"),))
    run = compile_contraction("ka", "kb", "ab", "<f8", ((None, 1), (weighted, 2)))
    np.testing.assert_allclose(run(None, [a, w, a]), a.T @ (w[:, None] * a))
    out = np.empty((8, 8))
    assert run(None, [a, w, a], out) is out
    np.testing.assert_allclose(out, a.T @ (w[:, None] * a))
    same = compile_contraction("ka", "kb", "ab", "<f8", ((weighted, 2), None))
    np.testing.assert_allclose(same(None, [w, a]), (w[:, None] * a).T @ (w[:, None] * a))


def test_results_are_written_where_they_belong():
    """No identity tasks behind products: the family of the product is the output."""
    x = source(400, 300, chunks=(100, 300))
    families = graph(x @ nc.ones(300)).families
    assert math.prod(families[-1].grid) == 4 and families[-1].label.startswith("contract")
