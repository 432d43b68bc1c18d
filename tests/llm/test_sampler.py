"""Sampling: plain implementations as oracles, invariants, and rows that have no distribution."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.errors import ConfigError
from nums_core.llm import sampler
from nums_core.llm.sampler import SamplingParams, TokenRandom, adjusted, best, candidates, sample, top_logprobs

VOCAB = 20
# Few values, so that ties are common.
LOGITS = st.lists(st.one_of(st.sampled_from([-3.0, 0.0, 1.0, 2.0, -math.inf]), st.floats(-8, 8, width=32)), min_size=VOCAB,
                  max_size=VOCAB).filter(lambda row: max(row) > -math.inf).map(lambda row: np.array(row, np.float32))
PARAMS = st.builds(
    SamplingParams, temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]), top_k=st.sampled_from([0, 1, 3, 7, 50]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]), min_p=st.sampled_from([0.0, 0.1, 0.7]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]), presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.sampled_from([-math.inf, 1.5, -2.0]), max_size=3))
HISTORY = st.lists(st.integers(0, VOCAB - 1), max_size=12)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(row, p, history, n_prompt):
    """The distribution, filter by filter, each on all tokens in order of probability (ties: the lower id first)."""
    x = row.astype(np.float64)
    for t, b in p.logit_bias.items():
        x[t] += b
    for t in set(history):
        x[t] = x[t] / p.repetition_penalty if x[t] > 0 else x[t] * p.repetition_penalty
    made = history[n_prompt:]
    for t in set(made):
        x[t] -= p.presence_penalty + p.frequency_penalty * made.count(t)
    if not np.isfinite(x.max()):
        return None
    if p.temperature == 0:
        return (np.arange(len(x)) == x.argmax()).astype(float)
    x /= p.temperature
    order = sorted(range(len(x)), key=lambda t: (-x[t], t))
    kept = order[:p.top_k] if p.top_k else order
    probs = softmax(x[kept])
    if p.top_p < 1:
        reached = [k for k in range(len(kept)) if probs[:k + 1].sum() >= p.top_p]
        kept = kept[:reached[0] + 1] if reached else kept
        probs = softmax(x[kept])
    kept = [t for t, q in zip(kept, probs) if q >= p.min_p * probs[0]]
    out = np.zeros(len(x))
    out[kept] = softmax(x[kept])
    return out


def on_the_edge(row, p, history, n_prompt):
    """Whether rounding decides a filter: the reference's answer changes with the threshold's last digits."""
    found = [reference(row, dataclasses.replace(p, top_p=min(p.top_p * s, 1.0), min_p=p.min_p * s), history, n_prompt)
             for s in (1 - 1e-5, 1 + 1e-5)]
    return found[0] is not None and not np.allclose(found[0] > 0, found[1] > 0)


@given(LOGITS, PARAMS, HISTORY, st.integers(0, 12))
def test_the_distribution_is_the_reference_s(row, p, history, n_prompt):
    expected = reference(row, p, history, n_prompt)
    changed = adjusted(row, p, history, n_prompt)
    if expected is None:
        assert not np.isfinite(changed.max())
        assert sample(row[None], [p], [history], [TokenRandom(0)], [n_prompt])[0][0] == -1
        return
    if p.temperature == 0:
        assert sample(row[None], [p], [history], [None], [n_prompt])[0][0] == changed.argmax()
        return
    if on_the_edge(row, p, history, n_prompt):
        return
    ids, weights = candidates(changed, p)
    found = np.zeros(VOCAB)
    found[slice(None) if ids is None else ids] = weights / weights.sum()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(LOGITS, PARAMS, st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_only_tokens_that_are_left_are_drawn(row, p, numbers):
    class Fixed:
        def __init__(self, u):
            self.random = lambda: u

    expected = reference(row, p, [], 0)
    for u in [0.0, 1 - 2**-53, *numbers]:
        token = sample(row[None], [p], [[]], [Fixed(u)])[0][0]
        assert (token == -1) if expected is None else (expected[token] > 0 or on_the_edge(row, p, [], 0))


def test_tokens_are_drawn_as_often_as_they_are_probable():
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    p, rng = SamplingParams(temperature=1.0), TokenRandom(5)
    n = 4000
    counts = np.bincount([sample(row[None], [p], [[]], [rng])[0][0] for _ in range(n)], minlength=4)
    np.testing.assert_allclose(counts / n, [0.1, 0.4, 0.2, 0.3], atol=4 * 0.5 / math.sqrt(n))


@given(st.lists(st.tuples(LOGITS, PARAMS, HISTORY), min_size=1, max_size=5), st.randoms())
def test_a_row_is_the_same_in_any_batch(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    logits = np.array([r[0] for r in rows])
    before = logits.copy()

    def run(ks):
        return sample(logits[ks], [rows[k][1] for k in ks], [rows[k][2] for k in ks], [TokenRandom(k) for k in ks])

    ids, logprobs = run(list(range(len(rows))))
    for ks in ([k] for k in order):
        alone = run(ks)
        assert alone[0][0] == ids[ks[0]]
        np.testing.assert_array_equal(alone[1], logprobs[ks])
    np.testing.assert_array_equal(run(order)[0], ids[order])
    np.testing.assert_array_equal(logits, before)


@given(LOGITS, PARAMS)
def test_logprobs_are_the_model_s_own(row, p):
    ids, logprobs = sample(row[None], [p], [[1, 2]], [TokenRandom(3)])
    if ids[0] >= 0:
        assert logprobs[0] == pytest.approx(math.log(softmax(row.astype(np.float64))[ids[0]]), abs=1e-5)


def test_one_bad_row_harms_no_other():
    logits = np.array([[0, 1, 2], [0, np.nan, 9], [np.inf, 0, 0], [-np.inf] * 3, [3, 1, 2]], np.float32)
    p = [SamplingParams(), SamplingParams(temperature=1.0), SamplingParams(), SamplingParams(temperature=1.0), SamplingParams()]
    ids, logprobs = sample(logits, p, [[]] * 5, [TokenRandom(0) for _ in p])
    assert ids.tolist() == [2, -1, -1, -1, 0]
    assert np.isnan(logprobs).tolist() == [False, True, True, True, False]
    banned = SamplingParams(logit_bias={0: -math.inf, 1: -math.inf, 2: -math.inf})
    assert sample(logits[:2], [banned, SamplingParams()], [[], []], [None, None])[0].tolist() == [-1, -1]
    assert sample(logits[:0], [], [], [])[0].shape == (0,)


def test_ties_go_to_the_lower_id():
    row = np.array([1, 3, 3, 0, 3], np.float32)
    assert sample(row[None], [SamplingParams()], [[]], [None])[0][0] == 1
    assert candidates(row, SamplingParams(temperature=1.0, top_k=2))[0].tolist() == [1, 2]
    assert candidates(row, SamplingParams(temperature=1.0, top_p=0.4))[0].tolist() == [1, 2]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, -math.inf]), min_size=1, max_size=9), st.integers(1, 12))
def test_best_is_a_stable_sort(values, k):
    scores = np.array(values)
    assert best(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


@pytest.mark.parametrize("n", [3, 256, 257, 5000])
def test_top_p_looks_at_as_many_tokens_as_it_needs(n, monkeypatch):
    monkeypatch.setattr(sampler, "FIRST_CANDIDATES", 16)
    ids, weights = candidates(np.zeros(n, np.float32), SamplingParams(temperature=1.0, top_p=0.5))
    assert ids.tolist() == list(range(math.ceil(n / 2))) and (weights == 1).all()


def test_presence_and_frequency_leave_the_prompt_alone():
    row, history = np.zeros(4, np.float32), [0, 0, 1, 2, 2]
    p = SamplingParams(presence_penalty=1.0, frequency_penalty=0.5)
    assert adjusted(row, p, history, 2).tolist() == [0, -1.5, -2, 0]
    assert adjusted(row, SamplingParams(repetition_penalty=2.0), [0, 9], 2).tolist() == [0, 0, 0, 0]
    assert adjusted(np.array([1, -1, 1], np.float32), SamplingParams(repetition_penalty=2.0), [0, 1], 2).tolist() == [0.5, -2, 1]
    assert adjusted(row, SamplingParams(temperature=1.0), history) is row, "nothing to do costs nothing"


@given(LOGITS, st.integers(1, 25))
def test_top_logprobs(row, n):
    ids, logprobs = top_logprobs(np.array([row, row * 0]) if np.isfinite(row).all() else row[None], n)
    order = np.argsort(-row, kind="stable")[:n]
    assert ids[0].tolist() == order.tolist()
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(logprobs[0], np.log(softmax(row.astype(np.float64)))[order], atol=1e-4)


def test_top_logprobs_of_a_bad_row():
    ids, logprobs = top_logprobs(np.array([[0, np.nan], [0, 1]], np.float32), 2)
    assert ids.tolist() == [[0, 1], [1, 0]] and np.isnan(logprobs).tolist() == [[True, True], [False, False]]


# -- random numbers ---------------------------------------------------------------------------------------------------

def test_the_nth_number_depends_on_seed_and_n_alone():
    rng = TokenRandom(7)
    drawn = [rng.random() for _ in range(5)]
    assert [TokenRandom(7, n).random() for n in range(5)] == drawn
    assert TokenRandom(8).random() != drawn[0] and TokenRandom(7 + 2**64).random() != drawn[0]
    assert TokenRandom().seed != TokenRandom().seed
    # SplitMix64 from state 0 gives 0xe220a8397b1dcdaf first (the value that its authors' code prints).
    zero = TokenRandom(0)
    assert zero._state == 0 and zero.random() == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_numbers_are_uniform_and_streams_unlike():
    numbers = np.array([[TokenRandom(seed, n).random() for n in range(64)] for seed in range(64)])
    assert numbers.min() >= 0 and numbers.max() < 1
    assert np.abs(np.histogram(numbers, 8, (0, 1))[0] / numbers.size - 1 / 8).max() < 0.02
    assert np.abs(np.corrcoef(numbers) - np.eye(64)).max() < 0.6


# -- parameters -------------------------------------------------------------------------------------------------------

def test_parameters_are_normalised():
    p = SamplingParams(stop="END", stop_token_ids=[1], logit_bias={3: 1})
    assert p.stop == ("END",) and p.stop_token_ids == (1,) and p.logit_bias == {3: 1}
    assert p == pickle.loads(pickle.dumps(p)) == dataclasses.replace(p)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.top_k = 3


@pytest.mark.parametrize("name, meant", [("temprature", "temperature"), ("max_new_tokens", "max_tokens"), ("topk", "top_k"),
                                         ("stops", "stop")])
def test_unknown_names_are_refused(name, meant):
    with pytest.raises(ConfigError, match=f"no sampling parameter '{name}'; did you mean '{meant}'"):
        SamplingParams(**{name: 1})


def test_unknown_names_far_from_any():
    with pytest.raises(ConfigError, match="'xyzzy'; they are max_tokens, temperature"):
        SamplingParams(xyzzy=1)


@pytest.mark.parametrize("name, value, rule", [
    ("max_tokens", 0, "at least 1"), ("max_tokens", 2.0, "a whole number"), ("temperature", -1, "from 0"),
    ("temperature", math.nan, "from 0"), ("temperature", "hot", "from 0"), ("temperature", True, "from 0"), ("top_k", -1, "0 means no limit"),
    ("top_p", 0, "above 0"), ("top_p", 1.1, "at most 1"), ("min_p", 1, "below 1"), ("repetition_penalty", 0, "above 0"),
    ("presence_penalty", math.inf, "finite"), ("seed", -1, "or None"), ("stop", ["a", ""], "none of them empty"), ("stop", [1], "a string"),
    ("stop_token_ids", [-1], "token ids"), ("logit_bias", {1: math.inf}, "bans a token"), ("logit_bias", {"a": 1.0}, "token ids"),
    ("logprobs", -1, "0 for none"), ("ignore_eos", 1, "True or False"),
])
def test_values_out_of_range_are_refused(name, value, rule):
    with pytest.raises(ConfigError, match=f"^{name} is .*it must be .*{rule}"):
        SamplingParams(**{name: value})


def test_token_ids_beyond_the_vocabulary():
    SamplingParams(logit_bias={9: 1.0}, stop_token_ids=[9]).check_vocabulary(10)
    with pytest.raises(ConfigError, match=r"logit_bias has the token id 9; this model has ids 0 to 8. Take ids from its own"):
        SamplingParams(logit_bias={9: 1.0}).check_vocabulary(9)
    with pytest.raises(ConfigError, match="stop_token_ids has the token id 11"):
        SamplingParams(stop_token_ids=[11]).check_vocabulary(9)
