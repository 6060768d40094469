"""Permission, states and the words of an approval: pure, so a table each."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawos.agent.conversation import Message, window
from clawos.agent.errors import TransitionUndeclared
from clawos.agent.manifest import Safety
from clawos.agent.permission import Approvals, Decision, decide
from clawos.agent.render import MAX_VALUE_CHARACTERS, summary, visible
from clawos.agent.states import TRANSITIONS, State, StateMachine

ALLOW, ASK, REFUSE, PLAN = Decision.ALLOW, Decision.ASK, Decision.REFUSE, Decision.PLAN
SAFE, CAUTIOUS, DANGEROUS = Safety.SAFE, Safety.CAUTIOUS, Safety.DANGEROUS


@pytest.mark.parametrize(
    ("safety", "approved", "interactive", "decision"),
    [
        (SAFE, False, False, ALLOW),
        (SAFE, False, True, ALLOW),
        (SAFE, True, False, ALLOW),
        (SAFE, True, True, ALLOW),
        (CAUTIOUS, False, False, REFUSE),
        (CAUTIOUS, False, True, ASK),
        (CAUTIOUS, True, False, ALLOW),
        (CAUTIOUS, True, True, ALLOW),
        (DANGEROUS, False, False, REFUSE),
        (DANGEROUS, False, True, ASK),
        (DANGEROUS, True, False, ALLOW),
        (DANGEROUS, True, True, ALLOW),
    ],
)
def test_decision(safety: Safety, approved: bool, interactive: bool, decision: Decision) -> None:
    assert decide(safety, approved=approved, interactive=interactive, plan=False) is decision
    assert decide(safety, approved=approved, interactive=interactive, plan=True) is PLAN


@pytest.mark.parametrize(
    ("given_for", "asked_for", "covered"),
    [
        (("a.b", CAUTIOUS, {"x": 1}), ("a.b", CAUTIOUS, {"x": 2}), True),
        (("a.b", CAUTIOUS, {}), ("a.c", CAUTIOUS, {}), False),
        (("a.b", DANGEROUS, {"x": 1, "y": 2}), ("a.b", DANGEROUS, {"y": 2, "x": 1}), True),
        (("a.b", DANGEROUS, {"x": 1}), ("a.b", DANGEROUS, {"x": 2}), False),
        (("a.b", DANGEROUS, {"x": 1}), ("a.b", DANGEROUS, {}), False),
        (("a.b", DANGEROUS, {"x": "1"}), ("a.b", DANGEROUS, {"x": 1}), False),
        # A manifest that was made stricter meanwhile does not profit from the looser approval.
        (("a.b", CAUTIOUS, {"x": 1}), ("a.b", DANGEROUS, {"x": 1}), False),
    ],
)
def test_always(
    given_for: tuple[str, Safety, dict[str, object]],
    asked_for: tuple[str, Safety, dict[str, object]],
    covered: bool,
) -> None:
    assert Approvals().cover(*asked_for) is False
    assert Approvals().always(*given_for).cover(*asked_for) is covered


def test_only_declared_transitions_happen(caplog: pytest.LogCaptureFixture) -> None:
    for source, target in itertools.product(State, State):
        machine = StateMachine()
        machine._state = source
        if target in TRANSITIONS[source]:
            machine.to(target)
            assert machine.state is target
            continue
        caplog.clear()
        with pytest.raises(TransitionUndeclared):
            machine.to(target)
        assert machine.state is source
        assert [r.levelname for r in caplog.records] == ["ERROR"]


def test_every_state_is_reached_and_nothing_follows_shutdown() -> None:
    assert set(State) == set().union(*TRANSITIONS.values()) == set(TRANSITIONS)
    assert TRANSITIONS[State.SHUTDOWN] == frozenset()
    assert all(State.SHUTDOWN in TRANSITIONS[s] for s in State if s is not State.SHUTDOWN)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain höi 日本", "plain höi 日本"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2Jx", "\\u001b[2Jx"),
        ("\x7f\x9b", "\\u007f\\u009b"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("a\u00a0b", "a\\u00a0b"),
        ("\u3164\ufe0f\u2800", "\\u3164\\ufe0f\\u2800"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028", "\\u2028"),
    ],
)
def test_unseen_characters_are_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_shown_text_is_one_line_of_seen_characters(text: str) -> None:
    assert visible(text).isprintable()


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_value_cannot_pretend_to_be_another_argument(a: str, b: str) -> None:
    if a != b:
        assert summary("x.y", {"path": a}) != summary("x.y", {"path": b})
    assert summary("x.y", {"path": a, "text": b}) != summary("x.y", {"path": a + '" text="' + b})


def test_long_values_are_cut_and_say_so() -> None:
    shown = summary("file.write", {"path": "a", "text": "x" * (MAX_VALUE_CHARACTERS + 5), "n": 3, "b": True})
    assert "(and 5 more characters) n=3 b=true" in shown


def _turn(n: int, size: int = 1) -> list[Message]:
    return [Message(role="user", content=f"q{n}"), Message(role="assistant", content="a" * size)]


def test_window_holds_whole_turns() -> None:
    history = [m for n in range(5) for m in _turn(n)]
    assert window(history, 5, 10_000) == history[-4:]
    assert window(history, 100, 10_000) == history
    assert window(history, 1, 1) == history[-2:]
    assert window([], 5, 100) == []
    big = [*_turn(0), *_turn(1, 5_000), *_turn(2)]
    assert window(big, 100, 1_000) == big[-2:]


def test_window_over_a_history_that_begins_midway() -> None:
    history = [Message(role="tool", content="x", tool="a.b"), *_turn(0)]
    assert window(history, 2, 1_000) == history[1:]
