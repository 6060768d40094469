"""`policies/MANIFEST`: the SHA-256 of every frozen spec, and of every policy that a sandbox is built from.

    python3 -I -m clawos.core.manifest          compare; exit 1 and a line for each difference
    python3 -m clawos.core.manifest write       after a deliberate change, in a checkout

A line is `sha256  path`. Paths begin with one of four names, which stand for a folder of the checkout or of
the machine: `policies/`, `specs/` (docs/specs), `bus/` (the rooms' bus XML; /usr/share/dbus-1/interfaces) and
`ebpf/` (what the kernel side tells user space, and how).
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from clawos.core.names import POLICY_DIR

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = Path(__file__).parents[4]
NAME = "MANIFEST"
_HASH_LENGTH = 64


@dataclass(frozen=True)
class Roots:
    """Where the four kinds of frozen files stand."""

    policies: Path
    specs: Path
    bus: Path = _PACKAGE
    ebpf: Path = _CHECKOUT / "ebpf"

    @property
    def manifest(self) -> Path:
        return self.policies / NAME

    def files(self) -> dict[str, Path]:
        """Every file that the manifest must name, by the name it has there."""
        policies = [path for path in self.policies.rglob("*") if path.is_file() and path != self.manifest]
        found = {f"policies/{path.relative_to(self.policies)}": path for path in policies}
        found |= {f"specs/{path.name}": path for path in self.specs.glob("*.md")}
        for path in self.bus.rglob("org.clawos.*.xml"):
            found[f"bus/{path.name}"] = path
        found |= {f"ebpf/{path.name}": path for path in self.ebpf.glob("events.h")}
        return dict(sorted(found.items()))


def roots() -> Roots:
    """Those of the checkout that this file is part of, else those of the machine."""
    if (_CHECKOUT / "docs/specs").is_dir() and (_CHECKOUT / "policies").is_dir():
        return Roots(_CHECKOUT / "policies", _CHECKOUT / "docs/specs")
    share = POLICY_DIR.parent
    return Roots(POLICY_DIR, share / "specs", Path("/usr/share/dbus-1/interfaces"), share / "ebpf")


@dataclass(frozen=True)
class Difference:
    """One way in which the files are not what the manifest says."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def verify(where: Roots) -> list[Difference]:
    """Compare the files with the manifest. A file that it does not name is a difference too."""
    try:
        lines = where.manifest.read_text().splitlines()
    except OSError as error:
        return [Difference(f"policies/{NAME}", error.strerror or str(error))]
    wanted: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        digest, separator, path = line.partition("  ")
        if not separator or len(digest) != _HASH_LENGTH or path in wanted:
            return [Difference(f"policies/{NAME}", f"line {number} is not 'sha256  path'")]
        wanted[path] = digest
    files = where.files()
    found = [Difference(path, "is missing") for path in sorted(wanted.keys() - files.keys())]
    for path, file in files.items():
        if path not in wanted:
            found.append(Difference(path, f"is not in {NAME}"))
            continue
        try:
            digest = _digest(file)
        except OSError as error:
            found.append(Difference(path, error.strerror or str(error)))
            continue
        if digest != wanted[path]:
            found.append(Difference(path, "was changed"))
    return found


def write(where: Roots) -> int:
    """Write the manifest anew. Returns how many files it names."""
    files = where.files()
    where.manifest.write_text("".join(f"{_digest(file)}  {path}\n" for path, file in files.items()))
    return len(files)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main(arguments: list[str]) -> int:
    if arguments == ["write"]:
        print(f"{roots().manifest}: {write(roots())} files")
        return 0
    if arguments not in ([], ["check"]):
        print("usage: python3 -m clawos.core.manifest [check|write]", file=sys.stderr)
        return 2
    differences = verify(roots())
    for difference in differences:
        print(f"clawos-manifest: {difference}", file=sys.stderr)
    if differences:
        print(
            "clawos-manifest: the frozen specs are not as shipped; see docs/services/claw.md", file=sys.stderr
        )
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
