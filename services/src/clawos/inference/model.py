"""A model in memory: its weights mapped from the file, and its vocabulary."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from clawos.inference.errors import ModelInvalid
from clawos.inference.library import library

_MMAP = 1
_CONTROL = 1 << 3
_USER_DEFINED = 1 << 4
# Of a large vocabulary only the pieces that were asked for first: some hundred kilobytes.
_KEPT_PIECES = 4096


class Model:
    """Weights and vocabulary. Check the file before: llama.cpp aborts the process on some bad ones."""

    def __init__(self, path: Path, name: str, *, check_weights: bool = False) -> None:
        self.path, self.name = path, name
        lib = library()
        self._api = lib.api
        parameters = self._api.llama_model_default_params()
        parameters.load_mode = _MMAP
        parameters.n_gpu_layers = 0
        # Reads each weight once; done in the trial, so that no NaN gets into a computation of ours.
        parameters.check_tensors = check_weights
        lib.complaints.clear()
        self.handle = self._api.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise ModelInvalid(f"{path.name} cannot be loaded: {lib.reason}", "use another model")
        self.vocab = self._api.llama_model_get_vocab(self.handle)
        self.vocabulary: int = self._api.llama_vocab_n_tokens(self.vocab)
        self.trained_tokens: int = self._api.llama_model_n_ctx_train(self.handle)
        self._piece = ctypes.create_string_buffer(512)
        self._pieces: dict[int, bytes] = {}

    def close(self) -> None:
        if self.handle:
            self._api.llama_model_free(self.handle)
            self.handle = None

    def tokenize(self, text: str, *, special: bool, add_bos: bool) -> list[int]:
        """Tokens of a text; with `special`, the names of control tokens become those tokens."""
        data = text.encode(errors="replace")
        room = len(data) + 8
        while True:
            tokens = (self._api.llama_token * room)()
            count = self._api.llama_tokenize(self.vocab, data, len(data), tokens, room, add_bos, special)
            if count >= 0:
                return list(tokens[:count])
            if -count <= room:
                raise ModelInvalid(f"{self.name} cannot tokenise this text", "use another model")
            room = -count

    def piece(self, token: int) -> bytes:
        """Bytes of a token, the names of control tokens included."""
        known = self._pieces.get(token)
        if known is None:
            known = self._piece_of(token)
            if len(self._pieces) < _KEPT_PIECES:
                self._pieces[token] = known
        return known

    def _piece_of(self, token: int) -> bytes:
        count = self._api.llama_token_to_piece(self.vocab, token, self._piece, len(self._piece), 0, True)
        if count < 0:
            self._piece = ctypes.create_string_buffer(-count)
            count = self._api.llama_token_to_piece(self.vocab, token, self._piece, len(self._piece), 0, True)
        return ctypes.string_at(self._piece, max(0, count))

    def ends(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return bool(self._api.llama_vocab_is_eog(self.vocab, token))

    def is_control(self, token: int) -> bool:
        return bool(self._attributes(token) & _CONTROL)

    def _attributes(self, token: int) -> int:
        bits: int = self._api.llama_vocab_get_attr(self.vocab, token)
        return bits

    @cached_property
    def adds_bos(self) -> bool:
        return bool(self._api.llama_vocab_get_add_bos(self.vocab))

    @cached_property
    def end_tokens(self) -> list[int]:
        return [token for token in range(self.vocabulary) if self.ends(token)]

    @cached_property
    def control_texts(self) -> re.Pattern[str]:
        """Matches the name of any token with a meaning of its own, which only the chat template may write."""
        names = {
            self.piece(token).decode(errors="replace")
            for token in range(self.vocabulary)
            if self._attributes(token) & (_CONTROL | _USER_DEFINED) or self.ends(token)
        }
        # Some vocabularies define runs of spaces as tokens of their own; those mean nothing.
        marks = (name for name in names if len(name) > 1 and name[0] in "<[" and name[-1] in ">]")
        choices = sorted(map(re.escape, marks), key=len, reverse=True)
        return re.compile("|".join(choices) or r"(?!)")

    def text(self, token: int) -> str:
        """Name of a token as the template's `bos_token` and `eos_token` want it; "" for none."""
        return self.piece(token).decode(errors="replace") if token >= 0 else ""

    @property
    def bos(self) -> str:
        return self.text(self._api.llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> str:
        return self.text(self._api.llama_vocab_eos(self.vocab))

    def one_token(self, text: str) -> int | None:
        """The control token with this name, if there is one."""
        tokens: Sequence[int] = self.tokenize(text, special=True, add_bos=False)
        return tokens[0] if len(tokens) == 1 and self.is_control(tokens[0]) else None
