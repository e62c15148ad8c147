"""The values at the ends of the tree: durations, percentages, names, commands. Plain functions on YAML data."""

from __future__ import annotations

import math
import re
from typing import Any

from forge.core.pipeline.scalars import WrittenFloat, written
from forge.model import units
from forge.model.diagnostics import did_you_mean

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ARTIFACT = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._@+=/-]{0,199}")


class LeafError(ValueError):
    """A value does not fit; the message goes after the key's name."""

    def __init__(self, message: str, hint: str = "", code: str = "value", at: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        self.at = at


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{written(value)}`"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a number" if isinstance(value, (int, float)) else "text"


def shown(value: Any) -> str:
    """Return a value for a message, never longer than a line."""
    if isinstance(value, (dict, list, tuple)) or value is None:
        return kind_of(value)
    first, *rest = written(value).split("\n", 1)
    return f"`{first[:60]}{'...' if rest or len(first) > 60 else ''}`"


def text(value: Any) -> str:
    """Return text; a number counts as the text that it was written as."""
    if isinstance(value, bool):
        raise LeafError(f"must be text, not {kind_of(value)}", f'put quotes around it: "{written(value)}"')
    if isinstance(value, (str, int, float)):
        return written(value)
    raise LeafError(f"must be text, not {kind_of(value)}")


def script(value: Any) -> str:
    """Return a script, which says something and has no NUL."""
    content = value if isinstance(value, bool) else text(value)
    if isinstance(content, bool):
        return written(content)  # `run: true` is a command as good as any
    if not content.strip():
        raise LeafError("is empty", "write the command to run")
    return content


def command(value: Any) -> tuple[str, ...]:
    """Return argv; a text is left to the shell."""
    if isinstance(value, list) and value:
        return tuple(text(part) for part in value)
    if isinstance(value, str) and value.strip():
        return ("sh", "-c", f"exec {value.strip()}")
    raise LeafError(f"must be a command (a text or a list of texts), not {kind_of(value)}")


def argv(value: Any) -> tuple[str, ...]:
    """Return argv of a command that is a list, or a text for the shell (which may be more than one command)."""
    if isinstance(value, str) and value.strip():
        return ("sh", "-c", value.strip())
    return command(value)


def name(value: Any) -> str:
    """Return a name of ours: letters, digits, `_`, `-`, `.`; or an expression that makes one."""
    content = text(value)
    if "${{" in content or NAME.fullmatch(content):
        return content
    raise LeafError(f"cannot be {shown(value)}", "use letters, digits, `_`, `-` and `.`, at most 100")


def title(value: Any) -> str:
    """Return text for one line of a screen."""
    content = text(value)
    if not content.isprintable():
        raise LeafError("must be one line without control characters")
    return content


def artifact_name(value: Any) -> str:
    """Return an artifact's name: a relative path without `..`."""
    content = text(value)
    if "${{" in content:
        return content
    if not ARTIFACT.fullmatch(content) or ".." in content.split("/") or "" in content.split("/"):
        raise LeafError(f"cannot be {shown(value)}", "an artifact is named like `myapp.tar.gz` or `reports/unit.xml`")
    return content


def inside_path(value: Any) -> str:
    """Return a path that stays inside the folder that it is relative to."""
    content = text(value)
    if content.startswith(("/", "~")) or ".." in content.replace("\\", "/").split("/"):
        raise LeafError(f"leaves the project: {shown(value)}", "write a path relative to the project's folder")
    if "\0" in content or not content:
        raise LeafError("is not a path")
    return content


def duration(value: Any) -> float:
    """Return seconds."""
    if isinstance(value, (bool, dict, list)) or value is None:
        raise LeafError(f"must be a duration, not {kind_of(value)}", "write it like `30s`, `5m` or `1h30m`")
    try:
        seconds = units.parse_duration(written(value))
    except ValueError:
        raise LeafError(f"is not a duration: {shown(value)}", "write it like `30s`, `5m` or `1h30m`") from None
    if not math.isfinite(seconds) or seconds > 366 * 86400:
        raise LeafError(f"is longer than a year: {shown(value)}")
    return seconds


def timeout(value: Any) -> float:
    """Return seconds, more than none."""
    seconds = duration(value)
    if seconds <= 0:
        raise LeafError("must be longer than nothing", "leave it out for no limit")
    return seconds


def fraction(value: Any) -> float:
    """Return 0.05 for `5%` or 5."""
    hint = "write a percentage between 0 and 100, like `5%`"
    if isinstance(value, (bool, dict, list)) or value is None:
        raise LeafError(f"must be a percentage, not {kind_of(value)}", hint)
    try:
        part = units.parse_fraction(written(value))
    except ValueError:
        raise LeafError(f"is not a percentage: {shown(value)}", hint) from None
    if not math.isfinite(part):
        raise LeafError(f"is not a percentage: {shown(value)}", hint)
    return part


def cores(value: Any) -> float:
    """Return 0.8 for `80%` of a core; a version may use several (`350%`)."""
    match = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*%?\s*", written(value)) if _is_scalar(value) else None
    if match is None:
        raise LeafError(f"is not a percentage: {shown(value)}", "write the part of one core, like `80%` or `250%`")
    return float(match[1]) / 100


def weight(value: Any) -> int:
    """Return basis points."""
    return round(fraction(value) * units.WHOLE)


def size(value: Any) -> int:
    """Return bytes."""
    if _is_scalar(value) and not isinstance(value, bool):
        try:
            return units.parse_size(written(value))
        except (ValueError, OverflowError):
            pass
    raise LeafError(f"is not a size: {shown(value)}", "write it like `512MiB` or `64MB`")


def count(value: Any) -> int:
    """Return a whole number, 0 or more."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9:
        return int(value)
    raise LeafError(f"must be a whole number, 0 or more, not {_not(value)}")


def positive(value: Any) -> int:
    """Return a whole number, 1 or more."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9:
        return int(value)
    raise LeafError(f"must be a whole number, 1 or more, not {_not(value)}")


def number(value: Any) -> float:
    """Return a number, 0 or more."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise LeafError(f"must be a number, 0 or more, not {_not(value)}")


def flag(value: Any) -> bool:
    """Return true or false; `yes` and `on` are text in YAML 1.2."""
    if isinstance(value, bool):
        return value
    hint = "YAML's words are `true` and `false`" if written(value) in {"yes", "no", "on", "off"} else ""
    raise LeafError(f"must be `true` or `false`, not {_not(value)}", hint)


def text_list(value: Any) -> tuple[str, ...]:
    """Return one text or a list of them as a tuple."""
    if isinstance(value, list):
        return tuple(text(item) for item in value)
    if isinstance(value, dict) or value is None:
        raise LeafError(f"must be a text or a list of texts, not {kind_of(value)}")
    return (text(value),)


def scalar(value: Any) -> str | int | float | bool:
    """Return text, a number or a boolean. A number with a dot stays as it is written: 3.10 is not 3.1."""
    if isinstance(value, bool):
        return value
    if isinstance(value, WrittenFloat):
        return value.text
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (str, float)):
        return value
    raise LeafError(f"must be text, a number or a boolean, not {kind_of(value)}")


def env_value(value: Any) -> str:
    """Return an environment variable's value; numbers and booleans become the text that they were written as."""
    if isinstance(value, (dict, list)) or value is None:
        raise LeafError(f"must be text, not {kind_of(value)}", 'for no text write `""`')
    if "\0" in written(value):
        raise LeafError("has a NUL in it")
    return written(value)


def env_name(value: str) -> str:
    """Return the name of an environment variable that a user may set."""
    if not ENV_NAME.fullmatch(value):
        raise LeafError(f"is not a name that a shell takes: `{value[:60]}`", "use letters, digits and `_`")
    if value.upper().startswith("FORGE_"):
        raise LeafError(f"cannot be set: `{value[:60]}`", "names that begin with FORGE_ are set by Forge")
    return value


def condition(value: Any) -> str:
    """Return a CEL expression; `${{ }}` around it may be left out."""
    content = written(value) if isinstance(value, bool) else text(value)
    stripped = content.strip()
    if stripped.startswith("${{") and stripped.endswith("}}") and stripped.count("${{") == 1:
        stripped = stripped[3:-2].strip()
    if not stripped:
        raise LeafError("is empty", 'write a condition such as `params.target == "staging"`')
    return stripped


def one_of(value: Any, known: tuple[str, ...]) -> str:
    """Return a word of a few."""
    if isinstance(value, str) and value in known:
        return value
    if isinstance(value, str):
        raise LeafError(f"cannot be {shown(value)}", did_you_mean(value, known))
    raise LeafError(f"must be one of {', '.join(f'`{word}`' for word in known)}, not {kind_of(value)}")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _not(value: Any) -> str:
    return shown(value) if isinstance(value, (str, int, float)) else kind_of(value)
