"""The part of libwasmtime that we call, declared by hand.

`import wasmtime` declares the whole library, a thousand functions, which takes 40 ms of every call; these
take one. A wrong declaration would be memory corruption, so a test compares each with the pinned package's.
"""

from __future__ import annotations

import ctypes
import os
import sys

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t
_bool = ctypes.c_bool
_text = ctypes.c_char_p
_i64 = ctypes.c_int64
_u64 = ctypes.c_uint64
_SWITCH = (None, (_pointer, _bool))
_NUMBER = (None, (_pointer, _u64))
_INHERIT = (None, (_pointer,))

SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "wasm_config_new": (_pointer, ()),
    "wasmtime_config_target_set": (_pointer, (_pointer, _text)),
    "wasmtime_config_consume_fuel_set": _SWITCH,
    "wasmtime_config_epoch_interruption_set": _SWITCH,
    "wasmtime_config_parallel_compilation_set": _SWITCH,
    "wasmtime_config_signals_based_traps_set": _SWITCH,
    "wasmtime_config_memory_init_cow_set": _SWITCH,
    "wasmtime_config_memory_may_move_set": _SWITCH,
    "wasmtime_config_memory_reservation_set": _NUMBER,
    "wasmtime_config_memory_reservation_for_growth_set": _NUMBER,
    "wasmtime_config_memory_guard_size_set": _NUMBER,
    "wasmtime_config_max_wasm_stack_set": (None, (_pointer, _size)),
    "wasmtime_config_wasm_threads_set": _SWITCH,
    "wasmtime_config_wasm_memory64_set": _SWITCH,
    "wasmtime_config_wasm_multi_memory_set": _SWITCH,
    "wasmtime_config_wasm_gc_set": _SWITCH,
    "wasmtime_config_wasm_function_references_set": _SWITCH,
    "wasmtime_config_wasm_exceptions_set": _SWITCH,
    "wasmtime_config_wasm_relaxed_simd_set": _SWITCH,
    "wasmtime_config_wasm_custom_page_sizes_set": _SWITCH,
    "wasmtime_config_wasm_stack_switching_set": _SWITCH,
    "wasmtime_config_wasm_wide_arithmetic_set": _SWITCH,
    "wasmtime_config_gc_support_set": _SWITCH,
    "wasm_engine_new_with_config": (_pointer, (_pointer,)),
    "wasmtime_engine_is_pulley": (_bool, (_pointer,)),
    "wasmtime_engine_increment_epoch": (None, (_pointer,)),
    "wasmtime_module_new": (_pointer, (_pointer, _text, _size, _pointer)),
    "wasmtime_linker_new": (_pointer, (_pointer,)),
    "wasmtime_linker_define_wasi": (_pointer, (_pointer,)),
    "wasmtime_linker_instantiate": (_pointer, (_pointer,) * 5),
    "wasmtime_store_new": (_pointer, (_pointer, _pointer, _pointer)),
    "wasmtime_store_context": (_pointer, (_pointer,)),
    "wasmtime_store_limiter": (None, (_pointer, _i64, _i64, _i64, _i64, _i64)),
    "wasmtime_context_set_fuel": (_pointer, (_pointer, _u64)),
    "wasmtime_context_set_epoch_deadline": _NUMBER,
    "wasmtime_context_set_wasi": (_pointer, (_pointer, _pointer)),
    "wasi_config_new": (_pointer, ()),
    "wasi_config_set_argv": (_bool, (_pointer, _size, _pointer)),
    "wasi_config_inherit_env": _INHERIT,
    "wasi_config_inherit_stdin": _INHERIT,
    "wasi_config_inherit_stdout": _INHERIT,
    "wasi_config_inherit_stderr": _INHERIT,
    "wasi_config_preopen_dir": (_bool, (_pointer, _text, _text, _bool)),
    "wasmtime_instance_export_get": (_bool, (_pointer, _pointer, _text, _size, _pointer)),
    "wasmtime_func_call": (_pointer, (_pointer, _pointer, _pointer, _size, _pointer, _size, _pointer)),
    "wasmtime_memory_data_size": (_size, (_pointer, _pointer)),
    "wasmtime_trap_code": (_bool, (_pointer, _pointer)),
    "wasm_trap_message": (None, (_pointer, _pointer)),
    "wasmtime_error_message": (None, (_pointer, _pointer)),
    "wasmtime_error_exit_status": (_bool, (_pointer, _pointer)),
}

EXTERN_FUNC = 0
EXTERN_MEMORY = 3


class Bytes(ctypes.Structure):
    """`wasm_byte_vec_t`"""

    _fields_ = (("size", _size), ("data", _pointer))


class Instance(ctypes.Structure):
    """`wasmtime_instance_t`"""

    _fields_ = (("store_id", _u64), ("private", _size))


class Extern(ctypes.Structure):
    """`wasmtime_extern_t`: what it holds (a function, a memory) is of no concern to us but for its place."""

    _fields_ = (("kind", ctypes.c_uint8), ("of", _u64 * 3))


def find() -> str:
    """Where the package lies. Raises FileNotFoundError."""
    below = f"wasmtime/linux-{os.uname().machine}/_libwasmtime.so"
    for directory in sys.path:
        path = os.path.join(directory, below)  # noqa: PTH118 # pathlib costs 3 ms of every call
        if os.access(path, os.R_OK):
            return path
    raise FileNotFoundError(below)


def load(path: str) -> ctypes.CDLL:
    """The library with our functions declared. Raises OSError, and AttributeError for one that it lacks."""
    library = ctypes.CDLL(path)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
