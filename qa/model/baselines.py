"""What a model has to beat: keyword rules, and the nearest training phrase by TF-IDF. Both fill slots by
pattern.

They exist to be compared with, in evaluate.py, and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice, pairwise

from clawos.inference.builtin import ToolSpec
from clawos.inference.builtin.dialect import NO, token
from qa.model.data import Stream

KEYWORDS = (
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


def slots(tool: ToolSpec, request: str) -> dict[str, str]:
    """Values by pattern: quoted texts, paths, numbers, and the first word that is none of the usual "
    "ones."""
    found: dict[str, str] = {}
    quoted = re.findall(r"[\"'](.+?)[\"']", request)
    paths = re.findall(r"(?<!\S)[~/.]?[\w./~*-]*[/.][\w./*-]*\w|(?<!\S)/\S*", request)
    numbers = re.findall(r"(?<![\w.])\d+(?![\w.])", request)
    words = [
        word for word in re.findall(r"[\w.@:-]+", request) if word not in USUAL.split() and not word.isdigit()
    ]
    for key in tool.properties:
        if key == "path" and paths:
            found[key] = paths[-1].rstrip(".")
        elif key in ("unit", "name") and (paths if key == "name" else words):
            found[key] = (paths or words)[0] if key == "name" else words[0]
        elif key in ("lines", "count") and numbers:
            found[key] = numbers[0]
        elif key in ("text", "command") and quoted:
            found[key] = quoted[0]
        elif key == "command":
            found[key] = re.sub(r"^.*?\b(run|execute|exec|command)\b:?\s*", "", request)
        elif key == "text" and words:
            found[key] = words[0]
        elif key == "expression":
            match = re.search(
                r"[\d(][\d\s().+*/x^-]*(?:(?:plus|minus|times|divided by|percent of)\s*[\d\s.]+)*", request
            )
            if match:
                found[key] = match[0].strip()
        elif key == "priority" and re.search(r"error|warn", request):
            found[key] = "error" if "error" in request else "warning"
        elif key == "state" and "failed" in request:
            found[key] = "failed"
        elif key == "sort" and re.search(r"cpu|memory|ram", request):
            found[key] = "cpu" if "cpu" in request else "memory"
    return found


def written(tool: ToolSpec, request: str) -> str:
    values = slots(tool, request)
    return token(tool.name) + "".join(
        f"{token(key)} {values[key]}" for key in tool.properties if key in values
    )


class Keywords:
    """The first rule whose pattern stands in the request."""

    def __init__(self, tools: list[ToolSpec]) -> None:
        self.tools = {tool.name: tool for tool in tools}

    def complete(self, request: str) -> str:
        request = request.lower()
        for name, pattern in KEYWORDS:
            if re.search(pattern, request):
                return written(self.tools[name], request)
        return NO


class Nearest:
    """The training request with the largest cosine of TF-IDF over words and word pairs."""

    def __init__(self, tools: list[ToolSpec], examples: int = 20_000) -> None:
        self.tools = {tool.name: tool for tool in tools}
        seen = list(islice(Stream(3), examples))
        counts = [Counter(self.features(example.text)) for example in seen]
        spread = Counter(feature for count in counts for feature in count)
        self.weight = {feature: math.log(examples / many) for feature, many in spread.items() if many > 1}
        self.index: dict[str, list[tuple[int, float]]] = {}
        self.answers = [example.target for example in seen]
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

    def complete(self, request: str) -> str:
        request = request.lower()
        scores: Counter[int] = Counter()
        for feature, value in self.vector(Counter(self.features(request))).items():
            for i, other in self.index.get(feature, ()):
                scores[i] += value * other  # type: ignore[assignment]
        if not scores:
            return NO
        answer = self.answers[scores.most_common(1)[0][0]]
        names = [name for name in re.findall(r"⟨([^⟩]*)⟩", answer) if name in self.tools]
        if not names or not answer.startswith(token(names[0])):
            return answer
        return "".join(written(self.tools[name], request) for name in names)
