"""Contract migrations: which versions cannot run any more, and so are nowhere to go.

A contract step takes away what older versions need. The environment writes it down before the step begins; from
then on a version that is too old is refused before anything moves, in words.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from forge.core.release.state import EnvironmentState
from forge.core.release.tick import Tick
from forge.model.migrations import Contract
from forge.model.traffic import Version

KEPT = 100
_NUMBER = re.compile(r"v?(\d+(?:\.\d+)*)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")

Precedence = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def precedence(version: str) -> Precedence | None:
    """Return what versions are ordered by, as in Semantic Versioning (`1.4` is `1.4.0`, later than `1.4.0-rc.1`);
    None for an id that is no number."""
    found = _NUMBER.fullmatch(version)
    if found is None:
        return None
    numbers = [int(number) for number in found[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    before = [part for part in (found[2] or "").split(".") if part]
    parts = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in before)
    return tuple(numbers), not parts, parts


def too_old(state: EnvironmentState, version: Version) -> str:
    """Return why `version` cannot run in the environment any more; empty when nothing was taken away from it."""
    for contract in reversed(state.contracts):
        if _is_older(version, contract):
            return _words(version.id, contract)
    return ""


def gone(state: EnvironmentState, version: str) -> str:
    """Return why the known version of that id cannot run any more. See too_old."""
    known = state.versions.get(version)
    return too_old(state, known.version) if known else ""


def begin_contract(tick: Tick, contract: Contract) -> str:
    """Remember a contract step that is about to begin; return why it must not, if it must not.

    It must not while the environment serves, or is being given, a version that could not run afterwards. The same
    key again is the same step.
    """
    if any(known.key == contract.key for known in tick.state.contracts):
        return ""
    since = tick.version(contract.since)
    if since is None and precedence(contract.since) is None:
        known = ", ".join(tick.state.versions) or "none"
        return f"`since: {contract.since}` is neither a number nor a version of {tick.state.name}, which knows {known}"
    contract = replace(contract, begun_at=tick.now, since_at=since.version.created_at if since else tick.now)
    for version, role in _served(tick).items():
        known_version = tick.version(version)
        if known_version is not None and _is_older(known_version.version, contract):
            return (
                f"{version} {role} and needs what `{contract.step}` takes away: it runs from {contract.since} on; "
                f"release {contract.since} or a later version to {tick.state.name} first"
            )
    tick.change(contracts=(*tick.state.contracts, contract)[-KEPT:])
    tick.say(
        "contract_begun",
        f"`{contract.step}` begins: versions of {tick.state.name} older than {contract.since} cannot run any more",
        step=contract.step, since=contract.since, run=contract.run,
    )  # fmt: skip
    return ""


def end_contract(tick: Tick, key: str, failed: str) -> None:
    """Note how a contract step ended. One that failed still counts: it may have taken something away."""
    for contract in tick.state.contracts:
        if contract.key == key and contract.finished_at is None:
            ended = replace(contract, finished_at=tick.now, failed=failed)
            rest = tuple(ended if other.key == key else other for other in tick.state.contracts)
            tick.change(contracts=rest)
            words = (
                f"failed ({failed}); it counts as done, for it may have taken something away" if failed else "is done"
            )
            tick.say("contract_ended", f"`{contract.step}` {words}", step=contract.step, failed=failed)


def _served(tick: Tick) -> dict[str, str]:
    """The versions that requests go to, or soon will, each with its role."""
    served = {release.version: f"waits to be released by {release.id}" for release in tick.queued}
    served |= {release.version: f"is being released by {release.id}" for release in tick.active}
    served |= {version: "has traffic" for version, weight in tick.asked.items() if weight}
    if tick.state.stable:
        served[tick.state.stable] = f"is stable in {tick.state.name}"
    return served


def _is_older(version: Version, contract: Contract) -> bool:
    if version.id == contract.since:
        return False
    own, since = precedence(version.id), precedence(contract.since)
    if own is not None and since is not None:
        return own < since
    return version.created_at < contract.since_at


def _words(version: str, contract: Contract) -> str:
    took = "may have taken away, though it failed," if contract.failed else "took away"
    by = f" of {contract.run}" if contract.run else ""
    return f"{version} cannot run any more: `{contract.step}`{by} {took} what versions older than {contract.since} need"
