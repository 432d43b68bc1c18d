"""LLM: a model file opened for use.

    llm = LLM("SmolLM2-135M-Instruct.Q4_1.gguf")
    for result in llm.generate(["The capital of France is", "2 + 2 ="], max_tokens=16):
        print(result.text)
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from nums_core.errors import ConfigError
from nums_core.llm.cache.kv_cache import KVCache
from nums_core.llm.cache.policy import NO_LIMIT
from nums_core.llm.engine.batcher import Batcher
from nums_core.llm.engine.engine import Engine
from nums_core.llm.engine.runner import Runner
from nums_core.llm.engine.sequence import Completion, Delta
from nums_core.llm.options import Sizes, find_model, policy_named, positive
from nums_core.llm.sampler import SamplingParams

Prompt = str | Sequence[int]
Message = Mapping[str, Any]

SCORE_CHUNK_TOKENS = 64  # logits of a whole chunk are held at once: 64 rows of 49,152 words are 12 MiB


class LLM:
    """A language model with its tokenizer, cache and engine. One thread at a time may use it.

    Parameters
    ----------
    path : path
        A `.gguf` file, a folder in Hugging Face's layout (config.json, safetensors, tokenizer.json), or the name of an
        installed package that holds one .gguf file.
    dtype : "keep" or "float32"
        "keep": matrices stay as they are in the file, quantised ones too. Arithmetic is in float32 in any case.
    kv_policy : policy or text
        Which tokens the cache keeps: "full" (default), `H2O(heavy=128, recent=128)` or "h2o:heavy=128,recent=128".
    kv_bits : 32, 16, 8 or 4
        Of a cached number; 8 and 4 are quantised in groups.
    max_batch : int, sequences
        Most that are decoded together.
    max_context : int, tokens
        Most of a prompt and its answer together. Default: what the model was made for.
    memory : int or text such as "2GiB", bytes
        For the cache. Default: what `max_batch` sequences of `max_context` tokens need, at most 1 GiB.
    max_step_tokens : int, tokens
        Most that one step runs through the model; longer prompts are read in chunks.

    Raises
    ------
    ModelFileError
        The file or folder is not there, damaged, incomplete or of an unknown architecture.
    ConfigError
        A size is out of range, a policy unknown, or `memory` does not hold a page.
    """

    def __init__(self, path: str | Path, *, dtype: str = "keep", kv_policy: Any = "full", kv_bits: int = 32,
                 max_batch: int = 64, max_context: int | None = None, memory: int | str | None = None,
                 max_step_tokens: int = 512, page_tokens: int = 16) -> None:
        from nums_core.llm.tokenizer import Tokenizer
        from nums_core.llm.weights.load import load_model

        sizes = Sizes(max_batch, max_context, max_step_tokens, page_tokens, memory)
        policy, found = policy_named(kv_policy), find_model(path)
        self.model, self.config = load_model(found, dtype=dtype)
        self.tokenizer = Tokenizer.from_path(found)
        self.engine = make_engine(self.model, self.config, sizes, policy, kv_bits, self.tokenizer)
        self._inbox: dict[str, deque[Delta]] = {}

    # -- generating ---------------------------------------------------------------------------------------------------

    def generate(self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None,
                 **sampling: Any) -> list[Completion]:
        """Continue each of `prompts`, all in one batch.

        Parameters
        ----------
        prompts : text, list of token ids, or a list of these
        params : SamplingParams, or one a prompt, optional
        **sampling
            Its fields: `max_tokens`, `temperature` (0: greedy), `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`,
            `stop`, ...

        Returns
        -------
        list of Completion, one a prompt, in order
            One that could not be served has `finish_reason` "error" and says why in `error`; the others are unharmed.
        """
        many = _as_list(prompts)
        each = _params_for(len(many), params, sampling)
        return self._finish([self._add(self._encoded(p), q) for p, q in zip(many, each, strict=True)])

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **sampling: Any) -> Generator[Delta, None, None]:
        """Continue one prompt piece by piece: `for piece in llm.stream("Once"): print(piece, end="")`.

        The last piece has the `completion`. Leaving the loop early gives the request up.
        """
        (chosen,) = _params_for(1, params, sampling)
        name = self._add(self._encoded(prompt), chosen)
        try:
            yield from self._deltas(name)
        finally:
            self._drop([name])

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None, **sampling: Any) -> Completion:
        """The model's answer to a conversation.

        Parameters
        ----------
        messages : list of {"role": "system" | "user" | "assistant", "content": text}
        """
        return self.generate([self.chat_prompt(messages)], params, **sampling)[0]

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a conversation in the model's own chat template, ready for its answer."""
        return self.tokenizer.encode_chat(messages)

    # -- judging ------------------------------------------------------------------------------------------------------

    def score(self, token_ids: Sequence[int] | Sequence[Sequence[int]], *, chunk: int = SCORE_CHUNK_TOKENS) -> Any:
        """Log-probability of every token but the first, given those before it.

        Parameters
        ----------
        token_ids : ints, or a list of such lists (which are run as one batch)
        chunk : int, tokens
            Read at once. A `kv_policy` with a budget evicts after each chunk: 1 judges it as in decoding.

        Returns
        -------
        float64 ndarray, shape (n - 1,), or a list of them

        Raises
        ------
        ValueError
            A sequence cannot be served; the message names it.
        """
        single = len(token_ids) == 0 or isinstance(token_ids[0], (int, np.integer))
        many = cast(Any, [token_ids] if single else token_ids)
        chunk = positive("chunk", chunk)
        results = self._finish([self._add(t, SamplingParams(), scored=True, chunk=chunk) for t in many])
        wrong = next((r.error for r in results if r.error), None)
        if wrong is not None:
            raise ValueError(wrong)
        scores = [np.array(r.logprobs) for r in results]
        return scores[0] if single else scores

    # -- inside -------------------------------------------------------------------------------------------------------

    def _encoded(self, prompt: Prompt) -> Sequence[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def _add(self, prompt: Sequence[int], params: SamplingParams, **how: Any) -> str:
        name = self.engine.add_request(prompt, params, **how)
        self._inbox[name] = deque()
        return name

    def _deltas(self, name: str) -> Generator[Delta, None, None]:
        """What becomes of a request. A step serves all requests, so deltas of others wait for whoever asks for them."""
        inbox = self._inbox[name]
        while True:
            while not inbox:
                for delta in self.engine.step():
                    self._inbox[delta.request_id].append(delta)
            delta = inbox.popleft()
            yield delta
            if delta.completion is not None:
                return

    def _finish(self, names: list[str]) -> list[Completion]:
        """Run until these requests have ended; if the run is cut short, none of them stays behind."""
        try:
            last = [deque(self._deltas(name), maxlen=1)[0].completion for name in names]
            return [c for c in last if c is not None]
        finally:
            self._drop(names)

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self.engine.abort(name)
            self._inbox.pop(name, None)


def make_engine(model: Any, config: Any, sizes: Sizes, policy: Any, kv_bits: int = 32, tokenizer: Any = None) -> Engine:
    """An engine over a model that is loaded already; see `LLM`."""
    context, chunk = sizes.context(config.max_positions), max(sizes.max_step_tokens, sizes.max_batch)
    cache_of = functools.partial(KVCache, config, policy, page_tokens=sizes.page_tokens, bits=kv_bits, chunk_tokens=chunk)
    of_one = -(-policy.slots(context, min(chunk, context)) // sizes.page_tokens)
    cache = cache_of(sizes.pages(cache_of(n_pages=1).page_bytes, of_one))
    keeps_all = policy.limits(1).budget >= NO_LIMIT
    batcher = Batcher(cache, max_batch=sizes.max_batch, max_step_tokens=sizes.max_step_tokens, reuse_prefixes=keeps_all)
    eos_ids = {*config.eos_ids, *(tokenizer.eos_ids if tokenizer is not None else ())}
    return Engine(Runner(model, cache, max_batch=sizes.max_batch), batcher, vocab_size=config.vocab_size, max_context=context,
                  tokenizer=tokenizer, eos_ids=sorted(eos_ids))


# -- arguments --------------------------------------------------------------------------------------------------------

def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt is a list of one: a text, or a list that holds numbers."""
    if isinstance(prompts, str):
        return [prompts]
    if len(prompts) and isinstance(prompts[0], (int, np.integer)):
        return [cast(Prompt, prompts)]
    return list(cast(Sequence[Prompt], prompts))


def _params_for(n: int, params: SamplingParams | Sequence[SamplingParams] | None,
                sampling: dict[str, Any]) -> list[SamplingParams]:
    """Sampling parameters of each of `n` prompts."""
    if params is None:
        return [SamplingParams(**sampling)] * n
    if sampling:
        raise ConfigError(f"got both params and {', '.join(sampling)}; put everything into SamplingParams(...), or give names "
                          "alone")
    if isinstance(params, SamplingParams):
        return [params] * n
    if len(params) != n:
        raise ConfigError(f"{len(params)} SamplingParams for {n} prompts; give one for all, or one a prompt")
    return list(params)
