"""WebAssembly modules for the tests, as text; `binary` makes what a file holds."""

from __future__ import annotations

import wasmtime

_WASI = "wasi_snapshot_preview1"
_IMPORTS = f"""
    (import "{_WASI}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "{_WASI}" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "{_WASI}" "proc_exit" (func $proc_exit (param i32)))
    (import "{_WASI}" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (import "{_WASI}" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "{_WASI}" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "{_WASI}" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "{_WASI}" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "{_WASI}" "fd_prestat_dir_name" (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
    (import "{_WASI}" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
    (import "{_WASI}" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
"""
# 0: an iovec, 8: the count that a call returns, 12: where it begins; 64: text.
_HELPERS = """
    (memory (export "memory") 2)
    (func $write (param $fd i32) (param $at i32) (param $size i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $size))
        (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func $copy (param $from i32) (param $to i32)
        (loop $more
            (i32.store (i32.const 0) (i32.const 4096))
            (i32.store (i32.const 4) (i32.const 4096))
            (if (call $fd_read (local.get $from) (i32.const 0) (i32.const 1) (i32.const 8))
                (then (call $proc_exit (i32.const 70))))
            (if (i32.load (i32.const 8))
                (then
                    (call $write (local.get $to) (i32.const 4096) (i32.load (i32.const 8)))
                    (br $more)))))
"""


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def command(start: str, more: str = "") -> bytes:
    """A WASI command: the body of `_start` and what it needs beside the helpers."""
    return binary(f'(module {_IMPORTS} {_HELPERS} {more} (func (export "_start") {start}))')


EMPTY = command("")
HELLO = command(
    "(call $write (i32.const 1) (i32.const 64) (i32.const 6))", r'(data (i32.const 64) "hello\0a")'
)
ON_STDERR = command(
    "(call $write (i32.const 2) (i32.const 64) (i32.const 5))", '(data (i32.const 64) "oh no")'
)
CAT = command("(call $copy (i32.const 0) (i32.const 1))")
ARGUMENTS = command("""
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $args_get (i32.const 1024) (i32.const 4096)))
    (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 20)))""")
ENVIRONMENT = command("""
    (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $environ_get (i32.const 1024) (i32.const 4096)))
    (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 20)))""")
PREOPENS = command("""
    (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop $more
        (if (i32.eqz (call $fd_prestat_get (local.get $fd) (i32.const 16)))
            (then
                (drop (call $fd_prestat_dir_name
                    (local.get $fd) (i32.const 4096) (i32.load (i32.const 20))))
                (i32.store8 (i32.add (i32.const 4096) (i32.load (i32.const 20))) (i32.const 10))
                (call $write (i32.const 1) (i32.const 4096) (i32.add (i32.load (i32.const 20)) (i32.const 1)))
                (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
                (br $more))))""")
FOREVER = command("(loop $again (br $again))")
# Fuel counts what is written, not what the compiler leaves of it: ten thousand units a turn in no time, so
# that a slow machine does not run into the wall clock first.
WASTEFUL = command(f"(loop $again {'(drop (i32.const 1))' * 10_000} (br $again))")
SLEEP = command("""
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 30000000000))
    (drop (call $poll_oneoff (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 8)))""")
RECURSION = command("(call $deeper)", "(func $deeper (call $deeper) (call $deeper))")
UNREACHABLE = command("(call $boom)", "(func $boom unreachable)")
NO_COMMAND = binary('(module (func (export "run")))')
FOREIGN = binary('(module (import "env" "system" (func (param i32))) (func (export "_start")))')


def counting(iterations: int) -> bytes:
    """Ends by itself, after so many turns of a loop."""
    return command(
        f"""(local $i i32)
        (loop $more
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const {iterations}))))"""
    )


def exit_with(code: int) -> bytes:
    return command(f"(call $proc_exit (i32.const {code}))")


def growing(pages: int) -> bytes:
    """Asks for so many pages at once and exits with 0 if it got them, 9 if not."""
    return command(
        f"""(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1))
            (then (call $proc_exit (i32.const 9))))
        (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1))"""
    )


def having(pages: int) -> bytes:
    """Has so many pages of memory before it begins."""
    return binary(f'(module (memory {pages}) (func (export "_start")))')


def show(preopen: int, path: str) -> bytes:
    """Writes a file below one of its directories (3 is the first); exits with WASI's error number."""
    return _opening(preopen, path, 0, 2, "(call $copy (i32.load (i32.const 12)) (i32.const 1))")


def create(preopen: int, path: str, text: str = "made") -> bytes:
    """Makes a file there; exits with WASI's error number."""
    body = f"(call $write (i32.load (i32.const 12)) (i32.const 512) (i32.const {len(text)}))"
    return _opening(preopen, path, 9, 64, body, f'(data (i32.const 512) "{text}")')


def _opening(preopen: int, path: str, flags: int, rights: int, then: str, more: str = "") -> bytes:
    return command(
        f"""(local $error i32)
        (local.set $error (call $path_open (i32.const {preopen}) (i32.const 1) (i32.const 64)
            (i32.const {len(path)}) (i32.const {flags}) (i64.const {rights}) (i64.const 0)
            (i32.const 0) (i32.const 12)))
        (if (local.get $error) (then (call $proc_exit (local.get $error))))
        {then}""",
        f'(data (i32.const 64) "{path}") {more}',
    )
