"""python3 -m clawos.isolator.seccomp compile IN OUT [ARCHITECTURE]: IN/*.json → OUT/*.bpf"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from clawos.core.errors import ClawError
from clawos.isolator.seccomp import profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES, Architecture, compile_rules, encode
from clawos.isolator.seccomp.numbers import resolve


def compile_profile(directory: Path, name: str, architecture: Architecture) -> bytes:
    rules = profile.load(directory, name)
    numbered = {resolve(call, architecture): rule for call, rule in rules.items()}
    return encode(compile_rules({n: rule for n, rule in numbered.items() if n is not None}, architecture))


def main(arguments: list[str]) -> int:
    if len(arguments) not in (3, 4) or arguments[0] != "compile":
        print(__doc__, file=sys.stderr)
        return 2
    source, target = Path(arguments[1]), Path(arguments[2])
    architecture = ARCHITECTURES[arguments[3] if len(arguments) == 4 else platform.machine()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        for name in profile.names(source):
            blob = compile_profile(source, name, architecture)
            (target / f"{name}.bpf").write_bytes(blob)
            print(f"{name}: {len(blob) // 8} instructions")
    except ClawError as error:
        print(f"seccomp: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
