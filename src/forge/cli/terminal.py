"""What this terminal can do and what its user asked for: colour, animation, questions."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

ProgressMode = Literal["auto", "tty", "plain", "json", "quiet"]
PROGRESS_MODES = ("auto", "tty", "plain", "json", "quiet")


@dataclass(frozen=True, slots=True)
class Terminal:
    """Decided once at start. `progress` is never `auto`."""

    colour_out: bool = False
    colour_err: bool = False
    out_is_terminal: bool = False
    interactive: bool = False
    """Whether a question may be asked: a person at a terminal, and no `--no-input`."""
    progress: ProgressMode = "plain"
    width: int = 100
    height: int = 40


def wants_colour(environ: Mapping[str, str], *, is_terminal: bool, no_colour: bool = False) -> bool:
    """Tell whether to colour a stream: flag, then NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, CLICOLOR, TERM."""
    if no_colour or environ.get("NO_COLOR"):
        return False
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        if environ.get(name, "0") not in {"", "0"}:
            return True
    if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb":
        return False
    return is_terminal


def detect(
    environ: Mapping[str, str],
    *,
    out_is_terminal: bool,
    err_is_terminal: bool,
    in_is_terminal: bool,
    no_colour: bool = False,
    no_input: bool = False,
    progress: str = "",
    size: tuple[int, int] = (100, 40),
) -> Terminal:
    """Return the terminal for these facts. Raises UsageError for an unknown progress mode."""
    chosen = progress or environ.get("FORGE_PROGRESS", "") or "auto"
    if chosen not in PROGRESS_MODES:
        raise UsageError(f"unknown progress mode `{chosen}`", hint=did_you_mean(chosen, PROGRESS_MODES))
    dumb = environ.get("TERM") == "dumb"
    if chosen == "auto":
        chosen = "tty" if err_is_terminal and not dumb else "plain"
    asked_not_to = no_input or environ.get("FORGE_NO_INPUT", "0") not in {"", "0"}
    return Terminal(
        colour_out=wants_colour(environ, is_terminal=out_is_terminal, no_colour=no_colour),
        colour_err=wants_colour(environ, is_terminal=err_is_terminal, no_colour=no_colour),
        out_is_terminal=out_is_terminal,
        interactive=in_is_terminal and err_is_terminal and not asked_not_to,
        progress=cast("ProgressMode", chosen),
        width=size[0],
        height=size[1],
    )


def detect_here(*, no_colour: bool, no_input: bool, progress: str) -> Terminal:
    """Return the terminal of this process."""
    import shutil

    size = shutil.get_terminal_size((100, 40))
    return detect(
        os.environ,
        out_is_terminal=_is_terminal(sys.stdout),
        err_is_terminal=_is_terminal(sys.stderr),
        in_is_terminal=_is_terminal(sys.stdin),
        no_colour=no_colour,
        no_input=no_input,
        progress=progress,
        size=(size.columns, size.lines),
    )


def _is_terminal(stream: object) -> bool:
    """A closed or missing stream (daemons have none) is no terminal."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False
