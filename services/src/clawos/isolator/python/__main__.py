"""The zygote: a Python that has imported the standard library and goes on as the launcher of `claw-python`.

    python3 -IS __main__.py CLAW_PYTHON CONTROL_FD UID_MAP GID_MAP INIT_UID

Each call is a copy of it, in a sandbox. What stands below `begin` runs there, when all fences are up, and in
place of what `python3 -IS FILE` does itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import posix
import stat
import sys
import time
import weakref
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, cast

# What files most often import. Each costs every call a little: what a copy touches is copied, page by page,
# and what it has mapped is taken down at its end. Nothing that draws secrets when it is imported (so does
# multiprocessing), opens anything or starts threads; a test holds the list to that.
MODULES = """
    argparse ast base64 bisect calendar collections.abc contextlib copy csv dataclasses datetime enum errno
    fnmatch functools glob hashlib heapq inspect itertools json linecache locale math operator os pathlib
    random re secrets shlex shutil signal site stat string struct subprocess tempfile textwrap time traceback
    types typing unicodedata urllib.parse warnings zlib
"""
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
# What `signal` wraps enumerations around, which cost more than the rest of it.
_signal: Any = importlib.import_module("_signal")
_LONG = 2**63


def _kind(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return stat.S_IFMT(found.st_mode), found.st_rdev


def _stream(fd: int) -> io.TextIOWrapper:
    """As `create_stdio` of CPython makes it."""
    name, mode = _STREAMS[fd]
    first: io.TextIOWrapper = getattr(sys, f"__{name}__")
    buffer = cast(Any, open(fd, f"{mode}b", closefd=False))  # noqa: SIM115 # it stays open
    buffer.raw.name = f"<{name}>"
    at_once = fd == 2 or buffer.raw.isatty()
    made = cast(Any, io.TextIOWrapper(buffer, first.encoding, first.errors, "\n", line_buffering=at_once))
    made.mode = mode
    return cast(io.TextIOWrapper, made)


def _made_ahead() -> dict[tuple[int, tuple[int, int]], io.TextIOWrapper]:
    """Streams over what they mostly are, pipes and /dev/null: at their making they look at it."""
    null, pipe = os.open(os.devnull, os.O_RDWR), os.pipe()
    made = {}
    for fd in range(3):
        kept = os.dup(fd)
        for like in (null, pipe[min(fd, 1)]):
            os.dup2(like, fd)
            made[fd, _kind(fd)] = _stream(fd)
        os.dup2(kept, fd)
        os.close(kept)
    for fd in (null, *pipe):
        os.close(fd)
    return made


class _Zygote:
    """What is ready for the one call that a copy is for."""

    def __init__(self) -> None:
        self.streams = _made_ahead()
        self.first = (sys.stdin, sys.stdout, sys.stderr)  # kept, for to close them would cost each call
        self.environments = (posix.environ, cast(Any, os.environ)._data)
        self.modules: frozenset[str] = frozenset()

    def begin(self, words: list[str], variables: dict[bytes, bytes], zone_has_moved: bool) -> dict[str, Any]:
        """Be the Python that `words` would start; answers the names of its `__main__`."""
        gc.enable()
        for environment in self.environments:
            environment.clear()
            environment.update(variables)
        if zone_has_moved:
            time.tzset()
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        for fd, (name, _) in enumerate(_STREAMS):
            stream = self.streams.get((fd, _kind(fd))) or _stream(fd)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        sys.orig_argv = words
        sys.argv = words[2:]
        main = sys.modules["__main__"] = ModuleType("__main__")
        main.__dict__.update(
            __loader__=SourceFileLoader("__main__", words[2]),
            __annotations__={},
            __builtins__=sys.modules["builtins"],
            __file__=words[2],
            __cached__=None,
        )
        return main.__dict__

    def leave(self, status: int, leaving: SystemExit | None) -> int:
        """The tool's file has been run: wait for its threads, run what it left for the end."""
        if leaving is not None:
            status = _exit_code(leaving)
        threading = sys.modules.get("threading")
        if threading is not None:
            try:
                threading._shutdown()
            except BaseException:
                sys.excepthook(*cast(Any, sys.exc_info()))
        atexit._run_exitfuncs()
        return status

    def take_apart(self) -> None:
        """What the tool made is ended: its modules go, with the objects that nobody else holds."""
        if gc.isenabled():
            gc.collect()
        own = [sys.modules.pop(name) for name in [*sys.modules] if name not in self.modules]
        left = [weakref.ref(module) for module in reversed(own) if isinstance(module, ModuleType)]
        own.clear()
        gc.collect()
        for reference in left:
            if (module := reference()) is not None:
                _clear(module.__dict__)
        module = None
        gc.collect()
        # Held by modules of ours, nothing ends them; but what they hold back is not lost.
        files = [
            item for item in gc.get_objects() if issubclass(type(item), io.TextIOWrapper | io.BufferedWriter)
        ]
        files.sort(key=lambda file: not isinstance(file, io.TextIOWrapper))
        for file in files:
            with contextlib.suppress(OSError, ValueError):  # nor would anybody else be told
                file.flush()


def _exit_code(leaving: SystemExit) -> int:
    code = getattr(leaving, "code", leaving)
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -_LONG <= code < _LONG else 0xFF
    for words in (code, "\n"):
        with contextlib.suppress(Exception):
            if sys.stderr is None:
                os.write(2, str(words).encode())
            else:
                sys.stderr.write(str(words))
    return 1


def _clear(names: dict[str, Any]) -> None:
    """In the order of `_PyModule_ClearDict`."""
    for is_private in (True, False):
        for name in [*names]:
            if name != "__builtins__" and (not is_private or (name[:1] == "_" and name[1:2] != "_")):
                names[name] = None


def _load(path: str) -> Any:
    loader = ExtensionFileLoader("claw_python", path)
    module = loader.create_module(ModuleSpec("claw_python", loader, origin=path))
    loader.exec_module(module)
    return module


def main(path: str, words: list[str]) -> None:
    for name in MODULES.split():
        importlib.import_module(name)
    launcher = _load(path)
    zygote = _Zygote()
    zygote.modules = frozenset(sys.modules) - {"__main__"}
    # What is here now stays to the end: not to look at it leaves it shared between all copies.
    gc.collect()
    gc.freeze()
    gc.disable()
    launcher.serve(words, zygote.begin, zygote.leave, zygote.take_apart)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
