"""What run-wasm is told: options in pairs, then the module and the module's own arguments.

Every limit must be given, there are no defaults: what a call may use stands in `policies/quotas.toml`.
"""

from __future__ import annotations

PROGRAM = "/usr/lib/clawos/tools/run-wasm"
# Asked for more than its stacks for asynchronous code have, which nothing here can set, the library aborts.
STACK_BYTES_MAX = 2 * 1024 * 1024


# Two plain classes: dataclasses would cost every call 8 ms to import, and typing.NamedTuple 4.
class Limits:
    NAMES = (
        "fuel",
        "memory_bytes",
        "stack_bytes",
        "tables",
        "table_elements",
        "module_bytes",
        "wall_ms",
    )

    def __init__(
        self,
        *,
        fuel: int,
        memory_bytes: int,
        stack_bytes: int,
        tables: int,
        table_elements: int,
        module_bytes: int,
        wall_ms: int,
    ) -> None:
        self.fuel = fuel
        self.memory_bytes = memory_bytes
        self.stack_bytes = stack_bytes
        self.tables = tables
        self.table_elements = table_elements
        self.module_bytes = module_bytes
        self.wall_ms = wall_ms


class Options:
    """`read`: directories that the module sees, under the names that they have here; `write`: those that it
    may also change; `here`: the one of them that relative paths start from, or empty.
    """

    def __init__(
        self,
        limits: Limits,
        module: str,
        arguments: tuple[str, ...] = (),
        *,
        read: tuple[str, ...] = (),
        write: tuple[str, ...] = (),
        here: str = "",
    ) -> None:
        self.limits = limits
        self.module = module
        self.arguments = arguments
        self.read = read
        self.write = write
        self.here = here


class Usage(Exception):
    """What was given is no command line of ours."""


def command(options: Options) -> tuple[str, ...]:
    """The argument vector that `parse` takes apart again."""
    words = [PROGRAM]
    for name in Limits.NAMES:
        words += (_option(name), str(getattr(options.limits, name)))
    for path in options.read:
        words += ("--read", path)
    for path in options.write:
        words += ("--write", path)
    if options.here:
        words += ("--here", options.here)
    return (*words, options.module, *options.arguments)


def parse(words: list[str]) -> Options:
    """Take an argument vector apart, its first element left out. Raises Usage."""
    numbers: dict[str, int] = {}
    paths: dict[str, list[str]] = {"--read": [], "--write": [], "--here": []}
    known = {_option(name): name for name in Limits.NAMES}
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
    if missing := [_option(name) for name in Limits.NAMES if name not in numbers]:
        raise Usage(f"{', '.join(missing)}: every limit must be given")
    if numbers["stack_bytes"] > STACK_BYTES_MAX:
        raise Usage(f"--stack-bytes: at most {STACK_BYTES_MAX}")
    return Options(
        Limits(**numbers),
        module,
        tuple(rest),
        read=tuple(paths["--read"]),
        write=tuple(paths["--write"]),
        here="".join(paths["--here"][-1:]),
    )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
