"""Metrics, in the text format of Prometheus."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric with all its samples."""

    name: str
    kind: str
    """counter or gauge"""
    meaning: str
    samples: Iterable[tuple[Labels, float]] = field(default=())

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.meaning}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            written = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
            yield f"{self.name}{{{written}}} {_number(value)}" if written else f"{self.name} {_number(value)}"


def counter(name: str, meaning: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(name, "counter", meaning, tuple(samples))


def gauge(name: str, meaning: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(name, "gauge", meaning, tuple(samples))


def one(value: float) -> Iterable[tuple[Labels, float]]:
    """The only sample of a metric without labels."""
    return (({}, value),)


def text(metrics: Iterable[Metric]) -> str:
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def of_this_process() -> Iterator[Metric]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield counter(
        "process_cpu_seconds_total",
        "CPU time of the monitor, user and system.",
        one(round(used.ru_utime + used.ru_stime, 3)),
    )
    yield gauge("process_resident_memory_bytes", "Memory of the monitor.", one(resident_bytes()))
