"""Random slot values, as (how it stands in the request, what the model must write).

At least half of them are strings that mean nothing, so that the model has to copy; some look like the
words around them.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from pathlib import Path

from qa.model.paths import CORPUS

Value = tuple[str, str]


def read_lists(path: Path) -> dict[str, list[str]]:
    """Lines `name: one|two|three`."""
    lists = {}
    for line in path.read_text().split("\n[")[0].splitlines():
        if line and not line.startswith("#"):
            name, values = line.split(": ", 1)
            lists[name] = values.split("|")
    return lists


class Values:
    """Values of every kind from one random stream."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lists = read_lists(CORPUS / "words.txt")
        known = read_lists(CORPUS / "values.txt")
        self.apps = known["apps"]
        self.units, self.programs, self.keywords = known["units"], known["programs"], known["keywords"]
        self.words, self.extensions, self.directories = known["words"], known["extensions"], known["etc"]
        self.files, self.number_words = known["files"], known["number_words"]
        self.sentences, self.searches = known["sentences"], known["searches"]
        self.zones, self.hosts = known["zones"], known["hosts"]
        self.codes = (CORPUS / "values.txt").read_text().split("[codes]\n")[1].splitlines()
        self.commands = (
            (CORPUS / "values.txt").read_text().split("[commands]\n")[1].split("\n[codes]")[0].splitlines()
        )
        self.kinds: dict[str, Callable[[], Value]] = {
            "unit": self.unit,
            "path": self.path,
            "dir": self.dir,
            "name": self.name,
            "file": self.file,
            "glob": self.glob,
            "ext": self.ext,
            "part": self.part,
            "text": self.text,
            "quoted": self.quoted_text,
            "write": self.write,
            "command": self.command,
            "expression": self.expression,
            "lines": self.number,
            "count": self.count,
            "port": self.port,
            "num": self.number,
            "proc": self.proc,
            "app": self.app,
            "from": self.path,
            "to": self.to,
            "zone": self.zone,
            "host": self.host,
            "code": self.code,
        }

    def of(self, kind: str, arg: str) -> Value:
        if kind == "quoted" and arg == "command":
            return self.quote(self.command()[0])
        if kind in self.kinds:
            return self.kinds[kind]()
        return self.from_list(kind)

    def from_list(self, kind: str) -> Value:
        if kind == "junk":
            said = self.nonsense()
            return said, f" {said}"
        said = self.rng.choice(self.lists[kind])
        while "{" in said:
            before, rest = said.split("{", 1)
            inner, after = rest.split("}", 1)
            said = before + self.of(inner, inner)[0] + after
        return said, f" {said}"

    def same(self, said: str) -> Value:
        return said, f" {said}"

    # Strings that mean nothing.

    def nonsense(self) -> str:
        rng = self.rng
        shape = rng.random()
        if shape < 0.5:
            syllables = rng.randint(1, 4)
            word = "".join(rng.choice("bcdfghjklmnprstvwxyz") + rng.choice("aeiou") for _ in range(syllables))
            return word + rng.choice(["", "n", "r", "x", "s", "t", "k"])
        if shape < 0.8:
            return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 8)))
        return "".join(rng.choice(string.ascii_lowercase + string.digits) for _ in range(rng.randint(2, 10)))

    def word(self) -> str:
        return self.rng.choice(self.words)

    def part_of_stem(self) -> str:
        return self.rng.choice([self.nonsense, self.nonsense, self.word])()

    def stem(self) -> str:
        rng = self.rng
        one = self.part_of_stem
        shape = rng.random()
        if shape < 0.55:
            return one()
        if shape < 0.8:
            return one() + rng.choice("-_") + one()
        if shape < 0.9:
            return one() + str(rng.randint(0, 2030))
        return rng.choice(self.keywords) + rng.choice(["", "", "-" + one(), str(rng.randint(1, 9))])

    def unit(self) -> Value:
        rng = self.rng
        shape = rng.random()
        if shape < 0.45:
            name = rng.choice(self.units)
        elif shape < 0.85:
            name = self.stem()
        elif shape < 0.93:
            name = f"{self.stem()}@{self.stem()}"
        else:
            name = f"{rng.choice(self.units)}-{self.stem()}"
        shape = rng.random()
        return self.same(
            name
            + (".service" if shape < 0.08 else ".timer" if shape < 0.1 else ".socket" if shape < 0.11 else "")
        )

    def proc(self) -> Value:
        rng = self.rng
        return self.same(rng.choice(self.programs) if rng.random() < 0.5 else self.stem())

    def app(self) -> Value:
        """A program that nobody takes for a service, where a request does not say which it means."""
        return self.same(self.rng.choice(self.apps))

    def filename(self) -> str:
        rng = self.rng
        shape = rng.random()
        stem = rng.choice(self.words) if rng.random() < 0.4 else self.stem()
        if rng.random() < 0.06:
            stem = rng.choice(string.ascii_lowercase)  # as in copy a.txt to b.txt
        if shape < 0.82:
            return f"{stem}.{rng.choice(self.extensions)}"
        if shape < 0.87:
            return f"{stem}.{rng.choice(self.extensions)}.{rng.choice(['gz', 'bak', 'old', '1', 'tmp'])}"
        if shape < 0.92:
            return f".{stem}"
        return f"{stem}{rng.choice(['', '~', '-v2', '_old', '.1'])}"

    def directory(self) -> str:
        rng = self.rng
        if rng.random() < 0.4:
            return rng.choice(self.directories)
        parts = [
            rng.choice(self.words) if rng.random() < 0.4 else self.stem() for _ in range(rng.randint(1, 3))
        ]
        head = rng.choice(
            [
                "",
                "",
                "",
                "~/",
                "/",
                "/home/" + self.nonsense() + "/",
                "/var/log/",
                "/etc/",
                "/srv/",
                "./",
                "../",
            ]
        )
        return head + "/".join(parts) + rng.choice(["", "", "", "", "/"])

    def path(self) -> Value:
        rng = self.rng
        shape = rng.random()
        if shape < 0.12:
            return self.same(rng.choice(self.files))
        if shape < 0.6:
            said = self.filename()
        else:
            head = self.directory().rstrip("/")
            said = f"{head}/{self.filename()}"
        return self.same(said)

    def dir(self) -> Value:
        return self.same(self.directory())

    def file(self) -> Value:
        return self.same(self.filename())

    def glob(self) -> Value:
        rng = self.rng
        return self.same(
            rng.choice(
                [
                    f"*.{rng.choice(self.extensions)}",
                    f"*.{self.nonsense()[:4]}",
                    f"{self.stem()}*",
                    f"*{self.stem()}*",
                ]
            )
        )

    def name(self) -> Value:
        return self.glob() if self.rng.random() < 0.2 else self.file()

    def ext(self) -> Value:
        rng = self.rng
        said = rng.choice(self.extensions) if rng.random() < 0.8 else self.nonsense()[:4]
        said = f".{said}" if rng.random() < 0.15 else said
        return said, f"⟨*.⟩ {said}"

    def part(self) -> Value:
        said = self.rng.choice(self.words) if self.rng.random() < 0.4 else self.nonsense()
        surface = self.quote(said)[0] if self.rng.random() < 0.3 else said
        return surface, f"⟨*⟩ {said}"

    def to(self) -> Value:
        return self.dir() if self.rng.random() < 0.4 else self.path()

    def zone(self) -> Value:
        return self.same(self.rng.choice(self.zones))

    def host(self) -> Value:
        rng = self.rng
        if rng.random() < 0.35:
            return self.same(rng.choice(self.hosts))
        stem = re.sub(r"[^a-z0-9-]", "-", self.stem())
        return self.same(
            stem
            + rng.choice(["", "", "", f"-{rng.randint(1, 99)}", f"{rng.randint(1, 9)}", ".lan", ".local"])
        )

    def code(self) -> Value:
        return self.same(self.fill(self.rng.choice(self.codes)))

    def fill(self, pattern: str) -> str:
        rng = self.rng
        out = pattern
        makers: tuple[tuple[str, Callable[[], str]], ...] = (
            ("{w}", lambda: rng.choice(self.words) if rng.random() < 0.6 else self.nonsense()),
            ("{r}", self.stem),
            ("{n}", lambda: str(rng.choice([rng.randint(0, 20), rng.randint(0, 3000)]))),
            ("{p}", lambda: self.path()[0]),
            ("{u}", lambda: self.unit()[0]),
            ("{l}", lambda: rng.choice(string.ascii_lowercase)),
        )
        for mark, make in makers:
            while mark in out:
                out = out.replace(mark, make(), 1)
        return out

    def quote(self, said: str) -> Value:
        mark = "'" if ('"' in said or self.rng.random() < 0.3) and "'" not in said else '"'
        return (f"{mark}{said}{mark}", f" {said}") if mark not in said else (said, f" {said}")

    def text(self) -> Value:
        said = self.fill(self.rng.choice(self.searches)) if self.rng.random() < 0.7 else self.stem()
        return self.quote(said) if " " in said or self.rng.random() < 0.35 else self.same(said)

    def quoted_text(self) -> Value:
        return self.quote(
            self.fill(self.rng.choice(self.sentences if self.rng.random() < 0.5 else self.searches))
        )

    def write(self) -> Value:
        said = self.fill(self.rng.choice(self.sentences))
        return self.quote(said) if self.rng.random() < 0.5 else self.same(said)

    def command(self) -> Value:
        return self.same(self.fill(self.rng.choice(self.commands)))

    def number(self) -> Value:
        rng = self.rng
        if rng.random() < 0.15:
            said = rng.choice(
                [
                    *self.number_words,
                    "a hundred",
                    "one hundred",
                    "two hundred",
                    "a dozen",
                    "a thousand",
                    "twenty five",
                ]
            )
            return self.same(said)
        return self.same(
            str(
                rng.choice(
                    [rng.randint(1, 9), 5 * rng.randint(1, 20), rng.randint(1, 99), 50 * rng.randint(1, 40)]
                )
            )
        )

    def count(self) -> Value:
        rng = self.rng
        if rng.random() < 0.2:
            return self.same(rng.choice([*self.number_words, "a hundred", "a dozen"]))
        return self.same(str(rng.choice([rng.randint(1, 20), 5 * rng.randint(1, 20), rng.randint(1, 500)])))

    def port(self) -> Value:
        return self.same(
            str(self.rng.choice([22, 25, 53, 80, 443, 3000, 5432, 8000, 8080, self.rng.randint(1, 65535)]))
        )

    def operand(self, words: bool) -> str:
        rng = self.rng
        if words and rng.random() < 0.3:
            return rng.choice(
                [*self.number_words, "a hundred", "two hundred", "a thousand", "one million", "a dozen"]
            )
        number = rng.choice(
            [rng.randint(0, 12), rng.randint(0, 100), rng.randint(0, 2000), rng.randint(0, 99999)]
        )
        return f"{number}.{rng.randint(0, 99)}" if rng.random() < 0.12 else str(number)

    def expression(self) -> Value:
        rng = self.rng
        shape = rng.random()
        if shape < 0.1:
            percent = [self.operand(True), rng.choice(["%", "%", " %", " percent", " per cent"])]
            said = f"{''.join(percent)} of {self.operand(False)}"
        elif shape < 0.16:
            said = f"{rng.choice(['', 'the '])}square root of {self.operand(False)}"
        elif shape < 0.21:
            said = f"{self.operand(True)} {rng.choice(['squared', 'cubed'])}"
        elif shape < 0.55:
            words = [
                "plus",
                "minus",
                "times",
                "divided by",
                "multiplied by",
                "over",
                "to the power of",
                "and",
                "x",
                "mod",
            ]
            said = f"{self.operand(True)} {rng.choice(words)} {self.operand(True)}"
            while rng.random() < 0.2:
                said += f" {rng.choice(words[:3])} {self.operand(True)}"
        else:
            said = self.symbols(rng.randint(1, 3))
        return self.same(said)

    def symbols(self, depth: int) -> str:
        rng = self.rng
        space = rng.choice([" ", " ", ""])
        parts = [self.operand(False)]
        for _ in range(depth):
            parts += [
                rng.choice(
                    ["+", "-", "*", "/", "+", "*", "x" if space else "*", "^", "**", "%" if space else "-"]
                ),
                self.operand(False),
            ]
        if depth > 1 and rng.random() < 0.6:
            at = rng.randrange(0, len(parts) - 2, 2)
            parts[at], parts[at + 2] = f"({parts[at]}", f"{parts[at + 2]})"
        return space.join(parts)
