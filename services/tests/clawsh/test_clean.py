"""What a terminal would obey does not reach it, however it is cut into pieces."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawos.clawsh.clean import Cleaner, beyond_ascii, clean, visible

HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]")


@pytest.mark.parametrize(
    ("dirty", "clean_text"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("größe 日本 🦀", "größe 日本 🦀"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38;5;196;1mred\x1b[m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;ZXZpbA==\x1b\\x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r0m\x1b\\x", "x"),
        ("\x1b_apc\x1b\\x", "x"),
        ("\x9b2Jx", "x"),
        ("\x9d0;t\x9cx", "x"),
        ("\x1b(Bx", "x"),
        ("\x1bcx", "x"),
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\bb\x07c\x00d\x7fe", "abcde"),
        ("user\u202egpj.exe", "usergpj.exe"),
        ("a\u2066b\u2069c\u200bd\ufeffe", "abcde"),
        ("\x1b]0;never ends\nnext line", "\nnext line"),
        ("\x1b[31\nnext", "\nnext"),
        ("\x1b", ""),
    ],
)
def test_removes_what_a_terminal_obeys(dirty: str, clean_text: str) -> None:
    assert clean(dirty) == clean_text


@given(st.text(), st.integers(0, 100))
def test_the_cut_does_not_matter_and_nothing_harmful_is_left(text: str, cut: int) -> None:
    cleaner = Cleaner()
    pieces = cleaner.feed(text[:cut]) + cleaner.feed(text[cut:])
    assert pieces == clean(text)
    assert not HARMFUL.search(pieces)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_passes_unchanged(text: str) -> None:
    assert clean(text) == text


@given(st.text())
def test_what_is_shown_for_approval_hides_nothing(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(character).startswith(("C", "Zl", "Zp")) for character in shown)
    assert "\n" not in shown


def test_shows_hidden_characters_as_escapes() -> None:
    assert visible("a\x1b[2J\n\u202eb\u200b") == "a\\x1b[2J\\n\\u202eb\\u200b"


def test_names_characters_that_may_look_like_others() -> None:
    assert beyond_ascii("p\u0430ypal") == ["U+0430 \u0430"]
    assert beyond_ascii("paypal") == []
