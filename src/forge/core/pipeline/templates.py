"""Job templates: a template is a function of its own typed parameters, filled in when the plan is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from forge.core.pipeline.expression_words import reference_list
from forge.core.pipeline.expressions import ExpressionError, evaluate, fragments, references, replace_fragments
from forge.core.pipeline.schema_gate import ParameterModel, convert, misfit
from forge.model.diagnostics import did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bindings:
    """What each of a template's parameters stands for: a CEL literal, or an expression of the caller's."""

    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Misuse:
    """An argument that a template does not take; `argument` empty: the call as a whole."""

    argument: str
    message: str
    hint: str = ""


def bind(
    template: str, parameters: Mapping[str, ParameterModel], given: Mapping[str, Any]
) -> tuple[Bindings, list[Misuse]]:
    """Return what the parameters stand for in a call, and everything that is wrong with the call."""
    problems: list[Misuse] = []
    values: dict[str, str] = {}
    for name, value in given.items():
        if name not in parameters:
            hint = did_you_mean(name, tuple(parameters)) or "the template takes no parameters"
            problems.append(Misuse(name, f"the template `{template}` has no parameter `{name}`", hint))
            continue
        expression, problem = _argument(value, parameters[name])
        if problem:
            problems.append(Misuse(name, f"the parameter `{name}` of `{template}` {problem}"))
        else:
            values[name] = expression
    for name, model in parameters.items():
        if name in given:
            continue
        parameter = model.parameter(name)
        if parameter.required or parameter.default is None:
            message = f"the template `{template}` needs a value for `{name}`"
            problems.append(Misuse("", message, f"add `with: {{{name}: ...}}`"))
        else:
            values[name] = literal(parameter.default)
    return Bindings(values), problems


def _argument(value: Any, model: ParameterModel) -> tuple[str, str]:
    if isinstance(value, str) and "${{" in value:
        try:
            found = fragments(value)
        except ExpressionError as error:
            return "", f"is not valid: {error}"
        if len(found) != 1 or not (value.strip().startswith("${{") and value.strip().endswith("}}")):
            return "", "mixes text and expressions; make it one `${{ ... }}`"
        return f"({found[0]})", ""
    problem = misfit(value, model.kind, model.options)
    return ("", problem) if problem else (literal(convert(value, model.kind)), "")


def literal(value: Any) -> str:
    """Return a scalar as CEL writes it."""
    return json.dumps(value, ensure_ascii=False)


def substitute(plan: T, kind: type[T], bindings: Bindings) -> T:
    """Return a step or job plan with the template's parameters filled in."""
    data = msgspec.to_builtins(plan)
    condition = data.pop("when", "")
    filled = {**_walk(data, bindings), "when": substitute_expression(condition, bindings)}
    return msgspec.convert(filled, kind)


def _walk(value: Any, bindings: Bindings) -> Any:
    if isinstance(value, str):
        return substitute_text(value, bindings)
    if isinstance(value, dict):
        return {name: _walk(item, bindings) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item, bindings) for item in value]
    return value


def substitute_text(text: str, bindings: Bindings) -> str:
    """Return text whose `${{ }}` have the parameters filled in; what needs nothing else becomes its value."""

    def filled(expression: str) -> str:
        changed = substitute_expression(expression, bindings)
        if changed == expression:
            return f"${{{{ {expression} }}}}"
        if not references(changed):
            try:
                value = evaluate(changed, {})
            except ExpressionError:
                return f"${{{{ {changed} }}}}"
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return f"${{{{ {changed} }}}}"

    return replace_fragments(text, filled) if "${{" in text else text


def substitute_expression(expression: str, bindings: Bindings) -> str:
    """Return an expression with `params.NAME` replaced by what it stands for."""
    result, last = "", 0
    for reference in reference_list(expression):
        path = reference.path
        if path[0] == "params" and len(path) == 2 and path[1] in bindings.values:
            result += expression[last : reference.start] + bindings.values[path[1]]
            last = reference.end
    return result + expression[last:]
