"""Codecs of cached vectors."""

import numpy as np
import pytest

from nums_core.errors import ConfigError
from nums_core.llm.cache.quantized import GROUP, codec_of, mixing


def stored(codec, x):
    """What is read back, through arrays of the dtypes that the cache has."""
    return codec.decode(tuple(part.astype(dtype) for part, (_, dtype) in zip(codec.encode(x), codec.parts(x.shape[-1]), strict=True)))


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("head_dim", [8, 48, 64, 128])
def test_widths_and_the_error_of_a_group(bits, head_dim):
    codec, x = codec_of(bits, head_dim), np.random.default_rng(bits).normal(size=(3, 5, head_dim)).astype(np.float32) * 3
    parts = codec.encode(x)
    assert [(p.shape[-1]) for p in parts] == [width for width, _ in codec.parts(head_dim)]
    error = np.abs(stored(codec, x) - x)
    if bits == 32:
        assert not error.any()
    elif bits == 16:
        assert (error <= np.abs(x) * 2.0**-11 + 1e-7).all()
    else:
        group = getattr(codec, "group")
        spread = np.ptp(x.reshape(3, 5, -1, group), axis=-1, keepdims=True)
        largest = np.abs(x).max() * 2.0**-10  # of the least value and the scale, which are float16
        assert (error.reshape(3, 5, -1, group) <= spread / (2**bits - 1) * 0.51 + largest).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_groups_do_not_touch_one_another_nor_other_slots(bits):
    codec, x = codec_of(bits, 64), np.random.default_rng(0).normal(size=(2, 4, 64)).astype(np.float32)
    wild = x.copy()
    wild[0, 1, :GROUP] *= 1000
    before, after = stored(codec, x), stored(codec, wild)
    changed = np.zeros(x.shape, bool)
    changed[0, 1, :GROUP] = True
    assert np.array_equal(before[~changed], after[~changed])


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_constant_huge_and_zero_vectors(bits):
    codec = codec_of(bits, 32)
    constant = np.full((1, 32), 1.5, np.float32)
    assert np.array_equal(stored(codec, constant), constant)
    assert not stored(codec, np.zeros((1, 32), np.float32)).any()
    assert np.isfinite(stored(codec, np.array([[1e30] * 16 + [-1e30] * 16], np.float32))).all()


@pytest.mark.parametrize("bits, head_dim, remedy", [(5, 64, "32, 16, 8 or 4"), (4, 12, "use bits=16 or 32")])
def test_what_cannot_be_stored(bits, head_dim, remedy):
    with pytest.raises(ConfigError, match=remedy):
        codec_of(bits, head_dim)


@pytest.mark.parametrize("dim", [8, 64, 128])
def test_mixing_is_undone_by_itself(dim):
    m = mixing(dim)
    np.testing.assert_allclose(m @ m, np.eye(dim), atol=1e-6)
    assert np.array_equal(m, m.T) and m.dtype == np.float32
    assert mixing(dim + 4) is None


def test_mixing_helps_vectors_with_one_large_element():
    codec, m, x = codec_of(4, 64), mixing(64), np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    x[:, 5] *= 50
    plain, mixed = stored(codec, x), stored(codec, x @ m) @ m
    assert np.square(mixed - x).mean() < 0.5 * np.square(plain - x).mean()
