"""More than ten thousand releases at once for thirty simulated days: is the memory, and the time of a tick, flat?

Every environment has a release under way all the time: canaries of five steps, a day and a half each, one after the
other; one version in ten is bad. Forge looks every twelve hours, so that each of them is looked at sixty times.
"""

from __future__ import annotations

import gc
import time

import psutil

from bench.figures import Figure
from forge.core.release.state import RELEASE_FINAL
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep, Threshold
from forge.simulate.run import Simulation
from forge.simulate.story import Kind, Story
from forge.simulate.traffic import DAY, Shape
from forge.simulate.versions import Behaviour

LOOK = DAY / 2
IDLE = RELEASE_FINAL | {"queued"}
STEPS = tuple(
    step for weight in (100, 500, 1000, 2500, 5000) for step in (StrategyStep(weight=weight), StrategyStep(pause=DAY))
)
STRATEGY = Strategy("canary", STEPS, thresholds=(Threshold("error_rate", 0.05, DAY),), keep_previous=0.0)
KINDS = (Kind(Behaviour(), 9.0), Kind(Behaviour(errors=0.2, bad=True, name="bad"), 1.0))


def story(number: int, days: float) -> Story:
    """Return the story of one environment; releases follow each other without a pause."""
    kinds = [0 if (number + place) % 10 else 1 for place in range(int(days) + 1)]
    return Story(
        seconds=days * DAY, replicas=3, shape=Shape(rps=20.0, diurnal=0.3), strategy=STRATEGY, kinds=KINDS, look=LOOK,
        plan=EnvironmentPlan(f"service-{number}", judge="threshold", policy={"on_overlap": "queue"}), seed=number,
        sequence=tuple((place * 8 * DAY + number % 97, kind) for place, kind in enumerate(kinds) if place * 8 < days),
    )  # fmt: skip


def measure(environments: int = 11_000, days: int = 30) -> list[Figure]:
    """Play all of them side by side, day by day."""
    worlds = [Simulation(story(number, days), number) for number in range(environments)]
    ticks: list[float] = []
    sizes: list[float] = []
    under_way: list[int] = []
    decisions = 0
    for day in range(1, days + 1):
        began = time.process_time()
        for world in worlds:
            while world.world.now < world.start + day * DAY - LOOK / 4 and world.step() is not None:
                pass
        made = sum(world.decisions for world in worlds) - decisions
        decisions += made
        ticks.append((time.process_time() - began) / max(1, made))
        gc.collect()
        sizes.append(psutil.Process().memory_info().rss / 1e6)
        under_way.append(sum(_going(world) for world in worlds))
    told = [world.report().totals for world in worlds]
    first, last = slice(days // 3, days // 3 + 5), slice(-5, None)
    grown = sum(sizes[last]) / sum(sizes[first])
    slower = sum(ticks[last]) / sum(ticks[first])
    return [
        Figure(
            f"{environments:,} environments, {days} simulated days, {decisions:,} decisions",
            f"{sum(ticks[last]) / 5 * 1000:.2f} ms a decision with its world", "the same in days 11 to 15",
            f"{slower:.2f}",
        ),
        Figure(
            "memory of all of them at the end", f"{sizes[-1]:,.0f} MB, {sizes[-1] * 1000 / environments:.0f} kB each",
            "the same in days 11 to 15", f"{grown:.2f}",
        ),
        Figure(
            "releases under way at the end of a day", f"{sorted(under_way)[days // 2]:,} in the median",
            f"{sum(one.caught for one in told):,} bad ones rolled back, {sum(one.missed for one in told):,} missed",
            f"{sum(one.false_alarms for one in told):,} false alarms",
        ),
    ]  # fmt: skip


def _going(world: Simulation) -> int:
    return sum(release.status not in IDLE for release in world.state.releases.values())


if __name__ == "__main__":
    import sys

    from bench.figures import table

    print(table(measure(*(int(word) for word in sys.argv[1:]))))
