"""The policy of an environment: how releases overlap, and the gates before them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any, ClassVar
from zoneinfo import available_timezones

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.leaves import LeafError
from forge.core.pipeline.schema_base import (
    FRACTION_SCHEMA,
    Duration,
    Flag,
    Fraction,
    Leaf,
    Positive,
    Section,
    Text,
    TextList,
    Timeout,
    Weight,
    choice,
    plain,
    wrong,
)
from forge.core.policy import windows
from forge.model.diagnostics import did_you_mean
from forge.model.policy import Approvals, Freeze, LowBudget, MaxReleases, ReleasePolicy, Slo, Window

WINDOW_HINT = "write it like `Mon-Fri 09:00-16:00 Europe/Berlin`, or {cron: 0 9 * * 1-5, lasts: 7h, zone: ...}"
FREEZE_HINT = "write a date (2026-12-24) or a local time (2026-12-24T18:00)"
LONGEST_WINDOW = 90 * 86400.0


def _zone(value: Any) -> str:
    name = leaves.text(value)
    try:
        windows.zone(name)
    except ValueError as error:
        near = did_you_mean(name, sorted(available_timezones()))
        hint = near if near.startswith("did you mean") else "zones are named like `Europe/Berlin` or `UTC`"
        raise LeafError(f"cannot be {leaves.shown(value)}: {error}", hint) from None
    return name


def _moment(value: Any) -> str:
    """Return an ISO date, or an ISO local date and time."""
    content = leaves.text(value).strip()
    try:
        parsed = datetime.fromisoformat(content)
    except ValueError:
        raise LeafError(f"is not a date: {leaves.shown(value)}", FREEZE_HINT) from None
    if parsed.tzinfo is not None:
        raise LeafError(f"has an offset: {leaves.shown(value)}", "write the local time, and its zone under `zone`")
    return content if _is_date(content) else parsed.isoformat()


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _objective(value: Any) -> float:
    share = round(leaves.fraction(value), 12)
    if not 0.5 <= share < 1.0:
        hint = "an objective of 100% leaves no budget; write it like `99.9%`"
        raise LeafError(f"must be between 50% and less than 100%, not {leaves.shown(value)}", hint)
    return share


Zone = Annotated[str, Leaf(_zone, {"type": "string", "examples": ["Europe/Berlin", "UTC"]})]
Moment = Annotated[str, Leaf(_moment, {"type": "string", "examples": ["2026-12-24", "2026-12-24T18:00"]})]
Objective = Annotated[float, Leaf(_objective, FRACTION_SCHEMA)]


class SloModel(Section):
    """The service-level objective; a bare percentage is its `objective`."""

    title: ClassVar[str] = "slo"
    short: ClassVar[str] = "objective"
    objective: Objective
    window: Timeout = 30 * 86400.0

    @model_validator(mode="after")
    def _long_enough(self) -> SloModel:
        if not 3600.0 <= self.window <= LONGEST_WINDOW:
            raise wrong("has a `window` that is not between 1h and 90d", "write `window: 30d`", at="window")
        return self

    def slo(self) -> Slo:
        """Return it as plain data."""
        return Slo(self.objective, self.window)


class LowBudgetModel(Section):
    """How carefully releases go while little of the error budget is left."""

    title: ClassVar[str] = "when_budget_low"
    below: Fraction = 0.25
    largest_step: Weight | None = None
    bake: Duration | None = None

    @model_validator(mode="after")
    def _does_something(self) -> LowBudgetModel:
        if self.largest_step is None and self.bake is None:
            raise wrong("changes nothing", "write `largest_step: 10%`, `bake: 10m` or both")
        if self.largest_step is not None and self.largest_step < 1:
            raise wrong("lets no release go on: `largest_step: 0%`", "write `largest_step: 10%`", at="largest_step")
        return self

    def low(self) -> LowBudget:
        """Return it as plain data."""
        return LowBudget(self.below, self.largest_step, self.bake)


class WindowModel(Section):
    """A release window; a bare text is weekly."""

    title: ClassVar[str] = "a release window"
    short: ClassVar[str] = "weekly"
    weekly: Text = ""
    cron: Text = ""
    lasts: Timeout | None = None
    zone: Zone | None = None

    @model_validator(mode="after")
    def _one_form(self) -> WindowModel:
        if bool(self.weekly) == bool(self.cron):
            raise wrong("must have exactly one of `weekly` and `cron`", WINDOW_HINT)
        if self.cron and self.lasts is None:
            raise wrong("has a `cron` but does not say how long it `lasts`", "add `lasts: 7h`")
        if self.weekly and self.lasts is not None:
            raise wrong("has a `lasts`, but says itself when it closes", "remove `lasts`", at="lasts")
        self.window("UTC")
        return self

    def window(self, default_zone: str) -> Window:
        """Return it as plain data."""
        zone = self.zone or default_zone
        try:
            if self.cron:
                return windows.cron_window(self.cron, self.lasts or 0.0, zone)
            return windows.parse_window(self.weekly, zone)
        except ValueError as error:
            raise wrong(f"cannot be read: {error}", WINDOW_HINT) from None


class FreezeModel(Section):
    """A time without releases. A date is the whole day, also as `to`."""

    title: ClassVar[str] = "a freeze"
    from_: Moment = Field(alias="from")
    to: Moment
    zone: Zone | None = None
    reason: Text = ""

    @model_validator(mode="after")
    def _in_order(self) -> FreezeModel:
        begin, end = windows.freeze_span(self.freeze("UTC"))
        if end <= begin:
            raise wrong(f"ends before it begins: from {self.from_} to {self.to}", "exchange them", at="to")
        return self

    def freeze(self, default_zone: str) -> Freeze:
        """Return it as plain data; a whole day at its end is part of it."""
        end = datetime.fromisoformat(self.to)
        if _is_date(self.to):
            end += timedelta(days=1)
        begin = datetime.fromisoformat(self.from_)
        return Freeze(begin.isoformat(), end.isoformat(), self.zone or default_zone, self.reason)


class MaxReleasesModel(Section):
    """At most so many releases in a while."""

    title: ClassVar[str] = "max_releases"
    count: Positive
    per: Timeout

    def rule(self) -> MaxReleases:
        """Return it as plain data."""
        return MaxReleases(self.count, self.per)


class ApprovalsModel(Section):
    """People who must say yes before a release starts."""

    title: ClassVar[str] = "approvals"
    short: ClassVar[str] = "required"
    short_schema: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 1}
    required: Positive = 1
    approvers: TextList = ()
    allow_self: Flag = True

    @model_validator(mode="after")
    def _can_open(self) -> ApprovalsModel:
        people = len(set(self.approvers))
        if self.approvers and self.required > people:
            words = f"can never open: {self.required} people must approve, but only {people} may"
            raise wrong(words, f"add approvers, or write `required: {people}`", "gate-never-opens")
        return self

    def rule(self) -> Approvals:
        """Return it as plain data."""
        return Approvals(self.required, tuple(dict.fromkeys(self.approvers)), self.allow_self)


class PolicyModel(Section):
    """What holds between releases that overlap, and the gates before each."""

    title: ClassVar[str] = "policy"
    max_arms: Positive = 4
    on_overlap: Annotated[str, choice("overlap", "queue", "supersede")] = "overlap"
    slo: SloModel | None = None
    when_budget_low: LowBudgetModel | None = None
    when_budget_empty: Annotated[str, choice("fixes_only", "go_on")] | None = None
    windows: list[WindowModel] | None = None
    freezes: list[FreezeModel] | None = None
    zone: Zone = "UTC"
    max_releases: MaxReleasesModel | None = None
    approvals: ApprovalsModel | None = None
    users: Positive | None = None

    @model_validator(mode="after")
    def _budget_of_something(self) -> PolicyModel:
        for key in ("when_budget_low", "when_budget_empty"):
            if getattr(self, key) is not None and self.slo is None:
                raise wrong(f"has `{key}` without an objective", "add `slo: {objective: 99.9%, window: 30d}`", at=key)
        return self

    def plan(self) -> dict[str, Any]:
        """Return it as plain data; gates that are not set are left out."""
        gates: dict[str, Any] = {
            "slo": self.slo and self.slo.slo(),
            "when_budget_low": self.when_budget_low and self.when_budget_low.low(),
            "windows": tuple(window.window(self.zone) for window in self.windows or ()),
            "freezes": tuple(freeze.freeze(self.zone) for freeze in self.freezes or ()),
            "max_releases": self.max_releases and self.max_releases.rule(),
            "approvals": self.approvals and self.approvals.rule(),
        }
        if self.when_budget_empty:
            gates["when_budget_empty"] = self.when_budget_empty
        whole = plain(ReleasePolicy(**{name: gate for name, gate in gates.items() if gate}))
        given = {name: whole[name] for name, gate in gates.items() if gate}
        people = {} if self.users is None else {"users": self.users}
        return {"max_arms": self.max_arms, "on_overlap": self.on_overlap, **people, **given}
