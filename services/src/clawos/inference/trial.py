"""Tries a model out where nothing is lost if it brings the process down.

As a program: reads the header, renders the template, loads the model, checks each weight, computes a token;
prints one line {"vocabulary", "context_tokens", "dialect"} or {"error"}, and ends with 1 where the failure is
its own. A crash is an answer too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from clawos.core.errors import ClawError
from clawos.core.parse import Record, from_json, to_json
from clawos.inference import children
from clawos.inference.errors import ModelInvalid
from clawos.inference.gguf import Header, read_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clawos.inference.model import Model

_CONTEXT = 256
# Beside the weights, which some CPU libraries copy into another order.
_DATA_BYTES = 2 << 30
_MAX_ANSWER = 1 << 16
# Where no memory may be both written and run, libffi keeps the code of its callbacks in an unnamed file.
_FILE_BYTES = 1 << 20


class Finding(Record, frozen=True, omit_defaults=True):
    """What a trial found."""

    vocabulary: int = 0
    context_tokens: int = 0
    dialect: str = ""
    error: str = ""


async def try_out(path: Path, timeout_s: float, threads: int) -> Finding:
    """Run a trial of this file. Raises ModelInvalid where the trial itself came to no end."""
    process = await children.start("clawos.inference.trial", path, str(threads), str(int(timeout_s)))
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            answer = await process.stdout.read(_MAX_ANSWER)
            code = await process.wait()
    except TimeoutError:
        raise ModelInvalid(
            f"{path.name} did not load within {timeout_s:g} s", "raise trial_s in /etc/clawos/inference.toml"
        ) from None
    finally:
        await children.end(process)
    if code == -signal.SIGKILL:
        # Not a finding to be kept: with more memory, or time, it may go well.
        raise ModelInvalid(
            f"the trial of {path.name} was killed, probably for lack of memory",
            "free some memory and try again",
        )
    if code < 0:
        return Finding(error=f"loading it ends llama.cpp by signal {-code}")
    try:
        finding = from_json(answer, Finding, "trial")
    except ClawError:
        return Finding(error=f"its trial ended with status {code}")
    if code > 0:
        # The trial's own failure says nothing of the model, so it is not kept either.
        raise ModelInvalid(
            f"the trial of {path.name} failed: {finding.error}",
            "see 'journalctl -u clawos-inference', and report it",
        )
    return finding


def kind_of(header: Header) -> str:
    """The dialect by which a model with this header is spoken to. Raises ModelInvalid."""
    from clawos.inference.builtin.prompt import DIALECT

    if header.dialect is None:
        return "template"
    if header.dialect != DIALECT:
        raise ModelInvalid(
            f"the model speaks the dialect {header.dialect!r}, known is {DIALECT!r}",
            "update ClawOS, or use another model",
        )
    return DIALECT


def _render(header: Header) -> None:
    from clawos.inference.dialects.markers import CHATML
    from clawos.inference.render import DATA_BYTES, Renderer

    try:
        with children.less_memory(DATA_BYTES):
            renderer = Renderer(header.chat_template or CHATML, "", "")
            renderer.render([{"role": "user", "content": "hello"}], [])
    # Whatever a template can bring Jinja or Python to raise: it is data that failed, not we.
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        raise ModelInvalid(f"its chat template fails: {words}", "use another model") from None


def _examine(path: Path, threads: int) -> Finding:
    header = read_header(path)
    kind = kind_of(header)
    if kind == "template":
        _render(header)
    # llama.cpp is loaded only for a file whose header holds.
    from clawos.inference.model import Model

    model = Model(path, path.stem, check_weights=True)
    if model.vocabulary != header.vocabulary:
        raise ModelInvalid("its vocabulary is not the one its header lists", "use another model")
    if kind == "template":
        _compute(model, threads)
    else:
        _read(model, header)
    return Finding(vocabulary=model.vocabulary, context_tokens=model.trained_tokens, dialect=kind)


def _compute(model: Model, threads: int) -> None:
    from clawos.inference.sampling import Sampler
    from clawos.inference.session import Session

    session = Session(model, _CONTEXT, threads)
    tokens = model.tokenize("hello", special=True, add_bos=True) or [0]
    session.read(tokens[:_CONTEXT])
    session.push(Sampler(temperature=0, seed=0).pick(session))


def _read(model: Model, header: Header) -> None:
    from clawos.inference.builtin import Request
    from clawos.inference.tagger import Tagger

    Tagger(model, header.metadata, _CONTEXT).read(Request("hello"))


def main() -> NoReturn:
    path, threads, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    data_bytes = _DATA_BYTES + (path.stat().st_size if path.exists() else 0)
    children.confine(data_bytes=data_bytes, cpu_s=seconds * threads + 1, file_bytes=_FILE_BYTES)
    try:
        finding = _examine(path, threads)
        code = 0
    except ClawError as error:
        finding, code = Finding(error=error.message), 0
    except Exception as error:
        finding, code = Finding(error=f"{type(error).__name__}: {error}"), 1
    print(to_json(finding))
    sys.stdout.flush()
    # Skips the orderly end of a library that may have been damaged by what it read.
    os._exit(code)


if __name__ == "__main__":
    main()
