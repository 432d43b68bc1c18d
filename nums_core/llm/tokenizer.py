"""Text to token ids and back: the tokenizer of a Hugging Face folder or of a GGUF file.

    tokenizer = Tokenizer.from_path("SmolLM2-135M-Instruct.Q4_1.gguf")
    ids = tokenizer.encode("Hello, world")
    tokenizer.decode(ids)                           # "Hello, world"
    decoder = tokenizer.decoder()                   # text as tokens come
    print(*map(decoder.push, ids), decoder.finish())

Encoding is done by the package `tokenizers`. Decoding goes by one table, the bytes of each token, so that what is shown
token by token and what is decoded at once are the same text.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nums_core.errors import MissingBackendError, ModelFileError
from nums_core.llm.token_bytes import ByteLevel as ByteLevel
from nums_core.llm.token_bytes import Decoder as Decoder
from nums_core.llm.token_bytes import spelling_of


class Tokenizer:
    """A tokenizer and what its model's files say about beginning, end and chat.

    Attributes
    ----------
    bos_id : int or None
        The token that begins a text.
    eos_ids : tuple of int
        Tokens that end a text; the first is the one `encode` would put there.
    chat_template : str or None
        Jinja source; `render_chat` fills it.
    """

    def __init__(self, backend: Any, name: str, *, texts: Sequence[str] | None = None, bos_id: int | None = None,
                 eos_ids: Iterable[int] = (), begin: Sequence[int] = (), end: Sequence[int] = (),
                 chat_template: str | None = None) -> None:
        self.backend, self.name = backend, name
        self.bos_id, self.eos_ids, self.chat_template = bos_id, tuple(dict.fromkeys(eos_ids)), chat_template
        self._begin, self._end = list(begin), list(end)  # what the backend itself does not add
        self._texts = texts
        # As in a tokenizer.json; writing all of that out would take as long as reading it.
        spelling = spelling_of(json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else None)
        if spelling is None:
            raise ModelFileError(f"{name}: its decoder is of a kind that is not read; byte-level and SentencePiece ones are")
        self._spelling = spelling

    @classmethod
    def from_path(cls, path: str | Path) -> Tokenizer:
        """Of a .gguf file, or of a Hugging Face folder (tokenizer.json, or vocab.json and merges.txt).

        Raises
        ------
        ModelFileError
            There is none, or it is damaged, or of a kind that is not read; the message names the file and the rule.
        MissingBackendError
            The package `tokenizers` is not installed.
        """
        path = Path(path)
        if path.is_dir():
            return _from_folder(path)
        from nums_core.llm.weights.gguf import GGUFFile

        return cls.from_gguf(GGUFFile(path).metadata, str(path))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], name: str = "GGUF metadata") -> Tokenizer:
        """From the metadata of a GGUF file; `name` stands in messages. See `from_path` for errors."""
        _package()
        from nums_core.llm import gguf_tokenizer as gguf

        backend, texts = gguf.build(metadata, name), gguf.token_texts(metadata, name)
        bos, eos, eot, eom = (gguf.special_id(metadata, key, name) for key in ("bos", "eos", "eot", "eom"))
        sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
        usual = sentencepiece or gguf.word_rule(metadata, name).adds_bos
        adds_bos = gguf.flag(metadata, "add_bos_token", name, usual)
        adds_eos = gguf.flag(metadata, "add_eos_token", name, False)
        template = metadata.get("tokenizer.chat_template")
        return cls(backend, name, texts=texts, bos_id=bos, eos_ids=[t for t in (eos, eot, eom) if t is not None],
                   begin=[bos] if adds_bos and bos is not None else [], end=[eos] if adds_eos and eos is not None else [],
                   chat_template=template if isinstance(template, str) else None)

    # -- encoding -----------------------------------------------------------------------------------------------------

    def encode(self, text: str, special: bool = True, *, parse_special: bool = True) -> list[int]:
        """The token ids of a text.

        Parameters
        ----------
        text : str
        special : bool
            Add the tokens that begin and end a text, if this model's files ask for them. Off for text from a chat
            template, which writes them itself.
        parse_special : bool
            Whether text such as "<|im_end|>" is the control token of that name. Off for text from strangers.

        Raises
        ------
        ValueError
            The text holds halves of surrogate pairs, which are no characters.

        Notes
        -----
        Vocabularies may lack bytes that their makers never met; those are dropped, as by the models' own tokenizers.
        """
        backend = self.backend if parse_special else self._literal_backend
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"the text has half a surrogate pair, {text[error.start]!r}, at {error.start}; it was decoded "
                             "wrongly: try text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')") from None
        ids: list[int] = backend.encode(text, add_special_tokens=special).ids
        return [*self._begin, *ids, *self._end] if special else ids

    @cached_property
    def _literal_backend(self) -> Any:
        backend = copy.deepcopy(self.backend)  # the switch belongs to the object, which other threads use
        backend.encode_special_tokens = True
        return backend

    # -- decoding -----------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of token ids. Ids without a token have no text: models may have more rows than tokens."""
        decoder = self.decoder(skip_special=skip_special, continues=False)
        return "".join([decoder.push(int(t)) for t in ids]) + decoder.finish()

    def decoder(self, *, skip_special: bool = True, continues: bool = True) -> Decoder:
        """A decoder that takes tokens one by one.

        Parameters
        ----------
        skip_special : bool
            Leave out control tokens.
        continues : bool
            Whether the tokens go on a text: then a space before the first word belongs to it. (SentencePiece begins every
            text with such a space, which `decode` takes away.)
        """
        return Decoder(self.token_bytes, self.special_ids if skip_special else (),
                       self._spelling.strips_space and not continues)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Control tokens: they steer a model and are not text."""
        return frozenset(t for t, token in self._added.items() if token.special)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each token id. (Made when first used: about 1 us a token.)"""
        texts = list(self._texts) if self._texts is not None else _by_id(self.backend.get_vocab(with_added_tokens=True))
        table = [self._spelling(t) for t in texts]
        for k, token in self._added.items():
            table[k] = token.content.encode("utf-8", "replace")
        return table

    @cached_property
    def _added(self) -> dict[int, Any]:
        return self.backend.get_added_tokens_decoder()

    @property
    def vocab_size(self) -> int:
        """Token ids are below this; the model's own vocabulary may be padded beyond it."""
        return len(self.token_bytes)

    def token_id(self, text: str) -> int | None:
        """The id of the token spelled so, as in a vocabulary file."""
        found: int | None = self.backend.token_to_id(text)
        return found

    # -- chat ---------------------------------------------------------------------------------------------------------

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """A conversation as this model's prompt; see `nums_core.llm.chat.render_chat`.

        Raises
        ------
        ModelFileError
            The files have no chat template, or it fails on these messages, or does what templates may not.
        """
        from nums_core.llm.chat import render_chat

        if self.chat_template is None:
            raise ModelFileError(f"{self.name} has no chat template: it may not be a chat model. Pass the prompt as plain "
                                 "text, or set tokenizer.chat_template")
        names = {f"{k}_token": self._content(t) for k, t in (("bos", self.bos_id), ("eos", next(iter(self.eos_ids), None)))}
        return render_chat(self.chat_template, messages, name=f"chat template of {self.name}", **(names | options))

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """The token ids of a conversation, ready for the model's answer."""
        return self.encode(self.render_chat(messages, **options), special=False)

    def _content(self, token_id: int | None) -> str:
        return "" if token_id is None else self.token_bytes[token_id].decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}: {self.vocab_size} tokens, bos {self.bos_id}, eos {self.eos_ids})"


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingBackendError("encoding text needs the package tokenizers, which is not installed here; "
                                  "run `pip install 'nums-core[llm]'`, or pass token ids") from error
    return tokenizers


def _by_id(vocab: Mapping[str, int]) -> list[str]:
    texts = [""] * (max(vocab.values(), default=-1) + 1)
    for text, k in vocab.items():
        texts[k] = text
    return texts


# -- Hugging Face folders ---------------------------------------------------------------------------------------------

def _from_folder(folder: Path) -> Tokenizer:
    """tokenizer.json as it is; beginning, end and chat template from the files beside it."""
    settings = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    backend, begin = _folder_backend(folder, settings)
    backend.no_truncation()
    backend.no_padding()
    bos, eos = (_named(backend, settings.get(key), folder, key) for key in ("bos_token", "eos_token"))
    more = _json(folder / "generation_config.json").get("eos_token_id")
    ends = [eos, *(more if isinstance(more, list) else [more])]
    return Tokenizer(backend, str(folder), bos_id=bos, eos_ids=[t for t in ends if type(t) is int],
                     begin=[bos] if begin and bos is not None else [], chat_template=_folder_template(folder, settings))


def _folder_backend(folder: Path, settings: Mapping[str, Any]) -> tuple[Any, bool]:
    """The `tokenizers.Tokenizer`, and whether text begins with the beginning-of-text token without its doing."""
    tokenizers = _package()
    whole, vocab, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    used = whole if whole.is_file() else vocab
    if not used.is_file() or (used is vocab and not merges.is_file()):
        raise ModelFileError(f"{folder} has neither a tokenizer.json nor a vocab.json and merges.txt; a tokenizer.model alone "
                             "is not read: write a tokenizer.json with transformers, "
                             "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)")
    try:
        if used is whole:
            return tokenizers.Tokenizer.from_file(str(whole)), False
        return _older_backend(tokenizers, vocab, merges, settings), bool(settings.get("add_bos_token", False))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFileError(f"{used} is no tokenizer that can be read ({error}); download it again") from error


def _older_backend(tokenizers: Any, vocab: Path, merges: Path, settings: Mapping[str, Any]) -> Any:
    """GPT-2's two files, as OPT has them."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocab), str(merges)))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    backend.decoder = tokenizers.decoders.ByteLevel()
    names = [_content(settings.get(f"{k}_token")) for k in ("bos", "eos", "unk", "pad")]
    backend.add_special_tokens([tokenizers.AddedToken(n, normalized=False, special=True) for n in dict.fromkeys(names) if n])
    return backend


def _content(token: Any) -> str | None:
    """Token files write a token as its text, or as a record with its text in it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _named(backend: Any, token: Any, folder: Path, key: str) -> int | None:
    text = _content(token)
    if text is None:
        return None
    found = backend.token_to_id(text)
    if found is None:
        raise ModelFileError(f"{folder}: {key} is {text!r}, which is not in the vocabulary; correct tokenizer_config.json")
    return int(found)


def _folder_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """A file of its own, or a setting; of several, the one called default."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return _read(file)
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); download it again") from None


def _json(path: Path) -> dict[str, Any]:
    """The record in a file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path} is not JSON ({error}); download it again") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} holds {type(found).__name__}, not an object; download it again")
    return found
