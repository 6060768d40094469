"""A model at work: its context, the tokens it has read, and the logits after the last of them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from clawos.inference.errors import ModelInvalid
from clawos.inference.library import Library, library
from clawos.inference.model import Model

_BATCH = 512
_ABORTED = 2
_MAX_CPUS = 512


class Cancelled(Exception):
    """The computation was stopped by `Session.stop`."""


class _PoolParameters(ctypes.Structure):
    """struct ggml_threadpool_params, which the binding leaves out."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * _MAX_CPUS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


def _new_pool(lib: Library, threads: int) -> int | None:
    """A thread pool: without one llama.cpp starts and ends its threads for each token."""
    if threads < 2 or lib.threads is None:
        return None
    parameters = _PoolParameters(n_threads=threads, poll=50)
    new = lib.threads.ggml_threadpool_new
    new.argtypes, new.restype = [ctypes.POINTER(_PoolParameters)], ctypes.c_void_p
    pool: int | None = new(ctypes.byref(parameters))
    return pool


class Session:
    """One context. Not for two threads at once, but for `stop`."""

    def __init__(self, model: Model, context_tokens: int, threads: int) -> None:
        self.model = model
        # What the file says of itself may be nothing, or no number of tokens at all.
        trained = model.trained_tokens if model.trained_tokens > 0 else context_tokens
        self.context_tokens = min(context_tokens, trained)
        self.seen: list[int] = []
        self._lib = library()
        self._api = self._lib.api
        self._stop = ctypes.create_string_buffer(2)
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = self.context_tokens
        parameters.n_batch = parameters.n_ubatch = min(_BATCH, self.context_tokens)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.n_seq_max = 1
        # We read the logits of the last token only; without this, room for a whole batch of them is kept.
        parameters.n_outputs_max = 1
        parameters.no_perf = True
        # llama.cpp asks this between the nodes of its graph whether to stop. The length of a text of ours, 0
        # or 1, is the answer: a callback in Python would take the interpreter's lock each time.
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        assert strlen is not None
        parameters.abort_callback = self._api.ggml_abort_callback(strlen)
        parameters.abort_callback_data = ctypes.addressof(self._stop)
        self._lib.complaints.clear()
        self._handle = self._api.llama_init_from_model(model.handle, parameters)
        if not self._handle:
            reason = self._lib.complaints[-1] if self._lib.complaints else "llama.cpp gives no reason"
            raise ModelInvalid(
                f"no context for {model.name}: {reason}", "lower context_tokens in inference.toml"
            )
        self.context_tokens = min(self.context_tokens, self._api.llama_n_ctx(self._handle))
        self._memory = self._api.llama_get_memory(self._handle)
        self._pool = _new_pool(self._lib, threads)
        if self._pool:
            attach = self._api._lib.llama_attach_threadpool
            attach.argtypes, attach.restype = [ctypes.c_void_p] * 3, None
            attach(self._handle, self._pool, None)
        self._llama_decode = self._api.llama_decode
        self._tokens = (self._api.llama_token * _BATCH)()
        # It holds no more than the address of the tokens and their number.
        self._batch = self._api.llama_batch_get_one(self._tokens, 1)

    def close(self) -> None:
        if self._handle:
            self._api.llama_free(self._handle)
            self._handle = None
        if self._pool and self._lib.threads:
            free = self._lib.threads.ggml_threadpool_free
            free.argtypes, free.restype = [ctypes.c_void_p], None
            free(self._pool)
            self._pool = None

    def stop(self) -> None:
        """End the computation under way, from any thread, within one node of the graph."""
        self._stop[0] = b"\1"

    def resume(self) -> None:
        self._stop[0] = b"\0"

    @property
    def handle(self) -> Any:
        return self._handle

    @property
    def full(self) -> bool:
        return len(self.seen) >= self.context_tokens

    def read(self, tokens: Sequence[int]) -> int:
        """Bring the context to exactly these tokens; what it shares with the last ones is kept.

        Returns how many had to be computed. Raises Cancelled.
        """
        # The last token is computed again even if known: its logits are what we are here for.
        same = 0
        for old, new in zip(self.seen, tokens[:-1], strict=False):
            if old != new:
                break
            same += 1
        if same < len(self.seen):
            if same and self._api.llama_memory_seq_rm(self._memory, 0, same, -1):
                del self.seen[same:]
            else:
                # Nothing in common, or a recurrent model, which cannot forget a part.
                self._forget()
                same = 0
        for at in range(same, len(tokens), _BATCH):
            self._decode(tokens[at : at + _BATCH])
        return len(tokens) - same

    def push(self, token: int) -> None:
        """Read one more token. Raises Cancelled."""
        self._tokens[0] = token
        self._compute(1)
        self.seen.append(token)

    def _decode(self, tokens: Sequence[int]) -> None:
        self._tokens[: len(tokens)] = tokens
        self._compute(len(tokens))
        self.seen.extend(tokens)

    def _compute(self, count: int) -> None:
        self._batch.n_tokens = count
        result = self._llama_decode(self._handle, self._batch)
        if result == 0:
            return
        self._forget()
        if result == _ABORTED:
            raise Cancelled
        raise ModelInvalid(
            f"{self.model.name} cannot compute: llama_decode returned {result}", "use another model"
        )

    def _forget(self) -> None:
        self._api.llama_memory_clear(self._memory, True)
        self.seen.clear()

    def logits(self) -> Any:
        """Address of the logits after the last token: `model.vocabulary` floats, ours to change."""
        return self._api.llama_get_logits_ith(self._handle, -1)
