"""The one model in memory and the one thread that runs it.

llama.cpp computes without the interpreter's lock, so the event loop and the watchdog go on beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clawos.inference.builtin.prompt import DIALECT
from clawos.inference.chat import ChatRequest, DoneEvent
from clawos.inference.config import Config
from clawos.inference.gguf import Header, read_header
from clawos.inference.library import library
from clawos.inference.model import Model
from clawos.inference.ports import Emit, Speaker, Stoppable
from clawos.inference.session import Cancelled, Session

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A model that is ready."""

    name: str
    path: Path
    model: Model
    speaker: Speaker

    def release(self) -> None:
        self.speaker.release()
        self.model.close()


class Job:
    """One chat on its way through the engine; `cancel` may be called from the event loop at any time."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.cancelled = asyncio.Event()
        self._computation: Stoppable | None = None

    def cancel(self) -> None:
        self.cancelled.set()
        if self._computation:
            self._computation.stop()

    def enter(self, computation: Stoppable) -> None:
        """From here on `cancel` stops this computation. Raises Cancelled if it came before."""
        computation.resume()
        self._computation = computation
        if self.cancelled.is_set():
            raise Cancelled

    def leave(self) -> None:
        self._computation = None


class Engine:
    """Loads models and generates, one thing at a time; the caller sees to the order."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llama")
        self.loaded: Loaded | None = None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def cpu_variant(self) -> str:
        return library().cpu_variant

    async def load(self, name: str, path: Path) -> float:
        """Have this model in memory; the one before leaves when it is ready. Returns the seconds it took.

        The file must have been examined. Raises ModelInvalid.
        """
        if self.loaded and (self.loaded.name, self.loaded.path) == (name, path):
            return 0.0
        begun = time.perf_counter()
        fresh = await self._in_thread(lambda: self._load(name, path))
        await self.unload()
        self.loaded = fresh
        return time.perf_counter() - begun

    def _load(self, name: str, path: Path) -> Loaded:
        header = read_header(path)
        model = Model(path, name)
        try:
            return Loaded(name, path, model, self._speaker(model, header))
        except Exception:
            model.close()
            raise

    def _speaker(self, model: Model, header: Header) -> Speaker:
        if header.dialect == DIALECT:
            from clawos.inference.dialects.tags import TagDialect

            return TagDialect(model, header.metadata)
        # numpy and llguidance, 20 MB, which the built-in model does without
        from clawos.inference.dialects.template import TemplateDialect
        from clawos.inference.writer import Writer

        session = Session(model, self._config.context_tokens, self._config.thread_count())
        try:
            return Writer(session, TemplateDialect(model, header.chat_template, self._config.render_s))
        except Exception:
            session.close()
            raise

    async def unload(self) -> None:
        """Give the memory back."""
        old, self.loaded = self.loaded, None
        if old:
            await old.speaker.close()
            await self._in_thread(old.release)

    async def generate(self, job: Job, emit: Emit, load_s: float) -> DoneEvent:
        """Answer a chat with the loaded model; `emit` is called in the worker thread.

        Raises ContextFull, GrammarInvalid, ModelInvalid.
        """
        loaded = self.loaded
        assert loaded is not None
        prepared = await loaded.speaker.prepare(job.request)
        outcome = await self._in_thread(lambda: loaded.speaker.answer(job, prepared, emit))
        return DoneEvent(
            finish=outcome.finish,
            model=loaded.name,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            load_s=round(load_s, 6),
            prompt_s=round(outcome.prompt_s, 6),
            completion_s=round(outcome.completion_s, 6),
            grammar_s=round(outcome.grammar_s, 6),
        )

    async def close(self) -> None:
        await self.unload()
        self._thread.shutdown(wait=True)
