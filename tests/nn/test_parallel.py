"""Data- and tensor-parallel steps of a small decoder: bytes moved by formula, and the serial run's losses.

The formulas, with their reasons, stand at the head of bench/parallel.py.
"""

from dataclasses import replace

import numpy as np
import pytest

from bench.parallel import (
    CONFIG,
    OPTIMISERS,
    TOLERANCE,
    WAYS,
    by_formula,
    difference,
    parameter_bytes,
    planned,
    serial,
    steps,
)
from nums_core import session
from nums_core.llm.models.llama import Llama
from nums_core.nn.init import Keys

EIGHT_HEADS = replace(CONFIG, n_heads=8, n_kv_heads=8, head_dim=8, rotary_dim=8)
TIED = replace(EIGHT_HEADS, tie_embeddings=True)
GROUPED = replace(EIGHT_HEADS, n_kv_heads=4, n_layers=3)  # a worker has one key head and two query heads


def moved(plan, among):
    """Bytes of the moves whose blocks come from families with such labels."""
    g = plan.graph
    chosen = np.array([among(f) for f in g.families])[g.family_of[plan.move_block]]
    return g.out_bytes[plan.move_block][chosen].sum()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("k", [2, 4])
def test_plans_move_what_the_formulas_say(way, k, optimiser):
    first, second = planned(way, k, optimiser)
    assert first is second  # the state lies where it lay: one plan for all steps
    formula = by_formula(way, k, CONFIG, optimiser)
    assert first.bytes_moved == sum(formula)
    assert formula.small < 2e-3 * formula.main


@pytest.mark.parametrize(("way", "k", "config"), [("data", 8, EIGHT_HEADS), ("data", 4, TIED), ("tensor", 8, TIED),
                                                  ("tensor", 4, GROUPED), ("data", 2, GROUPED)])
def test_other_shapes(way, k, config):
    plan = planned(way, k, "adamw", config)[-1]
    plan.validate()
    assert plan.bytes_moved == sum(by_formula(way, k, config, "adamw"))


def test_data_parallel_sends_parameters_out_and_gradients_back():
    k = 4
    plan = planned("data", k, "adamw")[-1]
    assert moved(plan, lambda f: f.role == "leaf") == (k - 1) * parameter_bytes(CONFIG)  # no slot of the optimiser
    parameters = Llama.init(Keys(0), CONFIG).parameters()
    products = [x.nbytes for path, x in parameters.items() if x.ndim == 2 and "embedding" not in path]
    assert moved(plan, lambda f: f.label.startswith("contract")) == (k - 1) * sum(products)


def test_tensor_parallel_moves_no_parameter():
    plan = planned("tensor", 4, "adamw")[-1]
    assert moved(plan, lambda f: f.role == "leaf") == 0
    g = plan.graph
    heads = np.array([f.label in ("attention", "attention.backward") for f in g.families])[g.family_of]
    work = np.bincount(plan.worker[heads], g.flop[heads], 4)
    assert work.min() == work.max() > 0  # each worker has a quarter of the heads


@pytest.mark.ray
@pytest.mark.parametrize("way", WAYS)
def test_two_ray_workers(ray_executor, monkeypatch, way):
    expected = serial("adamw", 3)
    monkeypatch.setattr(session, "_session", session.Session(ray_executor))
    told = steps(way, 2, "adamw", 3)
    assert difference([float(x) for x, _ in told], expected) <= TOLERANCE
    assert expected[-1] < expected[0]
    assert [r.bytes_moved for _, r in told] == [sum(by_formula(way, 2, CONFIG, "adamw"))] * 3
    assert [r.plan_reused for _, r in told] == [False, True, True]
