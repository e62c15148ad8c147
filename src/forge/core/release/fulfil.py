"""Turns wishes into actions: the traffic table, the sizes of versions, and the removal of what nobody needs.

The order that the invariants ask for is kept here, across ticks: replicas are ready before weight comes, and
weight is *observed* to be gone before replicas go.
"""

from __future__ import annotations

from forge.core.release.arms import allocate
from forge.core.release.capacity import replicas_for
from forge.core.release.judging import in_doubt
from forge.core.release.progress import hold_reason
from forge.core.release.state import RELEASE_FINAL, ReleaseState, VersionState
from forge.core.release.strategies import Wish, wish
from forge.core.release.tick import Tick
from forge.model.decision import Outcome
from forge.model.traffic import Route, TrafficTable
from forge.model.units import format_weight

CHANGED = -1
"""The generation of a split that somebody else made: the router's remark says who."""
ASK_AGAIN = 5.0
"""Seconds after which the world is asked again for what it was asked and does not show."""


def wishes(tick: Tick) -> list[Wish]:
    """Return what every release under way wants, oldest first."""
    return [
        wish(tick, release, hold=bool(hold_reason(tick, release)) or _must_not_grow(release)) for release in tick.active
    ]


def _must_not_grow(release: ReleaseState) -> bool:
    """A rolling update grows with every replica, so what speaks against it stops it at once; others at their step."""
    return release.strategy.name == "rolling" and in_doubt(release)


def route_traffic(tick: Tick, wanted: list[Wish]) -> None:
    """Ask for the table that comes nearest to the wishes, or again for the last one when it is not in effect."""
    if tick.observation.replicas is None:
        return
    names = {tick.state.stable, *(each.goal.version for each in wanted)} - {""}
    capacities = {name: tick.capacity(name) for name in sorted(names)}
    goals = [each.goal for each in wanted if each.goal.version != tick.state.stable]
    weights = allocate(goals, tick.state.stable, capacities, tick.asked)
    if not weights:
        return
    routes, sticky = _routes(tick), bool(tick.state.plan.router_config.get("sticky", False))
    table = tick.state.traffic
    if table is not None and (table.weights, table.routes, table.sticky) == (weights, routes, sticky):
        late = not in_effect_as(tick, weights) and tick.now - tick.state.asked_at >= ASK_AGAIN
        if late and not (tick.split_by_replicas and tick.confirmed):  # there, replicas have to come or go
            changed = tick.observation.problem if tick.observation.generation == CHANGED else ""
            words = f"the router does not show {_split(weights)} yet" + (f": {changed}" if changed else "")
            tick.say("traffic_asked_again", words, weights=weights)
            _ask(tick, table.weights, routes, sticky=sticky)
        return
    tick.say("traffic", f"traffic: {_split(tick.asked) or 'nothing'} -> {_split(weights)}", weights=weights,
             before=tick.asked)  # fmt: skip
    _ask(tick, weights, routes, sticky=sticky)
    tick.change(traffic_generation=tick.state.generation)


def in_effect_as(tick: Tick, weights: dict[str, int]) -> bool:
    """Whether the router shows these weights, and no older ones can come after them."""
    return tick.state.observed == weights and (tick.confirmed or tick.split is None)


def size_versions(tick: Tick, wanted: list[Wish]) -> None:
    """Ask for as many replicas as the wishes need; never fewer than the observed split needs."""
    if tick.observation.replicas is None:
        return
    sizes: dict[str, int] = {}
    slack = max((each.slack for each in wanted), default=0)
    if tick.stable is not None:
        given = [each.stable_replicas for each in wanted if each.stable_replicas is not None]
        sizes[tick.state.stable] = min(given, default=tick.full(tick.state.stable))
    for each in wanted:
        sizes[each.goal.version] = max(each.replicas, sizes.get(each.goal.version, 0))
    for version, size in sizes.items():
        _ensure(tick, version, size, slack if version == tick.state.stable else 0)


def tidy(tick: Tick) -> None:
    """Remove versions that nobody needs, once the router confirms that they carry nothing."""
    needed = {tick.state.stable, *(release.version for release in tick.active)}
    for version, known in list(tick.state.versions.items()):
        if known.removing_since is not None:
            _await_removal(tick, version, known)
        elif version in needed or _warm(tick, known):
            continue
        elif known.wanted > 0 or known.seen is not None:
            _remove(tick, version, known)
        elif version not in _remembered(tick):
            _forget(tick, version)


def note_outcomes(tick: Tick, outcomes: tuple[Outcome, ...]) -> None:
    """Remember what the world refused; what matters is asked again, and told where it is waited for."""
    for outcome in outcomes:
        kind, _, rest = outcome.key.partition("#")
        name = rest.partition(":")[2]
        bad = outcome.result != "succeeded"
        if kind == "traffic":
            tick.change(traffic_problem=outcome.message if bad else "")
        elif kind == "ensure" and name in tick.state.versions:
            failures = tick.state.versions[name].failures + 1 if bad else 0
            tick.change_version(name, failures=failures, problem=outcome.message if bad else "")
        if bad:
            tick.say("action_failed", f"{kind} {name}: {outcome.result}: {outcome.message}", key=outcome.key)


def settled(tick: Tick) -> bool:
    """Whether nothing is under way and the world is as it was asked to be, so that nobody needs to look."""
    return not tick.active and not tick.queued and in_effect(tick)


def in_effect(tick: Tick) -> bool:
    """Whether the world is as it was asked to be."""
    if tick.state.traffic is not None and not (tick.confirmed and tick.state.observed == tick.asked):
        return False
    versions = tick.state.versions.items()
    return all(known.removing_since is None and (name == tick.state.stable or known.wanted == 0)
               for name, known in versions)  # fmt: skip


def _ask(tick: Tick, weights: dict[str, int], routes: tuple[Route, ...], *, sticky: bool) -> None:
    generation = tick.state.generation + 1
    table = TrafficTable(weights, generation, routes, sticky)
    tick.act("traffic", "", {"table": _plain(table)})
    tick.change(traffic=table, asked_at=tick.now)


def _plain(table: TrafficTable) -> dict[str, object]:
    routes = [
        {"version": r.version, "header": r.header, "cookie": r.cookie, "value": r.value, "mirror": r.mirror}
        for r in table.routes
    ]
    return {"weights": table.weights, "generation": table.generation, "routes": routes, "sticky": table.sticky}


def _routes(tick: Tick) -> tuple[Route, ...]:
    """Routes of releases under way whose version can answer; those of an ended release vanish with it."""
    going = [release for release in tick.active if release.status != "rolling_back" and tick.ready(release.version)]
    return tuple(route for release in going for route in release.routes)


def _ensure(tick: Tick, version: str, size: int, slack: int) -> None:
    known = tick.version(version)
    if known is None or known.removing_since is not None:
        return
    if size < known.wanted:
        size = max(size, min(known.wanted, _floor(tick, version, slack)))
    differs = known.seen is None or known.seen.desired != size
    again = differs and tick.now - known.ensured_at >= ASK_AGAIN
    if size == known.wanted and not again:
        return
    if size != known.wanted:
        tick.say("replicas", f"{version}: {known.wanted} -> {size} replicas wanted", version=version, replicas=size)
    since = tick.now if size > known.wanted else known.unready_since
    tick.change_version(
        version, wanted=size, ensured_at=tick.now, unready_since=since,
        wanted_since=tick.now if size != known.wanted else known.wanted_since,
    )  # fmt: skip
    tick.act("ensure", version, {"version": version, "replicas": size})


def _floor(tick: Tick, version: str, slack: int) -> int:
    """The fewest replicas that carry what the version is asked to carry and is seen to carry.

    Where replicas make the split, what it is seen to carry follows its replicas: what it was asked to carry counts,
    which never leaves others more than their ready replicas can carry.
    """
    known = tick.state.versions[version]
    observed = tick.observed(version)
    if observed is None or not tick.confirmed:
        return known.wanted
    asked = tick.asked.get(version, 0)
    weight = asked if tick.split_by_replicas else max(observed, asked)
    return max(0, replicas_for(weight, tick.full(version)) - slack)


def _warm(tick: Tick, known: VersionState) -> bool:
    """Whether it is kept running for a rollback; where replicas make the split, it would carry requests."""
    kept = known.warm_until is not None and tick.now < known.warm_until
    return kept and not known.faulted and not tick.split_by_replicas


def _remove(tick: Tick, version: str, known: VersionState) -> None:
    idle = tick.split_by_replicas or (known.idle_since is not None and tick.observed(version) == 0)
    if not idle or not tick.confirmed or tick.asked.get(version, 0):
        return
    tick.say("version_removed", f"{version} is not needed any more and carries nothing: removed", version=version)
    tick.change_version(version, wanted=0, removing_since=tick.now, warm_until=None, unready_since=None)
    tick.act("remove", version, {"version": version})


def _await_removal(tick: Tick, version: str, known: VersionState) -> None:
    if tick.observation.replicas is None:
        return
    if known.seen is None or (known.seen.running == 0 and known.seen.desired == 0):
        tick.change_version(version, removing_since=None, seen=None, ever_ready=False)
        if version not in _remembered(tick):
            _forget(tick, version)
    elif tick.now - (known.removing_since or 0.0) >= ASK_AGAIN and (
        tick.split_by_replicas or tick.observed(version) == 0
    ):
        tick.change_version(version, removing_since=tick.now)
        tick.act("remove", version, {"version": version})


def _remembered(tick: Tick) -> set[str]:
    """Versions whose description is kept: to go back to, or to try again."""
    kept = {release.version for release in tick.state.releases.values()}
    queued = {release.version for release in tick.state.releases.values() if release.status not in RELEASE_FINAL}
    return {tick.state.stable, *tick.state.previous, *kept, *queued}


def _forget(tick: Tick, version: str) -> None:
    tick.change(versions={name: known for name, known in tick.state.versions.items() if name != version})


def _split(weights: dict[str, int]) -> str:
    return ", ".join(f"{version} {format_weight(weight)}" for version, weight in weights.items())
