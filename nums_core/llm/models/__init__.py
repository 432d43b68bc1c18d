"""Model families as nn modules: LLaMA (with Mistral and Qwen2), OPT, GPT-NeoX."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nums_core.llm.models.decoder import Decoder


def family(name: str) -> type[Decoder]:
    """The class of a family: "llama", "opt" or "gpt_neox"."""
    if name == "opt":
        from nums_core.llm.models.opt import OPT

        return OPT
    if name == "gpt_neox":
        from nums_core.llm.models.gpt_neox import GPTNeoX

        return GPTNeoX
    from nums_core.llm.models.llama import Llama

    return Llama
