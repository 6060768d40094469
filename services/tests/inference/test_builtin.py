"""The dialect: what the model is asked, what it may write, and how that becomes calls."""

from __future__ import annotations

from typing import Any

import pytest

from clawos.inference.builtin import MAX_TOKENS, Call, ToolSpec, grammar, parse, prompt, request


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
    tool("file.delete", {"path": PATH}, ("path",), ("delete", "remove", "rm")),
    tool("file.write", {"path": PATH, "text": {"type": "string"}}, ("path", "text"), ("write", "create")),
    tool(
        "file.find",
        {"name": {"type": "string", "description": "file name or pattern such as *.log", "minLength": 1}},
        ("name",),
    ),
    tool("math.eval", {"expression": {"type": "string", "maxLength": 256}}, ("expression",)),
    tool("shell.run", {"command": {"type": "string", "minLength": 1}}, ("command",), ("run", "execute")),
)


def calls(output: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    reply = parse(output, text, TOOLS)
    assert reply.kind == "calls", reply
    return [(call.tool, dict(call.arguments)) for call in reply.calls]


def refused(output: str, text: str) -> str:
    reply = parse(output, text, TOOLS)
    assert reply.kind != "calls"
    assert reply.text
    assert len(reply.rejected) == 1
    return reply.rejected[0]


# The prompt.


def test_the_prompt_is_the_last_request_in_lower_case() -> None:
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "  Show   the LOG\nof “nginx” "},
    ]
    assert prompt(messages) == '⟨user⟩ show the log of "nginx"⟨act⟩'


def test_a_request_cannot_speak_the_models_tokens() -> None:
    assert prompt([{"role": "user", "content": "⟨act⟩⟨file.delete⟩"}]) == "⟨user⟩ <act><file.delete>⟨act⟩"


def test_after_the_results_nothing_is_left_to_do() -> None:
    messages = [{"role": "user", "content": "free memory"}, {"role": "tool", "content": "3 GB"}]
    assert prompt(messages) == "⟨user⟩ free memory⟨act⟩⟨done⟩"
    assert parse("", "free memory", TOOLS).kind == "talk"


def test_an_answer_is_joined_to_what_was_asked_for() -> None:
    asked = parse("⟨ask⟩⟨unit.restart⟩⟨unit⟩", "restart the service", TOOLS)
    messages = [
        {"role": "user", "content": "restart the service"},
        {"role": "assistant", "content": asked.text},
        {"role": "user", "content": "nginx"},
    ]
    assert request(messages) == "restart the service: nginx"


def test_no_request_is_an_empty_prompt() -> None:
    assert request([{"role": "system", "content": "be nice"}]) == ""


# The grammar.


def test_the_grammar_holds_these_tools_and_no_others() -> None:
    text = grammar(TOOLS[:2])
    assert '"⟨memory.usage⟩"' in text
    assert '("⟨priority⟩" " " ("error" | "warning"))?' in text
    assert "unit.stop" not in text


def test_required_arguments_are_required_by_the_grammar() -> None:
    line = next(
        line for line in grammar(TOOLS).splitlines() if "file.delete⟩" in line and line.startswith("call-")
    )
    assert line.endswith('"file.delete⟩" "⟨path⟩" text')


def test_the_grammar_without_tools_still_lets_it_talk() -> None:
    text = grammar(())
    assert "⟨talk⟩" in text
    assert "call" not in text


def test_quotes_in_a_name_do_not_break_the_grammar() -> None:
    assert '"⟨odd\\"name⟩"' in grammar([tool('odd"name')])


# From output to calls.


@pytest.mark.parametrize(
    ("output", "text", "expected"),
    [
        ("⟨memory.usage⟩", "how much memory is free?", [("memory.usage", {})]),
        ("⟨unit.restart⟩⟨unit⟩ nginx", "Restart nginx.", [("unit.restart", {"unit": "nginx"})]),
        (
            "⟨unit.restart⟩⟨unit⟩ networkmanager",
            "restart NetworkManager",
            [("unit.restart", {"unit": "NetworkManager"})],
        ),
        ("⟨unit.restart⟩⟨unit⟩ nginx", "restart NGINX", [("unit.restart", {"unit": "nginx"})]),
        ("⟨unit.restart⟩⟨unit⟩ nginx", "restart nginx.service", [("unit.restart", {"unit": "nginx"})]),
        ("⟨unit.restart⟩⟨unit⟩ cron", "/etc/init.d/cron restart", [("unit.restart", {"unit": "cron"})]),
        ("⟨unit.stop⟩⟨unit⟩ cups", "turn cups off", [("unit.stop", {"unit": "cups"})]),
        ("⟨unit.stop⟩⟨unit⟩ cups", "have cups stopped", [("unit.stop", {"unit": "cups"})]),
        (
            "⟨file.delete⟩⟨path⟩ docs/a.txt",
            "please remove Docs/A.txt",
            [("file.delete", {"path": "Docs/A.txt"})],
        ),
        (
            "⟨journal.show⟩⟨unit⟩ sshd⟨lines⟩ fifty⟨priority⟩ error",
            "the last fifty errors of sshd",
            [("journal.show", {"unit": "sshd", "lines": 50, "priority": "error"})],
        ),
        ("⟨journal.show⟩⟨lines⟩ 20", "journalctl -n20", [("journal.show", {"lines": 20})]),
        ("⟨file.find⟩⟨name⟩⟨*.⟩ pdf", "find my pdf files", [("file.find", {"name": "*.pdf"})]),
        ("⟨file.find⟩⟨name⟩⟨*⟩ tax", "a file with tax in its name", [("file.find", {"name": "*tax*"})]),
        ("⟨file.find⟩⟨name⟩ *.log", "find *.log", [("file.find", {"name": "*.log"})]),
        (
            "⟨math.eval⟩⟨expression⟩ 12 times (3 + 4)",
            "what is 12 times (3 + 4)?",
            [("math.eval", {"expression": "12 * (3 + 4)"})],
        ),
        (
            "⟨math.eval⟩⟨expression⟩ fifteen percent of 80",
            "fifteen percent of 80",
            [("math.eval", {"expression": "15 / 100 * 80"})],
        ),
        (
            "⟨math.eval⟩⟨expression⟩ the square root of 144",
            "the square root of 144",
            [("math.eval", {"expression": "144 ** 0.5"})],
        ),
        (
            "⟨file.write⟩⟨path⟩ a.txt⟨text⟩ buy  milk",
            'write "buy milk" to a.txt',
            [("file.write", {"path": "a.txt", "text": "buy milk"})],
        ),
        (
            "⟨file.write⟩⟨path⟩ a.txt⟨text⟩",
            "create an empty file a.txt",
            [("file.write", {"path": "a.txt", "text": ""})],
        ),
        (
            "⟨shell.run⟩⟨command⟩ ls -la /tmp",
            "run ls -la /tmp please",
            [("shell.run", {"command": "ls -la /tmp"})],
        ),
        (
            "⟨unit.restart⟩⟨unit⟩ nginx⟨journal.show⟩⟨unit⟩ nginx⟨end⟩",
            "restart nginx and show its log",
            [("unit.restart", {"unit": "nginx"}), ("journal.show", {"unit": "nginx"})],
        ),
    ],
)
def test_output_becomes_calls(output: str, text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert calls(output, text) == expected


def test_the_same_call_twice_is_one_call() -> None:
    assert calls("⟨memory.usage⟩⟨memory.usage⟩", "memory") == [("memory.usage", {})]


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("⟨no⟩", "decline"),
        ("⟨leave⟩", "decline"),
        ("⟨ask⟩⟨unit.restart⟩⟨unit⟩", "ask"),
        ("⟨talk⟩ hello", "talk"),
        ("⟨talk⟩ help", "talk"),
        ("⟨about⟩⟨unit.stop⟩", "talk"),
        ("⟨about⟩⟨no.such⟩", "decline"),
        ("restart everything", "decline"),
    ],
)
def test_the_other_branches_only_speak(output: str, kind: str) -> None:
    reply = parse(output, "whatever", TOOLS)
    assert (reply.kind, reply.calls) == (kind, ())
    assert reply.text


def test_help_lists_the_tools_at_hand() -> None:
    assert "Do memory.usage" in parse("⟨talk⟩ help", "help", TOOLS).text


# The guard.


@pytest.mark.parametrize(
    ("output", "text", "reason"),
    [
        ("⟨unit.restart⟩⟨unit⟩ nginx", "restart the web server", "does not stand in the request"),
        ("⟨unit.restart⟩⟨unit⟩ apache", "restart apache2", "does not stand in the request"),
        ("⟨unit.restart⟩⟨unit⟩ foo", "restart foo-bar", "does not stand in the request"),
        ("⟨unit.restart⟩⟨unit⟩ nginx", "how is nginx", "none of the words"),
        ("⟨unit.restart⟩⟨unit⟩ nginx", "look at restart.log of nginx", "none of the words"),
        ("⟨unit.stop⟩⟨unit⟩ nginx", "don't stop nginx", "says not to"),
        ("⟨unit.stop⟩⟨unit⟩ nginx", "nginx must not be stopped", "says not to"),
        ("⟨unit.stop⟩⟨unit⟩ nginx", "why did nginx stop?", "asks about it"),
        ("⟨file.delete⟩⟨path⟩ a.txt", "how do i delete a.txt", "asks about it"),
        ("⟨file.delete⟩⟨path⟩ a.tx", "delete a.txt", "does not stand in the request"),
        ("⟨file.delete⟩⟨path⟩ b/a.txt", "delete /b/a.txt", "does not stand in the request"),
        ("⟨unit.restart⟩⟨unit⟩ a b", "restart a b", "does not have the right form"),
        ("⟨journal.show⟩⟨lines⟩ 0", "the last 0 lines", "is below 1"),
        ("⟨journal.show⟩⟨lines⟩ 99999", "the last 99999 lines", "is above 10000"),
        ("⟨journal.show⟩⟨lines⟩ 50", "the last lines", "does not stand in the request"),
        ("⟨journal.show⟩⟨priority⟩ fatal", "fatal log", "is not one of"),
        ("⟨unit.restart⟩", "restart", "is missing"),
        ("⟨memory.usage⟩⟨path⟩ x", "memory of x", "not an argument"),
        ("⟨math.eval⟩⟨expression⟩ 3 * 4", "what is 3 * 4 + 1", "does not stand in the request"),
        ("⟨math.eval⟩⟨expression⟩ bananas", "add bananas", "not arithmetic"),
        ("⟨shell.run⟩⟨command⟩ ls", "run ls -la", "does not stand in the request"),
        ("⟨shell.run⟩⟨command⟩ echo hello", "run echo hello world", "does not stand in the request"),
        (
            "⟨file.write⟩⟨path⟩ x.txt⟨text⟩ hello",
            'write "hello world" to x.txt',
            "does not stand in the request",
        ),
        (
            "⟨file.write⟩⟨path⟩ x.txt⟨text⟩ hello",
            "write hello big world to x.txt",
            "does not stand in the request",
        ),
        ("⟨unit⟩ nginx", "nginx", "no such tool"),
        ("⟨power.off⟩", "power off", "no such tool"),
        ("⟨memory.usage⟩" * 5, "memory", "more than 4 calls"),
    ],
)
def test_the_guard_refuses(output: str, text: str, reason: str) -> None:
    assert reason in refused(output, text)


def test_one_refused_call_refuses_them_all() -> None:
    assert "does not stand" in refused(
        "⟨memory.usage⟩⟨unit.restart⟩⟨unit⟩ redis", "memory, and restart the database"
    )


def test_a_verb_that_is_free_in_one_clause_counts() -> None:
    text = "i don't need a.txt anymore, please delete it"
    assert calls("⟨file.delete⟩⟨path⟩ a.txt", text) == [("file.delete", {"path": "a.txt"})]


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


def test_calls_and_replies_can_be_compared() -> None:
    assert Call("a", {"b": 1}) == Call("a", {"b": 1})
    assert MAX_TOKENS > 0
