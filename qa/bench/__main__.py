"""`make bench`: measure, write build/bench/<part>.json, and set the table in docs/benchmarks.md.

python -m qa.bench [PART…]     parts: image boot sandbox sandbox-image monitor clawsh registry inference
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from qa.bench import boot, image, monitor, report, sandbox

OUT = Path("build/bench")
SCRIPTS = ("clawsh", "registry", "inference")
MODULES = {
    "image": image.measure,
    "boot": boot.measure,
    "sandbox": sandbox.beside_the_build,
    "sandbox-image": sandbox.in_the_image,
    "monitor": monitor.measure,
}
PARTS = (*MODULES, *SCRIPTS)


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.machine()
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory_kib / 2**20, 1)}


def script(part: str) -> dict[str, object]:
    """A part that is a program of its own and prints one JSON object."""
    done = subprocess.run([sys.executable, f"qa/bench/{part}.py"], stdout=subprocess.PIPE, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def main() -> int:
    asked = sys.argv[1:] or list(PARTS)
    if unknown := set(asked) - set(PARTS):
        print(f"bench: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    for part in asked:
        print(f"bench: {part}", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        if load > 0.5:
            print(
                f"bench: the load is {load:.1f}; numbers of a busy machine are upper bounds", file=sys.stderr
            )
        result = MODULES[part]() if part in MODULES else script(part)
        result = {"machine": machine(), "load_before": load, "date": time.strftime("%Y-%m-%d"), **result}
        (OUT / f"{part}.json").write_text(json.dumps(result, indent=1) + "\n")
    report.write(OUT, Path("docs/benchmarks.md"))
    return 0


sys.exit(main())
