"""Measures of language models, on models whose answers are known in closed form."""

import importlib
import itertools
import json
import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.cli.main import main
from nums_core.errors import ConfigError, DataFileError, MissingBackendError
from nums_core.llm.eval import choices as c
from nums_core.llm.eval.perplexity import Perplexity, perplexity, windows
from nums_core.llm.eval.recall import WORDS, plant, recall
from nums_core.llm.eval.scorer import LLMScorer, LogitsScorer, score_all

VOCAB = 257
BIGRAM = np.random.default_rng(0).normal(size=(VOCAB, VOCAB))
LOG_P = BIGRAM - np.log(np.exp(BIGRAM).sum(axis=1, keepdims=True))


class Bytes:
    """A byte a token; 256 begins a text."""

    bos_id, eos_ids = 256, (256,)

    def encode(self, text, special=True):
        return [256] * special + list(text.encode())


bigram = LogitsScorer(lambda tokens: BIGRAM[tokens])
uniform = LogitsScorer(lambda tokens: np.zeros((len(tokens), VOCAB)))


class Echo:
    """Remembers `reach` tokens: what followed the last three tokens when it last saw them is likely to follow again."""

    def __init__(self, reach=10**9):
        self.reach = reach

    def score(self, tokens):
        out = []
        for k in range(1, len(tokens)):
            seen = tokens[max(0, k - self.reach):k]
            at = next((j for j in range(len(seen) - 4, -1, -1) if seen[j:j + 3] == seen[-3:]), None)
            likely = at is not None and len(seen) > 3 and seen[at + 3] == tokens[k]
            out.append(math.log(0.5 if likely else 0.5 / VOCAB))
        return np.array(out)


# -- scorers ----------------------------------------------------------------------------------------------------------

@given(st.lists(st.integers(0, VOCAB - 1), max_size=6))
def test_scores_of_a_table(tokens):
    np.testing.assert_allclose(bigram.score(tokens), [LOG_P[a, b] for a, b in itertools.pairwise(tokens)], atol=1e-12)


def test_a_scorer_of_the_wrong_length_is_told():
    class Wrong:
        def score(self, tokens):
            return np.zeros(len(tokens))

    with pytest.raises(ValueError, match=r"scores of shape \(3,\) for 3 tokens; score\(\) returns one for each token but the first"):
        score_all(Wrong(), [[1, 2, 3]])


class FakeLLM:
    """What `LLM` promises, from the table of bigrams."""

    def __init__(self, *args, **kwargs):
        self.tokenizer, self.calls, self.options = Bytes(), [], kwargs
        self.engine = types.SimpleNamespace(max_context=64)

    def score(self, token_ids, chunk=None):
        self.calls.append((len(token_ids), chunk))
        return [bigram.score(t) for t in token_ids] if isinstance(token_ids[0], list) else bigram.score(token_ids)

    def generate(self, prompts, params):
        made = bigram.continue_greedily(prompts, [p.max_tokens for p in params])
        return [types.SimpleNamespace(token_ids=t, text=bytes(b for b in t if b < 256).decode("latin-1"), error=None) for t in made]


def test_an_llm_scores_in_batches():
    scorer = LLMScorer(FakeLLM(), chunk=1)
    np.testing.assert_array_equal(scorer.score([1, 2, 3]), bigram.score([1, 2, 3]))
    assert [s.shape for s in score_all(scorer, [[1, 2], [1, 2, 3]])] == [(1,), (2,)]
    assert scorer.llm.calls == [(3, 1), (2, 1)]
    assert scorer.continue_greedily([[1], [2]], [2, 1]) == bigram.continue_greedily([[1], [2]], [2, 1])
    assert score_all(scorer, []) == []


# -- perplexity -------------------------------------------------------------------------------------------------------

@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_every_token_but_the_first_is_scored_once(n, window, data):
    stride = data.draw(st.one_of(st.none(), st.integers(1, window - 1)))
    spans = windows(n, window, stride)
    assert [k for w in spans for k in range(w.first, w.end)] == list(range(1, n))
    for w in spans:
        assert 0 <= w.begin < w.first < w.end and w.end - w.begin <= window
        assert w.begin == 0 or w.first - w.begin >= window - (stride or window - 1)


@given(st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=40), st.integers(2, 12), st.integers(1, 4))
def test_perplexity_of_bigrams_does_not_depend_on_windows(tokens, window, batch):
    found = perplexity(bigram, tokens, window, batch=batch)
    nats = -sum(LOG_P[a, b] for a, b in itertools.pairwise(tokens))
    assert found.nats == pytest.approx(nats) and found.n_tokens == len(tokens) - 1
    assert found.value == pytest.approx(math.exp(nats / (len(tokens) - 1)))


def test_perplexity_of_a_guess_is_the_vocabulary():
    found = perplexity(uniform, range(50), 16, 4, n_bytes=49)
    assert found.value == pytest.approx(VOCAB) and found.bits_per_byte == pytest.approx(math.log2(VOCAB))
    assert str(found).startswith("perplexity 257.0000, 8.0056 bits a byte (49 tokens in 13 windows)")
    assert Perplexity(1.0, 1, 1).bits_per_byte is None


def test_longer_windows_see_more():
    tokens = [1, 2, 3, 4, 5, 6, 7, 8] * 6
    assert perplexity(Echo(), tokens, 24, 4).value < perplexity(Echo(), tokens, 8, 4).value


@pytest.mark.parametrize("n, window, stride, message", [
    (10, 4, 4, "stride must be from 1 to 3"), (10, 1, None, "a window at least 2"), (10, 4, 0, "stride must be"),
    (1, 4, None, "1 tokens; a first one and one to score are needed"),
])
def test_windows_that_score_nothing(n, window, stride, message):
    with pytest.raises(ConfigError, match=message):
        windows(n, window, stride)


def test_a_model_that_gives_nan():
    broken = LogitsScorer(lambda tokens: np.full((len(tokens), 4), np.nan))
    with pytest.raises(ValueError, match="for tokens 1 to 3; its weights may be damaged: try dtype='float32'"):
        perplexity(broken, [0, 1, 2], 8)


# -- recall -----------------------------------------------------------------------------------------------------------

def test_texts_have_the_word_where_they_should():
    items = plant(Bytes(), 400, depths=(0.0, 0.5, 1.0), repeat=2, others=3, seed=1)
    assert len(items) == 6 and all(len(i.context) == 400 and i.context[0] == 256 for i in items)
    for item in items:
        text, word = bytes(item.context[1:]).decode(), bytes(item.answers[0]).decode()
        assert len(item.answers) == 4 and len(set(item.answers)) == 4
        assert all(bytes(a).decode()[1:] in WORDS for a in item.answers)
        at = text.index(f" The secret word is{word}.")
        room = 399 - len(f" The secret word is{word}.") - len(" The secret word is")
        assert at == round(item.depth * room) and text.endswith(" The secret word is")
    assert items == plant(Bytes(), 400, depths=(0.0, 0.5, 1.0), repeat=2, others=3, seed=1)
    assert items != plant(Bytes(), 400, depths=(0.0, 0.5, 1.0), repeat=2, others=3, seed=2)


def test_who_remembers_recalls_and_who_forgets_does_not():
    items = plant(Bytes(), 300, depths=(0.1, 0.9), repeat=3, text="lorem ipsum dolor " * 40)
    whole, short = recall(Echo(), items), recall(Echo(120), items)
    assert whole.value == 1.0 and whole.by_depth == {0.1: 1.0, 0.9: 1.0}
    assert short.by_depth == {0.1: 0.0, 0.9: 1.0} and short.value == 0.5
    assert whole.log_probability > short.log_probability and whole.chance == 0.25
    assert "100 % at 0.10" in str(whole) and "25 % by chance" in str(whole)


@pytest.mark.parametrize("options, message", [
    ({"n_tokens": 10}, "take a longer context"), ({"n_tokens": 400, "text": "short"}, "give a longer text"),
    ({"n_tokens": 400, "others": 0}, "others must be from 1 to 29"), ({"n_tokens": 400, "depths": (2,)}, "depths from 0 to 1"),
    ({"n_tokens": 400, "repeat": 0}, "repeat at least 1"),
])
def test_texts_that_cannot_be_planted(options, message):
    with pytest.raises(ConfigError, match=message):
        plant(Bytes(), **options)


# -- choices ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("context, continuation, first, rest", [
    ("ab", "c", [256, 97, 98], [99]), ("ab ", "c", [256, 97, 98], [32, 99]), ("ab", " c", [256, 97, 98], [32, 99]),
    ("", "c", [256], [99]), ("  ", "c", [256, 32, 32], [99]),
])
def test_requests_in_tokens(context, continuation, first, rest):
    assert c.encode_pair(Bytes(), context, continuation) == (first, rest)


def test_tokens_over_the_border():
    """Encoded apart, the two texts would have other tokens."""
    class Pairs(Bytes):
        def encode(self, text, special=True):
            return [256] * special + [hash_of(text[k:k + 2]) for k in range(0, len(text), 2)]

    def hash_of(pair):
        return sum(ord(x) for x in pair) % 256

    assert c.encode_pair(Pairs(), "abcd", "ef") == ([256, hash_of("ab"), hash_of("cd")], [hash_of("ef")])
    assert c.encode_pair(Pairs(), "abc", "def").continuation == [hash_of("ef")], "as lm-eval has it"


REQUESTS = st.lists(st.tuples(st.text("abc ", max_size=5), st.text("abc", min_size=1, max_size=4)), min_size=1, max_size=8)


@given(REQUESTS, st.integers(1, 4))
def test_log_likelihoods_come_back_in_order(requests, batch):
    pairs = [c.encode_pair(Bytes(), *r) for r in requests]
    found = c.log_likelihoods(bigram, pairs, batch=batch)
    for (first, rest), value in zip(pairs, found):
        tokens = [*first, *rest]
        expected = sum(LOG_P[a, b] for a, b in zip(tokens[len(first) - 1:], rest))
        assert value == pytest.approx(expected)


def test_long_contexts_lose_their_beginning():
    pair = c.Pair(list(range(20)), [1, 2])
    seen = []
    scorer = LogitsScorer(lambda tokens: seen.append(len(tokens)) or BIGRAM[tokens])
    assert c.log_likelihoods(scorer, [pair], 8) == c.log_likelihoods(bigram, [pair]) and seen == [8]
    with pytest.raises(ConfigError, match="of 2 tokens and one before it do not fit into a context of 2; leave it out"):
        c.log_likelihoods(bigram, [pair], 2)


def test_questions_are_answered_by_likelihood():
    rng = np.random.default_rng(3)
    questions = [c.Question("".join(rng.choice(list("abcd"), 5)), tuple("".join(rng.choice(list("xyz"), n)) for n in (1, 3, 2)), int(a))
                 for a in rng.integers(0, 3, 40)]
    found = c.evaluate(bigram, Bytes(), questions)
    plain = normalised = 0
    for q in questions:
        sums = [bigram.score([256, *(q.context + x).encode()])[5:].sum() for x in q.choices]
        plain += int(np.argmax(sums) == q.answer)
        normalised += int(np.argmax([s / len(x) for s, x in zip(sums, q.choices)]) == q.answer)
    assert (found.accuracy, found.accuracy_normalised, found.n) == (plain / 40, normalised / 40, 40)
    assert found.standard_error == pytest.approx(math.sqrt(found.accuracy * (1 - found.accuracy) / 39))
    with pytest.raises(ConfigError, match="no questions; give a task with at least one"):
        c.evaluate(bigram, Bytes(), [])


def test_requests_that_cannot_be_judged():
    class NoBegin(Bytes):
        bos_id, eos_ids = None, ()

    with pytest.raises(ConfigError, match="no token that begins a text; give a context"):
        c.encode_pair(NoBegin(), "", "x")
    with pytest.raises(ConfigError, match=r"has no tokens of its own.*give one with text in it"):
        c.encode_pair(Bytes(), "a", "")


# -- task files -------------------------------------------------------------------------------------------------------

GOOD = {"context": "1 + 1 =", "choices": [" 2", " 3"], "answer": 0}


def test_a_task_is_read(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | {"answer": 1, "more": None}) + "\n")
    assert c.read_task(path) == [c.Question("1 + 1 =", (" 2", " 3"), 0), c.Question("1 + 1 =", (" 2", " 3"), 1)]


@pytest.mark.parametrize("line, message", [
    ("{", "Expecting property name"), ("[1]", "a list where an object is wanted"), (json.dumps(GOOD | {"context": 1}), "context is 1, not a text"),
    (json.dumps(GOOD | {"choices": ["x"]}), "not two or more texts"), (json.dumps(GOOD | {"choices": [" 2", ""]}), "not two or more texts"),
    (json.dumps(GOOD | {"answer": 2}), "answer is 2, not an index below 2"), (json.dumps(GOOD | {"answer": True}), "answer is True"),
    ("[" * 100_000, "line 2: "),
])
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line)
    with pytest.raises(DataFileError, match=r"task\.jsonl, line 2: .*a line is \{\"context\"") as caught:
        c.read_task(path)
    assert message in str(caught.value)


def test_a_task_that_is_not_there(tmp_path):
    with pytest.raises(DataFileError, match=r"cannot be read.*a task is a file of JSON lines in UTF-8"):
        c.read_task(tmp_path / "none.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(DataFileError, match="cannot be read"):
        c.read_task(tmp_path / "binary")


# -- lm-eval ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def harness(monkeypatch):
    """The adapter, over a stand-in for the one class it takes from lm-eval."""
    model = types.ModuleType("lm_eval.api.model")
    model.LM = type("LM", (), {"__init__": lambda self: None})
    for name, module in (("lm_eval", types.ModuleType("lm_eval")), ("lm_eval.api", types.ModuleType("lm_eval.api")),
                         ("lm_eval.api.model", model)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "nums_core.llm.eval.harness", raising=False)
    yield importlib.import_module("nums_core.llm.eval.harness")
    sys.modules.pop("nums_core.llm.eval.harness", None)


def asked(*arguments):
    return [types.SimpleNamespace(args=a) for a in arguments]


def test_lm_eval_s_three_kinds_of_requests(harness):
    lm = harness.NumsLM(FakeLLM())
    best = bytes(bigram.continue_greedily([[256, *b"ab"]], [2])[0]).decode("latin-1")
    (good, is_best), (bad, is_worse) = lm.loglikelihood(asked(("ab", "xy"), ("ab ", "c")))
    assert good == pytest.approx(LOG_P[98, 120] + LOG_P[120, 121]) and bad == pytest.approx(LOG_P[98, 32] + LOG_P[32, 99])
    assert is_worse is False and is_best is (best == "xy")
    text = "hello " * 30
    tokens = [256, *text.encode()]
    assert lm.loglikelihood_rolling(asked((text,))) == [pytest.approx(bigram.score(tokens).sum())]
    assert lm.generate_until(asked(("ab", {"until": ["\n"], "max_gen_toks": 2}))) == [best]


def test_greedy_continuations_are_known(harness):
    context = "ab"
    made = bigram.continue_greedily([[256, *context.encode()]], [1])[0]
    lm = harness.NumsLM(FakeLLM())
    pairs = [harness.Pair([256, 97, 98], list(made)), harness.Pair([256, 97, 98], [(made[0] + 1) % 256])]
    assert lm._greedy(pairs) == [True, False]


def test_without_lm_eval_the_adapter_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    sys.modules.pop("nums_core.llm.eval.harness", None)
    with pytest.raises(MissingBackendError, match="run `pip install lm_eval`, or use `nums eval choices`"):
        importlib.import_module("nums_core.llm.eval.harness")


# -- the command ------------------------------------------------------------------------------------------------------

@pytest.fixture
def llm(monkeypatch):
    module = types.ModuleType("nums_core.llm.llm")
    made = []
    module.LLM = lambda *args, **kwargs: made.append(FakeLLM(*args, **kwargs)) or made[-1]
    monkeypatch.setitem(sys.modules, "nums_core.llm.llm", module)
    return made


def test_nums_eval_perplexity(llm, tmp_path, capsys):
    (tmp_path / "text").write_text("hello world")
    numbers = tmp_path / "out.jsonl"
    args = ["eval", "perplexity", "m.gguf", str(tmp_path / "text"), "--window", "8", "--kv-policy", "h2o", "--json", str(numbers)]
    assert main(args) == 0 and main([*args, "--limit", "5", "--chunk", "7"]) == 0
    first, second = map(json.loads, numbers.read_text().splitlines())
    tokens = [256, *b"hello world"]
    assert first["nats"] == pytest.approx(-bigram.score(tokens).sum()) and first["n_bytes"] == 11
    assert second["nats"] == pytest.approx(-bigram.score(tokens[:5]).sum()) and second["n_bytes"] is None
    assert first["kv_policy"] == "h2o" and llm[0].options == {"kv_policy": "h2o"}
    assert (first["chunk"], second["chunk"]) == (1, 7) and {k for _, k in llm[0].calls} == {1}
    assert f"perplexity {first['value']:.4f}" in capsys.readouterr().out


def test_nums_eval_recall_and_choices(llm, tmp_path, capsys):
    assert main(["eval", "recall", "m", "--tokens", "200", "--depths", "0.5", "--repeat", "2"]) == 0
    (tmp_path / "task").write_text(json.dumps(GOOD))
    assert main(["eval", "choices", "m", str(tmp_path / "task")]) == 0
    out = capsys.readouterr().out
    assert "of 2 words" in out and "(1 questions)" in out


@pytest.mark.parametrize("args, message", [
    (["perplexity", "m", "nowhere.txt"], "nowhere.txt cannot be read"), (["choices", "m", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
    (["recall", "m", "--depths", "deep"], "--depths is 'deep'; write numbers from 0 to 1"),
])
def test_nums_eval_says_what_is_wrong(llm, args, message, capsys):
    assert main(["eval", *args]) == 1
    assert message in capsys.readouterr().err
