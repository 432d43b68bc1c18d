"""Optimisers against formulas written out in NumPy, in float64, from the papers."""

import math

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core.errors import ConfigError, DTypeError, ShapeError
from nums_core.nn import tree
from nums_core.nn.optim import (
    SGD,
    Adafactor,
    Adam,
    AdamW,
    InverseSqrt,
    Linear,
    LossScale,
    Precision,
    clip_by_global_norm,
    clip_by_value,
    global_norm,
)
from nums_core.nn.optim.adam import matrices

SHAPES = {"w": (5, 7), "b": (7,), "stack": (2, 3, 4), "gain": ()}
CHUNKS = {"w": (2, 7), "b": 3, "stack": (1, 3, 2), "gain": ()}
STEPS = 7


def values(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: scale * rng.normal(size=shape) for name, shape in SHAPES.items()}


# -- the formulas -----------------------------------------------------------------------------------------------------

def sgd(p, g, state, t, rate, momentum=0.0, nesterov=False, decay=0.0):
    g = g + decay * p
    b = state["b"] = momentum * state.get("b", 0.0) + g
    return p - rate * (g + momentum * b if nesterov else b)


def adam(p, g, state, t, rate, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0):
    p = p * (1 - rate * decay)
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g**2
    return p - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


def adafactor(p, g, state, t, rate, eps1=1e-30, eps2=1e-3, d=1.0):
    """Algorithms 4 and 5, with sums and the outer product as they stand there."""
    beta = 1 - t**-0.8
    if p.ndim < 2:
        v = state["v"] = beta * state.get("v", 0.0) + (1 - beta) * (g**2 + eps1)
    else:
        r = state["r"] = beta * state.get("r", 0.0) + (1 - beta) * (g**2 + eps1).sum(-1)
        c = state["c"] = beta * state.get("c", 0.0) + (1 - beta) * (g**2 + eps1).sum(-2)
        v = r[..., :, None] * c[..., None, :] / r.sum(-1)[..., None, None]
    u = g / np.sqrt(v)
    u = u / max(1, np.sqrt((u**2).mean()) / d)
    return p - max(eps2, np.sqrt((p**2).mean())) * rate * u


CASES = [
    (SGD(rate=0.1), sgd, {"rate": 0.1}),
    (SGD(rate=0.1, momentum=0.9), sgd, {"rate": 0.1, "momentum": 0.9}),
    (SGD(rate=0.1, momentum=0.8, nesterov=True, decay=0.01), sgd,
     {"rate": 0.1, "momentum": 0.8, "nesterov": True, "decay": 0.01}),
    (Adam(rate=0.01), adam, {"rate": 0.01}),
    (Adam(rate=0.01, beta1=0.0, beta2=0.5, eps=1e-3), adam, {"rate": 0.01, "beta1": 0.0, "beta2": 0.5, "eps": 1e-3}),
    (AdamW(rate=0.01, decay=0.3), adam, {"rate": 0.01, "decay": 0.3}),
    (Adafactor(rate=0.05), adafactor, {"rate": 0.05}),
]


def name_of(case):
    return f"{type(case).__name__}" if not isinstance(case, (dict, type(sgd))) else ""


def followed(optimiser, dtype, *, jit, chunks=True):
    """Parameters after a few steps."""
    params = {name: na.array(x, dtype, chunks=CHUNKS[name] if chunks else "auto") for name, x in values(0).items()}
    state = optimiser.init(params)
    update = nc.jit(optimiser.update) if jit else optimiser.update
    for t in range(STEPS):
        grads = {name: na.array(x, dtype) for name, x in values(t + 1).items()}
        params, state = update(grads, state, params, na.asarray(np.int64(t)) if jit else t)
    return nc.compute(params)[0]


def expected(formula, settings):
    params, states = values(0), {name: {} for name in SHAPES}
    for t in range(STEPS):
        grads = values(t + 1)
        params = {name: formula(p, grads[name], states[name], t + 1, **settings) for name, p in params.items()}
    return params


@pytest.mark.parametrize("jit", [False, True], ids=["step-int", "step-array"])
@pytest.mark.parametrize(("optimiser", "formula", "settings"), CASES, ids=name_of)
def test_follows_the_paper(optimiser, formula, settings, jit):
    found, wanted = followed(optimiser, "float64", jit=jit), expected(formula, settings)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("optimiser", "formula", "settings"), CASES, ids=name_of)
def test_float32_stays_float32_and_close(optimiser, formula, settings):
    found, wanted = followed(optimiser, "float32", jit=True), expected(formula, settings)
    for name in SHAPES:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("optimiser", "formula", "settings"), CASES, ids=name_of)
def test_cutting_changes_nothing_but_rounding(optimiser, formula, settings):
    cut, whole = (followed(optimiser, "float64", jit=False, chunks=c) for c in (True, False))
    for name in SHAPES:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-13)


def test_state_is_cut_like_its_parameter():
    p = {"w": na.ones((8, 6), "float32", chunks=(4, 3))}
    assert {x.chunks for x in Adam().init(p)["w"].values()} == {((4, 4), (3, 3))}
    slots = Adafactor().init(p)["w"]
    assert (slots["row"].chunks, slots["column"].chunks) == (((4, 4),), ((3, 3),))
    assert sum(x.size for x in slots.values()) == 8 + 6


def test_float16_parameters_have_float32_slots():
    p = {"w": na.ones(4, "float16")}
    state = Adam().init(p)
    assert state["w"]["mean"].dtype == np.float32
    new, _ = Adam(rate=0.5).update({"w": na.ones(4, "float16")}, state, p)
    assert new["w"].dtype == np.float16
    np.testing.assert_allclose(new["w"].compute(), 0.5, rtol=1e-3)


def test_the_second_moment_of_the_first_step_is_not_lost_to_rounding():
    """1 - 0.999 in float32 has four digits; the first update of a small constant gradient must be the rate itself."""
    p = {"w": na.zeros(3, "float32")}
    new, _ = nc.jit(Adam(rate=1.0, eps=0.0).update)({"w": na.full(3, 0.25, "float32")}, Adam().init(p), p,
                                                    na.asarray(np.int64(0)))
    np.testing.assert_allclose(new["w"].compute(), -1.0, rtol=3e-7)


def test_only_what_is_named_decays():
    p = {"w": na.ones((2, 2)), "b": na.ones(2)}
    zero = {"w": na.zeros((2, 2)), "b": na.zeros(2)}
    optimiser = AdamW(rate=0.1, decay=0.5, decays=matrices)
    new, _ = optimiser.update(zero, optimiser.init(p), p)
    assert new["w"].compute().tolist() == [[0.95] * 2] * 2
    assert new["b"].compute().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("optimiser", [SGD(momentum=0.9), AdamW(), Adafactor()], ids=name_of)
def test_an_update_that_shall_not_happen_changes_no_bit(optimiser):
    p = {name: na.array(x, "float32") for name, x in values(0).items()}
    state = optimiser.init(p)
    p, state = nc.persist(*optimiser.update({n: na.array(x, "float32") for n, x in values(1).items()}, state, p))
    bad = {name: na.full(shape, np.nan, "float32") for name, shape in SHAPES.items()}
    after = nc.compute(optimiser.update(bad, state, p, 1, ok=na.asarray(np.bool_(False))))[0]
    before = nc.compute((p, state))[0]
    for a, b in zip(tree.flatten(before)[0], tree.flatten(after)[0], strict=True):
        assert a.tobytes() == b.tobytes()


def test_integer_leaves_pass_through():
    p = {"w": na.ones(2), "table": na.arange(3)}
    optimiser = Adam(rate=0.1)
    new, state = optimiser.update({"w": na.ones(2), "table": na.arange(3)}, optimiser.init(p), p)
    assert set(state) == {"w"}
    assert new["table"] is p["table"]


def test_a_rate_may_be_a_schedule():
    p = {"w": na.zeros(2)}
    optimiser = SGD(rate=Linear(peak=1.0, total_steps=4))
    assert [float(optimiser.update({"w": na.ones(2)}, {"w": {}}, p, t)[0]["w"][0]) for t in (0, 1, 4)] == [-1.0, -0.75, 0.0]
    assert Adafactor().rate == InverseSqrt(peak=1e-2, warmup_steps=10_000, ramp=False)


# -- memory -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("optimiser", [SGD(momentum=0.9), Adam(), AdamW(decay=0.1)], ids=name_of)
def test_donated_parameters_and_state_are_changed_where_they_lie(optimiser):
    def step(state, grads, number):
        params, slots = state
        return optimiser.update(grads, slots, params, number, ok=number >= 0)

    params = {"w": na.ones((256, 300), "float32"), "b": na.ones(300, "float32")}
    run = nc.jit(step, donate=(0,))
    state = nc.persist(params, optimiser.init(params))
    before = [block(x) for x in tree.flatten(state)[0]]
    for k in range(3):
        grads = {"w": na.full((256, 300), 0.5, "float32"), "b": na.full(300, 0.5, "float32")}
        state = run(state, *nc.persist(grads), na.asarray(np.int64(k)))
        after = [block(x) for x in tree.flatten(state)[0]]
        assert all(a is b or np.shares_memory(a, b) for a, b in zip(before, after, strict=True))


def block(x):
    return x.expr.params[0].data.refs[0]


# -- clipping ---------------------------------------------------------------------------------------------------------

def test_global_norm_is_that_of_all_elements():
    grads = {name: na.array(x, "float32") for name, x in values(3).items()}
    wanted = math.sqrt(sum((x**2).sum() for x in values(3).values()))
    assert float(global_norm(grads)) == pytest.approx(wanted, rel=1e-6)
    assert global_norm(grads).dtype == np.float32


def test_clipping_by_norm():
    grads = {"a": na.array([3.0]), "b": na.array([4.0])}
    clipped, norm = clip_by_global_norm(grads, 2.5)
    assert (float(norm), float(clipped["a"][0]), float(clipped["b"][0])) == (5.0, 1.5, 2.0)
    small = {"a": na.array([0.1, -0.3])}
    assert clip_by_global_norm(small, 1.0)[0]["a"].compute().tobytes() == np.array([0.1, -0.3]).tobytes()


def test_float16_gradients_do_not_overflow_their_norm():
    clipped, norm = clip_by_global_norm({"a": na.full(100, 1000.0, "float16")}, 1.0)
    assert float(norm) == 1e4
    assert clipped["a"].dtype == np.float16


def test_clipping_by_value():
    assert clip_by_value({"a": na.array([-3.0, 0.5, 9.0])}, 1.0)["a"].compute().tolist() == [-1.0, 0.5, 1.0]


@pytest.mark.parametrize(("call", "remedy"), [
    (lambda: clip_by_global_norm({"a": na.ones(1)}, 0), "give a limit above 0"),
    (lambda: clip_by_value({"a": na.ones(1)}, -1.0), "give a limit above 0"),
    (lambda: global_norm({"a": na.arange(3)}), "pass the gradients"),
    (lambda: SGD(rate=-1.0), "give a number from"),
    (lambda: Adam(beta1=1.0), "not including, 1.0"),
    (lambda: AdamW(decay=math.nan), "give a number from"),
    (lambda: SGD(nesterov=True), "give momentum"),
    (lambda: LossScale(shrink=1.5), "1 > shrink"),
], ids=str)
def test_settings_out_of_range(call, remedy):
    with pytest.raises(ConfigError, match=remedy):
        call()


def test_gradients_of_other_parameters_are_refused():
    p = {"w": na.ones(2)}
    with pytest.raises(ShapeError, match=r"w has shape .3,. and the parameter .2,."):
        SGD().update({"w": na.ones(3)}, SGD().init(p), p)
    with pytest.raises(ShapeError, match="gradients of the same tree"):
        SGD().update({"w": na.ones(2), "v": na.ones(2)}, SGD().init(p), p)
    with pytest.raises(ShapeError, match=r"make it with init\(\)"):
        SGD().update({"w": na.ones(2)}, {}, p)


# -- mixed precision --------------------------------------------------------------------------------------------------

def test_the_loss_scale_finds_itself():
    scale = LossScale(initial=8.0, patience=2, most=16.0, least=2.0)
    state, seen = scale.init(), []
    for finite in (True, True, True, True, False, False, False, True, False):
        state = scale.update(state, na.asarray(np.bool_(finite)))
        seen.append((float(state.scale), int(state.good_steps)))
    assert seen == [(8, 1), (16, 0), (16, 1), (16, 0), (8, 0), (4, 0), (2, 0), (2, 1), (2, 0)]
    assert (state.scale.dtype, state.good_steps.dtype) == (np.float32, np.int32)


def test_float16_brings_its_loss_scale_and_casts_floats_only():
    precision = Precision("float16")
    assert precision.loss_scale == LossScale()
    cast = precision.cast({"w": na.ones(2, "float32"), "ids": na.arange(2)})
    assert (cast["w"].dtype, cast["ids"].dtype) == (np.float16, np.int64)


def test_bfloat16_is_refused_with_the_alternatives():
    with pytest.raises(DTypeError, match="'float16' with a loss scale"):
        Precision("bfloat16")
