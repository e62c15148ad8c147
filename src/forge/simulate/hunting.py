"""Looks for decisions that break an invariant: stories drawn from a seed, with every fault and every command.

A seed tells the whole hunt of one story, so a seed that found something is a regression test.
"""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from forge.core.release.state import RELEASE_FINAL
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep, Threshold
from forge.simulate.faults import random_faults
from forge.simulate.gated import gated
from forge.simulate.run import Simulation
from forge.simulate.story import Kind, People, Story
from forge.simulate.traffic import Shape
from forge.simulate.versions import Behaviour

COMMANDS = ("promote", "promote", "pause", "resume", "abort", "rollback", "undo", "retry", "approve", "look", "down")
PEOPLE = ("ann", "ben", "eve")
GATE_COMMANDS = ("approve", "approve", "approve", "promote", "resume")
KINDS = tuple(
    Kind(behaviour)
    for behaviour in (
        Behaviour(),
        Behaviour(ready_after=0.0),
        Behaviour(ready_after=25.0, uneven=0.5),
        Behaviour(errors=0.3, bad=True),
        Behaviour(errors=0.5, errors_before=0.0, after=60.0, bad=True),
        Behaviour(crash_loops=True, bad=True),
        Behaviour(unready=0.5),
        Behaviour(latency=2.0, bad=True),
        Behaviour(warm_up=20.0, warm_up_errors=0.2),
    )
)
CALM_SECONDS = 4000.0
"""So long has Forge, after all faults, to come to rest."""
CALM_STEPS = 3000
LONGEST_REST = 30.0
"""While releases wait for gates, somebody may have something to say at least so often (seconds)."""


class NeverAtRest(AssertionError):
    """Nothing was wrong any more, everything was aborted, and still something was under way."""


def random_story(seed: int) -> Story:
    """Return a short and wild story."""
    rng = Random(seed)  # noqa: S311  a story, no secret
    seconds = rng.choice((300.0, 900.0, 1800.0))
    return Story(
        name=f"hunt {seed}",
        seconds=seconds + CALM_SECONDS,
        replicas=rng.choice((1, 2, 3, 4, 7, 10)),
        shape=Shape(
            rps=rng.choice((0.0, 0.5, 20.0, 200.0)), diurnal=0.3, burst_every=rng.choice((0.0, 120.0)),
            burst_errors=0.3, clump=rng.choice((1.0, 8.0)), noise=rng.choice((0.0, 0.5)),
        ),
        headroom=rng.choice((1.0, 1.5, 3.0)),
        kinds=KINDS,
        sequence=tuple(
            sorted((rng.uniform(0.0, seconds), rng.randrange(len(KINDS))) for _ in range(rng.randrange(1, 7)))
        ),
        strategy=random_strategy(rng),
        plan=EnvironmentPlan(
            "production",
            judge=rng.choice(_judges()),
            policy={
                "max_arms": rng.choice((1, 2, 4)), "on_overlap": rng.choice(("overlap", "queue", "supersede"))
            },
        ),
        people=People(rng.choice((10.0, 120.0)), rng.choice(("resume", "promote", "abort", "nothing"))),
        seed=seed,
    )  # fmt: skip


def random_strategy(rng: Random) -> Strategy:
    """Return a strategy of any name and pace."""
    steps: list[StrategyStep] = []
    for _ in range(rng.randrange(1, 5)):
        steps.append(StrategyStep(weight=rng.choice((1, 100, 500, 3333, 5000, 10_000))))
        extra = rng.random()
        if extra < 0.5:
            steps.append(StrategyStep(pause=rng.choice((0.0, 3.0, 30.0))))
        elif extra < 0.6:
            steps.append(StrategyStep(pause=0.0, until_resumed=True))
        elif extra < 0.7:
            steps.append(StrategyStep(approval={"required": 1, "timeout": rng.choice((None, 60.0))}))
    surge, slack = rng.choice(((1, 0), (0, 1), (2, 1), (3, 0)))
    return Strategy(
        rng.choice(("canary", "canary", "rolling", "blue_green")), tuple(steps), surge, slack,
        thresholds=rng.choice(_THRESHOLDS), progress_deadline=rng.choice((20.0, 120.0)),
        bake=rng.choice((0.0, 10.0)), patience=rng.choice((5.0, 60.0)), auto_promote=rng.random() < 0.8,
        keep_previous=rng.choice((0.0, 30.0)), warm_up=rng.choice((0.0, 10.0)),
    )  # fmt: skip


def hunt(seed: int, *, with_gates: bool = False) -> int:
    """Play the story of a seed with the invariants checked; return how many decisions were made.

    `with_gates`: under a policy with gates too. Raises InvariantBroken, NeverAtRest, or whatever the code under test
    raises.
    """
    story = random_story(seed)
    if with_gates:
        story = gated(story, Random(seed + 2))  # noqa: S311
    simulation = Simulation(story, seed, checked=True)
    rng = Random(seed + 1)  # noqa: S311
    commands = (*COMMANDS, *GATE_COMMANDS) if with_gates else COMMANDS
    wild = story.seconds - CALM_SECONDS
    for fault in random_faults(rng, simulation.start, wild, every=rng.choice((15.0, 60.0, 240.0))):
        simulation.world.weather.add(fault)
    nerve = rng.choice((0.0, 0.01, 0.05))
    if with_gates:
        nerve = 0.02 + 2 * nerve
        simulation.step()
        simulation.extra += [("approve", {"by": name}) for name in PEOPLE]
        simulation.extra.append(("promote", {"override": "something has to be there first"}))
    ends = simulation.start + wild
    while simulation.world.now < ends:
        if rng.random() < nerve:
            simulation.extra += [_command(simulation, rng, commands) for _ in range(rng.randrange(1, 3))]
        simulation.step(min(ends, simulation.world.now + LONGEST_REST) if with_gates else ends)
    return _calm(simulation)


def _calm(simulation: Simulation) -> int:
    """After all that: with everything working and everything aborted, Forge has to come to rest."""
    simulation.extra.append(("look", {}))
    behaviours = simulation.world.behaviours
    behaviours.update({name: replace(how, unready=0.0) for name, how in behaviours.items()})
    simulation.world.replicas.heal()
    last = simulation.decisions + CALM_STEPS
    while simulation.decisions < last and simulation.world.now < simulation.end:
        waiting = {name for name, each in simulation.state.releases.items() if each.status not in RELEASE_FINAL}
        if waiting and simulation.decisions % 50 == 0:
            simulation.extra.append(("abort", {}))
        if not simulation.extra:
            simulation.extra += [("abort", {"release": name}) for name in _queued(simulation)]
        if simulation.step() is None:
            break
    under_way = [each for each in simulation.state.releases.values() if each.status not in RELEASE_FINAL]
    if under_way:
        words = "; ".join(f"{each.id} {each.status}: {each.waits_for}" for each in under_way)
        raise NeverAtRest(f"{simulation.story.name}: {words}")
    split, stable = simulation.world.router.split, simulation.state.stable
    if stable and not simulation.state.down and split.get(stable) != 10_000:
        raise NeverAtRest(f"{simulation.story.name}: {stable} is stable and the router shows {split}")
    return simulation.decisions


def _queued(simulation: Simulation) -> list[str]:
    """Releases that gates keep from starting: nobody waits for those in the end."""
    return [name for name, each in simulation.state.releases.items() if each.status == "queued" and each.held_by]


def _command(simulation: Simulation, rng: Random, commands: tuple[str, ...]) -> tuple[str, dict[str, object]]:
    kind = rng.choice(commands)
    payload = _payload(simulation, rng)
    if commands is not COMMANDS:
        payload["by"] = rng.choice(PEOPLE)
        if rng.random() < 0.1 and kind in {"promote", "resume"}:
            payload["override"] = "it burns"
    return kind, payload


def _payload(simulation: Simulation, rng: Random) -> dict[str, object]:
    releases = [*simulation.state.releases]
    if releases and rng.random() < 0.4:
        return {"release": rng.choice(releases)}
    if simulation.state.previous and rng.random() < 0.2:
        return {"to": rng.choice(simulation.state.previous)}
    return {"full": True} if rng.random() < 0.3 else {}


def _judges() -> tuple[str, ...]:
    from forge.core.judge.registry import JUDGES

    return tuple(name for name in ("threshold", "sequential", "none") if name in JUDGES)


_THRESHOLDS: tuple[tuple[Threshold, ...], ...] = (
    (),
    (Threshold("error_rate", 0.05, 30.0, minimum_requests=1),),
    (Threshold("error_rate", 0.05, 300.0, minimum_requests=50), Threshold("latency", 0.5, 60.0)),
    (Threshold("memory", 5e8), Threshold("cpu", 4.0)),
)
