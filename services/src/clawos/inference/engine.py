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

from clawos.inference import builtin
from clawos.inference.chat import ChatRequest, DoneEvent, Finish
from clawos.inference.config import Config
from clawos.inference.errors import ContextFull
from clawos.inference.gguf import read_header
from clawos.inference.library import library
from clawos.inference.model import Model
from clawos.inference.ports import Dialect, Emit, Prompt
from clawos.inference.session import Cancelled, Session

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A model that is ready."""

    name: str
    path: Path
    model: Model
    session: Session
    dialect: Dialect

    def close(self) -> None:
        self.session.close()
        self.model.close()


class Job:
    """One chat on its way through the engine; `cancel` may be called from the event loop at any time."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.cancelled = asyncio.Event()
        self._session: Session | None = None

    def cancel(self) -> None:
        self.cancelled.set()
        if self._session:
            self._session.stop()

    def enter(self, session: Session) -> None:
        """From here on `cancel` stops this session. Raises Cancelled if it came before."""
        session.resume()
        self._session = session
        if self.cancelled.is_set():
            raise Cancelled

    def leave(self) -> None:
        self._session = None


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
            session = Session(model, self._config.context_tokens, self._config.thread_count())
        except Exception:
            model.close()
            raise
        return Loaded(name, path, model, session, self._dialect(model, header.dialect, header.chat_template))

    def _dialect(self, model: Model, dialect: str | None, template: str | None) -> Dialect:
        if dialect == builtin.DIALECT:
            from clawos.inference.dialects.native import NativeDialect

            return NativeDialect(model)
        # numpy and llguidance, 20 MB, which the built-in model does without
        from clawos.inference.dialects.template import TemplateDialect

        return TemplateDialect(model, template, self._config.render_s)

    async def unload(self) -> None:
        """Give the memory back."""
        old, self.loaded = self.loaded, None
        if old:
            await old.dialect.close()
            await self._in_thread(old.close)

    async def generate(self, job: Job, emit: Emit, load_s: float) -> DoneEvent:
        """Answer a chat with the loaded model; `emit` is called in the worker thread.

        Raises ContextFull, GrammarInvalid, ModelInvalid.
        """
        loaded = self.loaded
        assert loaded is not None
        prompt = await loaded.dialect.prompt(job.request)
        return await self._in_thread(lambda: _generate(loaded, job, prompt, emit, load_s))

    async def close(self) -> None:
        await self.unload()
        self._thread.shutdown(wait=True)


def _generate(loaded: Loaded, job: Job, prompt: Prompt, emit: Emit, load_s: float) -> DoneEvent:
    session, dialect = loaded.session, loaded.dialect
    tokens = session.model.tokenize(prompt.text, special=True, add_bos=prompt.add_bos) or [0]
    room = session.context_tokens - len(tokens)
    if room < 1:
        raise ContextFull(
            f"the conversation needs {len(tokens)} tokens, the model has room for {session.context_tokens}",
            "start a new session, or use a model with a larger context",
            needed_tokens=len(tokens),
            context_tokens=session.context_tokens,
        )
    limit = min(job.request.max_tokens or dialect.max_tokens, room)
    turn = dialect.begin(session, job.request, emit)
    finish: Finish = "cancelled"
    made = 0
    begun = read = time.perf_counter()
    try:
        job.enter(session)
        session.read(tokens)
        read = time.perf_counter()
        over = False
        while not over and made < limit:
            over = turn.step()
            made += 1
        finish = turn.finish(cut=not over)
    except Cancelled:
        finish = "cancelled"
    finally:
        job.leave()
        turn.close()
    now = time.perf_counter()
    return DoneEvent(
        finish=finish,
        model=loaded.name,
        prompt_tokens=len(tokens),
        completion_tokens=made,
        load_s=round(load_s, 6),
        prompt_s=round(read - begun, 6),
        completion_s=round(now - read, 6),
        grammar_s=round(turn.grammar_s, 6),
    )
