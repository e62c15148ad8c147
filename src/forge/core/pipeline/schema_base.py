"""What every section of the user's file has in common: words of ours for what is wrong, and short forms.

A leaf type is a function from YAML data to a value that raises `wrong(...)`; no union types, so that an
error says what is expected here instead of what each branch would have liked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationInfo, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from forge.core.pipeline import leaves

MISSING_HINT = "remove the key, or give it a value"


def wrong(message: str, hint: str = "", code: str = "value", at: str = "") -> PydanticCustomError:
    """Return the error for a value that does not fit; `message` goes after the key's name.

    `at` is the key inside the value that is to be pointed at.
    """
    return PydanticCustomError("forge", "{message}", {"message": message, "hint": hint, "code": code, "at": at})


class Leaf:
    """Metadata for `Annotated`: `read` turns YAML data into the value; `schema` is what editors are told."""

    def __init__(self, read: Callable[[Any], Any], schema: dict[str, Any]) -> None:
        self.read = read
        self.schema = schema

    def validate(self, value: Any) -> Any:
        """Return the value, or raise the error in our words."""
        try:
            return self.read(value)
        except leaves.LeafError as error:
            raise wrong(str(error), error.hint, error.code, error.at) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self.schema)


TEXT_SCHEMA: dict[str, Any] = {"type": ["string", "number"]}
DURATION_SCHEMA: dict[str, Any] = {"type": ["string", "number"], "examples": ["30s", "5m", "1h30m"]}
FRACTION_SCHEMA: dict[str, Any] = {"type": ["string", "number"], "examples": ["5%"]}
SIZE_SCHEMA: dict[str, Any] = {"type": ["string", "integer"], "examples": ["512MiB"]}
LIST_SCHEMA: dict[str, Any] = {"anyOf": [TEXT_SCHEMA, {"type": "array", "items": TEXT_SCHEMA}]}
SCALAR_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean"]}

Text = Annotated[str, Leaf(leaves.text, TEXT_SCHEMA)]
Script = Annotated[str, Leaf(leaves.script, TEXT_SCHEMA)]
Command = Annotated[tuple[str, ...], Leaf(leaves.command, LIST_SCHEMA)]
Name = Annotated[str, Leaf(leaves.name, TEXT_SCHEMA)]
ArtifactName = Annotated[str, Leaf(leaves.artifact_name, TEXT_SCHEMA)]
InsidePath = Annotated[str, Leaf(leaves.inside_path, {"type": "string"})]
Duration = Annotated[float, Leaf(leaves.duration, DURATION_SCHEMA)]
Timeout = Annotated[float, Leaf(leaves.timeout, DURATION_SCHEMA)]
Title = Annotated[str, Leaf(leaves.title, TEXT_SCHEMA)]
Fraction = Annotated[float, Leaf(leaves.fraction, FRACTION_SCHEMA)]
Cores = Annotated[float, Leaf(leaves.cores, FRACTION_SCHEMA)]
Weight = Annotated[int, Leaf(leaves.weight, FRACTION_SCHEMA)]
Size = Annotated[int, Leaf(leaves.size, SIZE_SCHEMA)]
Count = Annotated[int, Leaf(leaves.count, {"type": "integer", "minimum": 0})]
Positive = Annotated[int, Leaf(leaves.positive, {"type": "integer", "minimum": 1})]
Number = Annotated[float, Leaf(leaves.number, {"type": "number", "minimum": 0})]
Flag = Annotated[bool, Leaf(leaves.flag, {"type": "boolean"})]
TextList = Annotated[tuple[str, ...], Leaf(leaves.text_list, LIST_SCHEMA)]
Env = Annotated[
    dict[Annotated[str, Leaf(leaves.env_name, {})], Annotated[str, Leaf(leaves.env_value, {})]],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": SCALAR_SCHEMA,
            "propertyNames": {"pattern": leaves.ENV_NAME.pattern.join("^$")},
        }
    ),
]
Condition = Annotated[str, Leaf(leaves.condition, {"type": ["string", "boolean"]})]
AnyScalar = Annotated[str | int | float | bool, Leaf(leaves.scalar, SCALAR_SCHEMA)]


def choice(*known: str) -> Leaf:
    """Return the metadata for one of a few words."""
    return Leaf(lambda value: leaves.one_of(value, known), {"enum": list(known)})


class Seen:
    """What validation met: the keys that each of the user's mappings may have, by the mapping's identity."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[str, ...]] = {}
        self.titles: dict[int, str] = {}


class Section(BaseModel):
    """A mapping with fixed keys. `short` names the field that a bare value stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)
    title: ClassVar[str] = "this section"
    """How messages call it."""
    short: ClassVar[str] = ""
    short_schema: ClassVar[dict[str, Any]] = TEXT_SCHEMA
    spellings: ClassVar[Mapping[str, str]] = {}
    """Other spellings of a key, with the key that they stand for."""

    editor_schema: ClassVar[dict[str, Any]] = {}
    """What editors are told beyond the fields."""
    editor_forms: ClassVar[Mapping[str, dict[str, Any]]] = {}
    """Other forms of a key's value."""

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, BaseModel):
            return value
        if not isinstance(value, dict):
            value = cls.from_short(value)
        if isinstance(info.context, Seen):
            info.context.known[id(value)] = cls.keys()
            info.context.titles[id(value)] = cls.title
        return cls.respell({key: item for key, item in value.items() if not key.startswith("x-")})

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the keys that the mapping may have."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """Return the mapping that a bare value stands for."""
        if value is None:
            raise wrong("is empty", MISSING_HINT)
        if not cls.short or isinstance(value, list):
            expected = "a mapping or a text" if cls.short else "a mapping"
            raise wrong(f"must be {expected}, not {leaves.kind_of(value)}", f"it may have {listed(cls.keys())}")
        return {cls.short: value}

    @classmethod
    def respell(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Return the mapping with other spellings of keys (`artefact`) replaced."""
        for other, key in cls.spellings.items():
            if other in value and key in value:
                raise wrong(f"has both `{other}` and `{key}`", "they are the same; keep one")
            if other in value:
                value = {(key if name == other else name): item for name, item in value.items()}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Tell editors about `x-` keys, other spellings and the short form."""
        schema = handler(core)
        body = handler.resolve_ref_schema(schema)
        body.update({"patternProperties": {"^x-": {}}, **cls.editor_schema})
        for other, key in cls.spellings.items():
            body["properties"][other] = body["properties"][key]
            if key in body.get("required", []):
                body["required"] = [name for name in body["required"] if name != key]
                body["oneOf"] = [{"required": [key]}, {"required": [other]}]
        for name, form in cls.editor_forms.items():
            body["properties"][name] = {"anyOf": [form, body["properties"][name]]}
        return {"anyOf": [cls.short_schema, schema]} if cls.short or "short_schema" in vars(cls) else schema


def plain(value: object) -> dict[str, Any]:
    """Return a struct as it will come back from the database: mappings, lists and scalars."""
    data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return data


def listed(names: tuple[str, ...]) -> str:
    """Return names as people list them: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
