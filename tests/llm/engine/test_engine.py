"""The engine over a tiny model: what it makes is what the model says, whatever else it is busy with."""

import math

import numpy as np
import pytest

from nums_core.llm.cache.window import Window
from nums_core.llm.engine.engine import log_probabilities
from nums_core.llm.sampler import SamplingParams

RNG = np.random.default_rng(1)
PROMPTS = [RNG.integers(0, 64, n).tolist() for n in (3, 21, 1, 9, 34, 5)]
GREEDY = SamplingParams(max_tokens=6)


def finish(engine, most_steps=300):
    """Run until nothing is left; completions by request."""
    done = {}
    for _ in range(most_steps):
        if not engine.has_work:
            return done
        done |= {d.request_id: d.completion for d in engine.step() if d.completion is not None}
    raise AssertionError(f"{engine.requests} did not end")


def generate(engine, prompts, params=GREEDY):
    names = [engine.add_request(p, params) for p in prompts]
    done = finish(engine)
    return [done[name] for name in names]


def test_greedy_tokens_are_those_of_the_plain_model(tiny):
    engine = tiny.engine()
    made = generate(engine, PROMPTS)
    assert [list(c.token_ids) for c in made] == [tiny.greedy(p, 6) for p in PROMPTS]
    assert {c.finish_reason for c in made} == {"length"}
    for c, p in zip(made, PROMPTS):
        rows = tiny.logits([*p, *c.token_ids])[len(p) - 1:-1]
        np.testing.assert_allclose(c.logprobs, log_probabilities(rows, c.token_ids), atol=2e-4)
        assert c.prompt_ids == tuple(p) and 0 < c.first_token_s <= c.total_s
    assert engine.counts.generated == 36
    assert engine.counts.tokens == sum(map(len, PROMPTS)) + 5 * 6  # nothing is computed twice; the last is not read


def test_plans_are_made_once_for_a_shape(tiny):
    engine = tiny.engine()
    generate(engine, PROMPTS)
    compiled = engine.runner.n_compiled
    generate(engine, [p[::-1] for p in PROMPTS])
    assert engine.runner.n_compiled == compiled <= 10


def test_tokens_are_the_same_when_pages_run_out(tiny):
    engine = tiny.engine(memory=12 * tiny.page_bytes())
    made = generate(engine, PROMPTS, SamplingParams(max_tokens=10))
    assert engine.batcher.n_preempted > 0
    assert [list(c.token_ids) for c in made] == [tiny.greedy(p, 10) for p in PROMPTS]


def test_a_shared_beginning_is_read_once_and_changes_nothing(tiny):
    engine = tiny.engine()
    start = PROMPTS[1][:16]
    prompts = [start + p for p in PROMPTS[:3]]
    alone = generate(engine, prompts[:1])
    rest = generate(engine, prompts[1:])
    assert engine.batcher.n_reused_tokens == 2 * 16
    assert [list(c.token_ids) for c in alone + rest] == [tiny.greedy(p, 6) for p in prompts]
    assert engine.runner.cache.n_free_pages < engine.runner.cache.pool.n_pages
    engine.batcher.forget_prefixes()
    assert engine.runner.cache.n_free_pages == engine.runner.cache.pool.n_pages


def test_draws_depend_on_the_seed_and_not_on_the_company(tiny):
    params = [SamplingParams(max_tokens=8, temperature=1.5, seed=k) for k in range(4)]
    together, one = tiny.engine(), tiny.engine(max_batch=1)
    names = [together.add_request(PROMPTS[0], p) for p in params]
    done = finish(together)
    alone = [generate(one, PROMPTS[:1], p)[0].token_ids for p in params]
    assert [done[n].token_ids for n in names] == alone
    assert len(set(alone)) > 1


def test_scores_are_the_plain_models(tiny):
    engine = tiny.engine(memory=12 * tiny.page_bytes())
    names = [engine.add_request(p, scored=True, chunk=5) for p in PROMPTS]
    other = engine.add_request(PROMPTS[0], GREEDY)
    done = finish(engine)
    for name, p in zip(names, PROMPTS):
        want = log_probabilities(tiny.logits(p)[:-1], p[1:])
        np.testing.assert_allclose(done[name].logprobs, want, atol=2e-4)
    assert list(done[other].token_ids) == tiny.greedy(PROMPTS[0], 6)


def test_a_policy_with_a_budget_holds_no_more_than_that(tiny):
    engine = tiny.engine(Window(8, sinks=2), max_batch=1)
    engine.add_request(PROMPTS[4], SamplingParams(max_tokens=20))
    held = []
    while engine.has_work:
        engine.step()
        held.append(engine.runner.cache.bytes_used())
    assert max(held[5:]) == 3 * engine.runner.cache.page_bytes  # ten tokens and the newest, four a page
    assert engine.batcher.prefixes is None  # pages that change cannot be shared


@pytest.mark.parametrize("prompt, params, message", [
    ([], {}, "the prompt is empty; give at least one token"),
    ([1] * 96, {}, "has 96 tokens, and the context is 96.*shorten it by 1"),
    ([1, 64], {}, "token id 64 is not in the vocabulary.*own tokenizer"),
    ([1, -1], {}, "token id -1 is not in the vocabulary"),
    ([1], {"stop": "x"}, "need a tokenizer; open the model with one"),
    ([1], {"stop_token_ids": [64]}, "stop_token_ids has the token id 64"),
    ([1], {"logit_bias": dict.fromkeys(range(64), -math.inf)}, "every token banned.*take back logit_bias"),
])
def test_a_bad_request_ends_with_an_error_that_names_it_and_others_go_on(tiny, prompt, params, message):
    engine = tiny.engine()
    good = engine.add_request(PROMPTS[0], GREEDY)
    bad = engine.add_request(prompt, SamplingParams(**params), request_id="the bad one")
    done = finish(engine)
    assert done[bad].finish_reason == "error" and done[bad].token_ids == ()
    with pytest.raises(AssertionError, match=f"^request the bad one: .*{message}"):
        raise AssertionError(done[bad].error)
    assert list(done[good].token_ids) == tiny.greedy(PROMPTS[0], 6)


def test_a_request_that_no_memory_fits_ends_with_an_error(tiny):
    engine = tiny.engine(memory=4 * tiny.page_bytes())
    big, small = engine.add_request(PROMPTS[4], GREEDY), engine.add_request(PROMPTS[0], GREEDY)
    done = finish(engine)
    assert "too small for its 34 tokens" in done[big].error and "memory=" in done[big].error
    assert list(done[small].token_ids) == tiny.greedy(PROMPTS[0], 6)


def test_logits_that_are_no_numbers_end_their_own_request_alone(tiny):
    weights = np.array(tiny.model.embedding.weight)
    weights[63] = np.nan
    poisoned = tiny.model.with_parameters({"embedding.weight": tiny.model.embedding.weight * 0 + weights})
    good = [[t % 63 for t in p] for p in PROMPTS[:3]]
    engine = tiny.engine(model=poisoned)
    names = [engine.add_request(p, GREEDY) for p in good]
    bad = engine.add_request([5, 63, 2, 8, 9], GREEDY)
    scored = engine.add_request([5, 63, 2], scored=True)
    done = finish(engine)
    for name in (bad, scored):
        assert done[name].finish_reason == "error" and f"request {name}: the model gave logits" in done[name].error
    after = generate(engine, good)  # in the pages that held NaN
    for name, again, p in zip(names, after, good):
        assert done[name].finish_reason == "length"
        assert done[name].token_ids == again.token_ids
    assert not any(c.error for c in after)


def test_an_aborted_request_gives_its_pages_back(tiny):
    engine = tiny.engine()
    first, second = (engine.add_request(p, SamplingParams(max_tokens=30)) for p in PROMPTS[:2])
    for _ in range(5):
        engine.step()
    gone = engine.abort(second)
    assert gone.finish_reason == "abort" and gone.prompt_ids == tuple(PROMPTS[1]) and gone.token_ids
    assert engine.abort(second) is None
    waiting = engine.add_request(PROMPTS[2], GREEDY)
    assert engine.abort(waiting).token_ids == ()
    done = finish(engine)
    assert list(done) == [first] and list(done[first].token_ids) == tiny.greedy(PROMPTS[0], 30)
    engine.batcher.forget_prefixes()
    assert engine.runner.cache.n_free_pages == engine.runner.cache.pool.n_pages


def test_a_step_cut_short_is_done_again(tiny, monkeypatch):
    engine = tiny.engine()
    names = [engine.add_request(p, GREEDY) for p in PROMPTS[:2]]
    for _ in range(4):
        engine.step()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    done = finish(engine)
    assert [list(done[n].token_ids) for n in names] == [tiny.greedy(p, 6) for p in PROMPTS[:2]]


def test_what_ends_a_text(tiny):
    prompt, engine = PROMPTS[0], tiny.engine()
    greedy = tiny.greedy(prompt, 8)
    end = greedy[3]
    n = greedy.index(end) + 1
    stop = engine.add_request(prompt, SamplingParams(max_tokens=8, stop_token_ids=[end]))
    engine.eos_ids = frozenset([end])
    eos, ignored = (engine.add_request(prompt, SamplingParams(max_tokens=8, ignore_eos=i)) for i in (False, True))
    done = finish(engine)
    assert [list(done[r].token_ids) for r in (stop, eos, ignored)] == [greedy[:n], greedy[:n], greedy]
    assert [done[r].finish_reason for r in (stop, eos, ignored)] == ["stop", "stop", "length"]
    full = engine.add_request([1] * 90, SamplingParams(max_tokens=50, ignore_eos=True))
    done = finish(engine)
    assert done[full].finish_reason == "length" and len(done[full].token_ids) == 6  # the context is full


def test_the_likeliest_tokens_are_told_where_asked_for(tiny):
    (c,) = generate(tiny.engine(), PROMPTS[:1], SamplingParams(max_tokens=3, logprobs=2))
    assert [t[0][0] for t in c.top_logprobs] == list(c.token_ids)
    np.testing.assert_allclose([t[0][1] for t in c.top_logprobs], c.logprobs)
    assert all(len(t) == 2 and t[0][1] >= t[1][1] for t in c.top_logprobs)


def test_a_name_in_use_is_refused(tiny):
    engine = tiny.engine()
    engine.add_request([1], request_id="0")
    with pytest.raises(ValueError, match=r"request 0 is still being served; .*abort"):
        engine.add_request([1], request_id="0")
    assert engine.add_request([1]) != "0"
