"""A model that writes its answer, token after token."""

from __future__ import annotations

import time

from clawos.inference.chat import ChatRequest, Finish
from clawos.inference.errors import ContextFull
from clawos.inference.ports import Dialect, Emit, Outcome, Prompt, Work
from clawos.inference.session import Cancelled, Session


class Writer:
    """A session and the dialect that is spoken in it."""

    def __init__(self, session: Session, dialect: Dialect) -> None:
        self._session, self._dialect = session, dialect
        self.name = dialect.name

    @property
    def context_tokens(self) -> int:
        return self._session.context_tokens

    async def prepare(self, request: ChatRequest) -> Prompt:
        return await self._dialect.prompt(request)

    def answer(self, work: Work, prepared: Prompt, emit: Emit) -> Outcome:
        session, dialect = self._session, self._dialect
        tokens = session.model.tokenize(prepared.text, special=True, add_bos=prepared.add_bos) or [0]
        room = session.context_tokens - len(tokens)
        if room < 1:
            raise ContextFull(
                f"the conversation needs {len(tokens)} tokens, "
                f"the model has room for {session.context_tokens}",
                "start a new session, or use a model with a larger context",
                needed_tokens=len(tokens),
                context_tokens=session.context_tokens,
            )
        limit = min(work.request.max_tokens or dialect.max_tokens, room)
        turn = dialect.begin(session, work.request, emit)
        finish: Finish = "cancelled"
        made = 0
        begun = read = time.perf_counter()
        try:
            work.enter(session)
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
            work.leave()
            turn.close()
        now = time.perf_counter()
        return Outcome(finish, len(tokens), made, read - begun, now - read, turn.grammar_s)

    async def close(self) -> None:
        await self._dialect.close()

    def release(self) -> None:
        self._session.close()
