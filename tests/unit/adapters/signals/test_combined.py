"""Several sources as one: whose word counts, and what is said when somebody is silent."""

from __future__ import annotations

import asyncio

import pytest

from forge.adapters.signals import combined
from forge.adapters.signals.base import QueryResult, Reading
from forge.adapters.signals.combined import CombinedSignals
from forge.model.errors import DependencyFailed
from forge.model.traffic import Gauge

NOW = 1000.0


class Told:
    """A source that says what a test tells it to."""

    def __init__(self, *gives, answer=None, error=None, slow=False):
        self.gives, self.answer, self.error, self.slow = frozenset(gives), answer or {}, error, slow
        self.saved, self.closed = {}, False

    async def read(self, version_ids, now):
        if self.slow:
            await asyncio.sleep(60)
        if self.error:
            raise self.error
        return {version: self.answer[version] for version in version_ids if version in self.answer}

    async def examine(self, version_ids, now):
        if self.error:
            raise self.error
        return [QueryResult("q", "text", dict.fromkeys(version_ids, 1.0))]

    def state(self):
        return {"mine": sorted(self.gives)}

    def restore(self, state):
        self.saved = state

    async def close(self):
        self.closed = True


def together(**sources):
    return CombinedSignals([*sources.items()], clock=lambda: NOW)


async def test_each_thing_is_taken_from_the_first_source_that_is_there_for_it():
    first = Told("requests", answer={"v": Reading(at=999, requests=10, errors=1)})
    second = Told(
        "requests", "latency", "logs", answer={"v": Reading(requests=7, errors=7, latency=((1.0, 7),), log_errors=3)}
    )
    sample = (await together(a=first, b=second).read(["v"]))["v"]
    assert (sample.at, sample.requests, sample.errors) == (999, 10, 1)
    assert (sample.latency, sample.log_errors, sample.lacks) == (((1.0, 7),), 3, ())


async def test_gauges_and_values_of_all_stand_side_by_side():
    first = Told("requests", "gauges", answer={"v": Reading(requests=1, errors=0, gauges=(Gauge("a", 1),))})
    second = Told("gauges", "values", answer={"v": Reading(gauges=(Gauge("b", 2),), values=(("x", 3.0),))})
    sample = (await together(a=first, b=second).read(["v"]))["v"]
    assert [gauge.name for gauge in sample.gauges] == ["a", "b"]
    assert sample.values == (("x", 3.0),)


async def test_a_source_that_fails_is_lacking_and_nobody_takes_its_place():
    counts = Told("requests", answer={"v": Reading(requests=1, errors=0)})
    away = Told("latency", error=DependencyFailed("b at http://b is away"))
    other = Told("latency", answer={"v": Reading(latency=((1.0, 1),))})
    sample = (await together(a=counts, b=away, c=other).read(["v"]))["v"]
    assert sample.latency == ()
    assert sample.lacks == ("b: b at http://b is away",)


async def test_without_the_source_that_counts_there_is_no_sample_and_its_hint_is_kept():
    away = Told("requests", error=DependencyFailed("a is away", hint="wake it"))
    other = Told("requests", answer={"v": Reading(requests=1, errors=0)})
    with pytest.raises(DependencyFailed, match="a is away") as failure:
        await together(a=away, b=other).read(["v"])
    assert failure.value.hint == "wake it"


async def test_nobody_counts_requests():
    with pytest.raises(DependencyFailed, match="none of the sources counts requests"):
        await together(a=Told("values", answer={"v": Reading()})).read(["v"])


async def test_versions_of_which_the_counting_source_knows_nothing_are_missing():
    counts = Told("requests", answer={"v": Reading(requests=1, errors=0), "w": Reading(values=(("x", 1.0),))})
    logs = Told("logs", answer={"w": Reading(log_errors=1), "z": Reading(log_errors=1)})
    found = await together(a=counts, b=logs).read(["v", "w", "z"])
    assert [*found] == ["v"]
    assert found["v"].lacks == ("b: nothing of v",)
    assert found["v"].log_errors is None


async def test_who_is_too_slow_is_lacking(monkeypatch):
    monkeypatch.setattr(combined, "PATIENCE", 0.05)
    counts = Told("requests", answer={"v": Reading(requests=1, errors=0)})
    sample = (await together(a=counts, b=Told("logs", slow=True)).read(["v"]))["v"]
    assert sample.lacks == ("b: no answer within 0.05 s",)
    with pytest.raises(DependencyFailed, match=r"no answer within 0\.05 s"):
        await together(a=Told("requests", slow=True)).read(["v"])


@pytest.mark.parametrize(("age", "good_for", "told"), [(10, None, True), (16, None, False), (100, 180.0, True)])
async def test_what_is_old_is_not_taken_for_now(age, good_for, told):
    counts = Told("requests", answer={"v": Reading(requests=1, errors=0)})
    slow = Told("gauges", answer={"v": Reading(at=NOW - age, good_for=good_for, gauges=(Gauge("pool", 9, 10),))})
    sample = (await together(a=counts, b=slow).read(["v"]))["v"]
    assert bool(sample.gauges) == told
    assert sample.lacks == (() if told else (f"b: its newest data of v is {age} s old",))


async def test_old_requests_are_told_with_their_own_time():
    counts = Told("requests", answer={"v": Reading(at=NOW - 500, good_for=20.0, requests=5, errors=0)})
    sample = (await together(a=counts).read(["v"]))["v"]
    assert (sample.at, sample.good_for, sample.requests, sample.lacks) == (500.0, 20.0, 5, ())


async def test_each_source_gets_its_own_state_back_and_is_closed():
    first, second = Told("requests"), Told("logs")
    both = together(a=first, b=second)
    both.restore({**both.state(), "gone": {"x": 1}, "b": "nonsense"})
    assert (first.saved, second.saved) == ({"mine": ["requests"]}, {})
    await both.close()
    assert first.closed
    assert second.closed


async def test_examining_tells_what_failed_in_its_place():
    found = await together(a=Told("requests"), b=Told(error=DependencyFailed("is away"))).examine(["v"])
    assert found["a"][0].values == {"v": 1.0}
    assert found["b"][0].problem == "is away"
