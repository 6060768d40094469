"""A room's name settles where everything of it stands; nothing else spells these out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Room → the CamelCase part of its bus name, where capitalising the room's name is not enough.
_BUS_WORDS = {"clawfs": "Fs"}


@dataclass(frozen=True)
class Room:
    """The ten places that follow from a room's name."""

    name: str

    @property
    def package(self) -> str:
        return f"clawos.{self.name}"

    @property
    def unit(self) -> str:
        return f"clawos-{self.name}.service"

    @property
    def user(self) -> str:
        return f"clawos-{self.name}"

    @property
    def bus_name(self) -> str:
        return f"org.clawos.{_BUS_WORDS.get(self.name, self.name.capitalize())}1"

    @property
    def object_path(self) -> str:
        return "/" + self.bus_name.replace(".", "/")

    @property
    def state_dir(self) -> Path:
        return Path("/var/lib/clawos") / self.name

    @property
    def config_file(self) -> Path:
        return Path("/etc/clawos") / f"{self.name}.toml"

    @property
    def apparmor_profile(self) -> str:
        return f"clawos-{self.name}"

    @property
    def tests(self) -> Path:
        return Path("services/tests") / self.name

    @property
    def doc(self) -> Path:
        return Path("docs/services") / f"{self.name}.md"


POLICY_DIR = Path("/usr/share/clawos/policies")
"""`policies/` of the repository, as installed."""
