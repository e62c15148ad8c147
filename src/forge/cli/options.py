"""Options and arguments that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

Output = Annotated[
    str, typer.Option("-o", "--output", metavar="FORMAT", help="table, wide, json, yaml or name.", show_default=False)
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Never ask: approve manual gates as they come up.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run, such as run-3 or just 3.", show_default=False)]
EnvironmentName = Annotated[str, typer.Argument(metavar="ENV", help="An environment.", show_default=False)]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="Wait at most this long (90s, 5m); then exit 6.")
]
Comment = Annotated[str, typer.Option("-m", "--comment", metavar="TEXT", help="Why; kept with the decision.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines as they come.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is settled.")]
Parameters = Annotated[
    list[str], typer.Option("-p", "--param", metavar="NAME=VALUE", help="A parameter; give it once for each.")
]
Inputs = Annotated[
    list[str], typer.Option("-i", "--input", metavar="NAME=VALUE", help="A field of the gate; give it once for each.")
]
PipelineFile = Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: forge/pipeline.yaml.")]

HOISTED = {
    "--debug": 0, "--no-color": 0, "--no-colour": 0, "--no-input": 0, "--progress": 1, "-C": 1, "--directory": 1, "-P": 1,
}  # fmt: skip
"""Options of `forge` itself, and how many values each takes; people type them after the command as well."""


def hoist(arguments: list[str]) -> list[str]:
    """Return the arguments with the options of `forge` itself moved to the front; nothing after `--` moves."""
    front: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest += [word, *queue]
            break
        name, equals, _ = word.partition("=")
        if name in HOISTED and name.startswith("--") and equals:
            front.append(word)
        elif word in HOISTED:
            front += [word, *queue[: HOISTED[word]]]
            del queue[: HOISTED[word]]
        else:
            rest.append(word)
    return front + rest


def pairs(words: list[str], option: str) -> dict[str, str]:
    """Return `name=value` words as a dict. Raises UsageError for a word without `=` or a name given twice."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"`{option} {word}` is not NAME=VALUE", hint=f"for example `{option} version=1.4.0`")
        if name in values:
            raise UsageError(f"`{option} {name}=…` is given twice")
        values[name] = value
    return values


def seconds(text: str) -> float | None:
    """Return a duration option in seconds, None when it was not given. Raises UsageError."""
    if not text:
        return None
    from forge.model.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def pick(name: str, known: list[str], what: str) -> str:
    """Return `name` when it is one of `known`. Raises UsageError with a suggestion."""
    if name in known:
        return name
    raise UsageError(f"there is no {what} `{name}`", hint=did_you_mean(name, known) or f"there is no {what} yet")


def run_id(text: str) -> str:
    """Return a run's id: `run-3` for `run-3` and `3`."""
    return f"run-{text}" if text.isdigit() else text
