"""`claw doctor`: every check in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from clawos.claw import kernel_checks, output, service_checks, services
from clawos.claw.check import Finding, Verdict, fail
from clawos.claw.services import Machine
from clawos.core import manifest
from clawos.core.errors import ClawError

STATE = Path("/var/lib/clawos")


def checks(root: Path = Path("/"), where: manifest.Roots | None = None) -> Iterator[Finding]:
    """Run the checks, cheapest first: what needs a model comes last."""
    yield kernel_checks.frozen_specs(where or manifest.roots())
    yield kernel_checks.lockdown(root)
    yield kernel_checks.lsms(root)
    yield kernel_checks.sysctls(root)
    yield kernel_checks.listeners(root)
    yield kernel_checks.disk(root / STATE.relative_to("/"))
    yield kernel_checks.tpm(root)
    try:
        machine = Machine.connect()
    except ClawError as error:
        yield fail("bus", error.message, error.hint)
        return
    yield service_checks.failed_units(machine)
    for room in services.rooms():
        yield service_checks.answers(machine, room)
    yield kernel_checks.controllers(root, service_checks.control_group(machine))
    yield service_checks.tools(machine)
    yield service_checks.model(machine)


def show(findings: Iterator[Finding]) -> list[Finding]:
    """Print each finding as it comes."""
    done = []
    for finding in findings:
        done.append(finding)
        label = finding.verdict.upper() if finding.verdict is Verdict.FAIL else finding.verdict
        mark = output.colour(label.ljust(4), finding.verdict)
        print(f"{mark}  {finding.check:<14}  {output.harmless(finding.sentence)}")
        if finding.advice:
            print(f"{'':<22}{output.harmless(finding.advice)}", flush=True)
    failed = sum(finding.verdict is Verdict.FAIL for finding in done)
    warned = sum(finding.verdict is Verdict.WARN for finding in done)
    print(f"\n{len(done)} checks: {failed} failed, {warned} to look at")
    return done


def collect(show_them: bool) -> list[Finding]:
    run: Callable[[Iterator[Finding]], list[Finding]] = show if show_them else list
    return run(checks())


def exit_code(findings: list[Finding]) -> int:
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))
