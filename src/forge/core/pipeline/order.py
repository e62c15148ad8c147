"""The order of jobs: what must be done before what, cycles, waves. Pure graph work on names, never recursive."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

Dependencies = Mapping[str, Sequence[str]]
"""Job name to the names that it depends on; names that are not keys are ignored."""


def topological(dependencies: Dependencies) -> list[str]:
    """Return the names so that each follows what it depends on, else in the given order; cycles are left out."""
    position = {name: index for index, name in enumerate(dependencies)}
    waiting = {name: len({other for other in needs if other in position}) for name, needs in dependencies.items()}
    needed_by: dict[str, list[str]] = {name: [] for name in dependencies}
    for name, needs in dependencies.items():
        for other in dict.fromkeys(needs):
            if other in position:
                needed_by[other].append(name)
    ready = [position[name] for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    names = list(dependencies)
    ordered: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        ordered.append(name)
        for follower in needed_by[name]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, position[follower])
    return ordered


def cycles(dependencies: Dependencies) -> list[list[str]]:
    """Return one cycle for each group of names that depend on each other, as a path `[a, b, a]`."""
    left = set(dependencies) - set(topological(dependencies))
    found: list[list[str]] = []
    while left:
        # Whoever is left either is in a cycle or depends on one: going back always ends in one.
        name = min(left, key=list(dependencies).index)
        path: list[str] = []
        seen: dict[str, int] = {}
        while name not in seen:
            seen[name] = len(path)
            path.append(name)
            name = next(other for other in dependencies[name] if other in left)
        loop = path[seen[name] :]
        found.append([*loop, loop[0]])
        rest = {other: [n for n in needs if n not in loop] for other, needs in dependencies.items() if other in left}
        for member in loop:
            rest.pop(member)
        left = set(rest) - set(topological(rest))
    return found


class Ancestry:
    """What is done before what, directly or not; one integer a name, so that thousands are no burden."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._names = list(dependencies)
        self._bit = {name: 1 << index for index, name in enumerate(self._names)}
        self._before = dict.fromkeys(self._names, 0)
        for name in topological(dependencies):
            for other in dependencies[name]:
                if other in self._bit:
                    self._before[name] |= self._bit[other] | self._before[other]

    def precedes(self, earlier: str, later: str) -> bool:
        """Return whether `earlier` is done before `later` begins."""
        return bool(self._before.get(later, 0) & self._bit.get(earlier, 0))

    def before(self, name: str) -> frozenset[str]:
        """Return everything that is done before `name`."""
        mask = self._before.get(name, 0)
        return frozenset(other for other in self._names if self._bit[other] & mask)


def waves(dependencies: Dependencies) -> list[list[str]]:
    """Return the names in waves: a wave can begin when the ones before it are done."""
    level: dict[str, int] = {}
    for name in topological(dependencies):
        level[name] = 1 + max((level[other] for other in dependencies[name] if other in level), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for name, row in level.items():
        rows[row].append(name)
    return rows
