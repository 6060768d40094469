"""Fuzz run-wasm with modules that are not quite modules, and with valid ones that call WASI with nonsense.

Each must end by a code and a line of its own.

python -m qa.fuzz.wasm SECONDS [SEED]   what breaks it goes to build/fuzz/wasm; what ends in a way that no
    module of the corpus ends in is added to qa/fuzz/corpus/wasm, named for its exit code

Each module is run in a forked child, as run-wasm runs it; only the interpreter's start is left out.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "services" / "src"), str(ROOT / "services" / "tests" / "isolator")]

import wasm_modules as modules  # noqa: E402 # found through the path set above

from clawos.isolator.wasm import ends, library  # noqa: E402
from clawos.isolator.wasm.options import Limits, Options  # noqa: E402
from clawos.isolator.wasm.runner import leave, run  # noqa: E402

CORPUS = Path(__file__).parent / "corpus" / "wasm"
BROKEN = ROOT / "build" / "fuzz" / "wasm"
KEPT_BYTES_MAX = 2048
LIMITS = Limits(
    fuel=2_000_000,
    memory_bytes=8 * 2**20,
    stack_bytes=2**20,
    tables=4,
    table_elements=10_000,
    module_bytes=2**20,
    wall_ms=3000,
)
HANG_S = 15.0


@dataclass(frozen=True)
class Ended:
    """How one module ended."""

    exit_code: int | None
    stderr: str

    @property
    def fault(self) -> str:
        """What is wrong with this end; empty when it is one of the named."""
        if self.exit_code is None:
            return "killed by a signal, or it hangs"
        if "Traceback" in self.stderr or "panicked" in self.stderr:
            return "a traceback or a panic"
        if self.exit_code < 126:
            return ""  # the module's own
        if not ends.UNREADABLE <= self.exit_code <= ends.TRAP:
            return f"exit code {self.exit_code}"
        return "" if self.stderr.startswith("run-wasm: ") else "no line that says why"

    @property
    def kind(self) -> str:
        """The same for modules that end in the same way: what was said, without its numbers and names."""
        line = re.sub(r"`[^`]*`|\"[^\"]*\"|0x[0-9a-f]+|\d+", "#", self.stderr.split("\n")[0])
        return f"{min(self.exit_code or 0, 200) and self.exit_code} {line}"


def once(module: bytes, directory: Path) -> Ended:
    """Run one module in a child."""
    file, said = directory / "module.wasm", directory / "stderr"
    file.write_bytes(module)
    said.write_bytes(b"")
    child = os.fork()
    if child == 0:
        _child(file, said, directory)
    deadline = time.monotonic() + HANG_S
    status = 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(None, "hangs")
        time.sleep(0.0005)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code if code >= 0 else None, said.read_text(errors="replace"))


def _child(file: Path, said: Path, directory: Path) -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(os.open(said, os.O_WRONLY), 2)
        os.chdir(directory)
        os._exit(run(Options(LIMITS, str(file), ("one",), write=(str(directory),))))
    except ends.Ended as ended:
        leave(ended)
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}".encode())
    os._exit(255)


def seeds() -> list[bytes]:
    made = [value for value in vars(modules).values() if isinstance(value, bytes)]
    texts = (
        "(table 3 funcref) (elem (i32.const 1) $f $f) (func $f) (global (mut i64) (i64.const 7))",
        "(func (param v128) (drop (i8x16.popcnt (local.get 0))))",
        "(tag $t (param i32)) (func (try_table (catch $t 0) (throw $t (i32.const 1))) unreachable)",
        "(func (result i32 i64) (i32.const 1) (i64.const 2)) (type $s (func (param f32) (result f64)))",
        '(func (block (block (br_table 0 1 (i32.const 1)))) (data.drop 0)) (data "x")',
    )
    made += [modules.command("", text) for text in texts]
    made += [
        modules.counting(10),
        modules.exit_with(3),
        modules.growing(3),
        modules.having(600),
        modules.show(3, "stderr"),
    ]
    return made + [file.read_bytes() for file in sorted(CORPUS.iterdir())]


def mutants(chance: random.Random) -> Iterator[bytes]:
    known = seeds()
    yield from known
    while True:
        yield program(chance)
        module = bytearray(chance.choice(known))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            _mutate(module, known, chance)
        if chance.random() < 0.8:
            module[:8] = b"\0asm\1\0\0\0"  # past the door
        yield bytes(module[: LIMITS.module_bytes])


# WASI preview 1, but for proc_exit: parameters of each, i for 32 bits and I for 64; all return an i32.
_WASI = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
_NUMBERS = (0, 0, 1, 2, 3, 3, 4, 5, 8, 64, 1024, 65535, 65536, 131072, 2**31 - 1, 2**31, 2**32 - 1)


def program(chance: random.Random) -> bytes:
    """A valid module: instructions and calls of WASI with arguments that mean nothing."""

    def number(kind: str) -> str:
        wide = (2**63, 2**64 - 1, chance.getrandbits(64)) if kind == "I" else (chance.getrandbits(32),)
        return f"(i{64 if kind == 'I' else 32}.const {chance.choice((*_NUMBERS, *wide))})"

    def statement() -> str:
        match chance.randrange(8):
            case 0:
                return f"(i32.store {number('i')} {number('i')})"
            case 1:
                return f"(i32.store (i32.const {chance.randrange(0, 256, 4)}) {number('i')})"
            case 2:
                operation = chance.choice(("div_s", "rem_u", "shl", "mul"))
                return f"(drop (i32.{operation} {number('i')} {number('i')}))"
            case 3:
                what = chance.choice(("memory.fill", "memory.copy"))
                return f"({what} {number('i')} {number('i')} {number('i')})"
            case 4:
                return f"(drop (memory.grow {number('i')}))"
            case _:
                name = chance.choice(list(_WASI))
                return f"(drop (call ${name} {' '.join(number(kind) for kind in _WASI[name])}))"

    imports = [
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param'
        f" {' '.join('i64' if kind == 'I' else 'i32' for kind in kinds)}) (result i32)))"
        for name, kinds in _WASI.items()
    ]
    body = "".join(statement() for _ in range(chance.randrange(1, 12)))
    if chance.random() < 0.2:
        body = f"(loop {body} (br 0))"
    data = r'(data (i32.const 64) "d\00/..\00module.wasm")'
    return modules.binary(
        f'(module {" ".join(imports)} (memory (export "memory") 2) {data} (func (export "_start") {body}))'
    )


def _mutate(module: bytearray, known: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(module) + 1)
    match chance.randrange(7):
        case 0 if module:
            module[at % len(module)] ^= 1 << chance.randrange(8)
        case 1 if module:
            module[at % len(module)] = chance.choice((0, 1, 0x40, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        case 2:
            del module[at : at + chance.randrange(1, 9)]
        case 3:
            module[at:at] = chance.randbytes(chance.randrange(1, 9))
        case 4:
            other = chance.choice(known)
            begin = chance.randrange(len(other) + 1)
            module[at : at + 16] = other[begin : begin + chance.randrange(1, 64)]
        case 5:
            module[at:at] = b"\xff\xff\xff\xff" + bytes([chance.choice((0x07, 0x0F, 0x7F))])  # a great number
        case _:
            del module[at:]


def fuzz(seconds: float, seed: int, *, keep: bool) -> int:
    """How many modules broke it; `keep` adds to the corpus."""
    library.load(library.find())
    chance = random.Random(seed)
    BROKEN.mkdir(parents=True, exist_ok=True)
    CORPUS.mkdir(parents=True, exist_ok=True)
    runs, broken = 0, 0
    codes: dict[int | None, int] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kinds = {once(file.read_bytes(), directory).kind for file in sorted(CORPUS.iterdir())}
        deadline = time.monotonic() + seconds
        for module in mutants(chance):
            if time.monotonic() > deadline:
                break
            ended = once(module, directory)
            runs += 1
            codes[ended.exit_code] = codes.get(ended.exit_code, 0) + 1
            digest = hashlib.sha1(module, usedforsecurity=False).hexdigest()[:16]
            if ended.fault:
                broken += 1
                (BROKEN / digest).write_bytes(module)
                print(f"fuzz: {ended.fault}: {BROKEN / digest}: {ended.stderr[:300]!r}", file=sys.stderr)
            elif ended.kind not in kinds and len(module) <= KEPT_BYTES_MAX:
                kinds.add(ended.kind)
                if keep:
                    (CORPUS / f"{ended.exit_code}-{digest}").write_bytes(module)
    print(f"fuzz: {runs} modules, {broken} broke it; {len(kinds)} kinds of end; exit codes {codes}")
    return broken


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    sys.exit(min(1, fuzz(float(sys.argv[1]), seed, keep=True)))
