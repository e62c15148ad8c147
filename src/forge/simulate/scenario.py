"""A scenario from YAML: the same words, checks and diagnostics as in a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.judge.registry import JUDGES
from forge.core.pipeline import leaves
from forge.core.pipeline.document import MAX_BYTES, Document, read
from forge.core.pipeline.schema_base import (
    Count,
    Duration,
    Flag,
    Fraction,
    Number,
    Positive,
    Section,
    Size,
    Text,
    Timeout,
    choice,
    wrong,
)
from forge.core.pipeline.schema_policy import PolicyModel
from forge.core.pipeline.schema_strategy import PaceModel, StrategyModel, strategy
from forge.core.pipeline.validate import validate
from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.simulate.faults import KINDS
from forge.simulate.story import Deed, FaultPlan, Kind, Occasion, People, Story
from forge.simulate.traffic import DAY, Shape
from forge.simulate.versions import Behaviour

WORSE = 1.5
"""A version that fails so many times as often as the first one, or takes so many times as long, is a bad one."""


class VersionModel(Section):
    """How a version behaves."""

    title: ClassVar[str] = "a version"
    name: Text = ""
    share: Number = 1.0
    bad: Flag | None = None
    errors: Fraction | None = None
    before: Fraction | None = None
    after: Duration = 0.0
    latency: Timeout | None = None
    tail: Number | None = None
    ready_after: Duration | None = None
    unready: Fraction = 0.0
    crash_loops: Flag = False
    warm_up: Duration = 0.0
    warm_up_errors: Fraction = 0.0
    uneven: Number = 0.0
    memory: Size | None = None
    leak: Size = 0
    at: list[Any] | None = None

    @model_validator(mode="after")
    def _times(self) -> VersionModel:
        for each in self.at or []:
            try:
                leaves.duration(each)
            except leaves.LeafError as error:
                raise wrong(f"has an `at` that {error}", error.hint) from None
        return self

    def behaviour(self, first: Behaviour) -> Behaviour:
        """Return it as plain data; what is not told is as in the first version."""
        errors = first.errors if self.errors is None else self.errors
        latency = first.latency if self.latency is None else self.latency
        worse = errors > WORSE * first.errors or latency > WORSE * first.latency
        bad = worse or self.crash_loops or self.unready >= 0.5 or self.leak > 0 if self.bad is None else self.bad
        return Behaviour(
            errors=errors, errors_before=self.before if self.after and self.before is not None
            else first.errors if self.after else None,
            after=self.after, latency=latency, tail=first.tail if self.tail is None else self.tail,
            ready_after=first.ready_after if self.ready_after is None else self.ready_after,
            unready=self.unready, crash_loops=self.crash_loops, warm_up=self.warm_up,
            warm_up_errors=self.warm_up_errors, uneven=self.uneven,
            memory=first.memory if self.memory is None else self.memory, leak=self.leak, bad=bad,
            name=self.name or ("bad" if bad else "good"),
        )  # fmt: skip


class ServiceModel(Section):
    """The service and its first version."""

    title: ClassVar[str] = "service"
    replicas: Positive = 4
    requests_per_second: Number = 100.0
    headroom: Number = 1.5
    errors: Fraction = 0.001
    latency: Timeout = 0.08
    tail: Number = 0.6
    ready_after: Duration = 5.0
    told_apart: Flag = False


class BurstModel(Section):
    """Times in which requests fail whoever answers."""

    title: ClassVar[str] = "bursts"
    every: Timeout
    lasts: Timeout = 20.0
    errors: Fraction = 0.1


class TrafficModel(Section):
    """How requests come."""

    title: ClassVar[str] = "traffic"
    diurnal: Fraction = 0.0
    peak: Duration = 14 * 3600.0
    bursts: BurstModel | None = None
    clump: Number = 1.0
    noise: Number = 0.0
    noise_lasts: Timeout = 30.0
    users: Count = 0
    stay: Timeout = 600.0


class ReleasesModel(Section):
    """Which versions are released, and when."""

    title: ClassVar[str] = "releases"
    every: Timeout | None = None
    at_most: Count = 0
    versions: list[VersionModel] = Field(default_factory=lambda: [VersionModel()])

    @model_validator(mode="after")
    def _some(self) -> ReleasesModel:
        if self.every is None and not any(version.at for version in self.versions):
            raise wrong("never happen", "write `every: 12h`, or `at: [1h]` in a version")
        if not self.versions:
            raise wrong("have no versions", "leave `versions` out for good ones only")
        if self.every is not None and not any(version.share for version in self.versions):
            raise wrong("draw from versions without any share", "write `share: 1` in one of them")
        return self


class FaultModel(Section):
    """Something goes wrong, once or again and again."""

    title: ClassVar[str] = "a fault"
    kind: Annotated[str, choice(*KINDS)]
    at: Duration | None = None
    every: Timeout | None = None
    lasts: Duration = 60.0
    amount: Number = 0.5
    version: Text = ""

    @model_validator(mode="after")
    def _when(self) -> FaultModel:
        if (self.at is None) == (self.every is None):
            raise wrong("must have exactly one of `at` and `every`", "write `every: 6h`")
        return self

    def plan(self) -> FaultPlan:
        """Return it as plain data."""
        kind: Any = self.kind
        return FaultPlan(kind, Occasion(self.at, self.every), self.lasts, self.amount, self.version)


class PeopleModel(Section):
    """The person on duty."""

    title: ClassVar[str] = "people"
    after: Duration = 900.0
    paused: Annotated[str, choice("resume", "promote", "abort", "nothing")] = "resume"
    approve: Flag = True


class CommandModel(Section):
    """A command that somebody gives."""

    title: ClassVar[str] = "a command"
    at: Duration
    do: Annotated[str, choice("promote", "pause", "resume", "abort", "rollback", "retry")]


class ScenarioModel(PaceModel):
    """The whole file."""

    title: ClassVar[str] = "a scenario"
    name: Text = "simulation"
    seed: Count = 1
    days: Number = 0.0
    lasts: Timeout | None = None
    service: ServiceModel = Field(default_factory=ServiceModel)
    traffic: TrafficModel = Field(default_factory=TrafficModel)
    releases: ReleasesModel
    strategy: StrategyModel | None = None
    judge: Annotated[str, choice(*JUDGES)] | None = None
    policy: PolicyModel | None = None
    faults: list[FaultModel] = Field(default_factory=list)
    people: PeopleModel = Field(default_factory=PeopleModel)
    commands: list[CommandModel] = Field(default_factory=list)

    @model_validator(mode="after")
    def _length(self) -> ScenarioModel:
        if self.days and self.lasts:
            raise wrong("has both `days` and `lasts`", "keep one of the two")
        if self.days > 366:
            raise wrong("lasts longer than a year", "write `days: 30`")
        if not self.days and not self.lasts:
            raise wrong("does not say how long it lasts", "write `days: 30`, or `lasts: 2h`")
        return self

    def story(self, own: Strategy | None = None, plan: EnvironmentPlan | None = None) -> Story:
        """Return it as plain data. `own` and `plan` are the project's, for what the scenario leaves open."""
        service, traffic = self.service, self.traffic
        bursts = traffic.bursts
        first = Behaviour(
            errors=service.errors, latency=service.latency, tail=service.tail, ready_after=service.ready_after,
            name="first",
        )  # fmt: skip
        kinds = tuple(Kind(version.behaviour(first), version.share) for version in self.releases.versions)
        times = [
            (leaves.duration(at), number)
            for number, version in enumerate(self.releases.versions)
            for at in version.at or []
        ]
        base = plan or EnvironmentPlan("production")
        policy = self.policy.plan() if self.policy else {}
        paused: Any = self.people.paused
        return Story(
            name=self.name,
            seconds=self.days * DAY or self.lasts or DAY,
            replicas=service.replicas,
            shape=Shape(
                rps=service.requests_per_second, diurnal=traffic.diurnal, peak=traffic.peak,
                burst_every=bursts.every if bursts else 0.0, burst_lasts=bursts.lasts if bursts else 20.0,
                burst_errors=bursts.errors if bursts else 0.0, clump=max(1.0, traffic.clump), noise=traffic.noise,
                noise_seconds=traffic.noise_lasts, users=traffic.users, stay=traffic.stay,
                told_apart=service.told_apart,
            ),
            headroom=max(1.0, service.headroom),
            first=first,
            kinds=kinds,
            sequence=tuple(sorted(times)),
            every=self.releases.every or 0.0,
            releases=self.releases.at_most,
            strategy=strategy(self.strategy, self) if self.strategy or self.pace() or own is None else own,
            plan=EnvironmentPlan(
                base.name, judge=self.judge or base.judge, policy={**base.policy, **policy}
            ),
            faults=tuple(fault.plan() for fault in self.faults),
            people=People(self.people.after, paused, self.people.approve),
            deeds=tuple(sorted((Deed(each.at, each.do) for each in self.commands), key=lambda deed: deed.at)),
            seed=self.seed,
        )  # fmt: skip


def load_story(path: Path, own: Strategy | None = None, plan: EnvironmentPlan | None = None) -> Story:
    """Return the story of a file. Raises InvalidConfiguration with every problem, UsageError for no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    return parse_story(content, str(path), own, plan)


def parse_story(
    text: str | bytes, file: str, own: Strategy | None = None, plan: EnvironmentPlan | None = None
) -> Story:
    """Return the story of a file's content. Raises InvalidConfiguration with every problem."""
    document: Document = read(text, file)
    checked = validate(ScenarioModel, document)
    if checked.problems or checked.model is None:
        raise InvalidConfiguration(checked.problems)
    return checked.model.story(own, plan)
