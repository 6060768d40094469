"""The vocabulary: byte-level BPE that llama.cpp's `smollm` pre-tokeniser reproduces, and one token per
tool.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from clawos.inference.builtin import dialect
from qa.model.data import catalogue

# Tokens that only we put into a prompt. The others are ordinary text to llama.cpp, so that it prints them.
CONTROL = ("⟨pad⟩", dialect.USER, dialect.ACT, dialect.DONE, dialect.END)


def marks() -> list[str]:
    """Every ⟨word⟩ the model may write: branches, tools, arguments."""
    tools = catalogue()
    keys = sorted({key for tool in tools for key in tool.properties})
    branches = [
        dialect.ASK,
        dialect.NO,
        dialect.LEAVE,
        dialect.TALK,
        dialect.ABOUT,
        dialect.SUFFIX,
        dialect.PART,
    ]
    return branches + [dialect.token(name) for name in [*(tool.name for tool in tools), *keys]]


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(mark, special=True, normalized=False) for mark in [*CONTROL, *marks()]]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
