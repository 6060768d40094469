"""One act at a time, each in a child of its own: what it breaks, only it has broken."""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

Act = Callable[[], object]
Buffer = ctypes.Array[ctypes.c_char]
Argument = int | bytes | Buffer | None

TIMEOUT_S = 60

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: Argument) -> int:
    """A system call by its name, as it stands; buffers go by address. Raises OSError."""
    return call_number(_numbers()[name.split()[0]], *arguments)


@functools.cache
def _numbers() -> dict[str, int]:
    """Of this architecture; the tools root, which has libseccomp's tables, wrote them beside us."""
    numbers: dict[str, int] = json.loads(Path(__file__).with_name("numbers.json").read_text())
    return numbers


def call_number(number: int, *arguments: Argument) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    ctypes.set_errno(0)
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name_of(ctypes.get_errno()))
    return result


def name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def answer(do: Act) -> str:
    """What comes of it: "ok" or what it returned, the errno's name, "killed SIGNAL", "hangs"."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.write(write_end, _tried(do).encode()[:4096])
        os._exit(0)
    os.close(write_end)
    ready, _, _ = select.select([read_end], [], [], TIMEOUT_S)
    if not ready:
        os.kill(child, signal.SIGKILL)
    said = os.read(read_end, 4096).decode()
    os.close(read_end)
    _, status = os.waitpid(child, 0)
    if not ready:
        return "hangs"
    return f"killed {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else said


def _tried(do: Act) -> str:
    try:
        result = do()
    except OSError as error:
        return name_of(error.errno or 0) if error.errno else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok" if result is None else str(result)
