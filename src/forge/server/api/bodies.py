"""What writes take: bodies that users send, with words for what does not fit."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Word = Annotated[str, Field(max_length=250)]
Comment = Annotated[str, Field(max_length=4000, description="Why; kept with the decision.", examples=["looks good"])]
Scalar = str | int | float | bool


class Body(BaseModel):
    """A JSON object; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StartRun(Body):
    """What to run. `parameters` are those of the pipeline; `ref` is for projects from Git."""

    parameters: dict[Annotated[str, Field(max_length=250)], Annotated[Scalar, Field()]] = Field(
        default={}, max_length=200, examples=[{}]
    )
    ref: Word = Field(default="", description="A branch, tag or commit; empty: the project's own.", examples=[""])

    def given(self) -> dict[str, str]:
        """Return the parameters as text, as on a command line."""
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.parameters.items()
        }


class Vote(Body):
    """A word at a gate. `job` may be left out when one job waits."""

    job: Word = ""
    comment: Comment = ""
    inputs: dict[Annotated[str, Field(max_length=250)], Any] = Field(
        default={}, max_length=200, description="The gate's fields."
    )


class Refusal(Body):
    """A no at a gate. `job` may be left out when one job waits."""

    job: Word = ""
    comment: Comment = ""


class Cancel(Body):
    """What to stop: the run, or one of its jobs. `force`: not even steps that always run are waited for."""

    job: Word = ""
    comment: Comment = ""
    force: bool = False


class Nothing(Body):
    """A write that needs no words; the body may be left out."""


Reason = Annotated[
    str,
    Field(
        max_length=4000, description="The reason to do it against what the judge says; goes on record.", examples=[""]
    ),
]


class Steer(Body):
    """A word to a release. Without `release` it is the newest under way."""

    release: Word = Field(default="", examples=[""])
    comment: Comment = ""


class Promote(Steer):
    """A word to go on. `full`: all the way at once."""

    full: bool = False
    override: Reason = ""


class Rollback(Body):
    """Where to go back to: a version (`to`), or the one before."""

    to: Word = Field(default="", examples=[""])
    comment: Comment = ""
    override: Reason = ""
