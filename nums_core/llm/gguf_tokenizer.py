"""Tokenizers from the metadata of GGUF files, built as `tokenizers.Tokenizer`.

A GGUF file holds tokens, merges or scores, and the *name* of the rule that cuts text into words before merging
(`tokenizer.ggml.pre`); the rules themselves are tables of the reader. Two kinds of vocabulary are read:

    gpt2     byte-level BPE: merges in order, words cut by the rule that `pre` names
    llama    SentencePiece BPE: no merges, but a score for each token; no words; bytes where no token fits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nums_core.errors import ModelFileError
from nums_core.llm.token_bytes import SPACE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
MAX_MERGED_CHARS = 128  # longer tokens are never made by merging: hostile ones would cost time quadratic in their length

# -- how text is cut into words before merging ------------------------------------------------------------------------

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str, digits: str) -> str:
    """Words as capitals then small letters, a cut where small letters turn to capitals; `ending` may follow a word."""
    return (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{ending}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{ending}|{digits}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


_GPT4O = _cased(_CONTRACTIONS + "?", r"\p{N}{1,3}")
_TEKKEN = _cased("", r"\p{N}")
DIGITS = "each digit by itself"


@dataclass(frozen=True)
class WordRule:
    """Cuts made one after the other, each within the pieces of the one before.

    `whole_words`: a word that is a token is taken as it is, whatever the merges say. `adds_bos`: text begins with the
    beginning-of-text token where the file does not say.
    """

    cuts: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_RULES: dict[WordRule, tuple[str, ...]] = {
    WordRule((_GPT2,)): ("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "gigachat", "jina-es", "jina-de", "jina-v2-es",
                         "jina-v2-de", "mellum", "modern-bert", "a.x-4.0", "granite-docling"),
    WordRule((DIGITS, _GPT2)): ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    WordRule((_LLAMA3,), True, True): ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
                                       "lfm2"),
    WordRule((_LLAMA3,)): ("dbrx", "smaug-bpe"),
    WordRule((_QWEN2,)): ("qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan", "megrez", "kormo"),
    WordRule((_GPT4O,)): ("gpt-4o", "llama4", "kanana2"),
    WordRule((_TEKKEN,), True, True): ("tekken",),
    # What llama.cpp does for files from before `pre` was written.
    WordRule((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")): ("default", ""),
}
WORD_RULES: dict[str, WordRule] = {name: rule for rule, names in _RULES.items() for name in names}


def word_rule(metadata: Mapping[str, Any], where: str) -> WordRule:
    """The rule that a file names; older files name none.

    Raises
    ------
    ModelFileError
        It is not known. Another rule would give ids that the model has hardly seen, so none is guessed.
    """
    name = _single(metadata, "pre", where, "")
    if name not in WORD_RULES:
        raise ModelFileError(f"{where}: the pre-tokenizer {name!r} (tokenizer.ggml.pre) is not known; those known are "
                             f"{', '.join(n for n in WORD_RULES if n)}. Use a Hugging Face folder of this model, whose "
                             "tokenizer.json spells the rule out")
    return WORD_RULES[name]


# -- the two kinds ----------------------------------------------------------------------------------------------------

def build(metadata: Mapping[str, Any], where: str) -> Any:
    """The `tokenizers.Tokenizer` that a file's metadata describe.

    Raises
    ------
    ModelFileError
        Keys are missing, of other types or do not fit one another, or the kind of vocabulary is not read.
    """
    kind = _single(metadata, "model", where, "")
    if kind not in _BUILDERS:
        raise ModelFileError(f"{where}: vocabularies of kind {kind!r} (tokenizer.ggml.model) are not read, only "
                             f"{' and '.join(_BUILDERS)}; use a Hugging Face folder of this model")
    tokens, types = token_texts(metadata, where), _types(metadata, where)
    try:
        backend = _BUILDERS[kind](metadata, where, tokens, types)
        _add_tokens(backend, tokens, types)
    except ModelFileError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFileError(f"{where}: its tokens and merges do not fit one another ({error}); download the file again, or "
                             "convert the model once more") from error
    return backend


def _byte_level(metadata: Mapping[str, Any], where: str, tokens: list[str], types: Sequence[int]) -> Any:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    rule = word_rule(metadata, where)
    merges = [_pair(m, where) for m in _texts(metadata, "merges", where)]
    backend = tokenizers.Tokenizer(models.BPE(vocab=_ids(tokens), merges=merges, ignore_merges=rule.whole_words))
    cuts = [pre_tokenizers.Digits(individual_digits=True) if cut is DIGITS
            else pre_tokenizers.Split(tokenizers.Regex(cut), "isolated") for cut in rule.cuts]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: Mapping[str, Any], where: str, tokens: list[str], types: Sequence[int]) -> Any:
    """A space goes before every text, one that begins with a space too, and after every control token: as SentencePiece,
    LLaMA's own tokenizer.json and llama.cpp do, and as transformers, reading a GGUF file, does not."""
    import tokenizers
    from tokenizers import decoders, models, normalizers

    scores = _numbers(metadata, "scores", where, len(tokens))
    unknown = next((t for t, kind in zip(tokens, types) if kind == UNKNOWN), None)
    mergeable = [kind in (NORMAL, USER_DEFINED, UNUSED) for kind in types]
    backend = tokenizers.Tokenizer(models.BPE(
        vocab=_ids(tokens), merges=merges_from_scores(tokens, scores, mergeable), unk_token=unknown, fuse_unk=True,
        byte_fallback=BYTE in types))
    prefix = flag(metadata, "add_space_prefix", where, True)
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(SPACE)] if prefix else []), normalizers.Replace(" ", SPACE)])
    backend.decoder = decoders.Sequence([
        decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
        *([decoders.Strip(content=" ", left=1)] if prefix else [])])
    return backend


_BUILDERS: dict[str, Callable[..., Any]] = {"gpt2": _byte_level, "llama": _sentencepiece}


def merges_from_scores(tokens: list[str], scores: Sequence[float], mergeable: Sequence[bool]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, the token with the best score first.

    SentencePiece merges the neighbours whose union has the best score; with merges in this order BPE does the same.
    """
    known = {t for t, ok in zip(tokens, mergeable) if ok}
    found = []
    for k, (token, score) in enumerate(zip(tokens, scores)):
        if mergeable[k] and 1 < len(token) <= MAX_MERGED_CHARS:
            found += [(-score, k, (token[:i], token[i:])) for i in range(1, len(token))
                      if token[:i] in known and token[i:] in known]
    return [pair for _, _, pair in sorted(found, key=lambda f: f[:2])]


def _add_tokens(backend: Any, tokens: list[str], types: Sequence[int]) -> None:
    """Tokens that are recognised in the text as a whole, before anything else: control ones, and the user's."""
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(t, normalized=False, special=True)
                                for t, kind in zip(tokens, types) if t and kind in (CONTROL, UNKNOWN)])
    backend.add_tokens([AddedToken(t, normalized=False, special=False)
                        for t, kind in zip(tokens, types) if t and kind == USER_DEFINED])


# -- metadata, checked ------------------------------------------------------------------------------------------------

def token_texts(metadata: Mapping[str, Any], where: str) -> list[str]:
    """The text of each token id, as the vocabulary spells it.

    Files of byte-level vocabularies may write added tokens in plain text; those are left as they are.
    """
    tokens = _texts(metadata, "tokens", where)
    if not tokens:
        raise ModelFileError(f"{where}: tokenizer.ggml.tokens is empty; the file is damaged, download it again")
    return tokens


def special_id(metadata: Mapping[str, Any], name: str, where: str) -> int | None:
    """The id under `tokenizer.ggml.<name>_token_id`; None where the file has none."""
    key = f"tokenizer.ggml.{name}_token_id"
    value = metadata.get(key)
    if value is None or value == 0xFFFFFFFF:  # written for "none"
        return None
    n = len(token_texts(metadata, where))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n:
        raise ModelFileError(f"{where}: {key} is {value!r}; it must be a token id below {n}: the file is damaged")
    return value


def flag(metadata: Mapping[str, Any], key: str, where: str, otherwise: bool) -> bool:
    """A truth value that may be left out."""
    return bool(_single(metadata, key, where, otherwise))


def _single(metadata: Mapping[str, Any], key: str, where: str, otherwise: str | bool) -> Any:
    """A value of the type of `otherwise`, which stands where the file has none."""
    value = metadata.get(f"tokenizer.ggml.{key}", otherwise)
    if type(value) is not type(otherwise):
        raise ModelFileError(f"{where}: tokenizer.ggml.{key} is {value!r}; it must be a {type(otherwise).__name__}: the file "
                             "is damaged, download it again")
    return value


def _texts(metadata: Mapping[str, Any], key: str, where: str) -> list[str]:
    key = f"tokenizer.ggml.{key}"
    value = metadata.get(key)
    if not isinstance(value, list) or not all(type(v) is str for v in value):
        got = "missing" if value is None else f"a {type(value).__name__} of other things"
        raise ModelFileError(f"{where}: {key} must be a list of strings and is {got}; use a file with its vocabulary in it, or "
                             "a Hugging Face folder of this model")
    return value


def _numbers(metadata: Mapping[str, Any], key: str, where: str, n: int) -> list[Any]:
    key = f"tokenizer.ggml.{key}"
    value = metadata.get(key)
    try:
        numbers = value.tolist() if hasattr(value, "tolist") else list(value)  # type: ignore[union-attr, arg-type]
        fits = len(numbers) == n and all(v == v for v in map(float, numbers))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ModelFileError(f"{where}: {key} must be {n} numbers, one a token; the file is damaged, download it again")
    return numbers


def _types(metadata: Mapping[str, Any], where: str) -> list[int]:
    n = len(token_texts(metadata, where))
    return _numbers(metadata, "token_type", where, n) if "tokenizer.ggml.token_type" in metadata else [NORMAL] * n


def _ids(tokens: list[str]) -> dict[str, int]:
    """Token -> id; the first of equal ones."""
    return {t: k for k, t in reversed(list(enumerate(tokens)))}


def _pair(merge: str, where: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not (left and right) or " " in right:
        raise ModelFileError(f"{where}: tokenizer.ggml.merges has {merge!r}; a merge is two tokens and one space between them: "
                             "the file is damaged, download it again")
    return left, right

