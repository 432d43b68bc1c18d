"""Native attention over cached vectors against NumPy."""

import numpy as np
import pytest

from nums_core.llm.cache.quantized import codec_of
from nums_core.runtime.devices.native.cached import Cached, takes, widths
from nums_core.runtime.devices.native.jit import portable

FORMS = {"f32": 32, "f16": 16, "u8": 8, "u4": 4}


def stored(form, vectors):
    codec = codec_of(FORMS[form], vectors.shape[-1])
    assert codec.form == form
    return [np.ascontiguousarray(part, dtype) for part, (_, dtype) in
            zip(codec.encode(vectors), codec.parts(vectors.shape[-1]), strict=True)], codec


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dim, heads, group", [(64, 3, 3), (128, 1, 8), (192, 2, 1)])
@pytest.mark.parametrize("target", [None, portable()], ids=["host", "portable"])
def test_products_and_sums(form, dim, heads, group, target):
    rng = np.random.default_rng(dim)
    parts, codec = stored(form, rng.normal(size=(heads, 50, dim)).astype(np.float32))
    assert [p.shape[-1] * p.itemsize for p in parts] == widths(form, dim)
    slots, bounds = rng.permutation(50)[:31].astype(np.int64), np.array([0, 1, 20, 20, 31])
    queries = rng.normal(size=(4, heads, group, dim)).astype(np.float32)
    functions, plain = Cached(form, dim, group, target), codec.decode(tuple(parts))[:, slots]
    line, out = np.empty((heads, group, 31), np.float32), np.empty((4, heads, group, dim), np.float32)
    functions.products(parts, slots, bounds, queries, line)
    weights = rng.random(line.shape).astype(np.float32)
    functions.sums(parts, slots, bounds, weights, out)
    for i in range(4):
        own = slice(*bounds[i:i + 2])
        np.testing.assert_allclose(line[..., own], queries[i] @ plain[:, own].swapaxes(1, 2), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(out[i], weights[..., own] @ plain[:, own], rtol=1e-4, atol=1e-4)


def test_where_slots_lie_changes_no_bit():
    rng = np.random.default_rng(0)
    keys, order = rng.normal(size=(2, 40, 64)).astype(np.float32), rng.permutation(40)
    moved, functions, bounds = np.ascontiguousarray(keys[:, order]), Cached("f32", 64, 2), np.array([0, 40])
    queries, lines = rng.normal(size=(1, 2, 2, 64)).astype(np.float32), np.empty((2, 2, 2, 40), np.float32)
    functions.products([keys], np.arange(40), bounds, queries, lines[0])
    functions.products([moved], np.argsort(order), bounds, queries, lines[1])
    assert np.array_equal(lines[0], lines[1])


def test_what_there_are_functions_for():
    assert takes("f32", 96) and takes("u4", 64)
    assert not takes("f32", 80) and not takes("u4", 96) and not takes("u8/16", 64)
