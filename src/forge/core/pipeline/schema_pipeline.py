"""The whole file: pipeline, jobs, templates; and the JSON Schema for editors, from the same models."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    Condition,
    Count,
    Env,
    InsidePath,
    Leaf,
    Name,
    Section,
    Text,
    TextList,
    Timeout,
    Title,
    wrong,
)
from forge.core.pipeline.schema_environment import EnvironmentModel
from forge.core.pipeline.schema_gate import (
    ConcurrencyModel,
    ParameterModel,
    RetryModel,
    SecretModel,
    TriggerModel,
    check_value_names,
)
from forge.core.pipeline.schema_runner import RunnerModel
from forge.core.pipeline.schema_steps import StepModel


def _axes(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise leaves.LeafError(f"must be a mapping of axes to lists, not {leaves.kind_of(value)}", "write `os: [a, b]`")
    axes: dict[str, Any] = {}
    for name, values in value.items():
        if name in {"include", "exclude"}:
            axes[name] = _combinations(name, values)
        elif name.startswith("x-"):
            continue
        elif not leaves.ENV_NAME.fullmatch(name):
            raise leaves.LeafError(f"has an axis that expressions cannot name: `{name[:60]}`", at=name)
        elif not isinstance(values, list):
            raise leaves.LeafError(f"has {leaves.kind_of(values)} for `{name}`", f"write `{name}: [a, b]`", at=name)
        else:
            axes[name] = [_value(name, item) for item in values]
    return axes


def _combinations(name: str, values: Any) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(entry, dict) and entry for entry in values):
        raise leaves.LeafError(f"has an `{name}` that is not a list of mappings", "write `- os: linux`", at=name)
    return [{key: _value(name, item) for key, item in entry.items()} for entry in values]


def _value(name: str, value: Any) -> Any:
    try:
        content = leaves.scalar(value)
        leaves.title(str(content))
        return content
    except leaves.LeafError as error:
        raise leaves.LeafError(f"has a value in `{name}` that {error}", at=name) from None


_MATRIX_SCHEMA = {
    "type": "object",
    "additionalProperties": {"type": "array"},
    "properties": {
        "include": {"type": "array", "items": {"type": "object"}},
        "exclude": {"type": "array", "items": {"type": "object"}},
    },
}
Matrix = Annotated[dict[str, list[Any]], Leaf(_axes, _MATRIX_SCHEMA)]


def _arguments(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise leaves.LeafError(f"must be a mapping of parameters to values, not {leaves.kind_of(value)}")
    return {name: leaves.scalar(item) for name, item in value.items()}


class JobBody(Section):
    """What a job and a template share."""

    steps: list[StepModel] = Field(default_factory=list)
    when: Condition = ""
    matrix: Matrix | None = None
    env: Env = Field(default_factory=dict)
    timeout: Timeout | None = None
    retry: RetryModel | None = None
    on_failure: list[StepModel] = Field(default_factory=list)
    always: list[StepModel] = Field(default_factory=list)
    working_directory: InsidePath = ""
    shell: Text = ""
    concurrency: ConcurrencyModel | None = None
    runner: RunnerModel | None = None
    environment: Name = ""


class JobModel(JobBody):
    """One job."""

    title: ClassVar[str] = "a job"
    depends_on: TextList = ()
    trigger: TriggerModel | None = None
    template: Text = ""
    with_: Annotated[dict[str, Any], Leaf(_arguments, {"type": "object"})] = Field(default_factory=dict, alias="with")

    @model_validator(mode="after")
    def _has_work(self) -> JobModel:
        if self.template and self.steps:
            raise wrong("has both `steps` and `template`", "keep one of the two")
        if not self.template and not self.steps:
            raise wrong("has no steps", "write `steps:` and at least one step, such as `- run: make`", "no-steps")
        if self.with_ and not self.template:
            raise wrong("has `with` but no `template`", "`with` gives values to a template's parameters")
        return self


class TemplateModel(JobBody):
    """A job to be reused, with parameters of its own."""

    title: ClassVar[str] = "a template"
    description: Text = ""
    parameters: dict[str, ParameterModel] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_work(self) -> TemplateModel:
        if not self.steps:
            raise wrong("has no steps", "write `steps:` and at least one step, such as `- run: make`", "no-steps")
        check_value_names(self.parameters)
        return self


class DefaultsModel(Section):
    """What holds for every job that does not say otherwise."""

    title: ClassVar[str] = "defaults"
    timeout: Timeout | None = None
    retry: RetryModel | None = None
    working_directory: InsidePath = ""
    shell: Text = ""
    runner: RunnerModel | None = None


def _secrets(value: Any) -> dict[str, Any]:
    """A list of names stands for environment variables of these names."""
    if isinstance(value, list):
        return {leaves.text(name): None for name in value}
    if not isinstance(value, dict):
        raise wrong(f"must be a mapping of names or a list of names, not {leaves.kind_of(value)}")
    return value


class PipelineModel(Section):
    """`forge/pipeline.yaml`."""

    title: ClassVar[str] = "the pipeline"
    editor_forms: ClassVar[dict[str, dict[str, Any]]] = {"secrets": {"type": "array", "items": {"type": "string"}}}
    name: Title = ""
    description: Text = ""
    env: Env = Field(default_factory=dict)
    parameters: dict[str, ParameterModel] = Field(default_factory=dict)
    secrets: dict[str, SecretModel] = Field(default_factory=dict)
    concurrency: ConcurrencyModel | None = None
    defaults: DefaultsModel = Field(default_factory=DefaultsModel)
    max_parallel: Count = 0
    templates: dict[str, TemplateModel] = Field(default_factory=dict)
    include: TextList = ()
    environments: dict[str, EnvironmentModel] = Field(default_factory=dict)
    jobs: dict[str, JobModel]

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A pipeline has no short form."""
        raise wrong(f"must be a mapping with `jobs`, not {leaves.kind_of(value)}", "begin with `jobs:`")

    @classmethod
    def respell(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Secrets may be a list of names."""
        value = super().respell(value)
        if "secrets" in value:
            value["secrets"] = _secrets(value["secrets"])
        return value


class EnvironmentsModel(Section):
    """`forge/environments.yaml`."""

    title: ClassVar[str] = "the environments file"
    environments: dict[str, EnvironmentModel]

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The names may stand at the top, too: the document is brought into one form when it is read."""
        schema = super().__get_pydantic_json_schema__(core, handler)
        body = handler.resolve_ref_schema(schema)
        body["additionalProperties"] = body["properties"]["environments"]["additionalProperties"]
        del body["required"]
        return schema


class TemplatesModel(Section):
    """A file that `include` names."""

    title: ClassVar[str] = "an included file"
    templates: dict[str, TemplateModel]


def json_schema(kind: Literal["pipeline", "environments", "templates"] = "pipeline") -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one of the three files."""
    models: dict[str, type[Section]] = {
        "pipeline": PipelineModel,
        "environments": EnvironmentsModel,
        "templates": TemplatesModel,
    }
    schema = models[kind].model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"Forge {kind}"}
