"""Our models inside lm-eval, the Language Model Evaluation Harness. The one place where `lm_eval` is imported.

    import lm_eval
    from nums_core.llm.eval.harness import NumsLM

    lm_eval.simple_evaluate(model=NumsLM(LLM("model.gguf")), tasks=["arc_easy"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nums_core.errors import MissingBackendError
from nums_core.llm.eval.choices import Pair, encode_pair, log_likelihoods
from nums_core.llm.eval.perplexity import perplexity
from nums_core.llm.eval.scorer import LLMScorer

try:
    from lm_eval.api.model import LM
except ImportError as error:
    raise MissingBackendError("lm-eval's tasks need the package lm_eval, which is not installed here; run "
                              "`pip install lm_eval`, or use `nums eval choices` with a task of your own") from error


class NumsLM(LM):
    """An `LLM` as lm-eval wants it: three kinds of requests.

    Parameters
    ----------
    llm : LLM
    chunk : int, tokens, optional
        See `LLMScorer`.
    """

    def __init__(self, llm: Any, chunk: int | None = None) -> None:
        super().__init__()
        self.llm, self.scorer = llm, LLMScorer(llm, chunk)
        self.max_tokens = llm.engine.max_context

    def loglikelihood(self, requests: Sequence[Any], **ignored: Any) -> list[tuple[float, bool]]:
        """Of each (context, continuation): its log-likelihood, and whether greedy decoding would give it."""
        pairs = [encode_pair(self.llm.tokenizer, *r.args) for r in requests]
        scores = log_likelihoods(self.scorer, pairs, self.max_tokens)
        return list(zip(scores, self._greedy(pairs)))

    def _greedy(self, pairs: list[Pair]) -> list[bool]:
        contexts = [p.context[-(self.max_tokens - len(p.continuation)):] for p in pairs]
        found = self.scorer.continue_greedily(contexts, [len(p.continuation) for p in pairs]) if pairs else []
        return [list(f) == p.continuation for f, p in zip(found, pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any], **ignored: Any) -> list[float]:
        """Of each (text,): its log-likelihood, in windows of the whole context."""
        return [self._rolling(*r.args) for r in requests]

    def _rolling(self, text: str) -> float:
        first, rest = encode_pair(self.llm.tokenizer, "", text)
        return -perplexity(self.scorer, [*first, *rest], self.max_tokens).nats

    def generate_until(self, requests: Sequence[Any], **ignored: Any) -> list[str]:
        """Of each (context, settings): what greedy decoding, or sampling if the settings say so, makes of it."""
        from nums_core.llm.sampler import SamplingParams

        out = []
        for context, how in (r.args for r in requests):
            stop = how.get("until", ())
            params = SamplingParams(max_tokens=how.get("max_gen_toks", 256), stop=stop,
                                    temperature=how.get("temperature", 0.0) if how.get("do_sample") else 0.0,
                                    top_p=how.get("top_p", 1.0))
            room = self.max_tokens - params.max_tokens
            out.append(([self.llm.tokenizer.encode(context)[-room:]], params))
        results = self.llm.generate([p for (p,), _ in out], [q for _, q in out])
        return [r.text for r in results]
