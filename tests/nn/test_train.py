"""Training steps and the loop: one plan, in place, the same bits after a stop, and nothing lost when something fails."""

import io
import os
import signal

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core import config, session
from nums_core.errors import CheckpointError, ConfigError, GridError, KernelError, ShapeError, TrainingError
from nums_core.nn import functional as F
from nums_core.nn import tree
from nums_core.nn.checkpoints import Checkpoints
from nums_core.nn.data import Batches, Windows
from nums_core.nn.init import Keys
from nums_core.nn.optim import SGD, Adafactor, Adam, AdamW, Cosine, LossScale, Precision
from nums_core.nn.train import cut_parameters, init_state, over_workers, train_step
from nums_core.nn.trainer import Trainer
from nums_core.runtime.executors.local import LocalExecutor

ROWS, WIDE, HIDDEN = 8, 5, 6


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {"w1": rng.normal(size=(WIDE, HIDDEN)).astype("float32"), "b1": np.zeros(HIDDEN, "float32"),
            "w2": rng.normal(size=(HIDDEN, 1)).astype("float32")}


def params(seed=0):
    return {name: na.asarray(x) for name, x in weights(seed).items()}


def rows(seed, n=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, WIDE)).astype("float32")
    return {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True))}


def loss(p, batch):
    made = na.tanh(batch["x"] @ p["w1"] + p["b1"]) @ p["w2"]
    off = made - batch["y"]
    return (off * off).mean(), {"off": na.abs(off).max()}


class Rows:
    """Batches that are made, with a position."""

    def __init__(self, n=ROWS):
        self.k, self.n = 0, n

    def __iter__(self):
        return self

    def __next__(self):
        self.k += 1
        return rows(self.k, self.n)

    def state(self):
        return {"k": self.k}

    def restore(self, state):
        self.k = state["k"]


def slopes(w, batch):
    """The gradient by hand, in float64."""
    w = {k: v.astype("float64") for k, v in w.items()}
    h = np.tanh(batch["x"] @ w["w1"] + w["b1"])
    off = 2 * (h @ w["w2"] - batch["y"]) / batch["y"].size
    back = (off @ w["w2"].T) * (1 - h * h)
    return {"w1": batch["x"].T @ back, "b1": back.sum(0), "w2": h.T @ off}


def bits(x):
    return [np.asarray(leaf.compute()).tobytes() for leaf in tree.flatten(x)[0]]


# -- one step ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_step_follows_the_gradient(clip):
    optimiser = SGD(rate=0.1)
    step = train_step(loss, optimiser, clip_norm=clip)
    state, metrics = step(init_state(params(), optimiser), over_workers(rows(1), 1))
    w, g = weights(), slopes(weights(), rows(1))
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    factor = 1 if clip is None else min(1, clip / norm)
    for name, x in state.params.items():
        np.testing.assert_allclose(x.compute(), w[name] - 0.1 * factor * g[name], rtol=2e-5, atol=2e-6)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    assert set(metrics) == {"loss", "off", "grad_norm", "rate", "skipped"}
    assert (int(state.step), int(state.skipped)) == (1, 0)


def test_clipping_by_value_limits_every_element():
    step = train_step(loss, SGD(rate=1.0), clip_value=0.01)
    state, _ = step(init_state(params(), SGD(rate=1.0)), over_workers(rows(1), 1))
    moved = {name: np.abs(x.compute() - weights()[name]) for name, x in state.params.items()}
    assert max(m.max() for m in moved.values()) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("optimiser", [SGD(rate=0.1, momentum=0.9), AdamW(rate=Cosine(peak=0.1, total_steps=9)), Adafactor()],
                         ids=lambda o: type(o).__name__)
def test_one_plan_for_all_steps_and_the_state_stays_where_it_is(optimiser):
    step = train_step(loss, optimiser, clip_norm=1.0)
    state = init_state(params(), optimiser)
    moments = () if isinstance(optimiser, Adafactor) else tuple(x for s in state.slots.values() for x in s.values())
    before = [block(x) for x in (*state.params.values(), *moments, state.step)]
    for k in range(4):
        made = session.current().plans_made
        state, _ = step(state, over_workers(rows(k), 1))
        assert k == 0 or session.current().plans_made == made
        moments = () if not moments else tuple(x for s in state.slots.values() for x in s.values())
        after = [block(x) for x in (*state.params.values(), *moments, state.step)]
        assert all(np.shares_memory(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kw", [{"keys": Keys(1)}, {"keys": Keys(1), "accumulate": 4, "precision": Precision("float16")}])
def test_the_counter_is_written_where_it_lies(kw):
    """It shows whether a step that failed had begun to write: whatever else reads it must have done so before."""
    step = train_step(noisy if "keys" in kw else loss, Adam(), clip_norm=1.0, **kw)
    state = init_state(params(), Adam(), precision=kw.get("precision", Precision()))
    for k in range(3):
        old = block(state.step)
        state, _ = step(state, over_workers(rows(k), 1))
        assert old is block(state.step)
        assert old == k + 1 - int(state.skipped)


def block(x):
    return x.expr.params[0].data.refs[0]


def test_the_parameters_given_are_not_touched():
    mine = weights()
    kept = nc.persist({name: na.asarray(x) for name, x in mine.items()})[0]
    state = init_state(kept, Adam())
    for k in range(2):
        state, _ = train_step(loss, Adam(rate=0.1))(state, over_workers(rows(k), 1))
    assert bits(kept) == [x.tobytes() for x in weights().values()]
    assert all((mine[name] == x).all() for name, x in weights().items())


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("blocks", [1, 2])
def test_accumulation_is_the_mean_over_parts(parts, blocks):
    states = []
    for n in (1, parts):
        optimiser = SGD(rate=0.1)
        step = train_step(loss, optimiser, accumulate=n, clip_norm=1.0)
        states.append(step(init_state(params(), optimiser), over_workers(rows(1), blocks)))
    (one, metrics), (many, same) = states
    for a, b in zip(tree.flatten(one.params)[0], tree.flatten(many.params)[0], strict=True):
        np.testing.assert_allclose(a.compute(), b.compute(), rtol=1e-5, atol=1e-6)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)


def deep(p, batch):
    x = batch["x"] @ p["w0"]
    for _ in range(12):
        x = na.tanh(x @ p["w"])
    return (x * x).mean()


def deep_params():
    return {"w0": na.ones((WIDE, 32), "float32"), "w": na.ones((32, 32), "float32")}


def test_blocks_of_a_batch_advance_side_by_side():
    """Or else the last one would keep one thread busy and the others waiting."""
    step = train_step(deep, SGD(rate=0.1))
    step(init_state(deep_params(), SGD(rate=0.1)), over_workers(rows(0, 64), 2))
    (trace,) = step.traces.values()
    plan = trace.compiled.plan
    apart = [abs(plan.position[f.start + 1] - plan.position[f.start]) for f in plan.graph.families if f.count == 2]
    assert len(apart) > 40
    assert np.median(apart) <= 4


def test_accumulation_takes_a_part_of_the_memory(monkeypatch):
    """Where memory is short, that is: parts wait for one another, and the planner takes the order that leaves least alive."""
    executor = LocalExecutor(threads=1, memory_bytes=2**24)
    monkeypatch.setattr(session, "_session", session.Session(executor))
    peaks = []
    for parts in (1, 4):
        step, state = train_step(deep, SGD(rate=0.1), accumulate=parts), init_state(deep_params(), SGD(rate=0.1))
        step(state, over_workers(rows(0, 2**13), 1))
        peaks.append(session.last_report().predicted_peak_bytes.max())
    executor.close()
    assert peaks[1] < 0.35 * peaks[0]


# -- layouts ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("blocks", "rules"), [(4, {}), (1, {"w1": 1, "b1": 0, "w2": 0}), (2, {"w?": -2})],
                         ids=["data-parallel", "tensor-parallel", "both"])
def test_cut_training_follows_uncut_training(blocks, rules):
    curves = []
    for n, given in ((1, {}), (blocks, rules)):
        optimiser = AdamW(rate=0.05)
        step = train_step(loss, optimiser, clip_norm=1.0)
        state = init_state(cut_parameters(params(), given, 2), optimiser)
        curve = []
        for k in range(5):
            state, metrics = step(state, over_workers(rows(k), n))
            curve.append(float(metrics["loss"]))
        curves.append(curve)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    for name in rules if "w?" not in rules else ():
        axis = rules[name]
        assert len(state.params[name].chunks[axis]) == len(state.slots[name]["mean"].chunks[axis]) == 2


@pytest.mark.parametrize(("call", "error", "remedy"), [
    (lambda: over_workers(rows(0), 9), GridError, "at least a row to each"),
    (lambda: cut_parameters(params(), {"w3": 0}, 2), GridError, "no parameter is called 'w3'"),
    (lambda: cut_parameters(params(), {"w2": 1}, 2), GridError, "choose a longer axis"),
    (lambda: train_step(loss, SGD(), accumulate=0), ConfigError, "give 1 or more"),
    (lambda: train_step(loss, SGD(), accumulate=3)(init_state(params(), SGD()), over_workers(rows(0), 1)), ShapeError,
     "change the batch size or `accumulate`"),
    (lambda: train_step(lambda p, b: b["x"] @ p["w1"], SGD())(init_state(params(), SGD()), over_workers(rows(0), 1)), ShapeError,
     "give an Array of shape"),
    (lambda: Trainer(loss, params(), SGD(), Rows(), save_every=2), ConfigError, "give checkpoints="),
    (lambda: Trainer(loss, params(), SGD(), Rows()).save(), ConfigError, "give it checkpoints="),
    (lambda: Trainer(loss, params(), SGD(), iter([rows(0)])).run(2), TrainingError, "data ended after 1 steps; ask for fewer"),
], ids=str)
def test_what_cannot_be_done_says_what_can(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call()


# -- numbers that are none ----------------------------------------------------------------------------------------------

def poisoned(k):
    batch = rows(k)
    batch["y"][0] = np.nan
    return batch


def test_a_step_without_finite_gradients_changes_no_parameter():
    step = train_step(loss, Adam(rate=0.1), clip_norm=1.0)
    state, _ = step(init_state(params(), Adam(rate=0.1)), over_workers(rows(1), 1))
    before = bits((state.params, state.slots))
    state, metrics = step(state, over_workers(poisoned(2), 1))
    assert bits((state.params, state.slots)) == before
    assert (int(state.step), int(metrics["skipped"]), np.isnan(float(metrics["loss"]))) == (1, 1, True)
    state, _ = step(state, over_workers(rows(3), 1))
    assert int(state.step) == 2


def test_training_gives_up_after_many_such_steps():
    trainer = Trainer(loss, params(), SGD(rate=0.1), map(poisoned, range(99)), most_skipped=3)
    with pytest.raises(TrainingError, match="lower the rate, clip, or look at the data"):
        trainer.run(50)
    assert (len(trainer.history), bits(trainer.params)) == (3, bits(params()))


def test_float16_training_finds_its_scale_and_learns():
    precision = Precision("float16", LossScale(initial=2.0**24, patience=4))
    trainer = Trainer(loss, params(), AdamW(rate=0.05), map(rows, [1] * 99), precision=precision)
    history = trainer.run(40)
    assert history[0]["skipped"] == 1
    assert history[0]["loss_scale"] == 2.0**24 > history[-1]["loss_scale"]
    assert history[-1]["skipped"] < 30
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]
    assert all(p.dtype == np.float32 for p in trainer.params.values())


# -- stopped and taken up -----------------------------------------------------------------------------------------------

def training(folder=None, data=None, the_loss=loss, **kw):
    kw = {"clip_norm": 1.0, "checkpoints": Checkpoints(folder) if folder else None} | kw
    return Trainer(the_loss, params(), AdamW(rate=Cosine(peak=0.05, total_steps=20, warmup_steps=2)), data or Rows(), **kw)


def noisy(p, batch, keys):
    made = F.dropout(na.tanh(batch["x"] @ p["w1"] + p["b1"]), 0.5, keys.split("hidden")) @ p["w2"]
    return ((made - batch["y"]) ** 2).mean()


@pytest.mark.parametrize("kw", [{}, {"keys": Keys(3), "the_loss": noisy, "accumulate": 2},
                                {"precision": Precision("float16", LossScale(patience=2))}], ids=["plain", "random", "float16"])
def test_a_run_taken_up_anywhere_has_the_same_bits(tmp_path, kw):
    whole = training(**kw)
    curve = [m["loss"] for m in whole.run(6)]
    for k in (1, 3, 5):
        stopped = training(tmp_path / str(k), save_every=k, **kw)
        stopped.run(k)
        other = training(tmp_path / str(k), **kw)
        assert other.restore()
        assert [m["loss"] for m in other.run(6 - k)] == curve[k:]
        assert bits(other.state) == bits(whole.state)


def test_the_position_in_the_text_is_taken_up_too(tmp_path):
    def text():
        return Batches(Windows(np.arange(200, dtype="u2") % 7, 8), 4, seed=5)

    def next_token(p, batch):
        return ((p["w1"][0, 0] * batch.tokens - batch.labels) ** 2).mean()

    whole, part = (Trainer(next_token, params(), SGD(rate=0.01), text(), checkpoints=Checkpoints(tmp_path)) for _ in range(2))
    whole.run(9)
    part.run(4)
    part.save()
    other = Trainer(next_token, params(), SGD(rate=0.01), text(), checkpoints=Checkpoints(tmp_path))
    other.restore()
    other.run(5)
    assert (bits(other.state), other.data.state()) == (bits(whole.state), whole.data.state())


def test_restoring_from_nothing_and_from_another_model(tmp_path):
    trainer = training(tmp_path)
    assert not trainer.restore()
    trainer.save()
    other = Trainer(loss, {**params(), "w1": na.ones((WIDE, 2))}, SGD(), Rows(), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(CheckpointError, match=r"not asked for: slots\.b1\.mean"):
        other.restore()


def test_each_step_draws_anew():
    def number(p, batch, keys):
        return p["w1"].sum() * 0 + keys.step.astype("float32").sum()

    assert [m["loss"] for m in Trainer(number, params(), SGD(), Rows(), keys=Keys(0)).run(3)] == [0, 1, 2]


def test_other_keys_are_refused(tmp_path):
    training(tmp_path, keys=Keys(1), the_loss=noisy).save()
    with pytest.raises(ConfigError, match="give it the same keys"):
        training(tmp_path, keys=Keys(2), the_loss=noisy).restore()


# -- stopped in the middle ----------------------------------------------------------------------------------------------

class Interrupting(Rows):
    """Presses Ctrl-C `times` times before batch number `at`."""

    def __init__(self, at, times):
        super().__init__()
        self.at, self.times = at, times

    def __next__(self):
        batch = super().__next__()
        if self.k == self.at:
            self.at = 0
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
        return batch


@pytest.mark.parametrize(("times", "steps_done"), [(1, 3), (2, 2)])
def test_ctrl_c_leaves_a_state_to_go_on_from(tmp_path, capsys, times, steps_done):
    whole = training()
    whole.run(5)
    trainer = training(tmp_path, data=Interrupting(3, times))
    with pytest.raises(KeyboardInterrupt):
        trainer.run(5)
    assert "stopping after this step" in capsys.readouterr().err
    assert trainer.n_steps == steps_done == len(trainer.history)
    trainer.save()
    trainer.run(5 - steps_done)
    assert bits(trainer.state) == bits(whole.state)
    other = training(tmp_path)
    other.restore()
    other.run(5 - steps_done)
    assert bits(other.state) == bits(whole.state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


FAILING = {"now": False}


def checked(y):
    if FAILING["now"]:
        raise ValueError("a bad row")
    return y


def fragile(p, batch):
    return loss(p, batch | {"y": na.map_blocks(checked, batch["y"], dtype=batch["y"].dtype)})[0]


@pytest.fixture
def failing():
    yield FAILING
    FAILING["now"] = False


def test_a_batch_that_fails_costs_that_step_alone(failing):
    whole, trainer = training(the_loss=fragile), training(the_loss=fragile)
    whole.run(5)
    trainer.run(3)
    failing["now"] = True
    with pytest.raises(KernelError, match="a bad row"):
        trainer.run(2)
    failing["now"] = False
    trainer.run(2)
    assert bits(trainer.state) == bits(whole.state)


class Breaking(SGD):
    """Its second parameter cannot be written."""

    def rule(self, p, g, slots, at):
        new, slots = super().rule(p, g, slots, at)
        if at.path == "w2":
            new = na.map_blocks(checked, new + 0 * at.number.astype("float32"), dtype=new.dtype)
        return new, slots


def test_a_state_that_was_half_written_is_said_to_be_lost(failing, tmp_path):
    trainer = Trainer(loss, params(), Breaking(rate=0.1), Rows(), checkpoints=Checkpoints(tmp_path))
    trainer.run(2)
    trainer.save()
    failing["now"] = True
    with pytest.raises(KernelError, match="a bad row"):
        trainer.run(1)
    failing["now"] = False
    for refused in (lambda: trainer.run(1), trainer.save, lambda: trainer.params):
        with pytest.raises(TrainingError, match=r"Call restore\(\)"):
            refused()
    trainer.restore()
    trainer.run(2)
    whole = Trainer(loss, params(), Breaking(rate=0.1), Rows())
    whole.run(4)
    assert bits(trainer.state) == bits(whole.state)


# -- what is told -------------------------------------------------------------------------------------------------------

def test_the_progress_line():
    stream = io.StringIO()
    with config.set(progress="on"):
        training(stream=stream).run(2)
    first, last = stream.getvalue().strip().split("\r")
    assert first.startswith("step 1/2  loss ")
    assert "a step" in last
    assert last.startswith("step 2/2  loss ")
    silent = io.StringIO()
    training(stream=silent).run(1)
    assert silent.getvalue() == ""


def test_history_holds_every_step():
    trainer = training()
    assert trainer.run(2) + trainer.run(1) == trainer.history
    assert [m["step"] for m in trainer.history] == [1, 2, 3]
    assert all(m["step_s"] > 0 for m in trainer.history)
