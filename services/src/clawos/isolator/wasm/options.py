"""What run-wasm is told: options in pairs, then the module and the module's own arguments.

Every limit must be given, there are no defaults: what a call may use stands in `policies/quotas.toml`.
"""

from __future__ import annotations

from typing import NamedTuple

PROGRAM = "/usr/lib/clawos/tools/run-wasm"
# Asked for more than its stacks for asynchronous code have, which nothing here can set, the library aborts.
STACK_BYTES_MAX = 2 * 1024 * 1024


class Limits(NamedTuple):
    fuel: int
    memory_bytes: int
    stack_bytes: int
    tables: int
    table_elements: int
    module_bytes: int
    wall_ms: int


class Options(NamedTuple):
    limits: Limits
    read: tuple[str, ...]
    """Directories that the module sees, under the names that they have here."""
    write: tuple[str, ...]
    """Those that it may also change."""
    module: str
    arguments: tuple[str, ...]


class Usage(Exception):
    """What was given is no command line of ours."""


def command(options: Options) -> tuple[str, ...]:
    """The argument vector that `parse` takes apart again."""
    words = [PROGRAM]
    for name, value in zip(Limits._fields, options.limits, strict=True):
        words += (_option(name), str(value))
    for path in options.read:
        words += ("--read", path)
    for path in options.write:
        words += ("--write", path)
    return (*words, options.module, *options.arguments)


def parse(words: list[str]) -> Options:
    """Take an argument vector apart, its first element left out. Raises Usage."""
    numbers: dict[str, int] = {}
    paths: dict[str, list[str]] = {"--read": [], "--write": []}
    known = {_option(name): name for name in Limits._fields}
    rest = iter(words)
    module = ""
    for word in rest:
        if not word.startswith("-"):
            module = word
            break
        value = next(rest, "")
        if word in paths and value.startswith("/"):
            paths[word].append(value)
        elif word in known and value.isdecimal() and value.isascii():
            numbers[known[word]] = int(value)
        else:
            raise Usage(f"{word} {value!r} is not an option")
    if not module:
        raise Usage("no module is named")
    if missing := [_option(name) for name in Limits._fields if name not in numbers]:
        raise Usage(f"{', '.join(missing)}: every limit must be given")
    if numbers["stack_bytes"] > STACK_BYTES_MAX:
        raise Usage(f"--stack-bytes: at most {STACK_BYTES_MAX}")
    return Options(Limits(**numbers), tuple(paths["--read"]), tuple(paths["--write"]), module, tuple(rest))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
