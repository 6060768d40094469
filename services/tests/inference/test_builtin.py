"""The built-in dialect: what counts as the request, and how what the model found becomes calls."""

from __future__ import annotations

from typing import Any

import pytest

from clawos.inference.builtin import Call, Reading, Reply, Request, Span, ToolSpec, parse
from clawos.inference.builtin.labels import CallLabel, call_label, decide
from clawos.inference.builtin.prompt import request
from clawos.inference.builtin.reading import spans
from clawos.inference.builtin.split import words


def tool(
    name: str,
    properties: dict[str, Any] | None = None,
    required: tuple[str, ...] = (),
    verbs: tuple[str, ...] = (),
) -> ToolSpec:
    parameters = {"type": "object", "properties": properties or {}, "required": list(required)}
    return ToolSpec.from_json(
        {"name": name, "description": f"Do {name}.", "parameters": parameters, "verbs": list(verbs)}
    )


UNIT = {"type": "string", "pattern": "^[A-Za-z0-9:_.@\\\\-]{1,128}$", "maxLength": 128}
PATH = {"type": "string", "minLength": 1, "maxLength": 1024}
LINES = {"type": "integer", "minimum": 1, "maximum": 10000}
TOOLS = (
    tool("memory.usage"),
    tool(
        "journal.show",
        {"unit": UNIT, "lines": LINES, "priority": {"type": "string", "enum": ["error", "warning"]}},
    ),
    tool("unit.restart", {"unit": UNIT}, ("unit",), ("restart", "bounce", "off and on")),
    tool("unit.stop", {"unit": UNIT}, ("unit",), ("stop", "turn off")),
    tool("unit.start", {"unit": UNIT}, ("unit",), ("start", "again")),
    tool("file.read", {"path": PATH, "lines": LINES}, ("path",)),
    tool("file.list", {"path": PATH}),
    tool("file.delete", {"path": PATH}, ("path",), ("delete", "remove", "rm")),
    tool("file.copy", {"from": PATH, "to": PATH}, ("from", "to"), ("copy",)),
    tool("file.write", {"path": PATH, "text": {"type": "string"}}, ("path", "text"), ("write", "create")),
    tool(
        "file.find",
        {"name": {"type": "string", "description": "file name or pattern such as *.log", "minLength": 1}},
        ("name",),
    ),
    tool("math.eval", {"expression": {"type": "string", "maxLength": 256}}, ("expression",)),
    tool("shell.run", {"command": {"type": "string", "minLength": 1}}, ("command",), ("run", "execute")),
)


Found = tuple[str, str]
"""A slot and the words that are its value."""


def read(text: str, labels: str, *found: Found, earlier: tuple[Call, ...] = ()) -> Reply:
    """What these labels, joined by "; ", and values lead to."""
    places, at = [], 0
    for slot, said in found:
        start = text.index(said, at)
        at = start + len(said)
        places.append(Span(slot, start, at))
    return parse(Reading(tuple(labels.split("; ")), tuple(places)), Request(text, earlier=earlier), TOOLS)


def calls(
    text: str, labels: str, *found: Found, earlier: tuple[Call, ...] = ()
) -> list[tuple[str, dict[str, Any]]]:
    reply = read(text, labels, *found, earlier=earlier)
    assert reply.kind == "calls", reply
    return [(call.tool, dict(call.arguments)) for call in reply.calls]


def refused(text: str, labels: str, *found: Found) -> str:
    reply = read(text, labels, *found)
    assert reply.kind != "calls"
    assert reply.text
    assert len(reply.rejected) == 1
    return reply.rejected[0]


# What counts as the request.


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_the_request_is_the_last_one_in_plain_characters() -> None:
    messages = [
        said("user", "hello"),
        said("assistant", "Hello."),
        said("user", " Show   the LOG\nof “nginx” "),
    ]
    assert request(messages) == Request('Show the LOG of "nginx"')


def test_what_led_to_calls_is_there_to_lean_on() -> None:
    call = {"tool": "unit.restart", "args": {"unit": "nginx"}}
    messages = [
        said("user", "restart nginx"),
        said("assistant", "", tool_calls=[call]),
        said("tool", "Restarted.", tool="unit.restart"),
        said("user", "and its log?"),
    ]
    earlier = (Call("unit.restart", {"unit": "nginx"}),)
    assert request(messages) == Request("and its log?", "restart nginx", earlier)


def test_after_the_results_nothing_is_left_to_do() -> None:
    assert request([said("user", "free memory"), said("tool", "3 GB")]) is None


def test_an_answer_is_joined_to_what_was_asked_for() -> None:
    asked = read("restart the service", "unit.restart")
    messages = [said("user", "restart the service"), said("assistant", asked.text), said("user", "nginx")]
    assert request(messages) == Request("restart the service: nginx")


def test_below_a_certainty_it_asks_and_a_yes_carries_it_out() -> None:
    spans_of = (Span("unit", 8, 13),)
    doubtful = Reading(("unit.restart",), spans_of, 0.5)
    asked = parse(doubtful, Request("restart nginx"), TOOLS)
    assert (asked.kind, asked.calls) == ("ask", ())
    assert "do unit.restart" in asked.text
    messages = [said("user", "restart nginx"), said("assistant", asked.text), said("user", "Yes, please.")]
    confirmed = request(messages)
    assert confirmed == Request("restart nginx", confirmed=True)
    assert parse(doubtful, confirmed, TOOLS).calls == (Call("unit.restart", {"unit": "nginx"}),)


@pytest.mark.parametrize(
    ("second", "labels", "certainty"),
    [
        ({"-": 1.0}, ("process.list",), 0.9),
        ({"process.list": 0.6, "-": 0.3, "memory.usage": 0.1}, ("process.list", "process.list"), 0.9),
        ({"memory.usage": 0.6, "-": 0.4}, ("process.list", "memory.usage"), 0.6),
    ],
)
def test_labels_that_lead_to_the_same_are_certain_together(
    second: dict[str, float], labels: tuple[str, ...], certainty: float
) -> None:
    first = {"process.list": 0.5, "process.list count": 0.4, "process.list sort=cpu": 0.1}
    found = decide([first, second, {"-": 1.0}])
    assert found[0] == labels
    assert found[1] == pytest.approx(certainty)


@pytest.mark.parametrize("answer", ["yes restart redis", "no", "yesterday", "not yes", ""])
def test_what_is_not_a_yes_confirms_nothing(answer: str) -> None:
    asked = parse(Reading(("memory.usage",), (), 0.5), Request("ram?"), TOOLS)
    confirmed = request([said("user", "ram?"), said("assistant", asked.text), said("user", answer)])
    assert confirmed is not None
    assert not confirmed.confirmed


@pytest.mark.parametrize(
    ("labels", "text", "found", "expected"),
    [
        ("file.copy", "copy a.txt b.txt", ["from a.txt", "from b.txt"], {"from": "a.txt", "to": "b.txt"}),
        ("file.read", "show me nginx", ["unit nginx"], {"path": "nginx"}),
        ("unit.restart", "restart web", ["name web"], {"unit": "web"}),
    ],
)
def test_a_name_found_in_another_sense_fills_what_is_missing(
    labels: str, text: str, found: list[str], expected: dict[str, str]
) -> None:
    slots = [(slot, value) for slot, _, value in (one.partition(" ") for one in found)]
    assert calls(text, labels, *slots) == [(labels, expected)]


def test_no_user_is_no_request() -> None:
    assert request([said("system", "be nice")]) is None


# Words, tags and labels.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("is nginx up?", ["is", "nginx", "up", "?"]),
        ('write "a b" to (x.txt).', ["write", '"', "a", "b", '"', "to", "(", "x.txt", ")", "."]),
        ("nginx's log", ["nginx", "'s", "log"]),
        ("list .. and .", ["list", "..", "and", "."]),
        ("ls ~/a/ *.pdf v1.2, ok", ["ls", "~/a/", "*.pdf", "v1.2", ",", "ok"]),
        ("it's 'it'", ["it", "'s", "'", "it", "'"]),
        ("", []),
    ],
)
def test_where_words_begin_and_end(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in words(text)] == expected


def test_tags_become_spans() -> None:
    text = "write buy milk to a.txt"
    tags = ["O", "B-text", "I-text", "O", "B-path"]
    found = spans(words(text), tags)
    assert [(s.slot, text[s.start : s.end]) for s in found] == [("text", "buy milk"), ("path", "a.txt")]


def test_an_inside_that_continues_nothing_begins_a_span() -> None:
    text = "a b c"
    assert [text[s.start : s.end] for s in spans(words(text), ["I-unit", "I-path", "B-path"])] == [
        "a",
        "b",
        "c",
    ]


def test_labels_and_what_they_mean() -> None:
    journal = next(tool for tool in TOOLS if tool.name == "journal.show")
    label = call_label(journal, {"priority": "error"}, {"lines"}, {"unit"})
    assert label == "journal.show ^unit lines priority=error"
    parsed = CallLabel.parse(label)
    assert (parsed.tool, parsed.fixed) == ("journal.show", {"priority": "error"})
    assert (set(parsed.spoken), set(parsed.inherited)) == ({"lines"}, {"unit"})


# From labels and values to calls.


@pytest.mark.parametrize(
    ("text", "labels", "found", "expected"),
    [
        ("how much memory is free?", "memory.usage", [], [("memory.usage", {})]),
        ("Restart nginx.", "unit.restart", [("unit", "nginx")], [("unit.restart", {"unit": "nginx"})]),
        (
            "restart NetworkManager",
            "unit.restart",
            [("unit", "NetworkManager")],
            [("unit.restart", {"unit": "NetworkManager"})],
        ),
        ("restart NGINX", "unit.restart", [("unit", "NGINX")], [("unit.restart", {"unit": "nginx"})]),
        (
            "/etc/init.d/cron restart",
            "unit.restart",
            [("unit", "/etc/init.d/cron")],
            [("unit.restart", {"unit": "cron"})],
        ),
        ("turn cups off", "unit.stop", [("unit", "cups")], [("unit.stop", {"unit": "cups"})]),
        ("have cups stopped", "unit.stop", [("unit", "cups")], [("unit.stop", {"unit": "cups"})]),
        (
            "please remove Docs/A.txt",
            "file.delete",
            [("path", "Docs/A.txt")],
            [("file.delete", {"path": "Docs/A.txt"})],
        ),
        (
            "the last fifty errors of sshd",
            "journal.show unit lines priority=error",
            [("number", "fifty"), ("unit", "sshd")],
            [("journal.show", {"unit": "sshd", "lines": 50, "priority": "error"})],
        ),
        ("journalctl -n20", "journal.show lines", [("number", "-n20")], [("journal.show", {"lines": 20})]),
        ("find my pdf files", "file.find", [("name.suffix", "pdf")], [("file.find", {"name": "*.pdf"})]),
        (
            "a file with tax in its name",
            "file.find",
            [("name.part", "tax")],
            [("file.find", {"name": "*tax*"})],
        ),
        ("find *.log", "file.find", [("name", "*.log")], [("file.find", {"name": "*.log"})]),
        (
            "what is 12 times (3 + 4)?",
            "math.eval",
            [("expression", "12 times (3 + 4)")],
            [("math.eval", {"expression": "12 * (3 + 4)"})],
        ),
        (
            "fifteen percent of 80",
            "math.eval",
            [("expression", "fifteen percent of 80")],
            [("math.eval", {"expression": "15 / 100 * 80"})],
        ),
        (
            "the square root of 144",
            "math.eval",
            [("expression", "the square root of 144")],
            [("math.eval", {"expression": "144 ** 0.5"})],
        ),
        (
            'write "buy milk" to a.txt',
            "file.write",
            [("text", "buy"), ("path", "a.txt")],
            [("file.write", {"path": "a.txt", "text": "buy milk"})],
        ),
        (
            "create an empty file a.txt",
            "file.write text=",
            [("path", "a.txt")],
            [("file.write", {"path": "a.txt", "text": ""})],
        ),
        (
            "run ls -la /tmp please",
            "shell.run",
            [("command", "ls -la /tmp")],
            [("shell.run", {"command": "ls -la /tmp"})],
        ),
        (
            "restart nginx and show its log",
            "unit.restart; journal.show ^unit",
            [("unit", "nginx")],
            [("unit.restart", {"unit": "nginx"}), ("journal.show", {"unit": "nginx"})],
        ),
        (
            "restart and start nginx",
            "unit.restart; unit.start",
            [("unit", "nginx")],
            [("unit.restart", {"unit": "nginx"}), ("unit.start", {"unit": "nginx"})],
        ),
        (
            "list my files and show a.txt",
            "file.list; file.read",
            [("path", "a.txt")],
            [("file.list", {}), ("file.read", {"path": "a.txt"})],
        ),
        (
            "list docs and show a.txt",
            "file.list path; file.read",
            [("path", "docs"), ("path", "a.txt")],
            [("file.list", {"path": "docs"}), ("file.read", {"path": "a.txt"})],
        ),
        (
            "restart a, b and c",
            "unit.restart; unit.restart",
            [("unit", "a"), ("unit", "b"), ("unit", "c")],
            [("unit.restart", {"unit": unit}) for unit in "abc"],
        ),
        (
            "copy a.txt to b.txt and show it",
            "file.copy; file.read",
            [("from", "a.txt"), ("to", "b.txt")],
            [("file.copy", {"from": "a.txt", "to": "b.txt"}), ("file.read", {"path": "b.txt"})],
        ),
        ("log of sshd", "journal.show", [("unit", "sshd")], [("journal.show", {"unit": "sshd"})]),
    ],
)
def test_a_reading_becomes_calls(
    text: str, labels: str, found: list[Found], expected: list[tuple[str, dict[str, Any]]]
) -> None:
    assert calls(text, labels, *found) == expected


def test_the_same_call_twice_is_one_call() -> None:
    assert calls("memory and memory", "memory.usage; memory.usage") == [("memory.usage", {})]


RESTARTED = (Call("unit.restart", {"unit": "nginx"}),)


def test_a_value_may_come_from_the_request_before() -> None:
    assert calls("and its log?", "journal.show ^unit", earlier=RESTARTED) == [
        ("journal.show", {"unit": "nginx"})
    ]
    assert calls("start it", "unit.start", earlier=RESTARTED) == [("unit.start", {"unit": "nginx"})]


def test_the_verb_may_come_from_the_request_before() -> None:
    assert calls("and redis", "unit.restart", ("unit", "redis"), earlier=RESTARTED) == [
        ("unit.restart", {"unit": "redis"})
    ]
    assert read("and redis", "unit.stop", ("unit", "redis"), earlier=RESTARTED).kind == "ask"
    assert read("don't restart redis", "unit.restart", ("unit", "redis"), earlier=RESTARTED).kind == "decline"


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("no", "decline"),
        ("-", "decline"),
        ("leave", "decline"),
        ("when", "ask"),
        ("unit.restart", "ask"),
        ("journal.show ^unit", "ask"),
        ("talk:hello", "talk"),
        ("talk:help", "talk"),
        ("about:unit.stop", "talk"),
        ("about:no.such", "decline"),
        ("no.such", "decline"),
    ],
)
def test_all_else_only_speaks(label: str, kind: str) -> None:
    reply = read("please restart the service", label)
    assert (reply.kind, reply.calls) == (kind, ())
    assert reply.text


def test_help_lists_the_tools_at_hand() -> None:
    assert "Do memory.usage" in read("help", "talk:help").text


# The guard.


@pytest.mark.parametrize(
    ("text", "labels", "found", "reason"),
    [
        ("how is nginx", "unit.restart", [("unit", "nginx")], "none of the words"),
        ("look at restart.log of nginx", "unit.restart", [("unit", "nginx")], "none of the words"),
        ("don't stop nginx", "unit.stop", [("unit", "nginx")], "says not to"),
        ("dnt stop nginx", "unit.stop", [("unit", "nginx")], "says not to"),
        ("do nt stop nginx", "unit.stop", [("unit", "nginx")], "says not to"),
        ("nginx must not be stopped", "unit.stop", [("unit", "nginx")], "says not to"),
        ("why did nginx stop?", "unit.stop", [("unit", "nginx")], "asks about it"),
        ("how do i delete a.txt", "file.delete", [("path", "a.txt")], "asks about it"),
        ("restart a b", "unit.restart", [("unit", "a b")], "does not have the right form"),
        ("the last 0 lines", "journal.show lines", [("number", "0")], "is below 1"),
        ("the last 99999 lines", "journal.show lines", [("number", "99999")], "is above 10000"),
        ("the last few lines", "journal.show lines", [("number", "few")], "makes no sense"),
        ("fatal log", "journal.show priority=fatal", [], "is not one of"),
        ("restart", "unit.restart", [], "is missing"),
        ("add bananas", "math.eval", [("expression", "bananas")], "makes no sense"),
        ("power off", "power.off", [], "no such call"),
        ("stop", "unit.stop; no", [], "no such call"),
        (
            "restart a b c d e f g",
            "unit.restart",
            [("unit", unit) for unit in "abcdefg"],
            "more than 6 calls",
        ),
    ],
)
def test_the_guard_refuses(text: str, labels: str, found: list[Found], reason: str) -> None:
    assert reason in refused(text, labels, *found)


def test_one_refused_call_refuses_them_all() -> None:
    assert "none of the words" in refused("memory, and the database", "memory.usage; unit.restart")


def test_a_verb_that_is_free_in_one_clause_counts() -> None:
    text = "i don't need a.txt anymore, please delete it"
    assert calls(text, "file.delete", ("path", "a.txt")) == [("file.delete", {"path": "a.txt"})]


@pytest.mark.parametrize("said", ["restat", "resart", "rsetart", "restartt", "RESTRAT"])
def test_a_misspelt_verb_counts(said: str) -> None:
    text = f"{said} nginx"
    assert calls(text, "unit.restart", ("unit", "nginx")) == [("unit.restart", {"unit": "nginx"})]
    assert "says not to" in refused(f"don't {text}", "unit.restart", ("unit", "nginx"))


@pytest.mark.parametrize("said", ["rest", "retrart", "restart.log", "/restat", "rstr"])
def test_what_is_only_like_a_verb_does_not(said: str) -> None:
    assert "none of the words" in refused(f"{said} nginx", "unit.restart", ("unit", "nginx"))


# Tools.


@pytest.mark.parametrize(
    ("obj", "problem"),
    [
        ({"name": ""}, "name"),
        ({"name": "x", "description": 3}, "description"),
        ({"name": "x", "parameters": {"type": "array"}}, "type object"),
        ({"name": "x", "parameters": {"properties": {"a": 3}}}, "properties.a"),
        ({"name": "x", "verbs": "stop"}, "verbs"),
    ],
)
def test_a_bad_tool_is_named(obj: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ToolSpec.from_json(obj)
