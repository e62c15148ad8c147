"""Expressions: CEL over the run's values, checked before a run and evaluated in it, within a budget.

CEL cannot loop for ever or reach the world, but it can double a text; so the length of an expression and
the number of its loops are bounded as well as its iterations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from forge.core.pipeline.expression_words import MACROS, MAX_LENGTH, Token, paths, tokens
from forge.model.diagnostics import did_you_mean

ROOTS = ("params", "env", "matrix", "inputs", "jobs", "steps", "run")
MAX_LOOPS = 3


class ExpressionError(ValueError):
    """An expression does not compile or cannot be evaluated; the message says why."""


def check(expression: str) -> str | None:
    """Return what is wrong with an expression, or None. Types are checked as far as they are known."""
    try:
        _compile(expression)
    except ExpressionError as error:
        return str(error)
    return None


def check_condition(condition: str) -> str | None:
    """Return what is wrong with a condition, or None: it compiles, and can be true or false."""
    try:
        kind = _compile(condition).return_type().name()
    except ExpressionError as error:
        return str(error)
    return None if kind in {"BOOL", "DYN"} else f"a condition must be true or false; this is {kind.lower()}"


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of an expression as plain data. Raises ExpressionError.

    A root that `variables` leaves out is an empty mapping.
    """
    program = _compile(expression)
    data = {root: _mapping(variables.get(root, {})) for root in ROOTS}
    try:
        result = program.eval(data=data)
        kind, value = result.type().name(), result.plain_value()
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ExpressionError(_runtime_words(str(error), expression)) from None
    if "ERROR" in kind.upper() or "UNKNOWN" in kind.upper():
        raise ExpressionError(_runtime_words(str(value), expression))
    return _plain(value, expression)


def holds(condition: str, variables: Mapping[str, Any]) -> bool:
    """Return the truth of a condition; anything but true or false raises ExpressionError."""
    value = evaluate(condition, variables)
    if not isinstance(value, bool):
        raise ExpressionError(f"`{_short(condition)}` is {_text(value)!r}, not true or false")
    return value


def interpolate(text: str, variables: Mapping[str, Any]) -> str:
    """Return `text` with each `${{ expression }}` replaced by its value; `$${{` stands for `${{` itself."""
    if "${{" not in text:
        return text
    return "".join(
        piece if kind == "text" else _text(evaluate(piece, variables)) for kind, piece in _pieces(text, strict=True)
    )


def fragments(text: str) -> list[str]:
    """Return the expressions in a text. Raises ExpressionError when one is never closed."""
    return [piece for kind, piece in _pieces(text, strict=True) if kind == "expression"]


def replace_fragments(text: str, replacement: Callable[[str], str]) -> str:
    """Return `text` with each `${{ expression }}` replaced by `replacement(expression)`; `$${{` stays."""
    return "".join(
        piece.replace("${{", "$${{") if kind == "text" else replacement(piece) if kind == "expression" else piece
        for kind, piece in _pieces(text, strict=False)
    )


def _pieces(text: str, *, strict: bool) -> Iterator[tuple[str, str]]:
    """Yield (`text`, as it reads), (`expression`, its inside) and, unless `strict`, (`rest`, never closed).

    A hand-written scanner: a regular expression would look for the end again from every beginning.
    """
    done = 0
    while (start := text.find("${{", done)) >= 0:
        if start > done and text[start - 1] == "$":
            yield "text", text[done : start - 1] + "${{"
            done = start + 3
            continue
        end = text.find("}}", start)
        if end < 0:
            if strict:
                raise ExpressionError(f"`{_short(text[start : start + 200])}` is never closed with `}}}}`")
            yield "text", text[done:start]
            yield "rest", text[start:]
            return
        yield "text", text[done:start]
        yield "expression", text[start + 3 : end].strip()
        done = end + 2
    yield "text", text[done:]


def references(expression: str) -> list[tuple[str, ...]]:
    """Return what an expression reads: `("jobs", "build", "outputs", "tag")`, without loop variables."""
    return [path for path in paths(expression) if path[0] in ROOTS]


@lru_cache(maxsize=1)
def _environment() -> Any:
    from cel_expr_python import cel

    loose = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables=dict.fromkeys(ROOTS, loose))


@lru_cache(maxsize=4096)
def _compile(expression: str) -> Any:
    if not expression.strip():
        raise ExpressionError("the expression is empty")
    if len(expression) > MAX_LENGTH:
        raise ExpressionError(f"the expression is longer than {MAX_LENGTH} characters")
    if "\0" in expression or any("\ud800" <= letter <= "\udfff" for letter in expression):
        raise ExpressionError("the expression is not valid text")
    words = tokens(expression)
    if sum(_is_loop(words, index) for index in range(len(words))) > MAX_LOOPS:
        raise ExpressionError(f"the expression has more than {MAX_LOOPS} loops")
    try:
        return _environment().compile(expression)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExpressionError(_compile_words(str(error), expression)) from None


def _is_loop(words: list[Token], index: int) -> bool:
    return words[index].text in MACROS and index > 0 and words[index - 1].text == "."


def _compile_words(message: str, expression: str) -> str:
    """Return CEL's complaint in words that a person who never heard of CEL understands."""
    first = message.split("\n", 1)[0]
    place = re.search(r"<input>:(\d+):(\d+): (.*)", first)
    problem = (place[3] if place else first).removesuffix(" [INVALID_ARGUMENT]")
    if unknown := re.match(r"undeclared reference to '([^']*)'", problem):
        return _unknown_words(unknown[1].split(".", 1)[0], expression)
    if operator := re.match(r"found no matching overload for '(\w+|_[^']*_|[^']*)' applied to '([^']*)'", problem):
        sign = operator[1].strip("_").replace("_", "")
        return f"`{sign}` does not work on {operator[2]}"
    if "recursion" in message:
        return "the expression is nested too deeply"
    if "'<EOF>'" in problem:
        return "the expression ends too early"
    if syntax := re.match(r"Syntax error: (?:mismatched|extraneous) input '([^']*)'", problem):
        return f"`{syntax[1]}` is not expected here (column {place[2] if place else 1})"
    if syntax := re.match(r"Syntax error: token recognition error at: '(.*)'", problem):
        return f"`{syntax[1].strip()}` means nothing in an expression"
    return f"the expression is not valid: {problem[:200]}"


def _unknown_words(name: str, expression: str) -> str:
    if name == "secrets":
        return "secrets cannot be used in expressions; steps see them as environment variables"
    if re.search(rf"\b{re.escape(name)}\s*\(", expression):
        return f"there is no function `{name}`"
    return f"`{name}` is not known here; {did_you_mean(name, ROOTS)}"


def _runtime_words(message: str, expression: str) -> str:
    if missing := re.search(r'Key not found in map : "([^"]*)"', message):
        return f"`{_short(expression)}`: there is no `{missing[1]}`"
    if "budget" in message:
        return f"`{_short(expression)}` takes too long"
    if "No matching overloads" in message:
        return f"`{_short(expression)}` mixes types that do not go together"
    problem = re.sub(r"^[A-Z_]+: ", "", message.split("\n", 1)[0])
    return f"`{_short(expression)}`: {problem[:200]}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else f"{flat[:57]}..."


def _mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _plain(value: Any, expression: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_plain(item, expression) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, expression) for key, item in value.items()}
    raise ExpressionError(f"`{_short(expression)}` is not text, a number, a boolean, a list or a mapping")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
