"""A model that reads a text once and gives a state for each token, instead of writing more of it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from clawos.inference.errors import ModelInvalid
from clawos.inference.library import library
from clawos.inference.model import Model
from clawos.inference.session import Cancelled

_ABORTED = 2
_NO_POOLING = 0


class Encoder:
    """One context. Not for two threads at once, but for `stop`."""

    def __init__(self, model: Model, tokens: int) -> None:
        self.model = model
        self.context_tokens = min(tokens, model.trained_tokens)
        lib = library()
        self._api = lib.api
        self.width: int = self._api.llama_model_n_embd(model.handle)
        self._stop = ctypes.create_string_buffer(2)
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = self.context_tokens
        # A request is a few dozen tokens, which one thread reads in milliseconds. Two wait for each other at
        # every layer: beside other work on two processors a request took a hundred times as long.
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.n_seq_max = 1
        parameters.embeddings = True
        parameters.pooling_type = _NO_POOLING
        parameters.no_perf = True
        # As in Session: the length of a text of ours is the answer to "shall I stop?".
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        assert strlen is not None
        parameters.abort_callback = self._api.ggml_abort_callback(strlen)
        parameters.abort_callback_data = ctypes.addressof(self._stop)
        lib.complaints.clear()
        self._handle = self._api.llama_init_from_model(model.handle, parameters)
        if not self._handle:
            raise ModelInvalid(f"no context for {model.name}: {lib.reason}", "use another model")
        self._batch = self._api.llama_batch_init(self.context_tokens, 0, 1)

    def close(self) -> None:
        if self._handle:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self._handle)
            self._handle = None

    def stop(self) -> None:
        """End the computation under way, from any thread, within one node of the graph."""
        self._stop[0] = b"\1"

    def resume(self) -> None:
        self._stop[0] = b"\0"

    def read(self, tokens: Sequence[int], wanted: Sequence[int]) -> list[list[float]]:
        """States of the tokens at the places `wanted`, `width` numbers each. Raises Cancelled, ModelInvalid.

        There must be at least one token and at most `context_tokens`.
        """
        batch = self._batch
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        batch.n_tokens = len(tokens)
        result = self._api.llama_encode(self._handle, batch)
        if result == _ABORTED:
            raise Cancelled
        if result != 0:
            raise ModelInvalid(
                f"{self.model.name} cannot compute: llama_encode returned {result}", "use another model"
            )
        return [self._api.llama_get_embeddings_ith(self._handle, at)[: self.width] for at in wanted]
