"""Every manifest that we ship, against what it names elsewhere."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from agent.conftest import POLICIES, TOOLS

from clawos.agent.manifest import Manifest, Safety, published_schema
from clawos.agent.registry import Registry
from clawos.agent.template import expand, named, placeholder
from clawos.core.parse import from_toml, to_json

OURS = "/usr/lib/clawos/tools/"
SOURCES = Path(__file__).parents[2] / "tools"
FILES = sorted(TOOLS.glob("*.toml"))
SCHEMA = POLICIES / "schema" / "tool.schema.json"


@pytest.fixture(params=FILES, ids=lambda f: f.stem)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return from_toml(request.param, Manifest)


def test_published_schema_is_that_of_the_parser() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(to_json(published_schema()))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_manifest_is_valid_under_the_published_schema(file: Path) -> None:
    fastjsonschema.compile(json.loads(SCHEMA.read_text()))(tomllib.loads(file.read_text()))


def test_published_schema_refuses_what_the_parser_refuses() -> None:
    check = fastjsonschema.compile(json.loads(SCHEMA.read_text()))
    good = tomllib.loads((TOOLS / "file.read.toml").read_text())
    check(good)
    changes: list[dict[str, Any]] = [
        {"color": 1},
        {"class": "harmless"},
        {"argv": []},
        {"argv": ["/bin/x", "a{path}"]},
        {"name": "no-dot"},
        {"runtime": "java"},
        {"asks": "show {path"},
        {"asks": "show\n{path}"},
        {"permissions": {"network": True}},
        {"arguments": {**good["arguments"], "type": "array"}},
    ]
    for change in changes:
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            check(good | change)


def test_all_are_taken() -> None:
    registry = Registry([TOOLS])
    registry.load()
    assert registry.invalid == ()
    assert len(registry) == len(FILES) >= 41


def test_placeholders_and_arguments_are_the_same(manifest: Manifest) -> None:
    flat = [e for part in manifest.argv for e in ((part,) if isinstance(part, str) else part)]
    assert sorted(name for e in flat if (name := placeholder(e))) == sorted(manifest.arguments.properties)


def test_quota_and_seccomp_profile_exist(manifest: Manifest) -> None:
    assert manifest.quota in tomllib.loads((POLICIES / "quotas.toml").read_text())
    assert (POLICIES / "seccomp" / f"{manifest.seccomp}.json").is_file()


def test_effects_need_words_that_ask_for_them(manifest: Manifest) -> None:
    assert bool(manifest.verbs) == (manifest.safety is not Safety.SAFE)
    if manifest.safety is Safety.SAFE:
        assert manifest.permissions.home != "write"
        assert manifest.permissions.run_as == "clawos-sandbox"


def test_what_a_person_is_asked_about_has_words_for_it(manifest: Manifest) -> None:
    """Every value stands in the question: one that it left out would be shown on a line of its own."""
    if manifest.safety is Safety.SAFE:
        assert not manifest.asks
    else:
        assert manifest.asks
        assert named(manifest.asks) == set(manifest.arguments.required)


def test_program_of_ours_exists(manifest: Manifest) -> None:
    program = str(manifest.argv[0])
    if program.startswith(OURS):
        assert (SOURCES / program.removeprefix(OURS)).is_file()


def _free(manifest: Manifest, name: str) -> bool:
    """Whether a value of this argument may begin with a dash."""
    argument = manifest.arguments.properties[name]
    return argument.kind == "string" and argument.enum is None


def test_no_value_is_read_as_an_option_by_a_program_that_is_not_ours(manifest: Manifest) -> None:
    if str(manifest.argv[0]).startswith(OURS):
        return  # these take their values by position or after the option's name; see the next test
    values: dict[str, Any] = {
        name: "--help" if _free(manifest, name) else 1 for name in manifest.arguments.properties
    }
    argv = expand(manifest.argv, values)
    for at, word in enumerate(argv):
        if word == "--help":
            assert "--" in argv[:at], f"{manifest.name}: a value may be taken for an option"


def test_our_tools_are_given_options_by_name_before_their_value(manifest: Manifest) -> None:
    """A tool of ours reads `--name VALUE` in pairs, so that a value is never looked at as an option."""
    for part in manifest.argv:
        if isinstance(part, str):
            continue
        if str(part[0]).startswith("--"):
            assert len(part) == 2
            assert placeholder(part[1])


def test_shell_takes_a_command_that_begins_with_a_dash_as_a_command() -> None:
    manifest = from_toml(TOOLS / "shell.run.toml", Manifest)
    assert expand(manifest.argv, {"command": "-x"})[1:] == ("-c", "--", "-x")
