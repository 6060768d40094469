"""Files of Python as tools: which ones, in what sandbox, on both backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from clawos.isolator.config import Config
from clawos.isolator.errors import SpecInvalid
from clawos.isolator.plan import Access, Allow, Bind, Mount, Plan
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse

from .conftest import Run, spec_text

pytestmark = pytest.mark.processes


@pytest.fixture
def config(config: Config) -> Iterator[Config]:
    """With directories for files: one below what every sandbox sees, as the image has it, and another."""
    with TemporaryDirectory(dir="/usr/lib") as seen, TemporaryDirectory(dir="/var/lib") as other:
        for directory in (seen, other):
            Path(directory).chmod(0o755)
        yield msgspec.structs.replace(config, python=(seen, other))


def put(directory: str | Path, source: str, name: str = "tool.py") -> str:
    file = Path(directory, name)
    file.write_text(source)
    file.chmod(0o644)
    return str(file)


def plan(planner: Planner, file: str, *arguments: str, **spec: Any) -> Plan:
    return planner.plan(parse(spec_text(file, *arguments, runtime="python", **spec)))


async def test_it_runs_isolated_and_without_site(config: Config, run: Run) -> None:
    file = put(config.python[0], "import sys; print(sys.argv[1:], sys.flags.isolated, 'site' in sys.modules)")
    put(config.python[0], "raise ValueError", "json.py")
    for _ in range(2):  # the second one perhaps from a zygote, which has imported site, and not run it
        ran = await run(file, "a", "b", runtime="python", seccomp="python")
        assert ran.stdout.startswith("['a', 'b'] 1 "), ran


async def test_what_no_sandbox_shows_is_shown_alone(config: Config, run: Run) -> None:
    directory = config.python[1]
    file = put(directory, f"import os; print(os.listdir({directory!r})); open({directory!r} + '/x', 'w')")
    put(directory, "", "beside.py")
    ran = await run(file, runtime="python", seccomp="python")
    assert ran.stdout == "['tool.py']\n"
    assert ran.exit_code == 1
    assert "Read-only" in ran.stderr or "denied" in ran.stderr


def test_the_plan_says_what_a_new_python_is_started_with(config: Config, planner: Planner) -> None:
    seen, other = (put(directory, "") for directory in config.python)
    made = plan(planner, seen, "a")
    assert made.argv == ("/usr/bin/python3", "-IS", seen, "a")
    assert made.describe()["zygote"] is True
    assert not [o for o in made.operations if getattr(o, "path", "") == seen]
    made = plan(planner, other)
    assert Bind(other, other, Mount.READ, is_directory=False) in made.operations
    assert Allow(other, Access.READ) in made.operations


def test_what_makes_a_new_python(config: Config, planner: Planner) -> None:
    """Variables of the caller, for linker, locale and malloc have read others in a zygote; and who asks."""
    file = put(config.python[0], "")
    assert plan(planner, file).zygote
    assert not plan(planner, file, env={"LC_ALL": "POSIX"}).zygote
    assert not plan(planner, file, zygote=False).zygote


def test_only_files_of_the_configured_directories(config: Config, planner: Planner, tmp_path: Path) -> None:
    inside, outside = Path(config.python[0]), put(tmp_path, "")
    (inside / "link.py").symlink_to(outside)
    (inside / "directory.py").mkdir()
    good = put(inside, "")
    (tmp_path / "back.py").symlink_to(good)
    for path, words in (
        (outside, "is not below python"),
        (inside / "link.py", "is not below python"),
        (tmp_path / "back.py", "is not below python"),
        ("/usr/bin/true", "is not below python"),
        (inside, "is not below python"),
        (inside / "none.py", "there is no file"),
        (inside / "directory.py", "there is no file"),
    ):
        with pytest.raises(SpecInvalid, match=words):
            plan(planner, str(path))
    assert plan(planner, good).argv[2] == good


def test_a_file_below_tmp_cannot_be_shown(config: Config, planner: Planner, tmp_path: Path) -> None:
    config = msgspec.structs.replace(config, python=(str(tmp_path),))
    planner = Planner(config, planner._quotas, planner._filters)
    with pytest.raises(SpecInvalid, match="the call's own"):
        plan(planner, put(tmp_path, ""))


def test_who_may_run_as_whom_goes_by_the_file(config: Config, planner: Planner) -> None:
    units, other = put(config.python[0], "", "units"), put(config.python[0], "", "other")
    run_as = {**config.run_as, "clawos-units": (units,)}
    planner = Planner(msgspec.structs.replace(config, run_as=run_as), planner._quotas, planner._filters)
    assert plan(planner, units, run_as="clawos-units").uid != plan(planner, units).uid
    for file in (other, "/usr/bin/python3"):
        with pytest.raises(SpecInvalid, match="may not run as"):
            plan(planner, file, run_as="clawos-units")
