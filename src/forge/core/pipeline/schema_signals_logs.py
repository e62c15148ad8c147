"""Log lines as signals: the local target's own logs, Elasticsearch and OpenSearch, Loki."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from forge.core.pipeline.schema_base import Section, Text, TextList, choice, wrong

FORMATS = ("auto", "json", "logfmt", "text")


class LogsModel(Section):
    """The log files of the local target's replicas."""

    title: ClassVar[str] = "the signals of logs"
    errors: Text = ""
    ignore: TextList = ()
    format: Annotated[str, choice(*FORMATS)] = "auto"

    @model_validator(mode="after")
    def _patterns(self) -> LogsModel:
        for key, patterns in (("errors", (self.errors,)), ("ignore", self.ignore)):
            for pattern in patterns:
                _compiles(pattern, key)
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        return {"errors": self.errors, "ignore": list(self.ignore), "format": self.format}


def _compiles(pattern: str, key: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        place = f" at character {error.pos + 1}" if error.pos is not None else ""
        raise wrong(
            f"is no regular expression: {error.msg}{place} of `{pattern[:60]}`",
            "signs such as `(`, `[`, `*` and `?` need a `\\` in front where they stand for themselves",
            at=key,
        ) from None
