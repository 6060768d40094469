"""A second opinion: libseccomp compiles the same rules, and the two filters must let the same calls through.

libseccomp's own filter cannot be the one that we ship: it knows no "else" for a call whose arguments do not
fit (one rule compares an argument once, and what no rule names gets the default, ENOSYS), and Debian's 2.6.0
can merge 64-bit comparisons wrongly (GHSA-4q85-33p6-j5g6).
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping

import seccomp

from clawos.core.errors import ConfigInvalid
from clawos.isolator.seccomp.check import cases
from clawos.isolator.seccomp.compiler import Architecture
from clawos.isolator.seccomp.evaluate import Answer, evaluate
from clawos.isolator.seccomp.numbers import numbered
from clawos.isolator.seccomp.profile import ALLOW, Rule

_ARCHITECTURES = {"x86_64": seccomp.Arch.X86_64, "aarch64": seccomp.Arch.AARCH64}
# Before it looks for x32, libseccomp lets the number -1 through to its default: a tracer that skips a call.
_SKIPPED = 2**32 - 1


def other_filter(rules: Mapping[str, Rule], architecture: Architecture) -> bytes:
    """What libseccomp makes of a profile."""
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    wanted = _ARCHITECTURES[architecture.name]
    if not made.exist_arch(wanted):
        made.add_arch(wanted)
        made.remove_arch(seccomp.Arch())
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for call, rule in rules.items():
        for tests in rule.alternatives:
            compared = [seccomp.Arg(t.arg, seccomp.MASKED_EQ, t.mask, t.value) for t in tests]
            made.add_rule(seccomp.ALLOW, call, *compared)
        if not rule.alternatives:
            made.add_rule(seccomp.ERRNO(errno.EPERM), call)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def compare(blob: bytes, rules: Mapping[str, Rule], architecture: Architecture) -> int:
    """Compare on every case; returns how many there were. Raises ConfigInvalid on the first difference.

    Of calls whose arguments are judged libseccomp is asked one at a time. In one filter 2.6.0 makes one of
    what two of them ask with different masks: beside our rule for prctl it let socket(2, 1, 1) through.
    """
    by_number = numbered(rules, architecture)
    plain = other_filter({call: rule for call, rule in rules.items() if rule.is_plain}, architecture)
    alone = {
        number: other_filter({call: rule}, architecture)
        for call, rule in rules.items()
        if not rule.is_plain
        for number in numbered({call: rule}, architecture)
    }
    count = 0
    for case in cases(by_number, architecture):
        if case.number == _SKIPPED:
            continue
        ours = evaluate(blob, case.token, case.number, case.arguments)
        theirs = evaluate(alone.get(case.number, plain), case.token, case.number, case.arguments)
        judged = not by_number.get(case.number, ALLOW).is_plain
        if judged and ours == Answer.EPERM:
            ours = Answer.ENOSYS
        if ours != theirs:
            raise ConfigInvalid(
                f"seccomp: {architecture.name}: call {case.number:#x} with "
                f"{', '.join(map(hex, case.arguments))} gets {ours:#x}, but {theirs:#x} from libseccomp"
            )
        count += 1
    return count
