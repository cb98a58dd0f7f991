"""Make a tiny dense model and a tiny mixture of experts, with random weights.

    .venv-vllm/bin/python tests/e2e/models.py FOLDER

Writes FOLDER/dense and FOLDER/moe. Nothing is fetched: transformers is told to stay offline, and
each character that can be printed is a token of its own.
"""

from __future__ import annotations

import os
import string
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import torch  # type: ignore[import-not-found]
from tokenizers import (  # type: ignore[import-not-found]
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
)
from transformers import (  # type: ignore[import-not-found]
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

END = "<end>"
# vLLM's attention kernels for CPUs take heads of 32 and more.
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "dtype": "float32",
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer for which each character is a word."""
    vocabulary = {word: number for number, word in enumerate([END, *string.printable])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, unk_token=END)


def make(folder: str) -> None:
    """Write both models into `folder`."""
    words = tokenizer()
    for name, config in (
        ("dense", Qwen3Config(**SHAPE, vocab_size=len(words))),
        ("moe", Qwen3MoeConfig(**SHAPE, **EXPERTS, vocab_size=len(words))),
    ):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(os.path.join(folder, name))
        words.save_pretrained(os.path.join(folder, name))


if __name__ == "__main__":
    make(sys.argv[1])
