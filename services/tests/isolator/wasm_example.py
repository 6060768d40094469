"""The tool that `docs/services/agent.md` shows, made as it says there."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PAGE = Path(__file__).parents[3] / "docs" / "services" / "agent.md"


@dataclass(frozen=True)
class Example:
    manifest: Path
    module: Path


def build(directory: Path) -> Example:
    """Write its files to a directory and run the command that the page gives."""
    section = _PAGE.read_text().split("### A tool in WebAssembly\n")[1].split("\n## ")[0]
    shown = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    (directory / "count.c").write_text(shown["c"])
    subprocess.run(["bash", "-euc", shown["sh"]], cwd=directory, check=True)
    manifest = directory / "text.count.toml"
    manifest.write_text(shown["toml"])
    return Example(manifest, directory / "text.count.wasm")
