"""What a model has to beat: keyword rules, and the nearest training phrase by TF-IDF. Both fill slots by
pattern.

They exist to be compared with, in evaluate.py, and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice, pairwise
from typing import Protocol

from clawos.inference.builtin import Reading, Span, ToolSpec
from clawos.inference.builtin.labels import NO, CallLabel, call_label, is_call, slot_of
from qa.model.data import Stream

KEYWORDS = (
    (
        "power.off",
        r"\b(power|shut|turn|switch) ?(off|down)\b.*\b(machine|computer|system)|^(shutdown|poweroff)",
    ),
    ("power.restart", r"\breboot\b|\brestart\b.*\b(machine|computer|system|pc|box)"),
    ("system.boot", r"\bboot(ing|up)?\b|\bstartup\b"),
    ("user.sessions", r"\blogged (in|on)\b|\bwho is (on|here)\b|^(who|w)$"),
    ("user.list", r"\b(users|accounts)\b"),
    ("time.zone.set", r"\b(time ?zone)\b"),
    ("host.rename", r"\b(rename|call|name)\b.*\b(machine|computer|host|box)\b|\bset\b.*\bhost ?name\b"),
    ("python.run", r"\bpython\b"),
    ("file.hash", r"\b(sha ?-?256|hash|checksum)"),
    ("file.copy", r"\b(copy|cp|duplicate|backup)\b"),
    ("file.move", r"\b(move|mv|rename)\b"),
    ("directory.create", r"\b(mkdir|(create|make|new)\b.*\b(folder|directory|dir))\b"),
    ("directory.size", r"\bdu\b|\b(size of|how (big|large))\b"),
    ("file.info", r"\b(stat|who owns|owner|modified|permissions)\b"),
    ("disk.list", r"\b(lsblk|partitions|disks|drives)\b"),
    ("unit.restart", r"\b(restart|bounce|reload|kick)"),
    ("unit.stop", r"\b(stop|shut down|turn off|halt|terminate)\b"),
    ("unit.start", r"\b(start|launch|turn on|fire up|bring up)\b"),
    ("file.delete", r"\b(delete|remove|erase|rm|trash|wipe|get rid)\b"),
    ("file.write", r"\b(write|save|put|create|store|note)\b"),
    ("shell.run", r"\b(run|execute|exec|command|shell)\b"),
    ("journal.show", r"\b(logs?|journal|journalctl|errors?|warnings?|messages)\b"),
    ("memory.usage", r"\b(memory|ram|swap)\b"),
    ("disk.usage", r"\b(disk|space|storage|drive|df|du)\b"),
    ("process.list", r"\b(processes|programs|tasks|hog|top)\b"),
    ("process.find", r"\b(process|pid|pgrep)\b"),
    ("cpu.load", r"\b(load|busy|cpu usage)\b"),
    ("cpu.info", r"\b(cpu|processor|cores?|chip)\b"),
    ("network.ports", r"\bports?\b|\blistening\b"),
    ("network.show", r"\b(ip|network|interfaces?|gateway|address)\b"),
    ("host.name", r"\bhostname\b|\bname of (this|the)\b"),
    ("system.uptime", r"\buptime\b|\bhow long\b.*\b(up|running|on)\b|\breboot"),
    ("system.version", r"\b(version|release|kernel|uname)\b"),
    ("time.now", r"\b(time|date|day|clock)\b"),
    ("unit.list", r"\b(services|units|daemons)\b"),
    ("unit.status", r"\b(status|running|systemctl)\b|\bis \S+ (up|ok)\b"),
    ("file.search", r"\b(grep|containing|contain|mention|lines with)\b"),
    ("file.find", r"\b(find|where is|locate)\b"),
    ("file.list", r"\b(list|ls|dir|directory|folder|files)\b"),
    ("file.read", r"\b(show|cat|read|open|print|content)\b"),
    ("math.eval", r"\d\s*([-+*/x^]|plus|minus|times|divided)\s*\d|\bcalculate\b"),
)


USUAL = """please can you could the a an my me for of show restart start stop is running status service daemon
log logs kill turn off on up check what how find process processes in to from and it its i want need last
lines"""


class Baseline(Protocol):
    """Something that reads a request as the model does."""

    def read(self, text: str) -> Reading: ...


PATTERNS = {
    "path": r"(?<!\S)(?:[~/.]?[\w./~*-]*[/.][\w./*-]*\w|/\S*)",
    "number": r"(?<![\w.])\d+(?![\w.])",
    "text": r"(?<=[\"'])[^\"']+(?=[\"'])",
    "command": r"(?<=\brun )\S.*|(?<=\bexecute )\S.*|(?<=\bcommand )\S.*",
    "code": r"(?<=\bpython )\S.*",
    "expression": r"[\d(][\d\s().+*/x^-]*(?:(?:plus|minus|times|divided by|percent of)\s*[\d\s.]+)*",
}
PATTERNS["from"] = PATTERNS["to"] = PATTERNS["path"]


def label(tool: ToolSpec, text: str) -> str:
    """A label of this tool, with what usual words fix."""
    fixed = {}
    for key, schema in tool.properties.items():
        for value in schema.get("enum", ()):
            if str(value) in text:
                fixed[key] = str(value)
                break
    return call_label(tool, fixed, (), ())


def spans(tool: ToolSpec, text: str) -> tuple[Span, ...]:
    """Values by pattern: quoted texts, paths, numbers, and the first word that is none of the usual ones."""
    found: list[Span] = []
    words = [
        match
        for match in re.finditer(r"[\w.@:-]+", text)
        if match[0] not in USUAL.split() and not match[0].isdigit()
    ]
    for key in tool.properties:
        slot = slot_of(tool, key)
        free = [
            match
            for match in re.finditer(PATTERNS.get(slot, "(?!)"), text)
            if not any(span.start < match.end() and match.start() < span.end for span in found)
        ]
        match = next(iter(free or (words if slot not in ("path", "number", "from", "to") else ())), None)
        if match:
            found.append(Span(slot, match.start(), match.start() + len(match[0].rstrip())))
    return tuple(sorted(found, key=lambda span: span.start))


class Keywords:
    """The first rule whose pattern stands in the request."""

    def __init__(self, tools: list[ToolSpec]) -> None:
        self.tools = {tool.name: tool for tool in tools}

    def read(self, text: str) -> Reading:
        said = text.lower()
        for name, pattern in KEYWORDS:
            if name in self.tools and re.search(pattern, said):
                return Reading((label(self.tools[name], said),), spans(self.tools[name], said))
        return Reading((NO,), ())


class Nearest:
    """The training request with the largest cosine of TF-IDF over words and word pairs."""

    def __init__(self, tools: list[ToolSpec], examples: int = 20_000) -> None:
        self.tools = {tool.name: tool for tool in tools}
        seen = list(islice(Stream(3), examples))
        counts = [Counter(self.features(example.text)) for example in seen]
        spread = Counter(feature for count in counts for feature in count)
        self.weight = {feature: math.log(examples / many) for feature, many in spread.items() if many > 1}
        self.index: dict[str, list[tuple[int, float]]] = {}
        self.answers = [example.reading.labels for example in seen]
        for i, count in enumerate(counts):
            for feature, value in self.vector(count).items():
                self.index.setdefault(feature, []).append((i, value))

    @staticmethod
    def features(text: str) -> list[str]:
        words = re.findall(r"[a-z0-9_.@/*-]+", text.lower())
        return words + [f"{a} {b}" for a, b in pairwise(words)]

    def vector(self, count: Counter[str]) -> dict[str, float]:
        raw = {
            feature: many * self.weight[feature] for feature, many in count.items() if feature in self.weight
        }
        size = math.sqrt(sum(value * value for value in raw.values())) or 1.0
        return {feature: value / size for feature, value in raw.items()}

    def read(self, text: str) -> Reading:
        said = text.lower()
        scores: Counter[int] = Counter()
        for feature, value in self.vector(Counter(self.features(said))).items():
            for i, other in self.index.get(feature, ()):
                scores[i] += value * other  # type: ignore[assignment]
        if not scores:
            return Reading((NO,), ())
        labels = self.answers[scores.most_common(1)[0][0]]
        if not is_call(labels[0]):
            return Reading(labels, ())
        return Reading(labels, spans(self.tools[CallLabel.parse(labels[0]).tool], said))
