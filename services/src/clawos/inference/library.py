"""Loads llama.cpp: the low-level binding, and the CPU library that fits this machine best."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections import deque
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from clawos.core.errors import Unavailable


@dataclass(frozen=True)
class Library:
    """llama.cpp as loaded into this process."""

    api: Any
    """`llama_cpp.llama_cpp`: the C functions. Untyped, as ctypes is."""
    ggml: ctypes.CDLL
    threads: ctypes.CDLL | None
    """The chosen CPU library, for its thread pool."""
    cpu_variant: str
    complaints: deque[str]
    """The last warnings and errors that llama.cpp logged."""

    @property
    def reason(self) -> str:
        """Why the last call failed: its outer functions only repeat that it did."""
        telling = [words for words in self.complaints if not words.endswith("failed to load model")]
        return telling[-1] if telling else "llama.cpp gives no reason"


def _spec() -> ModuleSpec:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise Unavailable("llama.cpp is not installed", "reinstall the image")
    return spec


def _directory() -> Path:
    """Where llama.cpp's shared libraries are."""
    origin = _spec().origin
    assert origin is not None
    return Path(origin).parent / "lib"


def _binding() -> Any:
    """Import llama_cpp.llama_cpp without its package's __init__.

    That one imports the high-level classes, numpy, diskcache and jinja2: 15 MB and 0.2 s that no chat needs.
    """
    if "llama_cpp" not in sys.modules:
        spec = _spec()
        sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    directory = _directory()
    # By path and before libllama, which then finds them loaded by their names: where they lie is our business
    # and not that of the search path of the machine that built them.
    for name in ("libggml-base.so.0", "libggml.so.0"):
        ctypes.CDLL(str(directory / name))
    # Aborts print a backtrace by starting gdb, of all things.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    return importlib.import_module("llama_cpp.llama_cpp")


def _chosen_cpu_library() -> Path | None:
    """The one that ggml kept loaded; it tells no other way which it chose."""
    found = re.search(r"\S*/libggml-cpu-\w+\.so", Path("/proc/self/maps").read_text())
    return Path(found[0]) if found else None


@functools.cache
def library() -> Library:
    """Load llama.cpp once for each process."""
    api = _binding()
    directory = _directory()
    complaints: deque[str] = deque(maxlen=20)
    warning, error = 3, 4

    @api.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(level: int, text: bytes, _: Any) -> None:
        if level in (warning, error):
            complaints.append(text.decode(errors="replace").strip())

    on_log_forever.append(on_log)
    api.llama_log_set(on_log, None)
    ggml = ctypes.CDLL(str(directory / "libggml.so.0"))
    ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_load_all_from_path.restype = None
    ggml.ggml_backend_load_all_from_path(os.fsencode(directory))
    api.llama_backend_init()
    chosen = _chosen_cpu_library()
    if chosen is None:
        raise Unavailable("llama.cpp found no library for this CPU", "see 'journalctl -u clawos-inference'")
    variant = chosen.stem.removeprefix("libggml-cpu-")
    return Library(api, ggml, ctypes.CDLL(str(chosen)), variant, complaints)


# C keeps a pointer to the callback for the life of the process.
on_log_forever: list[Any] = []
