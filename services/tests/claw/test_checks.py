"""Each check of the doctor, on a machine made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawos.claw import kernel_checks as checks
from clawos.claw.check import Finding, Verdict
from clawos.core import manifest

REPOSITORY = Path(__file__).parents[3]
HEAD = "  sl  local_address rem_address   st tx_queue\n"


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def verdict(finding: Finding) -> str:
    assert finding.sentence
    assert finding.advice or finding.verdict is Verdict.OK
    return finding.verdict.value


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none [integrity] confidentiality\n", "ok"),
        ("[none] integrity confidentiality\n", "fail"),
        (None, "fail"),
    ],
)
def test_lockdown(tmp_path: Path, text: str | None, wanted: str) -> None:
    if text is not None:
        put(tmp_path, "sys/kernel/security/lockdown", text)
    assert verdict(checks.lockdown(tmp_path)) == wanted


def test_every_security_module_must_be_there(tmp_path: Path) -> None:
    put(tmp_path, "sys/kernel/security/lsm", "capability,landlock,lockdown,yama,apparmor,bpf")
    assert verdict(checks.lsms(tmp_path)) == "ok"
    put(tmp_path, "sys/kernel/security/lsm", "capability,yama")
    found = checks.lsms(tmp_path)
    assert verdict(found) == "fail"
    assert "landlock, lockdown, apparmor, bpf" in found.sentence


def test_sysctls_are_compared_with_what_was_asked(tmp_path: Path) -> None:
    put(tmp_path, checks.SYSCTL_FILE, "# why\nkernel.dmesg_restrict = 1\n-net.ipv4.tcp_rmem=1 2 3\n")
    put(tmp_path, "proc/sys/kernel/dmesg_restrict", "1\n")
    put(tmp_path, "proc/sys/net/ipv4/tcp_rmem", "1\t2\t3\n")
    assert verdict(checks.sysctls(tmp_path)) == "ok"
    put(tmp_path, "proc/sys/kernel/dmesg_restrict", "0\n")
    found = checks.sysctls(tmp_path)
    assert (verdict(found), found.sentence) == ("fail", "kernel.dmesg_restrict is 0, not 1")
    assert verdict(checks.sysctls(tmp_path / "empty")) == "fail"


def test_open_ports_are_named_and_clients_are_not(tmp_path: Path) -> None:
    put(tmp_path, "proc/net/tcp", HEAD + "   0: 0100007F:0016 0100007F:9C40 01 0\n")
    put(tmp_path, "proc/net/udp", HEAD + "   0: 0F02000A:0044 00000000:0000 07 0\n")
    assert verdict(checks.listeners(tmp_path)) == "ok"
    put(tmp_path, "proc/net/tcp6", HEAD + "   0: 00000000000000000000000000000000:0016 0:0000 0A 0\n")
    put(tmp_path, "proc/net/udp", HEAD + "   0: 00000000:14E9 00000000:0000 07 0\n")
    found = checks.listeners(tmp_path)
    assert (verdict(found), found.sentence) == ("fail", "open: tcp 22, udp 5353")


def test_controllers_must_be_delegated(tmp_path: Path) -> None:
    assert verdict(checks.controllers(tmp_path, "")) == "warn"
    group = "/system.slice/clawos-isolator.service"
    put(tmp_path, f"sys/fs/cgroup{group}/cgroup.controllers", "cpu memory pids\n")
    assert verdict(checks.controllers(tmp_path, group)) == "ok"
    put(tmp_path, f"sys/fs/cgroup{group}/cgroup.controllers", "cpu\n")
    assert "memory, pids" in checks.controllers(tmp_path, group).sentence


@pytest.mark.parametrize(("version", "wanted"), [("2\n", "ok"), ("1\n", "warn"), (None, "warn")])
def test_tpm(tmp_path: Path, version: str | None, wanted: str) -> None:
    if version is not None:
        put(tmp_path, "sys/class/tpm/tpm0/tpm_version_major", version)
    assert verdict(checks.tpm(tmp_path)) == wanted


def test_disk(tmp_path: Path) -> None:
    assert "is free" in checks.disk(tmp_path).sentence
    assert verdict(checks.disk(tmp_path / "missing")) == "fail"


@pytest.fixture
def specs(tmp_path: Path) -> manifest.Roots:
    put(tmp_path, "policies/quotas.toml", "a")
    put(tmp_path, "policies/tools/x.toml", "b")
    put(tmp_path, "specs/bus.md", "c")
    put(tmp_path, "bus/agent/system/org.clawos.Agent1.xml", "d")
    put(tmp_path, "ebpf/events.h", "e")
    where = manifest.Roots(tmp_path / "policies", tmp_path / "specs", tmp_path / "bus", tmp_path / "ebpf")
    assert manifest.write(where) == 5
    return where


def test_the_manifest_names_every_frozen_file(specs: manifest.Roots) -> None:
    assert manifest.verify(specs) == []
    paths = [line.split("  ")[1] for line in specs.manifest.read_text().splitlines()]
    assert paths == [
        "bus/org.clawos.Agent1.xml",
        "ebpf/events.h",
        "policies/quotas.toml",
        "policies/tools/x.toml",
        "specs/bus.md",
    ]
    assert verdict(checks.frozen_specs(specs)) == "ok"


def test_what_was_changed_added_or_lost_is_found(specs: manifest.Roots) -> None:
    (specs.policies / "quotas.toml").write_text("changed")
    (specs.policies / "tools/new.toml").write_text("added")
    (specs.specs / "bus.md").unlink()
    assert {str(difference) for difference in manifest.verify(specs)} == {
        "policies/quotas.toml: was changed",
        "policies/tools/new.toml: is not in MANIFEST",
        "specs/bus.md: is missing",
    }
    assert verdict(checks.frozen_specs(specs)) == "fail"


@pytest.mark.parametrize(
    "text", ["nonsense\n", f"{'0' * 64}  a\n{'0' * 64}  a\n", "0  policies/quotas.toml\n"]
)
def test_a_broken_manifest_is_a_difference(specs: manifest.Roots, text: str) -> None:
    specs.manifest.write_text(text)
    assert "is not 'sha256  path'" in str(manifest.verify(specs)[0])


def test_a_missing_manifest_is_a_difference(specs: manifest.Roots) -> None:
    specs.manifest.unlink()
    assert str(manifest.verify(specs)[0]) == "policies/MANIFEST: No such file or directory"


def test_this_checkout_is_found_from_the_module() -> None:
    assert manifest.roots().policies == REPOSITORY / "policies"
