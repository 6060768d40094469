"""What the unit must say for the rest to hold."""

from __future__ import annotations

from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.network.config import Config as NetworkConfig

from .conftest import ISOLATOR, POLICIES

UNIT = dict(
    line.split("=", 1)
    for line in (ISOLATOR / "system" / "clawos-isolator.service").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)
# Five streams with both ends while it starts, the plan, the reports, the leaf, standard input three times.
_DESCRIPTORS_A_CALL = 20


def test_the_service_goes_last_when_memory_ends() -> None:
    assert int(UNIT["OOMScoreAdjust"]) == -500


def test_there_are_descriptors_for_every_call_and_every_quota() -> None:
    limit = int(UNIT["LimitNOFILE"])
    defaults = Config()
    assert limit >= defaults.running_max * _DESCRIPTORS_A_CALL + defaults.queued_max + 100
    assert limit >= max(quota.open_files for quota in quotas.load(POLICIES / "quotas.toml").values())


def test_the_way_out_is_where_the_network_room_has_it() -> None:
    assert UNIT["IPAddressDeny"] == "any"
    assert UNIT["IPAddressAllow"].split() == [NetworkConfig().proxy, "localhost"]
