"""The folder that the guest sees as its disk `share`: the attacker's programs. The image holds none of them.

The suite mounts it over /usr/local, where programs lie that every sandbox may run, and not the image's own.
What a user writes himself cannot be run at all, which is a row of its own.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from clawos.isolator.seccomp.compiler import ARCHITECTURES

HERE = Path(__file__).parent
SYSTEM_LIBRARIES = re.compile(r"(libc|ld-linux-.*)\.so")
NUMBERS = 600
"""Higher than any system call's number; the sweep goes this far too."""
MAIN = "from qa.escape.probe.main import main\nimport sys\nmain(*sys.argv[1:])\n"


def make(folder: Path) -> None:
    """Fill the empty folder."""
    folder.chmod(0o755)  # it becomes /usr/local, which everybody enters
    _probe(folder / "lib/escape")
    (folder / "bin").mkdir()
    native = ["gcc", "-O2", "-static", "-no-pie", "-o", f"{folder}/bin/abi", f"{HERE}/native/abi.c"]
    subprocess.run(native, check=True)
    _stress(folder)
    preload = ["gcc", "-O2", "-shared", "-fPIC", "-o", f"{folder}/lib/stress/stand_in.so"]
    subprocess.run([*preload, f"{HERE}/native/stand_in.c"], check=True)
    enumerator = files("cepheus") / "enumerator/cepheus-enum.sh"
    (folder / "lib/escape/cepheus-enum.sh").write_bytes(enumerator.read_bytes())


def _probe(folder: Path) -> None:
    """Under the name that it has here, so that it is one package to Python, mypy and the reader."""
    package = folder / "qa/escape/probe"
    shutil.copytree(HERE / "probe", package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__main__.py").write_text(MAIN)
    (package / "numbers.json").write_text(json.dumps(numbers()))


def numbers() -> dict[str, int]:
    """Every system call of the guest's architecture that libseccomp knows."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    token = ARCHITECTURES["x86_64"].token
    names = (library.seccomp_syscall_resolve_num_arch(token, number) for number in range(NUMBERS))
    return {name.decode(): number for number, name in enumerate(names) if name}


def _stress(folder: Path) -> None:
    """stress-ng, and of its libraries those that the image may not have."""
    program = shutil.which("stress-ng")
    assert program
    shutil.copy(program, folder / "bin/stress-ng")
    (folder / "lib/stress").mkdir()
    told = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"=> (/\S+)", told):
        if not SYSTEM_LIBRARIES.match(Path(library).name):
            shutil.copy(library, folder / "lib/stress")
