"""From a document to checked models: every error in words of ours, and what is sound in spite of them.

What is wrong is cut out and the rest is checked again, so that one typo does not hide a cycle elsewhere.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from forge.core.pipeline.document import Document, Path
from forge.core.pipeline.schema_base import Section, Seen
from forge.model.diagnostics import Diagnostic, did_you_mean

M = TypeVar("M", bound=Section)

STEP_LISTS = frozenset({"steps", "on_failure", "always"})
FOREIGN = {
    "needs": "depends_on", "requires": "depends_on", "dependencies": "depends_on", "if": "when", "only": "when",
    "script": "run", "command": "run", "cmd": "run", "timeout-minutes": "timeout", "timeout_minutes": "timeout",
    "working-directory": "working_directory", "cwd": "working_directory", "variables": "env", "environment": "env",
    "params": "parameters", "upload": "publish", "uses": "template", "strategy": "matrix", "inputs": "parameters",
    "thresholds": "checks", "max-parallel": "max_parallel", "finally": "always", "ensure": "always",
}  # fmt: skip
"""How other tools call it."""
_MAX_ROUNDS = 8
MAX_TOLD = 1000
"""So many problems are told of a file; nobody reads more, and telling takes time."""
_EXTRA = "extra_forbidden"


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """`model` is None when nothing could be saved; `whole` False: something was cut out."""

    model: M | None
    problems: tuple[Diagnostic, ...]
    whole: bool


def validate(model: type[M], document: Document) -> Validated[M]:
    """Check a document against a model and return what is sound, with every problem found."""
    data = document.data
    problems: list[Diagnostic] = []
    told: set[tuple[Any, ...]] = set()
    cut: set[Path] = set()
    for round_number in range(_MAX_ROUNDS):
        seen = Seen()
        try:
            checked = model.model_validate(data, context=seen)
        except ValidationError as errors:
            if round_number == 0:
                data = copy.deepcopy(data)
                # The keys of `seen` are identities of the data that was checked: check the copy once more.
                seen = Seen()
                errors = _errors(model, data, seen) or errors
            found = [(_written(tuple(error["loc"]), data), error) for error in errors.errors(include_url=False)]
            misspelt = {(*path[:-1], _meant(path, data, seen)) for path, error in found if error["type"] == _EXTRA}
            for path, error in found[:MAX_TOLD]:
                if _follows(path, error["type"], cut) or (error["type"] == "missing" and path in misspelt):
                    continue
                diagnostic = _diagnostic(document, path, error, data, seen)
                if (mark := (diagnostic.line, diagnostic.column, diagnostic.message)) not in told:
                    told.add(mark)
                    problems.append(diagnostic)
            if len(found) > MAX_TOLD:
                problems.append(Diagnostic("too-many", f"and {len(found) - MAX_TOLD:,} problems more", document.file))
                return Validated(None, _in_order(problems), whole=False)
            for path, error in found:
                cut |= {path, path[:-1]} if error["type"] == "missing" else {path}
                if not _cut(data, path, error["type"]):
                    return Validated(None, _in_order(problems), whole=False)
        else:
            return Validated(checked, _in_order(problems), whole=not problems)
    return Validated(None, _in_order(problems), whole=False)


def _written(path: Path, data: Any) -> Path:
    """Return the path as it stands in the file, where one value may stand for a list of one."""
    for index, part in enumerate(path):
        if isinstance(part, int) and not isinstance(_at(data, path[:index]), list):
            return _written((*path[:index], *path[index + 1 :]), data)
    return path


def _follows(path: Path, kind: str, cut: set[Path]) -> bool:
    """Tell whether an error is only there because something was cut out before."""
    return (kind == "missing" and path in cut) or any(gone[:-1] == path for gone in cut)


def _meant(path: Path, data: Any, seen: Seen) -> str:
    """Return the key that an unknown key most likely stands for."""
    known = seen.known.get(id(_at(data, path[:-1])), ())
    return did_you_mean(str(path[-1]), known).removeprefix("did you mean `").removesuffix("`?")


def _errors(model: type[M], data: Any, seen: Seen) -> ValidationError | None:
    try:
        model.model_validate(data, context=seen)
    except ValidationError as errors:
        return errors
    return None


def _in_order(problems: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))


def _diagnostic(document: Document, path: Path, error: Any, data: Any, seen: Seen) -> Diagnostic:
    kind = error["type"]
    last = str(path[-1]) if path else ""
    if kind == _EXTRA:
        return _unknown_key(document, path, last, data, seen)
    if kind == "missing":
        owner = seen.titles.get(id(_at(data, path[:-1])), _subject(path[:-1]))
        hint = f"add `{last}:`"
        return document.problem("missing-key", f"{owner} needs `{last}`", path[:-1], hint=hint, key=True)
    context = error.get("ctx", {})
    if path and path[-1] == "[key]":
        path = path[:-1]
        context["at"] = "\0"
    if kind == "forge":
        path = document.existing(path)
        at = context.get("at") or ""
        inside = (*path, at) if at and at != "\0" else path
        message = f"{_subject(path)} {context['message']}"
        key = bool(at) or context["code"] in {"gate-never-opens", "no-steps", "step-kind"}
        return document.problem(context["code"], message, inside, hint=context["hint"], key=key)
    expected = {
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "string_type": "text",
        "recursion_loop": "no loop of aliases",
    }.get(kind, "something else")
    from forge.core.pipeline.leaves import kind_of

    hint = "write each item on a line of its own, begun with `- `" if kind == "list_type" else ""
    message = f"{_subject(path)} must be {expected}, not {kind_of(error['input'])}"
    return document.problem("type", message, path, hint=hint)


def _unknown_key(document: Document, path: Path, last: str, data: Any, seen: Seen) -> Diagnostic:
    owner = _at(data, path[:-1])
    known = seen.known.get(id(owner), ())
    where = seen.titles.get(id(owner), _subject(path[:-1]))
    meant = FOREIGN.get(last)
    hint = f"did you mean `{meant}`?" if meant in known else did_you_mean(last, known)
    if not known:
        hint = "it takes no keys"
    return document.problem("unknown-key", f"{where} has no key `{last}`", path, hint=hint, key=True)


def _subject(path: Path) -> str:
    """Return how a message calls what is at a path: `jobs.build.timeout`, `jobs.build.steps[2]`."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return f"`{text}`" if text else "the file"


def _at(data: Any, path: Path) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            other = {"artifact": "artefact", "for_": "for"}.get(str(part))
            if not isinstance(data, dict) or other not in data:
                return None
            data = data[other]
    return data


def _cut(data: Any, path: Path, kind: str) -> bool:
    """Remove what is wrong. A step becomes one that does nothing, so that the others keep their numbers."""
    if kind == "missing" or path[-1:] == ("[key]",):
        path = path[:-1]
    for depth in range(len(path) - 1):
        steps = _at(data, path[: depth + 1])
        index = path[depth + 1]
        if path[depth] in STEP_LISTS and isinstance(index, int) and isinstance(steps, list):
            if len(path) > depth + 2 or kind != _EXTRA:
                steps[index] = {"run": ":"}
            return True
    for length in range(len(path), 0, -1):
        owner, last = _at(data, path[: length - 1]), path[length - 1]
        if isinstance(owner, dict):
            if last not in owner and last == "artifact":
                last = "artefact"
            owner.pop(last, None)
            return True
    return False
