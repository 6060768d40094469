"""How a run can end, when not by the module's own exit code (0 to 125, all that WASI has)."""

from __future__ import annotations

RUNNER = 200
"""Wrong options, or the library is missing or has changed: a fault of ours."""
UNREADABLE = 201
"""There is no such file, it may not be read, or it is larger than the limit."""
INVALID = 202
"""The file is no WebAssembly module, or uses what is switched off here."""
UNFIT = 203
"""A module, but no WASI command: it imports something else, or has no `_start`."""
FUEL = 204
TIME = 205
MEMORY = 206
"""It asks for more memory, or larger tables, than the limit before it begins."""
STACK = 207
TRAP = 208

LIMITS = {FUEL: "fuel", TIME: "wall", MEMORY: "memory", STACK: "stack"}
"""Those that are limits, by their names in the isolator's result."""

# wasmtime's numbers of what WebAssembly calls a trap.
TRAP_STACK, TRAP_INTERRUPT, TRAP_FUEL = 0, 10, 11
TRAPS = {
    1: "memory access out of bounds",
    2: "memory access not aligned",
    3: "table access out of bounds",
    4: "indirect call to null",
    5: "indirect call of another type",
    6: "integer overflow",
    7: "integer division by zero",
    8: "conversion to integer out of range",
    9: "unreachable code was reached",
}


class Ended(Exception):
    """The run is over, for a reason that has an exit code and a line of its own."""

    def __init__(self, code: int, message: str, details: list[str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or []


def one_line(text: str, limit: int = 300) -> str:
    """Text from a module or from the library for a terminal: one line, only what can be seen."""
    words = " ".join(text.split())
    seen = "".join(c if c.isprintable() else "?" for c in words)
    return seen if len(seen) <= limit else seen[: limit - 1] + "…"
