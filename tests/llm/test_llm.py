"""The user's door: prompts in, completions out; what is refused, and how it is said."""

import numpy as np
import pytest

from nums_core.errors import ConfigError, ModelFileError
from nums_core.llm.cache.h2o import H2O
from nums_core.llm.cache.window import Window
from nums_core.llm.llm import LLM
from nums_core.llm.options import Sizes, find_model, policy_named
from nums_core.llm.sampler import SamplingParams

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from nums_core.testing.models import write_tiny_llama  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, max_batch=4, max_step_tokens=32)


def test_texts_and_token_ids_are_the_same_prompt(llm):
    text = "Once upon a time"
    ids = llm.tokenizer.encode(text)
    one, two, three = llm.generate([text, ids, "Three"], max_tokens=8)
    assert one.token_ids == two.token_ids and one.prompt_ids == tuple(ids)
    assert len(one.token_ids) == len(one.logprobs) <= 8
    assert one.text == llm.tokenizer.decode([t for t in one.token_ids if t not in llm.tokenizer.eos_ids])
    assert str(three) == three.text
    (alone,) = llm.generate(text, max_tokens=8)
    (by_ids,) = llm.generate(np.array(ids), max_tokens=8)
    assert alone.token_ids == by_ids.token_ids == one.token_ids
    assert llm.generate([]) == []


def test_a_stream_is_the_same_text_in_pieces(llm):
    (whole,) = llm.generate("Hello", max_tokens=12, temperature=1.0, seed=5)
    pieces = list(llm.stream("Hello", max_tokens=12, temperature=1.0, seed=5))
    assert "".join(map(str, pieces)) == whole.text == pieces[-1].completion.text
    assert sum((p.token_ids for p in pieces), ()) == whole.token_ids
    assert [p.completion is not None for p in pieces] == [False] * (len(pieces) - 1) + [True]


def test_streams_may_be_read_in_turns_and_left(llm):
    first, second = (llm.stream(t, max_tokens=9, ignore_eos=True) for t in ("one", "two"))
    got = [next(first).token_ids, next(second).token_ids]
    (between,) = llm.generate("three", max_tokens=20, ignore_eos=True)
    assert len(between.token_ids) == 20
    got[0] += sum((p.token_ids for p in first), ())
    second.close()
    assert not llm.engine.requests and not llm._inbox and llm.engine.batcher.idle
    assert got[0] == llm.generate("one", max_tokens=9, ignore_eos=True)[0].token_ids


def test_text_ends_before_a_stop_string(llm):
    (free,) = llm.generate("abc", max_tokens=20, ignore_eos=True)
    assert len(free.text) > 6
    stop = free.text[3:5]
    (cut,) = llm.generate("abc", max_tokens=20, ignore_eos=True, stop=[stop])
    assert cut.finish_reason == "stop" and cut.text == free.text[:free.text.find(stop)]


def test_chat_fills_the_template(llm):
    messages = [{"role": "user", "content": "Hi"}]
    assert llm.tokenizer.decode(llm.chat_prompt(messages), skip_special=False) == "<|start|>user: Hi<|end|><|start|>assistant: "
    answer = llm.chat(messages, max_tokens=4)
    assert answer.prompt_ids == tuple(llm.chat_prompt(messages))


def test_scores_add_up_however_they_are_cut(llm):
    ids = llm.tokenizer.encode("some words to be judged")
    whole, by_one = llm.score(ids), llm.score(ids, chunk=1)
    assert whole.shape == (len(ids) - 1,) and whole.dtype == np.float64 and (whole < 0).all()
    np.testing.assert_allclose(whole, by_one, atol=1e-4)
    both = llm.score([ids, ids[:5]], chunk=3)
    np.testing.assert_allclose(both[0], whole, atol=1e-4)
    np.testing.assert_allclose(both[1], whole[:4], atol=1e-4)
    (made,) = llm.generate(ids, max_tokens=5, ignore_eos=True)
    np.testing.assert_allclose(llm.score([*ids, *made.token_ids])[len(ids) - 1:], made.logprobs, atol=1e-4)
    with pytest.raises(ValueError, match=r"request .*: token id 999 is not in the vocabulary"):
        llm.score([1, 999])


def test_a_bad_prompt_harms_no_other(llm):
    good, bad = llm.generate(["fine", "x" * 500], max_tokens=4)
    assert good.error is None and good.token_ids
    assert bad.finish_reason == "error" and "shorten it by 373 tokens" in bad.error


def test_parameters_are_checked_before_anything_runs(llm):
    with pytest.raises(ConfigError, match="did you mean 'max_tokens'"):
        llm.generate("x", max_token=3)
    with pytest.raises(ConfigError, match="one for all, or one a prompt"):
        llm.generate(["x", "y"], [SamplingParams()])
    with pytest.raises(ConfigError, match="put everything into SamplingParams"):
        llm.generate("x", SamplingParams(), top_k=3)
    each = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (2, 4)]
    assert [len(c.token_ids) for c in llm.generate(["x", "y"], each)] == [2, 4]
    assert not llm.engine.requests


@pytest.mark.parametrize("options, message", [
    ({"max_batch": 0}, "max_batch is 0; .*at least 1"),
    ({"max_step_tokens": 1.5}, "max_step_tokens is 1.5"),
    ({"max_context": 4096}, "made for 128 positions; give at most"),
    ({"memory": 100}, "memory is 100 B, and a page of 16 tokens takes .*give at least"),
    ({"kv_policy": "windw"}, "did you mean 'window'"),
    ({"kv_policy": "h2o:hevy=0.1"}, "H2O has no setting 'hevy'.*did you mean 'heavy'"),
    ({"kv_policy": "h2o:heavy=much"}, "heavy is 'much'; write a number"),
    ({"kv_policy": "window"}, "missing .*window.*write it as in"),
    ({"kv_bits": 5}, "bits"),
])
def test_sizes_and_policies_out_of_range_are_refused(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        LLM(folder, **options)


def test_policies_by_name():
    assert policy_named("h2o:heavy=0.25,recent=16,rolling=true") == H2O(heavy=0.25, recent=16, rolling=True)
    assert policy_named("Window:window=8") == Window(8)
    assert policy_named(Window(3)) == Window(3)


def test_a_model_may_be_named_by_its_package(tmp_path, monkeypatch):
    package = tmp_path / "a_tiny_model"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelFileError, match=r"a-tiny-model: no such file.*pass the path"):
        find_model("a-tiny-model")
    (package / "a.gguf").touch()
    assert find_model("a-tiny-model") == package / "a.gguf"
    (package / "b.gguf").touch()
    with pytest.raises(ModelFileError, match=r"holds 2 models; .*b\.gguf"):
        find_model("a_tiny_model")
    assert find_model(tmp_path) == tmp_path


def test_the_cache_is_no_larger_than_the_requests_can_fill():
    assert Sizes(max_batch=2).pages(page_bytes=1000, pages_of_one=8) == 16
    assert Sizes(max_batch=2, memory="10kB").pages(page_bytes=1000, pages_of_one=8) == 10
    assert Sizes(max_batch=2**20).pages(page_bytes=2**20, pages_of_one=512) == 1024


def test_a_text_judged_token_by_token_holds_its_budget_and_no_more(folder):
    llm = LLM(folder, kv_policy=H2O(heavy=8, recent=8), page_tokens=4, max_context=64)
    cache, step, most = llm.engine.batcher.cache, llm.engine.step, []

    def watched():
        made = step()
        most.append(cache.pool.n_pages - cache.pool.n_free)
        return made

    llm.engine.step = watched
    llm.score(list(range(1, 61)), chunk=1)
    assert max(most) == 5  # 16 tokens and the newcomer, in pages of 4; the text has 15
