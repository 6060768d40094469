"""Greedy decoding under the grammar, through llama.cpp's C interface.

The grammar looks at the likeliest token alone; only if it says no are all the others asked. Asking it
about the whole vocabulary at every step would cost as much as the network does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any, Self


class LibraryMissing(Exception):
    """llama_cpp cannot be imported here."""


def library() -> Any:
    """llama_cpp's C bindings, with the CPU backends loaded, which are files of their own."""
    try:
        folder = _folder()
        # By path and first, so that libllama and we mean the same libggml, wherever it was linked.
        libraries = [ctypes.CDLL(str(folder / name)) for name in ("libggml-base.so.0", "libggml.so.0")]
        from llama_cpp import llama_cpp as lib
    except (ImportError, OSError, RuntimeError) as error:
        raise LibraryMissing(f"cannot load llama_cpp: {error}") from error
    if not os.environ.get("LLAMA_LOG"):
        lib.llama_log_set(_silence(lib), ctypes.c_void_p(0))
    lib.llama_backend_init()
    libraries[-1].ggml_backend_load_all_from_path(os.fsencode(folder))
    return lib


def _folder() -> Path:
    """Where llama.cpp's libraries are."""
    if "LLAMA_CPP_LIB_PATH" in os.environ:
        return Path(os.environ["LLAMA_CPP_LIB_PATH"])
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ImportError("there is no llama_cpp")
    return Path(spec.origin).parent / "lib"


@cache
def _silence(lib: Any) -> Any:
    """A log callback that says nothing; llama.cpp keeps the pointer, so it must live as long as the
    process.
    """
    return lib.llama_log_callback(lambda level, text, data: None)


class Model:
    """A GGUF file of ours and one context to decode in."""

    def __init__(self, path: Path, *, threads: int = 1, context: int = 512) -> None:
        self.lib = lib = library()
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self.model:
            raise OSError(f"{path}: llama.cpp cannot load this model")
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.n_threads = params.n_threads_batch = threads
        self.context = lib.llama_init_from_model(self.model, params)
        self.size = context
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.tokens = lib.llama_vocab_n_tokens(self.vocab)
        self._grammars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sampler in self._grammars.values():
            self.lib.llama_sampler_free(sampler)
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)

    def metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(8192)
        size = self.lib.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode() if size >= 0 else ""

    def tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        out = (self.lib.llama_token * (len(raw) + 8))()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), out, len(out), False, True)
        return list(out[:count])

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        size = self.lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size]

    def scores(self, ids: list[int]) -> Any:
        """Logits after these tokens, which go on from what the context holds."""
        tokens = (self.lib.llama_token * len(ids))(*ids)  # the batch only points to it
        batch = self.lib.llama_batch_get_one(tokens, len(ids))
        if self.lib.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama.cpp: decode failed")
        return self.lib.llama_get_logits_ith(self.context, -1)

    def clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def grammar(self, text: str) -> Any:
        """A sampler for this grammar, compiled once. llama.cpp answers a bad grammar with NULL, and NULL
        kills.
        """
        if text not in self._grammars:
            sampler = self.lib.llama_sampler_init_grammar(self.vocab, text.encode(), b"root")
            if not sampler:
                raise ValueError("llama.cpp does not take this grammar")
            self._grammars[text] = sampler
        self.lib.llama_sampler_reset(self._grammars[text])
        return self._grammars[text]

    def complete(self, prompt: str, grammar: str | None, limit: int) -> str:
        ids = self.tokenize(prompt)[: self.size - limit]
        self.clear()
        sampler = self.grammar(grammar) if grammar else None
        out = b""
        logits = self.scores(ids)
        for _ in range(limit):
            token = self._best(logits, sampler)
            if token < 0 or self.lib.llama_vocab_is_eog(self.vocab, token):
                break
            if sampler:
                self.lib.llama_sampler_accept(sampler, token)
            out += self.piece(token)
            logits = self.scores([token])
        return out.decode(errors="replace")

    def _best(self, logits: Any, sampler: Any) -> int:
        values = logits[: self.tokens]
        best = max(range(self.tokens), key=values.__getitem__)
        if not sampler or self._allowed(sampler, [(best, values[best])]):
            return best
        allowed = self._allowed(sampler, list(enumerate(values)))
        return max(allowed, key=lambda pair: pair[1])[0] if allowed else -1

    def _allowed(self, sampler: Any, candidates: list[tuple[int, float]]) -> list[tuple[int, float]]:
        lib = self.lib
        data = (lib.llama_token_data * len(candidates))()
        for i, (token, logit) in enumerate(candidates):
            data[i].id, data[i].logit = token, logit
        array = lib.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        return [
            (array.data[i].id, array.data[i].logit) for i in range(array.size) if array.data[i].logit > -1e30
        ]
