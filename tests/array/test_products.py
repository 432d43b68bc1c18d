"""Products and einsum: NumPy is the oracle for values, dtypes, shapes and words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core import config
from nums_core.array.contractions import _cheapest
from nums_core.errors import DTypeError, ShapeError

DTYPES = ["f8", "f4", "f2", "c16", "i8", "u1", "?"]
CHUNKS = [5, 2, 3]
MATMUL = [((7, 5), (5, 6)), ((5,), (5, 6)), ((7, 5), (5,)), ((5,), (5,)), ((2, 7, 5), (5, 6)), ((2, 1, 7, 5), (3, 5, 6)),
          ((1, 7, 5), (1, 5, 6)), ((1, 5), (5, 1)), ((0, 5), (5, 3)), ((3, 0), (0, 4)), ((2, 0, 5), (2, 5, 3))]


def values(shape, dtype="f8", seed=0):
    x = np.random.default_rng(seed).random(shape) * 4 - (0 if np.dtype(dtype).kind in "ub" else 2)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * x[..., ::-1] if np.ndim(x) else np.asarray(x * (1 + 1j))
    return np.asarray(x > 0.9 if dtype == "?" else x).astype(dtype)


def cut(x, chunks):
    return nc.from_array(x, chunks=chunks) if x.ndim else nc.asarray(x)


def agree(made, expected):
    expected = np.asarray(expected)
    got = np.asarray(made.compute())
    assert made.shape == got.shape == expected.shape
    assert made.dtype == got.dtype == expected.dtype
    digits = {"f2": 2e-2, "f4": 1e-5, "c8": 1e-5}.get(expected.dtype.str[1:], 1e-10)
    np.testing.assert_allclose(got, expected, rtol=digits, atol=digits)


# -- matmul and its kin -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", MATMUL, ids=str)
def test_matmul(shapes, dtype, chunks):
    a, b = (values(s, dtype, k) for k, s in enumerate(shapes))
    agree(nc.matmul(cut(a, chunks), cut(b, chunks)), np.matmul(a, b))


def test_operators_and_mixed_operands():
    a, b = values((4, 3)), values((3, 5), "f4")
    agree(cut(a, 2) @ b, a @ b)
    agree(nc.asarray(b).T @ cut(a, 2).T, b.T @ a.T)
    agree(nc.matmul([[1, 2], [3, 4]], [1, 2]), np.matmul([[1, 2], [3, 4]], [1, 2]))
    agree(a.T @ cut(a, 2), a.T @ a)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("name", "shapes"), [
    ("matvec", ((3, 4, 5), (5,))), ("matvec", ((4, 5), (3, 5))), ("vecmat", ((3, 4), (4, 5))), ("vecmat", ((4,), (3, 4, 5))),
    ("vecdot", ((3, 4, 5), (4, 5))), ("vecdot", ((5,), (5,))), ("dot", ((3, 4), (2, 4, 5))), ("dot", ((4,), (4,))),
    ("dot", ((), (3, 4))), ("dot", ((3, 4), (4,))), ("inner", ((3, 4), (2, 5, 4))), ("inner", ((), (3,))),
    ("outer", ((3, 2), (4,))), ("outer", ((), (4,))), ("vdot", ((3, 4), (3, 4))), ("vdot", ((3, 4), (12,))),
    ("kron", ((3, 2), (2, 3))), ("kron", ((3,), (2, 3))), ("kron", ((), (2, 3))), ("kron", ((2, 1, 3), (2, 2))),
    ("tensordot", ((3, 4, 5), (4, 5, 2))),
], ids=str)
def test_pairs(name, shapes, chunks):
    for dtype in ("f8", "c16", "i4"):
        a, b = (values(s, dtype, k) for k, s in enumerate(shapes))
        agree(getattr(nc, name)(cut(a, chunks), cut(b, chunks)), getattr(np, name)(a, b))


@pytest.mark.parametrize("axes", [0, 1, (0, 1), (-1, 0), ((1, 0), (2, 1)), ((1, 2), (2, 0)), ((2, 0), (1, 2)), ((), ())],
                         ids=str)
def test_tensordot_axes(axes):
    x = values((4, 4, 4), "i8")
    agree(nc.tensordot(cut(x, 3), cut(x, 2), axes), np.tensordot(x, x, axes))


def test_more_axes_than_the_alphabet_has_letters():
    x = np.broadcast_to(np.int64(1), (2,) * 27)
    assert nc.tensordot(nc.from_array(x, chunks=-1), nc.from_array(x, chunks=-1), 27).compute() == 2**27


@pytest.mark.parametrize("call", [{"axes": [(0, 1), (1, 2), (0, 1)]}, {"axes": [(-2, -1), (-2, -1), (-1, -2)]}], ids=str)
def test_matmul_along_named_axes(call):
    a, b = values((4, 5, 3)), values((3, 5, 4) if call["axes"][0] == (0, 1) else (4, 3, 2))
    agree(nc.matmul(cut(a, 2), cut(b, 2), **call), np.matmul(a, b, **call))


def test_vecdot_along_an_axis():
    a, b = values((4, 3), "c16"), values((4, 3), "c16", 1)
    agree(nc.vecdot(cut(a, 2), cut(b, 2), axis=0), np.vecdot(a, b, axis=0))


def test_out_and_dtype():
    a = values((4, 3), "i4")
    agree(nc.matmul(cut(a, 2), cut(a.T, 2), dtype="f8"), np.matmul(a, a.T, dtype="f8"))
    out = np.empty((4, 4), "i4")
    assert nc.matmul(cut(a, 2), cut(a.T, 2), out=out) is out
    np.testing.assert_array_equal(out, a @ a.T)
    lazy = nc.zeros((4, 4), dtype="i4")
    assert nc.dot(cut(a, 2), cut(a.T, 2), out=lazy) is lazy
    agree(lazy, a @ a.T)
    with pytest.raises(ShapeError, match="give out= the result's shape"):
        nc.dot(cut(a, 2), a.T, out=np.empty(3))


@pytest.mark.parametrize("shapes", [((4, 3), (4, 3)), ((3,), (2, 4, 3)), ((4, 2), (4, 3)), ((5, 3), (1, 3))], ids=str)
def test_cross(shapes):
    a, b = (values(s, "f8", k) for k, s in enumerate(shapes))
    expected = np.cross(np.concatenate([a, np.zeros((*a.shape[:-1], 1))], -1) if a.shape[-1] == 2 else a, b)
    agree(nc.cross(cut(a, 2), cut(b, 2)), expected)
    if a.ndim == b.ndim:
        agree(nc.cross(cut(a.T, 2), cut(b.T, 2), axis=0), expected.T)


@pytest.mark.parametrize("offset", [0, 1, -2, 5])
def test_trace(offset):
    x = values((4, 5, 3))
    agree(nc.trace(cut(x, 2), offset), np.trace(x, offset))
    agree(cut(x, 2).trace(offset, 2, 1), x.trace(offset, 2, 1))
    agree(nc.trace(cut(values((4, 5), "i2"), 2), offset, dtype="f8"), np.trace(values((4, 5), "i2"), offset, dtype="f8"))


def test_nan_and_infinity_are_not_lost():
    a = values((6, 5))
    a[2, 3], a[4, 0] = np.nan, np.inf
    got, expected = (cut(a, 2) @ cut(a.T, 3)).compute(), a @ a.T
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))


@pytest.mark.parametrize(("name", "shapes", "words"), [
    ("matmul", ((), (3,)), "Input operand 0 does not have enough dimensions .*multiply by a scalar with \\*"),
    ("matmul", ((3,), (4,)), r"mismatch in its core dimension 0.*\(size 4 is different from 3\); transpose an operand"),
    ("matmul", ((2, 4, 3), (3, 3, 5)), "operands could not be broadcast together"),
    ("matvec", ((2, 3), (4,)), r"matvec: Input operand 1 has a mismatch"),
    ("dot", ((2, 3), (2, 3)), r"shapes \(2,3\) and \(2,3\) not aligned: 3 \(dim 1\) != 2 \(dim 0\); transpose an operand"),
    ("dot", ((3,), (4,)), r"shapes \(3,\) and \(4,\) not aligned"),
    ("inner", ((2, 3), (2, 4)), r"not aligned: 3 \(dim 1\) != 4 \(dim 1\)"),
    ("vdot", ((3,), (4,)), r"cannot reshape array of size 4 into shape \(3,\); vdot takes arrays of equal size"),
    ("tensordot", ((2, 3), (2, 3)), None),
    ("cross", ((2,), (4,)), "incompatible dimensions for cross product .*name the axis"),
], ids=str)
def test_wrong_shapes(name, shapes, words):
    operands = [nc.ones(s) for s in shapes]
    if words is None:
        words, operands = "shape-mismatch for sum: .*name the axes of each operand", [nc.ones((2, 3)), nc.ones((4, 3))]
    with pytest.raises(ValueError, match=words):
        getattr(nc, name)(*operands)


def test_other_refusals():
    with pytest.raises(IndexError, match=r"tuple index out of range.*axes are 0 to 1"):
        nc.tensordot(nc.ones((2, 3)), nc.ones((2, 3)), ((7,), (0,)))
    with pytest.raises(DTypeError, match=r"are not defined; cast with x.astype"):
        nc.matmul(nc.ones((2, 2), dtype="m8[s]"), nc.ones((2, 2), dtype="m8[s]"))
    with pytest.raises(ValueError, match="diag requires an array of at least two dimensions"):
        nc.trace(nc.ones(3))


def test_blocks_of_outer_products_are_bounded():
    x = nc.ones(1_000_000, chunks=1_000_000)
    made = nc.outer(x, x)
    assert max(a * b for a in made.chunks[0][:1] for b in made.chunks[1][:1]) * 8 <= config.get().block_bytes
    wide = nc.ones((1000, 2), chunks=-1) @ nc.ones((2, 100_000), chunks=-1)
    assert wide.chunksize[0] * wide.chunksize[1] * 8 <= config.get().block_bytes


# -- einsum -------------------------------------------------------------------------------------------------------------

EXTENT = dict(zip("abcdefghijklr", (2, 3, 4, 5, 2, 3, 2, 3, 4, 5, 3, 2, 3), strict=True))
SUBSCRIPTS = ["abc,bad", "abcdef,bcdfg", "ea,fb,abcd,gc,hd->efgh", "ab,b", "aa", "a,a->", "a,a->a", "a,b", "a,b,c", "a", "ba",
              "ba,b->", "defab,fedbc->defac", "a,abc->bc", "ijk,jr,kr->ir", "ij,jk,kl,la->ia", "ij->ji", "ij->", "aab->ab",
              "aba->b", "abab->", "abab->ba", "aaa->a", "ab,ab->", "ab,ab->ab", "ab,cd->abcd", "ab,cd->", "abc,abd->cd",
              "i,ij,j->", "ab,bc,cd,de,ea->", "abc->b", " a b , b c -> a c "]


@pytest.mark.parametrize("subscripts", SUBSCRIPTS)
def test_einsum(subscripts):
    terms = subscripts.replace(" ", "").split("->")[0].split(",")
    for dtype in ("f8", "i4", "?"):
        arrays = [values([EXTENT[c] for c in t], dtype, k) for k, t in enumerate(terms)]
        agree(nc.einsum(subscripts, *(cut(x, 2) for x in arrays)), np.einsum(subscripts, *arrays))


@pytest.mark.parametrize(("subscripts", "shapes"), [
    ("...", [(2, 3)]), ("...a->...", [(2, 3)]), ("a...->...a", [(2, 3, 4)]), ("...ab,...bc->...ac", [(5, 2, 3), (3, 4)]),
    ("...ab,...bc", [(5, 2, 3), (1, 3, 4)]), ("a...,a...->...", [(3, 2), (3, 2)]), ("ij...,jk...->ik...", [(2, 3, 4), (3, 2, 4)]),
    ("...,...", [(2, 3), (3,)]), ("i...i->i...", [(3, 2, 3)]), (",", [(), ()]), ("...,a", [(), (3,)]),
    ("ijk,kl,jl", [(1, 5, 4), (4, 6), (5, 6)]), ("ijk,kl,jl,i->i", [(1, 5, 4), (4, 6), (5, 6), (10,)]),
    ("abjk,kl,jl,ab->ab", [(1, 1, 5, 4), (4, 6), (5, 6), (7, 7)]), ("ajk,kbl,jl,ab->ab", [(1, 5, 4), (4, 1, 6), (5, 6), (7, 7)]),
    ("ca,ca->c", [(0, 3), (0, 3)]), ("ca,ca->a", [(0, 3), (0, 3)]), ("ij,j->i", [(3, 1), (1,)]),
], ids=str)
def test_einsum_ellipsis_broadcasting_and_empty(subscripts, shapes):
    arrays = [values(s, "c16", k) for k, s in enumerate(shapes)]
    agree(nc.einsum(subscripts, *(cut(x, 2) for x in arrays)), np.einsum(subscripts, *arrays))


def test_einsum_by_lists_of_integers():
    a, b = values((3, 4)), values((4, 5))
    agree(nc.einsum(cut(a, 2), [0, 1], b, [1, 2], [0, 2]), a @ b)
    agree(nc.einsum(cut(a, 2), [0, 1], b, [1, 2]), np.einsum(a, [0, 1], b, [1, 2]))
    agree(nc.einsum(cut(a, 2), [Ellipsis, 1], [Ellipsis]), a.sum(1))


def test_einsum_keywords():
    a = values((3, 4), "i4")
    agree(nc.einsum("ij->i", cut(a, 2), dtype="f8"), np.einsum("ij->i", a, dtype="f8"))
    for optimize in (True, False, "optimal", "greedy", ["einsum_path", (0, 1)]):
        agree(nc.einsum("ij,kj->ik", cut(a, 2), a, optimize=optimize, order="F", split_every=2), a @ a.T)
    out = np.empty((3, 3), "i4")
    assert nc.einsum("ij,kj->ik", cut(a, 2), a, out=out) is out
    with pytest.raises(TypeError, match="foo"):
        nc.einsum("ij", a, foo=1)
    with pytest.raises(DTypeError, match=r"did not follow the rule 'safe'.*casting='unsafe'"):
        nc.einsum("ij->i", values((3, 4)), dtype="i4")
    path, text = nc.einsum_path("ij,jk,kl->il", cut(a, 2), a.T, a)
    assert path[0] == "einsum_path" and "Complete contraction" in text


@pytest.mark.parametrize(("subscripts", "shapes"), [
    ("ij,jk", [(2, 3), (4, 3)]), ("ij", [(2, 3, 4)]), ("ij->z", [(2, 3)]), ("ij,jk", [(2, 3)]), ("ij", [(2, 3), (2,)]),
    ("ii", [(2, 3)]), ("ijk", [(2, 3)]), ("i1", [(2, 3)]), ("...i->i", [(2, 3)]), ("i...,i...", [(3, 2), (3, 5)]),
    ("ij->ii", [(3, 2)]), ("i->", [()]),
], ids=str)
def test_einsum_refuses_in_numpys_words(subscripts, shapes):
    with pytest.raises(ValueError) as theirs:
        np.einsum(subscripts, *(np.ones(s) for s in shapes))
    with pytest.raises(ShapeError, match="give each axis one letter") as ours:
        nc.einsum(subscripts, *(nc.ones(s) for s in shapes))
    assert str(ours.value).startswith(str(theirs.value).rstrip(". "))


def test_mttkrp_streams_the_tensor_as_it_lies():
    """The last axis is contracted first: neither the Khatri-Rao product nor a copy of the tensor is made."""
    extent = {"i": 500, "j": 500, "k": 500, "r": 32}
    _, path = _cheapest({0: "ijk", 1: "jr", 2: "kr"}, 3, "ir", extent)
    assert path == [(0, 2), (1, 3)]
    _, short = _cheapest({0: "ijk", 1: "jr", 2: "kr"}, 3, "ir", {"i": 100_000, "j": 8, "k": 8, "r": 8})
    assert short[0] == (1, 2), "for a long tensor with short modes the Khatri-Rao product is small: it comes first"


@st.composite
def contractions(draw):
    letters = draw(st.lists(st.lists(st.sampled_from("abcde"), max_size=3), min_size=1, max_size=4))
    extent = {c: draw(st.integers(0 if k == 4 else 1, 3)) for k, c in enumerate("abcde")}
    used = sorted({c for t in letters for c in t})
    result = draw(st.permutations(used))[:draw(st.integers(0, len(used)))] if used else []
    return ",".join(map("".join, letters)) + "->" + "".join(result), extent, draw(st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(contractions())
def test_any_einsum(case):
    subscripts, extent, chunks = case
    terms = subscripts.split("->")[0].split(",")
    assume(any(terms))
    arrays = [values([extent[c] for c in t], "f8", k) for k, t in enumerate(terms)]
    agree(nc.einsum(subscripts, *(cut(x, chunks) for x in arrays)), np.einsum(subscripts, *arrays))
