"""Run one WASI module: read, compile, link, call `_start`.

Code is compiled for Pulley, wasmtime's own portable machine, and interpreted. Native code would run some nine
times faster, but memory would have to become executable in the sandbox, which the isolator's unit forbids
(MemoryDenyWriteExecute=) and every sandbox inherits. A module is always compiled here and now from its
WebAssembly: nothing that was compiled before is read, for whoever writes such a file owns whoever loads it.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import time
from ctypes import byref

from clawos.isolator.wasm import ends, library
from clawos.isolator.wasm.ends import Ended, one_line
from clawos.isolator.wasm.options import Limits, Options

# While a module waits in a call of ours (for input, for time to pass) nobody looks at the epoch: then, this
# much later and before the call's own wall clock, we end it.
_GRACE_S_MAX = 0.5
_GRACE_SHARE = 0.04
_PAGE_BYTES = 65536
_MAGIC = b"\0asm"
_VERSION = b"\1\0\0\0"
_BACKTRACE_LINES = 10


def run(options: Options) -> int:
    """The module's exit code. Raises Ended for every other end, and OSError without the library."""
    module = _read(options.module, options.limits.module_bytes)
    return _Run(library.load(library.find()), options).go(module)


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            module = file.read(limit + 1)
    except OSError as error:
        raise Ended(ends.UNREADABLE, f"{path}: {error.strerror}") from None
    if len(module) > limit:
        raise Ended(ends.UNREADABLE, f"{path} is too large (limit {limit} bytes)")
    if module[:4] != _MAGIC:
        raise Ended(ends.INVALID, f"{path} is no WebAssembly module")
    if module[4:8] != _VERSION:
        raise Ended(ends.INVALID, f"{path} is no module of WebAssembly 1 (a component is none either)")
    return module


class _Run:
    """One run. What it makes is freed by the end of the process, which is next."""

    def __init__(self, lib: ctypes.CDLL, options: Options) -> None:
        self._lib = lib
        self._options = options
        self._engine = _engine(lib, options.limits)

    def go(self, module: bytes) -> int:
        # Compiling is in the time too: some modules take long to compile and nothing to run.
        _thread.start_new_thread(self._watch, ())
        compiled = self._compiled(module)
        context = self._store()
        linker = self._lib.wasmtime_linker_new(self._engine)
        self._must(self._lib.wasmtime_linker_define_wasi(linker), ends.RUNNER)
        instance = library.Instance()
        trap = ctypes.c_void_p()
        error = self._lib.wasmtime_linker_instantiate(linker, context, compiled, byref(instance), byref(trap))
        if error:
            if (status := self._exit_status(error)) is not None:
                return status
            raise _misfit(self._message(error), self._options.limits)
        if trap:  # in the start section: there is no instance to ask yet
            raise self._trapped(trap, context, None)
        start = self._export(context, instance, b"_start", library.EXTERN_FUNC)
        if start is None:
            raise Ended(ends.UNFIT, "the module has no function _start: it is a library, not a command")
        function = byref(start, library.Extern.of.offset)
        error = self._lib.wasmtime_func_call(context, function, None, 0, None, 0, byref(trap))
        if trap:
            raise self._trapped(trap, context, instance)
        if error:
            if (status := self._exit_status(error)) is not None:
                return status
            raise Ended(ends.TRAP, f"trap: {one_line(self._message(error).splitlines()[-1])}")
        return 0

    def _watch(self) -> None:
        wall_s = self._options.limits.wall_ms / 1000
        time.sleep(wall_s)
        self._lib.wasmtime_engine_increment_epoch(self._engine)
        time.sleep(min(_GRACE_S_MAX, wall_s * _GRACE_SHARE))
        leave(_out_of_time(self._options.limits))

    def _compiled(self, module: bytes) -> ctypes.c_void_p:
        compiled = ctypes.c_void_p()
        self._must(
            self._lib.wasmtime_module_new(self._engine, module, len(module), byref(compiled)),
            ends.INVALID,
            "not a valid module: ",
        )
        return compiled

    def _store(self) -> int:
        lib, limits = self._lib, self._options.limits
        store = lib.wasmtime_store_new(self._engine, None, None)
        # One instance and one memory: that is what a WASI command is.
        lib.wasmtime_store_limiter(store, limits.memory_bytes, limits.table_elements, 1, limits.tables, 1)
        context: int = lib.wasmtime_store_context(store)
        self._must(lib.wasmtime_context_set_fuel(context, limits.fuel), ends.RUNNER)
        lib.wasmtime_context_set_epoch_deadline(context, 1)
        self._must(lib.wasmtime_context_set_wasi(context, self._wasi()), ends.RUNNER)
        return context

    def _wasi(self) -> int:
        lib, options = self._lib, self._options
        wasi: int = lib.wasi_config_new()
        argv = [os.fsencode(word) for word in (options.module, *options.arguments)]
        if not lib.wasi_config_set_argv(wasi, len(argv), (ctypes.c_char_p * len(argv))(*argv)):
            raise Ended(ends.RUNNER, "the arguments are not UTF-8")
        lib.wasi_config_inherit_env(wasi)
        lib.wasi_config_inherit_stdin(wasi)
        lib.wasi_config_inherit_stdout(wasi)
        lib.wasi_config_inherit_stderr(wasi)
        for path in (*options.read, *options.write):
            names = [path, "."] if path == options.here else [path]
            for name in names:
                opened = lib.wasi_config_preopen_dir(
                    wasi, os.fsencode(path), os.fsencode(name), path in options.write
                )
                if not opened:
                    raise Ended(ends.RUNNER, f"{path} cannot be opened for the module")
        return wasi

    def _export(
        self, context: int, instance: library.Instance, name: bytes, kind: int
    ) -> library.Extern | None:
        found = library.Extern()
        if not self._lib.wasmtime_instance_export_get(
            context, byref(instance), name, len(name), byref(found)
        ):
            return None
        return found if found.kind == kind else None

    def _trapped(self, trap: ctypes.c_void_p, context: int, instance: library.Instance | None) -> Ended:
        limits = self._options.limits
        code = ctypes.c_uint8(255)
        self._lib.wasmtime_trap_code(trap, byref(code))
        message = self._text_of(self._lib.wasm_trap_message, trap)
        frames = [line for line in message.splitlines() if line.lstrip()[:1].isdecimal()]
        trace = ["  " + one_line(frame.replace("<unknown>!", ""), 200) for frame in frames[:_BACKTRACE_LINES]]
        match code.value:
            case ends.TRAP_FUEL:
                return Ended(ends.FUEL, f"out of fuel (limit {limits.fuel})")
            case ends.TRAP_INTERRUPT:
                return _out_of_time(limits)
            case ends.TRAP_STACK:
                return Ended(ends.STACK, f"out of stack (limit {limits.stack_bytes} bytes)", trace)
        what = ends.TRAPS.get(code.value) or one_line((message.splitlines() or ["unknown"])[-1])
        memory = instance and self._export(context, instance, b"memory", library.EXTERN_MEMORY)
        if memory:
            # A program that gets no more memory traps by its own choice: say how near the limit it was.
            size = self._lib.wasmtime_memory_data_size(context, byref(memory, library.Extern.of.offset))
            what += f" (it had {size} of at most {limits.memory_bytes} bytes of memory)"
        return Ended(ends.TRAP, f"trap: {what}", trace)

    def _exit_status(self, error: int) -> int | None:
        status = ctypes.c_int()
        return status.value if self._lib.wasmtime_error_exit_status(error, byref(status)) else None

    def _must(self, error: int | None, code: int, before: str = "") -> None:
        if error:
            raise Ended(code, before + one_line(self._message(error)))

    def _message(self, error: int) -> str:
        return self._text_of(self._lib.wasmtime_error_message, error)

    @staticmethod
    def _text_of(ask: object, what: object) -> str:
        text = library.Bytes()
        assert callable(ask)
        ask(what, byref(text))
        return ctypes.string_at(text.data, text.size).rstrip(b"\0").decode(errors="replace")


def _engine(lib: ctypes.CDLL, limits: Limits) -> int:
    config = lib.wasm_config_new()
    if lib.wasmtime_config_target_set(config, b"pulley64"):
        raise Ended(ends.RUNNER, "this libwasmtime has no Pulley")
    lib.wasmtime_config_consume_fuel_set(config, True)
    lib.wasmtime_config_epoch_interruption_set(config, True)
    lib.wasmtime_config_max_wasm_stack_set(config, limits.stack_bytes)
    # One thread: a call is held to a processor or two, and small modules gain nothing.
    lib.wasmtime_config_parallel_compilation_set(config, False)
    # Bounds are checked by instructions: no signal handlers, no 4 GiB of reserved addresses. A memory's
    # addresses are reserved up to its limit, once, and it never moves.
    lib.wasmtime_config_signals_based_traps_set(config, False)
    lib.wasmtime_config_memory_init_cow_set(config, False)
    lib.wasmtime_config_memory_may_move_set(config, False)
    lib.wasmtime_config_memory_reservation_set(config, limits.memory_bytes // _PAGE_BYTES * _PAGE_BYTES)
    lib.wasmtime_config_memory_reservation_for_growth_set(config, 0)
    lib.wasmtime_config_memory_guard_size_set(config, 0)
    # What compilers for WASI preview 1 do not produce by default stays off: less code to trust.
    for feature in _OFF:
        getattr(lib, f"wasmtime_config_{feature}_set")(config, False)
    engine: int | None = lib.wasm_engine_new_with_config(config)
    if not engine or not lib.wasmtime_engine_is_pulley(engine):
        raise Ended(ends.RUNNER, "libwasmtime made no engine")
    return engine


_OFF = (
    "wasm_threads",
    "wasm_memory64",
    "wasm_multi_memory",
    "wasm_stack_switching",
    "wasm_gc",
    "wasm_function_references",
    "wasm_relaxed_simd",
    "wasm_custom_page_sizes",
    "wasm_wide_arithmetic",
)


def _misfit(message: str, limits: Limits) -> Ended:
    """Why a valid module could not be made ready."""
    said = one_line(message)
    if "memory limits" in said:
        return Ended(ends.MEMORY, f"out of memory (limit {limits.memory_bytes} bytes): {said}")
    if "table limits" in said:
        return Ended(ends.MEMORY, f"out of table elements (limit {limits.table_elements}): {said}")
    if "resource limit exceeded" in said:
        return Ended(ends.MEMORY, f"too many memories or tables (limit 1 and {limits.tables}): {said}")
    return Ended(ends.UNFIT, f"the module does not fit: {said}")


def _out_of_time(limits: Limits) -> Ended:
    return Ended(ends.TIME, f"out of time (limit {limits.wall_ms / 1000:g} s)")


def leave(ended: Ended) -> None:
    """Say why and end the process, from whichever thread."""
    text = "\n".join([f"run-wasm: {ended.message}", *ended.details]) + "\n"
    try:
        os.write(2, text.encode(errors="replace"))
    finally:
        os._exit(ended.code)
