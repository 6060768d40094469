"""Text from models and tools, made harmless for a terminal.

A terminal obeys what it is shown: a tool's output can set the clipboard (OSC 52), forge what stood on the
screen, or make a terminal type. `Cleaner` removes control sequences from output; `visible` shows them, for
the one place where hiding them would deceive: the question whether a call may run.
"""

from __future__ import annotations

# Characters that reorder or hide the text around them: bidi marks, embeddings and isolates, zero-width ones,
# the byte order mark, soft hyphen, fillers, Mongolian vowel separator, invisible operators, tags, line
# separators.
_UNSEEN = frozenset(
    [
        *(0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x3164, 0xFEFF, 0xFFA0),
        *range(0x200B, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFFF9, 0xFFFC),
        *range(0xE0000, 0xE0080),
    ]
)
# Unseen too, but in output they only choose a glyph: variation selectors, the empty Braille cell.
_UNSEEN_IN_A_QUESTION = frozenset(
    [0x2800, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
)
UNSEEN = _UNSEEN | _UNSEEN_IN_A_QUESTION
# The zero-width joiners make emoji and the scripts of half of Asia readable; in output they deceive nobody.
_KEPT_IN_OUTPUT = frozenset([0x200C, 0x200D])

_PLAIN, _ESCAPE, _CSI, _STRING, _STRING_ESCAPE = range(5)
_STRING_STARTS = "PX]^_"  # DCS, SOS, OSC, PM, APC
_C1_STRING_STARTS = "\x90\x98\x9d\x9e\x9f"


def _control(code: int) -> bool:
    return code < 0x20 or 0x7F <= code < 0xA0


class Cleaner:
    """Removes control sequences from text that comes in pieces; a sequence may be cut anywhere.

    Newlines and tabs stay. A carriage return becomes a newline: going back over a line that was shown is how
    output forges. A newline always ends a sequence, so that an unfinished one cannot swallow all that
    follows.
    """

    def __init__(self) -> None:
        self._state = _PLAIN
        self._after_return = False

    def feed(self, text: str) -> str:
        if self._state == _PLAIN and not self._after_return and text.isascii() and text.isprintable():
            return text
        return "".join([self._step(character) for character in text])

    def _step(self, character: str) -> str:
        after_return, self._after_return = self._after_return, character == "\r"
        if character == "\r":
            self._state = _PLAIN
            return "\n"
        if character == "\n":
            self._state = _PLAIN
            return "" if after_return else "\n"
        if self._state != _PLAIN:
            return self._in_sequence(character)
        if character == "\x1b":
            self._state = _ESCAPE
        elif character == "\x9b":
            self._state = _CSI
        elif character in _C1_STRING_STARTS:
            self._state = _STRING
        elif character == "\t" or (not _control(ord(character)) and not self._hides(ord(character))):
            return character
        return ""

    @staticmethod
    def _hides(code: int) -> bool:
        return code in _UNSEEN and code not in _KEPT_IN_OUTPUT

    def _in_sequence(self, character: str) -> str:
        if character in "\x18\x1a":  # CAN and SUB abort a sequence
            self._state = _PLAIN
        elif self._state in (_STRING, _STRING_ESCAPE):
            if character in "\x07\x9c" or (self._state == _STRING_ESCAPE and character == "\\"):
                self._state = _PLAIN
            else:
                self._state = _STRING_ESCAPE if character == "\x1b" else _STRING
        elif character == "\x1b":
            self._state = _ESCAPE
        elif self._state == _CSI:
            if not " " <= character <= "?":
                self._state = _PLAIN
        elif character == "[":
            self._state = _CSI
        elif character in _STRING_STARTS:
            self._state = _STRING
        elif not " " <= character <= "/":  # intermediates, e.g. ESC ( B, go on
            self._state = _PLAIN
        return ""


def clean(text: str) -> str:
    """A whole text made harmless."""
    return Cleaner().feed(text)


def visible(text: str) -> str:
    """The text on one line with everything that a terminal would obey or hide written as an escape."""
    return "".join([_shown(character) for character in text])


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[character]
    if character.isprintable() and code not in UNSEEN:
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def beyond_ascii(text: str, limit: int = 5) -> list[str]:
    """The characters of a text that may look like others, e.g. `U+0430 а`; at most `limit` of them."""
    found = sorted(
        {character for character in text if ord(character) > 0x7E and character == _shown(character)}
    )
    return [f"U+{ord(character):04X} {character}" for character in found[:limit]]
