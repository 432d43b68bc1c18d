"""Rotations read off rotary embeddings."""

import numpy as np
import pytest

from nums_core.llm.cache.rotation import Rotation
from nums_core.nn.layers.rotary import Rotary

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


@pytest.mark.parametrize("options", [{"dim": 64}, {"dim": 64, "interleaved": True}, {"dim": 16}, {"dim": 64, "scaling": LLAMA3},
                                     {"dim": 16, "interleaved": True}], ids=str)
def test_the_same_bits_as_the_embedding_itself(options):
    rotary, rng = Rotary(**options), np.random.default_rng(0)
    x, positions = rng.normal(size=(5, 3, 64)).astype(np.float32), np.array([0, 1, 7, 1000, 100_000])
    rotation = Rotation(rotary, 64)
    assert np.array_equal(rotation.turned(x, rotation.waves(positions)), rotary.apply(x, positions))


def test_layers_with_the_same_settings_have_the_same():
    assert Rotation(Rotary(64), 64) == Rotation(Rotary(64), 64)
    assert hash(Rotation(Rotary(64), 64)) == hash(Rotation(Rotary(64), 64))
    assert Rotation(Rotary(64), 64) != Rotation(Rotary(64, base=500_000.0), 64)
