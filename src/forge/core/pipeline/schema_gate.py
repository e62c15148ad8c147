"""Gates and values that people give: approvals, parameters, inputs, retries, concurrency."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.scalars import written
from forge.core.pipeline.schema_base import (
    SCALAR_SCHEMA,
    AnyScalar,
    Duration,
    Flag,
    Leaf,
    Name,
    Number,
    Positive,
    Section,
    Text,
    TextList,
    Timeout,
    choice,
    wrong,
)
from forge.model.diagnostics import did_you_mean
from forge.model.plan import Approval, Concurrency, Parameter, Retry, Scalar, SecretReference

PARAMETER_TYPES = ("string", "number", "boolean", "choice")
VALUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ParameterModel(Section):
    """A typed value. A bare value is its default; a list is a choice; a type's name is just its type."""

    title: ClassVar[str] = "a parameter"
    short: ClassVar[str] = "default"
    short_schema: ClassVar[dict[str, Any]] = {"type": ["string", "number", "boolean", "array", "null"]}
    type: Annotated[Any, choice(*PARAMETER_TYPES)] = ""
    description: Text = ""
    default: AnyScalar | None = None
    required: Flag = False
    options: TextList = ()

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """`[a, b]`: a choice; `string`: a type; anything else: a default; nothing: a string."""
        if value is None:
            return {"type": "string"}
        if isinstance(value, list):
            return {"type": "choice", "options": value}
        return {"type": value} if value in PARAMETER_TYPES else {"default": value}

    @model_validator(mode="after")
    def _fits(self) -> ParameterModel:
        if self.kind == "choice" and not self.options:
            raise wrong("is a choice without `options`", "write `options: [a, b]`")
        if self.options and self.kind != "choice":
            raise wrong(f"has `options` but is a {self.kind}", "write `type: choice`")
        if self.default is not None:
            problem = misfit(self.default, self.kind, self.options)
            if problem:
                raise wrong(f"has a default that {problem}", "")
        return self

    @property
    def kind(self) -> Any:
        """The declared type, or the one that the default or the options tell."""
        if self.type:
            return self.type
        if self.options:
            return "choice"
        if isinstance(self.default, bool):
            return "boolean"
        return "number" if isinstance(self.default, (int, float)) else "string"

    def parameter(self, name: str) -> Parameter:
        """Return it as plain data."""
        default = None if self.default is None else convert(self.default, self.kind)
        return Parameter(name, self.kind, self.description, default, self.required, self.options)


def misfit(value: Any, kind: str, options: tuple[str, ...]) -> str:
    """Return why a value does not fit a type, or nothing. Text that reads as the type fits."""
    text = written(value)
    if kind == "number" and not re.fullmatch(r"[-+]?\d{1,15}(\.\d{1,15})?", text):
        return f"is not a number: {leaves.shown(value)}"
    if kind == "boolean" and text not in {"true", "false"}:
        return f"is not `true` or `false`: {leaves.shown(value)}"
    if kind == "choice" and text not in options:
        return f"is not one of {', '.join(f'`{option}`' for option in options)}: {leaves.shown(value)}"
    return ""


def convert(value: Any, kind: str) -> Scalar:
    """Return a fitting value in the type's own form."""
    text = written(value)
    if kind == "boolean":
        return text == "true"
    if kind == "number":
        return float(text) if "." in text else int(text)
    return text


def _parameters(value: Any) -> Any:
    if not isinstance(value, dict):
        raise leaves.LeafError(f"must be a mapping of names to parameters, not {leaves.kind_of(value)}")
    return value


def named_values(models: Mapping[str, ParameterModel]) -> tuple[Parameter, ...]:
    """Return the declared parameters in the file's order."""
    return tuple(model.parameter(name) for name, model in models.items())


def check_value_names(models: Mapping[str, ParameterModel]) -> None:
    """Raise the error of the first name that expressions could not say."""
    for name in models:
        if not VALUE_NAME.fullmatch(name):
            raise wrong(
                f"has a value that expressions cannot name: {leaves.shown(name)}", "use letters, digits and `_`"
            )


class ApprovalModel(Section):
    """A person's gate; a bare text is its message."""

    title: ClassVar[str] = "a gate"
    short: ClassVar[str] = "message"
    message: Text = ""
    required: Positive = 1
    approvers: TextList = ()
    allow_self: Flag = True
    inputs: dict[str, ParameterModel] = Field(default_factory=dict)
    timeout: Timeout | None = None

    @model_validator(mode="after")
    def _can_open(self) -> ApprovalModel:
        check_value_names(self.inputs)
        people = len(set(self.approvers))
        if self.approvers and self.required > people:
            raise wrong(
                f"can never open: {self.required} people must approve, but only {people} may",
                f"add approvers, or write `required: {people}`",
                "gate-never-opens",
            )
        return self

    def approval(self) -> Approval:
        """Return it as plain data."""
        return Approval(
            self.message,
            self.required,
            tuple(dict.fromkeys(self.approvers)),
            self.allow_self,
            named_values(self.inputs),
            self.timeout,
        )


class TriggerModel(Section):
    """`automatic`, `manual`, or `manual:` with what the gate asks for."""

    title: ClassVar[str] = "trigger"
    short: ClassVar[str] = "word"
    short_schema: ClassVar[dict[str, Any]] = {"enum": ["automatic", "manual"]}
    manual: ApprovalModel | None = None

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """`manual` is a gate that asks nothing."""
        known = ("automatic", "manual")
        if value == "manual":
            return {"manual": {}}
        if value == "automatic":
            return {}
        if isinstance(value, str):
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, known))
        raise wrong(f"must be `automatic`, `manual` or a mapping with `manual`, not {leaves.kind_of(value)}")


class RetryModel(Section):
    """A bare number is how often it is tried in all."""

    title: ClassVar[str] = "retry"
    short: ClassVar[str] = "attempts"
    short_schema: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 1}
    attempts: Positive = 3
    delay: Duration = 1.0
    factor: Number = 2.0
    max_delay: Duration = 300.0

    @model_validator(mode="after")
    def _bounded(self) -> RetryModel:
        if self.attempts > 100:
            raise wrong(f"tries {self.attempts} times", "at most 100 attempts")
        if self.factor < 1:
            raise wrong("has a `factor` below 1, so that delays shrink", "write 1 for equal delays, 2 to double them")
        return self

    def retry(self) -> Retry:
        """Return it as plain data."""
        return Retry(self.attempts, self.delay, self.factor, self.max_delay)


class ConcurrencyModel(Section):
    """A bare text is the group's name."""

    title: ClassVar[str] = "concurrency"
    short: ClassVar[str] = "group"
    group: Name
    limit: Positive = 1
    when_busy: Annotated[Any, choice("queue", "cancel_running")] = "queue"

    def concurrency(self) -> Concurrency:
        """Return it as plain data."""
        return Concurrency(self.group, self.limit, self.when_busy)


class SecretModel(Section):
    """Where a secret comes from; nothing: an environment variable of its own name."""

    title: ClassVar[str] = "a secret"
    short_schema: ClassVar[dict[str, Any]] = {"type": "null"}
    env: Text = ""
    file: Text = ""
    command: Annotated[tuple[str, ...], Leaf(leaves.argv, {"type": ["string", "array"]})] = ()

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """Nothing stands for the environment variable of the same name."""
        return {} if value is None else super().from_short(value)

    @model_validator(mode="after")
    def _one_source(self) -> SecretModel:
        if sum(map(bool, (self.env, self.file, self.command))) > 1:
            raise wrong("comes from more than one place", "keep one of `env`, `file` and `command`")
        if self.env and not leaves.ENV_NAME.fullmatch(self.env):
            raise wrong(f"comes from an environment variable that cannot exist: `{self.env}`")
        return self

    def reference(self, name: str) -> SecretReference:
        """Return where the secret of that name comes from, as plain data."""
        return SecretReference(name, "" if self.file or self.command else self.env or name, self.file, self.command)


__all__ = ["SCALAR_SCHEMA", "ApprovalModel", "ConcurrencyModel", "ParameterModel", "RetryModel", "SecretModel"]
