"""A small LLaMA-shaped model in training: it learns, is taken up where it stopped, and trains over workers."""

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core import session
from nums_core.llm.config import ModelConfig
from nums_core.llm.models.llama import Llama
from nums_core.nn import functional as F
from nums_core.nn import tree
from nums_core.nn.checkpoints import Checkpoints
from nums_core.nn.data import Batches, Windows
from nums_core.nn.init import Keys
from nums_core.nn.optim import AdamW
from nums_core.nn.train import cut_parameters, init_state, over_workers, train_step
from nums_core.nn.trainer import Trainer

LAYERS, HIDDEN, ROWS, LENGTH = 2, 64, 8, 32
CONFIG = ModelConfig("llama", vocab_size=256, hidden_size=HIDDEN, n_layers=LAYERS, n_heads=4, n_kv_heads=2, head_dim=16,
                     intermediate_size=128, max_positions=LENGTH, rotary_dim=16, tie_embeddings=True)
RULES = {"*.q.weight": 0, "*.k.weight": 0, "*.v.weight": 0, "*.attention.out.weight": 1, "*.gate.weight": 0, "*.up.weight": 0,
         "*.mlp.down.weight": 1}
ACTIVATION_BYTES = 4 * ROWS * LENGTH * HIDDEN
SCALARS_BYTES = 2048


def loss(model, batch):
    return F.cross_entropy(model(batch.tokens), batch.labels)


def training(folder):
    text = np.frombuffer(b"It was the best of times, it was the worst of times, " * 40, np.uint8)
    return Trainer(loss, Llama.init(Keys(0), CONFIG), AdamW(rate=3e-3), Batches(Windows(text, LENGTH), ROWS), clip_norm=1.0,
                   place=lambda batch: over_workers(batch, 2), checkpoints=Checkpoints(folder))


def test_it_learns_and_is_taken_up_with_the_same_bits(tmp_path):
    whole, part = training(tmp_path / "whole"), training(tmp_path / "part")
    curve = [m["loss"] for m in whole.run(30)]
    assert 5 < curve[0] < 6.5
    assert curve[-1] < 0.6 * curve[0]
    part.run(11)
    part.save()
    other = training(tmp_path / "part")
    other.restore()
    assert [m["loss"] for m in other.run(19)] == curve[11:]
    for (path, a), (_, b) in zip(tree.paths(whole.state), tree.paths(other.state), strict=True):
        assert a.compute().tobytes() == b.compute().tobytes(), path


def trained(weights, blocks, rules):
    """Losses of three steps, and the bytes that the last one moved."""
    model = Llama.init(Keys(0), CONFIG).with_parameters({name: na.asarray(w) for name, w in weights.items()})
    optimiser = AdamW(rate=0.01)
    step, state = train_step(loss, optimiser, clip_norm=1.0), init_state(cut_parameters(model, rules, 2), optimiser)
    data, losses = Batches(Windows(np.arange(3000) % 251, LENGTH), ROWS), []
    for _ in range(3):
        state, metrics = step(state, over_workers(next(data), blocks))
        moved = session.last_report().bytes_moved
        losses.append(float(metrics["loss"]))
    return losses, moved


@pytest.mark.ray
def test_two_workers_give_the_loss_of_one_and_move_what_the_formulas_say(ray_executor, monkeypatch):
    weights = nc.compute(Llama.init(Keys(0), CONFIG).parameters())[0]
    serial, _ = trained(weights, 1, {})
    assert serial[-1] < serial[0]
    monkeypatch.setattr(session, "_session", session.Session(ray_executor))
    data, data_bytes = trained(weights, 2, {})
    tensor, tensor_bytes = trained(weights, 1, RULES)
    np.testing.assert_allclose(data, serial, rtol=1e-5)
    np.testing.assert_allclose(tensor, serial, rtol=1e-5)
    # Parameters out, gradients back; the embedding's rows are added up on one worker, which gets the other's cotangents.
    least = 2 * sum(w.nbytes for w in weights.values())
    assert least <= data_bytes <= least + ACTIVATION_BYTES / 2 + SCALARS_BYTES
    # Attention and MLP of a layer are each sent their input and give their result, and the same for cotangents: 8. That of the
    # input is summed apart for q, k, v and for gate, up: up to 3 more.
    assert 8 * LAYERS * ACTIVATION_BYTES <= tensor_bytes <= 11 * LAYERS * ACTIVATION_BYTES + SCALARS_BYTES
