"""The vocabulary: WordPiece of all-MiniLM-L6-v2, cut to what requests are made of.

llama.cpp's `bert` tokenizer cuts words the same way; test_parity.py compares them.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from clawos.inference.builtin.prompt import BEFORE_TOKENS, CALL2, CALL3, CLS, PAD, SEP, TOKENS, UNK
from clawos.inference.builtin.split import words

SPECIAL = (PAD, UNK, CLS, SEP, CALL2, CALL3)
# Rows of the pretrained vocabulary that mean nothing yet take the places of the second and third call.
_UNUSED = {CALL2: "[unused1]", CALL3: "[unused2]"}


def read(folder: Path) -> list[str]:
    """The pretrained vocabulary; a token's number is its line."""
    return (folder / "vocab.txt").read_text().splitlines()


def tokenizer(vocabulary: Sequence[str]) -> Tokenizer:
    """WordPiece over these tokens: lower case, no accents, punctuation apart."""
    made = Tokenizer(
        models.WordPiece(
            {token: i for i, token in enumerate(vocabulary)}, unk_token=UNK, max_input_chars_per_word=100
        )
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def cut(vocabulary: Sequence[str], texts: Iterable[str], size: int) -> tuple[list[str], list[int]]:
    """The `size` tokens to keep, and their rows: all that can spell a word, then what the texts use, then the
    most frequent of English, which the pretrained vocabulary lists first.
    """
    rows = {token: i for i, token in enumerate(vocabulary)}
    letters = string.ascii_lowercase + string.digits
    kept = dict.fromkeys([*letters, *(f"##{c}" for c in letters), *string.punctuation, *"–—…€£°µß"])
    whole = tokenizer([*vocabulary])
    used: Counter[str] = Counter()
    for text in texts:
        used.update(whole.encode(text).tokens)
    kept |= dict.fromkeys(token for token, count in used.most_common() if count > 1)
    kept |= dict.fromkeys(token for token in vocabulary if token.isascii() and not token.startswith("["))
    tokens = [token for token in kept if token in rows and token not in SPECIAL][: size - len(SPECIAL)]
    names = [*SPECIAL, *tokens]
    return names, [rows[_UNUSED.get(name, name)] for name in names]


class Encoder:
    """Requests to tokens, and the place of each word's first token."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.tokenizer = tokenizer(vocabulary)
        self.number = {token: i for i, token in enumerate(vocabulary)}
        self.head = [self.number[name] for name in (CLS, CALL2, CALL3)]

    def encode(self, text: str, before: str = "", limit: int = TOKENS) -> tuple[list[int], list[int]]:
        """Tokens of a request, and of each of its words the place of the first token, -1 where it was cut."""
        coded = self.tokenizer.encode(text)
        first = {start: at for at, (start, _) in reversed(list(enumerate(coded.offsets)))}
        ids = [*self.head, *coded.ids][: limit - 1]
        at = [first.get(word.start, -1) for word in words(text)]
        places = [i + len(self.head) if 0 <= i < len(ids) - len(self.head) else -1 for i in at]
        ids.append(self.number[SEP])
        if before:
            ids += self.tokenizer.encode(before).ids[:BEFORE_TOKENS]
            ids.append(self.number[SEP])
        return ids, places
