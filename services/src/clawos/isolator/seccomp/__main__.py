"""python3 -m clawos.isolator.seccomp compile IN OUT ARCHITECTURE...: IN/*.json → OUT/*.bpf

The first architecture's filters are NAME.bpf, those of others NAME.ARCHITECTURE.bpf: they are checked and not
installed. OUT/syscalls.json says what the first one's numbers are called.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

from clawos.core.errors import ClawError
from clawos.isolator.seccomp import check, crosscheck, profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES, Architecture, compile_rules, encode
from clawos.isolator.seccomp.numbers import names, numbered


def compile_profile(directory: Path, name: str, architecture: Architecture) -> bytes:
    """A profile's filter. Raises ConfigInvalid."""
    rules = profile.load(directory, name, architecture.name)
    return encode(compile_rules(numbered(rules, architecture), architecture))


def verify(blob: bytes, directory: Path, name: str, architecture: Architecture) -> None:
    """By our evaluator and by libseccomp's filter. Raises ConfigInvalid: such an image is not built."""
    rules = profile.load(directory, name, architecture.name)
    check.verify(blob, numbered(rules, architecture), architecture)
    crosscheck.compare(blob, rules, architecture)


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[0] != "compile" or not set(arguments[3:]) <= ARCHITECTURES.keys():
        print(__doc__, file=sys.stderr)
        return 2
    source, target = Path(arguments[1]), Path(arguments[2])
    first, *others = [ARCHITECTURES[name] for name in arguments[3:] or [platform.machine()]]
    target.mkdir(parents=True, exist_ok=True)
    try:
        for name in profile.names(source):
            for architecture in (first, *others):
                blob = compile_profile(source, name, architecture)
                verify(blob, source, name, architecture)
                suffix = "" if architecture is first else f".{architecture.name}"
                (target / f"{name}{suffix}.bpf").write_bytes(blob)
                print(f"{name}: {architecture.name}: {len(blob) // 8} instructions")
        (target / "syscalls.json").write_text(json.dumps(names(first), indent=0) + "\n")
    except ClawError as error:
        print(f"seccomp: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
