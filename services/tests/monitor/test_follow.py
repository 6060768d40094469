"""Which cgroups the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawos.core.errors import ConfigInvalid
from clawos.core.parse import from_toml
from clawos.monitor.config import CGROUP_BYTES, FOLLOWED_MAX, Config, Followed


def settings(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "monitor.toml"
    file.write_text(text)
    return from_toml(file, Config)


def entry(cgroup: str, *kinds: str) -> str:
    return f'[[follow]]\ncgroup = "{cgroup}"\nkinds = {list(kinds)}\n'


def test_cgroups_and_their_kinds(tmp_path: Path) -> None:
    text = entry("/user.slice", "open", "kill") + entry("/" + "x" * (CGROUP_BYTES - 2))
    assert settings(tmp_path, text).follow == (
        Followed("/user.slice", ("open", "kill")),
        Followed("/" + "x" * (CGROUP_BYTES - 2), ()),
    )
    assert settings(tmp_path, "").follow == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (entry("user.slice", "open"), "cgroup: user.slice is no path"),
        (entry("/" + "x" * (CGROUP_BYTES - 1), "open"), "is no path of less than 127 bytes"),
        (entry("/user.slice", "opened"), "kinds: opened is none"),
        (entry("/user.slice", "open") * (FOLLOWED_MAX + 1), "follow"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        settings(tmp_path, text)
    assert said in refused.value.message
