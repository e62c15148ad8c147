"""What each version's processes use: CPU time and memory, of whole process trees."""

from __future__ import annotations

import msgspec

from forge.adapters.targets.local.processes import ProcessStat, all_stats, trees

GONE_KEPT = 50
"""So many versions that are gone are remembered, for when they come back."""


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds that a version's replicas have used together, and the bytes of the largest of them."""

    cpu_seconds: float = 0.0
    memory: int | None = None


class ProcessUsage:
    """Adds up CPU time so that it never falls: what an ended process has used stays counted."""

    def __init__(self) -> None:
        self._base: dict[str, float] = {}
        self._last: dict[str, dict[str, dict[str, float]]] = {}

    def read(self, processes: dict[str, dict[str, int]], version_ids: list[str]) -> dict[str, Usage]:
        """Return the usage of these versions. `processes`: the pid of each replica, by version and number."""
        return self.take(processes, all_stats(), version_ids)

    def take(
        self, processes: dict[str, dict[str, int]], stats: list[ProcessStat], version_ids: list[str]
    ) -> dict[str, Usage]:
        """Add one look at the machine's processes."""
        roots = [pid for version in version_ids for pid in processes.get(version, {}).values()]
        members = trees(roots, stats)
        found = {}
        for version in version_ids:
            here = {pid: members[pid] for pid in processes.get(version, {}).values() if members[pid]}
            self._add(version, here)
            memory = max((sum(stat.memory for stat in tree) for tree in here.values()), default=None)
            found[version] = Usage(self._base[version], memory)
        return found

    def _add(self, version: str, replicas: dict[int, list[ProcessStat]]) -> None:
        last = self._last.get(version, {})
        now = {
            _key(next((stat for stat in tree if stat.pid == pid), tree[0])): {
                _key(stat): stat.cpu_seconds for stat in tree
            }
            for pid, tree in replicas.items()
        }
        grown = sum(_grown(last.get(replica, {}), tree) for replica, tree in now.items())
        self._base[version] = self._base.get(version, 0.0) + grown
        self._last[version] = now
        for gone in [one for one, replicas in self._last.items() if not replicas and one != version][:-GONE_KEPT]:
            del self._last[gone], self._base[gone]

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`."""
        return {"base": self._base, "last": self._last}

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state`."""
        saved = msgspec.convert(state, _Saved)
        self._base, self._last = saved.base, saved.last


def _key(stat: ProcessStat) -> str:
    return f"{stat.pid}/{stat.started}"


def _grown(before: dict[str, float], now: dict[str, float]) -> float:
    """Return how much CPU time one replica's processes have used since.

    When a child ends, the kernel adds its time to its parent's: what was counted already is taken off again.
    """
    ended = sum(seconds for key, seconds in before.items() if key not in now)
    growth = sum(max(0.0, seconds - before.get(key, 0.0)) for key, seconds in now.items())
    inherited = sum(max(0.0, now[key] - before[key]) for key in now if key in before)
    return growth - min(ended, inherited)


class _Saved(msgspec.Struct):
    base: dict[str, float] = {}
    last: dict[str, dict[str, dict[str, float]]] = {}
