"""Training over several workers: the loss of one, and the bytes moved that the formulas give."""

import numpy as np
import pytest

import nums_core.array as na
from nums_core import session
from nums_core.nn import tree
from nums_core.nn.checkpoints import Checkpoints
from nums_core.nn.optim import AdamW
from nums_core.nn.train import cut_parameters, init_state, over_workers, train_step
from nums_core.nn.trainer import Trainer

pytestmark = pytest.mark.ray
ROWS, WIDE, HIDDEN = 32, 64, 128
PARAMS_BYTES = 4 * (2 * WIDE * HIDDEN + HIDDEN)
ROWS_BYTES = 4 * ROWS * WIDE  # of x, of the result, of its cotangent
SCALARS_BYTES = 64  # sums, the norm, the rate
COLUMNS_THEN_ROWS = {"w1": 1, "b1": 0, "w2": 0}


def params():
    rng = np.random.default_rng(0)
    return {"w1": na.asarray(rng.normal(size=(WIDE, HIDDEN)).astype("float32") / 8), "b1": na.zeros(HIDDEN, "float32"),
            "w2": na.asarray(rng.normal(size=(HIDDEN, WIDE)).astype("float32") / 8)}


def rows(k):
    x = np.random.default_rng(k).normal(size=(ROWS, WIDE)).astype("float32")
    return {"x": x, "y": np.sin(x)}


def loss(p, batch):
    return ((na.tanh(batch["x"] @ p["w1"] + p["b1"]) @ p["w2"] - batch["y"]) ** 2).mean()


def trained(blocks, rules, ways, steps=4):
    """Losses, bytes moved and plans made at each step, and where the parameters are in the end."""
    optimiser = AdamW(rate=0.01)
    step, state = train_step(loss, optimiser, clip_norm=1.0), init_state(cut_parameters(params(), rules, ways), optimiser)
    told = []
    for k in range(steps):
        before = session.current().plans_made
        state, metrics = step(state, over_workers(rows(k), blocks))
        made, moved = session.current().plans_made - before, session.last_report().bytes_moved
        told.append((float(metrics["loss"]), moved, made))
    homes = {name: p.expr.params[0].data.home.tolist() for name, p in tree.paths(state.params)}
    return (*map(list, zip(*told, strict=True)), homes)


@pytest.fixture(params=[2, 4])
def workers(request, ray_executor, monkeypatch):
    """A session on as many Ray workers."""
    from nums_core.runtime.executors.ray import RayExecutor

    n = request.param
    executor = ray_executor if n == 2 else RayExecutor(num_workers=n, memory_bytes=2**28, log_to_driver=False)
    serial = trained(1, {}, 1)[0]
    monkeypatch.setattr(session, "_session", session.Session(executor))
    yield n, serial
    if executor is not ray_executor:
        executor.close()


def test_two_and_four_ways(workers):
    n, serial = workers
    data, data_bytes, plans, _ = trained(n, {}, 1)
    np.testing.assert_allclose(data, serial, rtol=1e-5)
    assert plans[1:] == [0, 0, 0]  # planned once: the state stays where it is
    # Every other worker is sent the parameters, and sends back its part of the gradients.
    assert all(0 <= b - 2 * (n - 1) * PARAMS_BYTES <= (n - 1) * SCALARS_BYTES for b in data_bytes)

    tensor, tensor_bytes, plans, homes = trained(1, COLUMNS_THEN_ROWS, n)
    np.testing.assert_allclose(tensor, serial, rtol=1e-5)
    assert plans[1:] == [0, 0, 0]
    assert all(home == list(range(n)) for home in homes.values())
    # Every other worker is sent x, sends its part of the result, and is sent the result's cotangent.
    assert all(0 <= b - 3 * (n - 1) * ROWS_BYTES <= (n - 1) * SCALARS_BYTES for b in tensor_bytes)


class Rows:
    def __init__(self):
        self.k = 0

    def __next__(self):
        self.k += 1
        return rows(self.k)

    def state(self):
        return {"k": self.k}

    def restore(self, state):
        self.k = state["k"]


@pytest.mark.parametrize("rules", [{}, COLUMNS_THEN_ROWS], ids=["data", "tensor"])
def test_a_run_on_workers_is_taken_up_with_the_same_bits(ray_executor, monkeypatch, tmp_path, rules):
    monkeypatch.setattr(session, "_session", session.Session(ray_executor))

    def training():
        return Trainer(loss, cut_parameters(params(), rules, 2), AdamW(rate=0.01), Rows(), checkpoints=Checkpoints(tmp_path),
                       place=lambda batch: over_workers(batch, 1 if rules else 2))

    whole, part = training(), training()
    whole.run(4)
    part.run(2)
    part.save()
    other = training()
    other.restore()
    other.run(2)
    for (path, a), (_, b) in zip(tree.paths(whole.state), tree.paths(other.state), strict=True):
        assert a.compute().tobytes() == b.compute().tobytes(), path
