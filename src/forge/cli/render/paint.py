"""Icons and colours of states, and the width of text; the same on every screen."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

ICONS = {
    "succeeded": "✔", "promoted": "✔", "stable": "✔", "ready": "✔", "ok": "✔", "done": "✔", "promote": "✔",
    "failed": "✖", "error": "✖", "timed_out": "✖", "rolled_back": "✖", "fail": "✖", "rollback": "✖",
    "rejected": "✖", "aborted": "✖", "cancelled": "✖",
    "running": "◌", "retrying": "◌", "progressing": "◌", "starting": "◌", "promoting": "◌", "baking": "◌",
    "rolling_back": "◌", "current": "◌", "stopping": "◌",
    "queued": "◷", "waiting": "◷", "waiting_approval": "॥", "paused": "॥", "hold": "◷",
    "degraded": "⚠", "warn": "⚠", "inconclusive": "⚠",
}  # fmt: skip
"""Every other state is `•`: nothing happened yet, or nothing will."""

_GREEN, _RED, _YELLOW, _CYAN, _DIM, _BOLD = "32", "31", "33", "36", "2", "1"
_COLOURS = {"✔": _GREEN, "✖": _RED, "◌": _CYAN, "◷": _YELLOW, "॥": _YELLOW, "⚠": _YELLOW, "•": _DIM}
_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor, clearing
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: title, clipboard
    r"|\x1b[ -/]*[0-~]?"
)


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours text, or leaves it as it is."""

    colour: bool = False

    def _wrap(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def bold(self, text: str) -> str:
        """Return text that stands out."""
        return self._wrap(text, _BOLD)

    def dim(self, text: str) -> str:
        """Return text that steps back."""
        return self._wrap(text, _DIM)

    def red(self, text: str) -> str:
        """Return text of a failure."""
        return self._wrap(text, _RED)

    def green(self, text: str) -> str:
        """Return text of a success."""
        return self._wrap(text, _GREEN)

    def yellow(self, text: str) -> str:
        """Return text of a warning."""
        return self._wrap(text, _YELLOW)

    def cyan(self, text: str) -> str:
        """Return text of something to type or something under way."""
        return self._wrap(text, _CYAN)

    def icon(self, state: str) -> str:
        """Return the icon of a state in its colour."""
        icon = ICONS.get(state, "•")
        return self._wrap(icon, _COLOURS[icon])

    def state(self, state: str) -> str:
        """Return icon and name of a state in its colour: `✔ succeeded`."""
        icon = ICONS.get(state, "•")
        return self._wrap(f"{icon} {state}", _COLOURS[icon])


def strip_ansi(text: str) -> str:
    """Return text without escape sequences and without control characters that could move the cursor."""
    return _visible(_ANSI.sub("", text))


def tame_ansi(text: str) -> str:
    """Return text with its colours, but without any other escape sequence or control character.

    A log line must not be able to clear the screen, set the title or write to the clipboard.
    """
    parts, end = [], 0
    for match in _ANSI.finditer(text):
        parts.append(_visible(text[end : match.start()]))
        if match[0].startswith("\x1b[") and match[0].endswith("m"):
            parts.append(match[0])
        end = match.end()
    return "".join([*parts, _visible(text[end:])])


def _visible(text: str) -> str:
    """Drop what is left of control characters, those beyond ASCII as well."""
    return "".join(letter for letter in text if letter in "\t\n" or not (letter < " " or "\x7f" <= letter <= "\x9f"))


def width(text: str) -> int:
    """Return how many terminal cells a text takes: escape sequences none, wide letters two."""
    cells = 0
    for letter in strip_ansi(text):
        if unicodedata.combining(letter):
            continue
        cells += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
    return cells


def pad(text: str, cells: int) -> str:
    """Return text filled with blanks to `cells`."""
    return text + " " * max(0, cells - width(text))


def shorten(text: str, cells: int) -> str:
    """Return text cut to `cells` with an ellipsis; text with colours loses them when it must be cut."""
    if width(text) <= cells:
        return text
    kept = ""
    for letter in strip_ansi(text):
        if width(kept + letter) > cells - 1:
            break
        kept += letter
    return kept + "…"
