"""More than ten thousand releases at once for thirty simulated days: is the memory, and the time of a tick, flat?

Every environment has two releases under way, which overlap: canaries of three steps, each judged by the default
judge; one version in ten is bad. Forge looks once a day, and as often as it has to while anything changes. It is
the real core that decides, and every third day each state is written and read again as the engine does. An
environment begins with as many finished releases as one remembers, as if it had been there for long.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Sequence

import msgspec
import psutil
from msgspec.structs import replace

from bench.figures import Figure
from forge.core.release.releases import KEPT_RELEASES
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep, Threshold
from forge.simulate.run import Simulation
from forge.simulate.story import Kind, Story
from forge.simulate.traffic import DAY, Shape
from forge.simulate.versions import Behaviour

LOOK = DAY
EVERY = 5 * DAY
"""Between two releases of an environment; each takes about twice as long."""
WEIGHTS = (100, 1000, 4000)
WRITTEN_EVERY = 3
"""So many days apart is every state written and read."""
IDLE = RELEASE_FINAL | {"queued"}
STRATEGY = Strategy(
    "canary",
    tuple(step for weight in WEIGHTS for step in (StrategyStep(weight=weight), StrategyStep(pause=2.5 * DAY))),
    thresholds=(Threshold("error_rate", 0.05, DAY),),
    keep_previous=0.0,
)
KINDS = (Kind(Behaviour(), 9.0), Kind(Behaviour(errors=0.2, bad=True, name="bad"), 1.0))


class Day(msgspec.Struct, frozen=True):
    """One simulated day of all environments of one process."""

    decisions: int
    seconds: float
    """Of processor time, for the decisions and their world."""
    floor: float
    """Of processor time, for a fixed piece of work in between: the machine may be slower today than yesterday."""
    megabytes: float
    """Resident, above what the process had before."""
    state_bytes: int
    under_way: int


def story(number: int, days: float) -> Story:
    """Return the story of one environment: two releases at once, and a new one while the one before is halfway."""
    later = [place * EVERY + number % 5 * DAY for place in range(1, int(days * DAY / EVERY) + 1)]
    times = [0.0, 0.0, *later]
    return Story(
        seconds=days * DAY, replicas=3, shape=Shape(rps=20.0, diurnal=0.3), strategy=STRATEGY, kinds=KINDS, look=LOOK,
        plan=EnvironmentPlan(f"service-{number}", policy={"max_arms": 2}), seed=number,
        sequence=tuple((at + number % 97 + place, int((number + place) % 10 == 0)) for place, at in enumerate(times)),
    )  # fmt: skip


def lived_in(number: int, days: float, past: bytes) -> Simulation:
    """Return an environment that remembers finished releases, `past` as JSON."""
    world = Simulation(story(number, days), number)
    releases = msgspec.json.decode(past, type=list[ReleaseState])
    named = {f"service-{number}-{place}": release for place, release in enumerate(releases, 1)}
    remembered = {name: replace(release, id=name, key=name) for name, release in named.items()}
    world.state = replace(world.state, releases=remembered, next_release=len(remembered) + 1)
    return world


def a_past() -> bytes:
    """Return as many finished releases as an environment remembers, as JSON; they were really made."""
    world = Simulation(story(0, 120.0), 0)
    world.play()
    finished = [release for release in world.state.releases.values() if release.status in RELEASE_FINAL]
    return msgspec.json.encode(finished[-KEPT_RELEASES:])


def live(first: int, environments: int, days: int) -> list[Day]:
    """Play environments side by side, day by day, in this process."""
    past, before = a_past(), _megabytes()
    worlds = [lived_in(number, days, past) for number in range(first, first + environments)]
    told, made, size = [], 0, 0
    for day in range(1, days + 1):
        began = time.process_time()
        for world in worlds:
            while world.world.now < world.start + (day - 0.25) * DAY and world.step() is not None:
                pass
        seconds = time.process_time() - began
        floor = _fixed_work()
        decisions = sum(world.decisions for world in worlds)
        if day % WRITTEN_EVERY == 0 or day == days:
            size = sum(_written_and_read(world) for world in worlds)
        gc.collect()
        going = sum(_going(world) for world in worlds)
        told.append(Day(decisions - made, seconds, floor, _megabytes() - before, size, going))
        made = decisions
    return told


def measure(environments: int = 5_100, days: int = 30, processes: int = 2) -> list[Figure]:
    """Play all of them, a part in each process."""
    share = environments // processes
    work = [(number * share, share, days) for number in range(processes)]
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts: Sequence[list[Day]] = pool.starmap(live, work)
    took = time.monotonic() - began
    whole = [_sum(days_of) for days_of in zip(*parts, strict=True)]
    return _figures(whole, share * processes, took)


def _figures(told: list[Day], environments: int, took: float) -> list[Figure]:
    tenth = max(1, len(told) // 10)
    third, last = told[min(2, len(told) - 1)], told[-1]
    first_tick, last_tick = _tick(told[tenth : 2 * tenth]), _tick(told[-tenth:])
    going = sorted(day.under_way for day in told)[len(told) // 2]
    decisions = sum(day.decisions for day in told)
    return [
        Figure(
            f"{going:,} releases under way at once in {environments:,} environments for {len(told)} simulated days: "
            f"{decisions:,} decisions", f"{took:.0f} s in all",
        ),
        Figure(
            "one decision with its world, last tenth of the days", f"{last_tick:.2f} ms",
            f"{first_tick:.2f} ms in the second; the ratio leaves out how fast the machine was",
            f"{_slower(told[-tenth:], told[tenth : 2 * tenth]):.2f}",
        ),
        Figure(
            "memory at the end", f"{last.megabytes:,.0f} MB, {last.megabytes * 1000 / environments:.0f} kB each",
            f"{third.megabytes:,.0f} MB after day 3", f"{last.megabytes / third.megabytes:.2f}",
        ),
        Figure(
            "an environment's state as JSON at the end", f"{last.state_bytes / environments / 1000:.1f} kB",
            f"{third.state_bytes / environments / 1000:.1f} kB after day 3",
            f"{last.state_bytes / third.state_bytes:.2f}",
        ),
    ]  # fmt: skip


def _tick(days: Sequence[Day]) -> float:
    return 1000 * sum(day.seconds for day in days) / max(1, sum(day.decisions for day in days))


def _slower(days: Sequence[Day], before: Sequence[Day]) -> float:
    """Return how much longer a decision takes than before, measured by the fixed work beside each."""
    floors = [sum(day.floor for day in some) for some in (days, before)]
    return _tick(days) / floors[0] / (_tick(before) / floors[1])


def _sum(days: Sequence[Day]) -> Day:
    return Day(
        sum(day.decisions for day in days), sum(day.seconds for day in days), sum(day.floor for day in days),
        sum(day.megabytes for day in days), sum(day.state_bytes for day in days), sum(day.under_way for day in days),
    )  # fmt: skip


def _written_and_read(world: Simulation) -> int:
    """Let the state go over the disk; return its bytes."""
    written = msgspec.json.encode(world.state)
    world.state = msgspec.json.decode(written, type=EnvironmentState)
    return len(written)


def _fixed_work() -> float:
    """Return the seconds that a fixed piece of work takes: one environment's ten days."""
    began = time.process_time()
    Simulation(story(0, 10.0), 0).play()
    return time.process_time() - began


def _going(world: Simulation) -> int:
    return sum(release.status not in IDLE for release in world.state.releases.values())


def _megabytes() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


if __name__ == "__main__":
    import sys

    from bench.figures import table

    print(table(measure(*(int(word) for word in sys.argv[1:]))))
