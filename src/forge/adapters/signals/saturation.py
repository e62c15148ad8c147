"""How full each version's fullest replica is: processors, memory, open files and threads, against their limits."""

from __future__ import annotations

import math
import os
import resource
from functools import cache, lru_cache
from pathlib import Path

import msgspec

from forge.adapters.targets.local.processes import ProcessStat, trees
from forge.model.traffic import Gauge

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
WINDOW = 10.0
"""Seconds over which processor time is averaged: a moment's burst is no saturation."""
SHORTEST = 1.0
"""Seconds of looks before which nothing is said of processor time."""
LOOKS = 100
"""Looks within the window that are remembered."""


class Limits(msgspec.Struct, frozen=True):
    """Where a process's resources end: cores, bytes, threads (None: not known)."""

    cores: float
    memory: int
    threads: int | None = None


class Saturation:
    """Says what a version's fullest replica uses. CPU needs two looks; each process's limits are read once."""

    def __init__(self) -> None:
        self._limits: dict[str, Limits] = {}
        self._looks: dict[str, list[tuple[float, float]]] = {}
        """When a replica was looked at, and the CPU seconds that it had used, by process."""

    def take(
        self, processes: dict[str, dict[str, int]], stats: list[ProcessStat], version_ids: list[str], now: float
    ) -> dict[str, tuple[Gauge, ...]]:
        """Return the gauges of each version; `now` only tells how much time has passed."""
        roots = [pid for version in version_ids for pid in processes.get(version, {}).values()]
        members = trees(roots, stats)
        _limits_of_groups.cache_clear()  # what is read once for all replicas of one look may be changed by the next
        alive: set[str] = set()
        found = {}
        for version in version_ids:
            replicas = [
                (root, tree)
                for pid in processes.get(version, {}).values()
                if (tree := members[pid]) and (root := next((one for one in tree if one.pid == pid), None))
            ]
            alive.update(_key(root) for root, _ in replicas)
            gauges = [self._replica(root, tree, now) for root, tree in replicas]
            names = dict.fromkeys(gauge.name for several in gauges for gauge in several)
            found[version] = tuple(
                max((one for several in gauges for one in several if one.name == name), key=_fullness) for name in names
            )
        self._limits = {key: limits for key, limits in self._limits.items() if key in alive}
        self._looks = {key: looks for key, looks in self._looks.items() if key in alive}
        return found

    def _replica(self, root: ProcessStat, tree: list[ProcessStat], now: float) -> list[Gauge]:
        key = _key(root)
        limits = self._limits.get(key)
        if limits is None:
            limits = self._limits[key] = limits_of(root.pid)
        gauges = []
        cores = self._used(key, sum(stat.cpu_seconds for stat in tree), now)
        if cores is not None:
            gauges.append(Gauge("cpu", cores, limits.cores))
        gauges.append(Gauge("memory", sum(stat.memory for stat in tree), limits.memory, grows_with_load=False))
        gauges.append(Gauge("threads", sum(stat.threads for stat in tree), limits.threads))
        files = [gauge for stat in tree if (gauge := _open_files(stat.pid)) is not None]
        return [*gauges, max(files, key=_fullness)] if files else gauges

    def _used(self, key: str, seconds: float, now: float) -> float | None:
        """Return how many cores were busy within the window; None as long as it is too short to tell."""
        looks = [*self._looks.get(key, ())[-LOOKS:], (now, seconds)]
        while len(looks) > 2 and looks[1][0] <= now - WINDOW:
            looks.pop(0)
        self._looks[key] = looks
        since, before = looks[0]
        return round(max(0.0, seconds - before) / (now - since), 4) if now - since >= SHORTEST else None


def _fullness(gauge: Gauge) -> float:
    return gauge.value / gauge.limit if gauge.limit else gauge.value


def _key(stat: ProcessStat) -> str:
    return f"{stat.pid}/{stat.started}"


def _open_files(pid: int) -> Gauge | None:
    """Return the open files of one process: each process has a limit of its own."""
    folder = f"/proc/{pid}/fd"
    try:
        # Newer kernels tell the number without a listing.
        count = os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208
        limit, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return None
    return Gauge("open_files", float(count), float(limit) if limit != resource.RLIM_INFINITY else None)


def limits_of(pid: int, cgroups: Path = _CGROUPS) -> Limits:
    """Return where a process's resources end: the narrowest of its cgroups, its affinity and the machine."""
    cores = float(os.cpu_count() or 1)
    try:
        cores = float(len(os.sched_getaffinity(pid)))
        groups = (_PROC / str(pid) / "cgroup").read_text()
    except OSError:
        groups = ""
    narrowest = _limits_of_groups(groups, cgroups)
    return Limits(min(cores, narrowest.cores), narrowest.memory, narrowest.threads)


@lru_cache(maxsize=64)
def _limits_of_groups(groups: str, cgroups: Path) -> Limits:
    cores, memory = math.inf, _machine_memory()
    threads: int | None = None
    for folder in _folders(groups, cgroups):
        cores = min(cores, _cores(folder) or cores)
        memory = min([memory, *_numbers(folder / "memory.max"), *_numbers(folder / "memory.limit_in_bytes")])
        several = [*_numbers(folder / "pids.max"), *([threads] if threads is not None else [])]
        threads = min(several) if several else None
    return Limits(cores, memory, threads)


def _folders(groups: str, cgroups: Path) -> list[Path]:
    """Return the folders of a process's cgroups with all that they are in: each may have a limit."""
    found = []
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if ".." in path.split("/"):
            continue  # outside of what is seen from here
        bases = [cgroups, cgroups / "unified"] if not controllers else [cgroups / controllers]
        if controllers in ("cpu", "cpuacct"):
            bases.append(cgroups / "cpu,cpuacct")
        for base in bases:
            folder = base / path.lstrip("/")
            while True:
                found.append(folder)
                if folder == base:
                    break
                folder = folder.parent
    return found


def _cores(folder: Path) -> float | None:
    try:
        quota, _, period = (folder / "cpu.max").read_text().partition(" ")
        if quota.strip() != "max":
            return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    quotas, periods = _numbers(folder / "cpu.cfs_quota_us"), _numbers(folder / "cpu.cfs_period_us")
    return quotas[0] / periods[0] if quotas and periods and quotas[0] > 0 and periods[0] > 0 else None


def _numbers(path: Path) -> list[int]:
    """Return the number in a file, or nothing where there is none (`max`, -1)."""
    try:
        number = int(path.read_text())
    except (OSError, ValueError):
        return []
    return [number] if number > 0 else []


@cache
def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
