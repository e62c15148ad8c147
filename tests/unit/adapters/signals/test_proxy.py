"""The target's own signals as one source beside others."""

from __future__ import annotations

from forge.adapters.signals.proxy import OwnSignals
from forge.model.errors import DependencyFailed
from forge.model.traffic import Gauge, Sample


class Own:
    def __init__(self, samples=None, error=None):
        self.samples, self.error, self.saved = samples or {}, error, None

    async def read(self, version_ids):
        if self.error:
            raise self.error
        return {version: self.samples[version] for version in version_ids if version in self.samples}

    def state(self):
        return {"n": 1}

    def restore(self, state):
        self.saved = state


FULL = Sample(
    100.0, 20, 3, cpu_seconds=1.5, memory=7, latency=((1.0, 20),), groups=(("a", 20, 3),),
    gauges=(Gauge("pool", 3.0, 9.0),), values=(("lag", 0.5),),
)  # fmt: skip


async def test_everything_that_the_target_knows_is_passed_on_with_its_own_time():
    (reading,) = (await OwnSignals(Own({"1.0": FULL})).read(["1.0", "1.1"], 999.0)).values()
    told = {name: getattr(reading, name) for name in ("at", "requests", "errors", "latency", "groups", "memory")}
    assert told == {name: getattr(FULL, name) for name in told}
    assert (reading.cpu_seconds, reading.gauges, reading.values) == (1.5, FULL.gauges, FULL.values)


async def test_what_is_shown_of_it_are_counts_and_gauges():
    results = await OwnSignals(Own({"1.0": FULL, "1.1": Sample(100.0, 5, 0)})).examine(["1.0", "1.1", "9"], 0.0)
    assert {one.name: one.values for one in results} == {
        "requests": {"1.0": 20, "1.1": 5},
        "errors": {"1.0": 3, "1.1": 0},
        "pool": {"1.0": 3.0, "1.1": None},
    }


async def test_a_proxy_that_does_not_answer_is_a_problem_and_no_zero():
    (result,) = await OwnSignals(Own(error=DependencyFailed("the proxy did not answer"))).examine(["1.0"], 0.0)
    assert (result.problem, result.values) == ("the proxy did not answer", {})


async def test_its_state_is_the_targets_own():
    own = Own()
    source = OwnSignals(own, frozenset({"requests"}))
    source.restore(source.state())
    assert own.saved == {"n": 1}
    assert source.gives == {"requests"}
    await source.close()
