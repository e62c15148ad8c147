"""How full replicas are: the fullest one counts, against the narrowest of the limits that hold for it."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forge.adapters.signals import saturation
from forge.adapters.signals.proxy import OwnSignals
from forge.adapters.signals.saturation import Limits, Saturation, limits_of
from forge.adapters.targets.local.processes import ProcessStat, all_stats
from forge.model.traffic import Gauge, Sample

MB = 1_000_000


def stat(pid: int, cpu: float = 0.0, *, parent: int = 1, memory: int = MB, threads: int = 1) -> ProcessStat:
    return ProcessStat(pid, "S", parent, pid, pid * 10, cpu, memory, threads)


@pytest.fixture
def limited(monkeypatch) -> None:
    monkeypatch.setattr(saturation, "limits_of", lambda pid: Limits(2.0, 100 * MB, 50 if pid % 2 == 0 else None))
    monkeypatch.setattr(
        saturation, "_open_files", lambda pid: Gauge("open_files", pid, 1000.0) if pid < 900 else None
    )  # fmt: skip


def gauges(found: tuple[Gauge, ...]) -> dict[str, Gauge]:
    return {gauge.name: gauge for gauge in found}


def test_the_fullest_replica_counts(limited) -> None:
    look = Saturation()
    stats = [stat(10, memory=5 * MB), stat(11, parent=10, memory=7 * MB), stat(20, memory=9 * MB, threads=8)]
    found = gauges(look.take({"v1": {"1": 10, "2": 20}}, stats, ["v1"], 1.0)["v1"])
    assert found["memory"] == Gauge("memory", 12 * MB, 100 * MB, grows_with_load=False)
    assert found["threads"] == Gauge("threads", 8, 50)
    assert found["open_files"] == Gauge("open_files", 20, 1000.0)
    assert "cpu" not in found, "one look does not tell"


def test_processor_time_between_two_looks(limited) -> None:
    look = Saturation()
    look.take({"v1": {"1": 10, "2": 20}}, [stat(10, 1.0), stat(20, 1.0)], ["v1"], 1.0)
    found = look.take({"v1": {"1": 10, "2": 20}}, [stat(10, 2.0), stat(20, 4.0)], ["v1"], 3.0)
    assert gauges(found["v1"])["cpu"] == Gauge("cpu", 1.5, 2.0)


def test_processor_time_is_that_of_a_window_and_not_of_a_moment(limited) -> None:
    look = Saturation()
    told = []
    for at in range(30):
        used = 5.0 if at > 20 else 0.0  # a burst of five seconds of processor time, all at once
        told.append(gauges(look.take({"v1": {"1": 10}}, [stat(10, used)], ["v1"], float(at))["v1"]).get("cpu"))
    assert told[0] is None
    assert [gauge.value for gauge in told[1:21]] == [0.0] * 20
    assert {gauge.value for gauge in told[21:]} == {0.5}


def test_many_looks_at_once_tell_nothing_too_early_and_are_bounded(limited) -> None:
    look = Saturation()
    for number in range(1000):
        found = look.take({"v1": {"1": 10}}, [stat(10, 1.0)], ["v1"], number / 10_000)
    assert "cpu" not in gauges(found["v1"])
    assert len(look._looks["10/100"]) <= saturation.LOOKS + 1


def test_a_new_process_under_an_old_number_begins_anew(limited) -> None:
    look = Saturation()
    look.take({"v1": {"1": 10}}, [stat(10, 50.0)], ["v1"], 1.0)
    other = ProcessStat(10, "S", 1, 10, 999, 0.5, MB)
    assert "cpu" not in gauges(look.take({"v1": {"1": 10}}, [other], ["v1"], 2.0)["v1"])
    assert list(look._looks) == ["10/999"], "what is gone is forgotten"


def test_a_version_without_processes_has_no_gauges(limited) -> None:
    assert Saturation().take({"v1": {"1": 10}, "v2": {}}, [], ["v1", "v2", "v3"], 1.0) == {"v1": (), "v2": (), "v3": ()}


def test_a_real_process(tmp_path: Path) -> None:
    program = (
        "import resource, threading, sys, time\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "files = [open('/dev/null') for _ in range(20)]\n"
        "for _ in range(3): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "print('up', flush=True)\n"
        "while True: pass\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            look = Saturation()
            processes = {"v1": {"1": process.pid}}
            look.take(processes, all_stats(), ["v1"], time.monotonic())
            time.sleep(1.05)
            found = gauges(look.take(processes, all_stats(), ["v1"], time.monotonic())["v1"])
        finally:
            process.kill()
    assert 23 <= found["open_files"].value <= 40
    assert found["open_files"].limit == 64
    assert found["threads"].value == 4
    assert 0.02 < found["cpu"].value < 1.5
    assert found["cpu"].limit <= len(os.sched_getaffinity(0))
    assert MB < found["memory"].value < found["memory"].limit
    assert found["memory"].limit <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_narrowest_cgroup_limits(tmp_path: Path, monkeypatch) -> None:
    inner = tmp_path / "cgroups" / "service" / "one"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "pids.max").write_text("300\n")
    (inner.parent / "cpu.max").write_text("50000 100000\n")
    (inner.parent / "memory.max").write_text("1000000\n")
    proc = tmp_path / "proc" / str(os.getpid())
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/service/one\n")
    monkeypatch.setattr(saturation, "_PROC", tmp_path / "proc")
    assert limits_of(os.getpid(), tmp_path / "cgroups") == Limits(0.5, 1_000_000, 300)


def test_cgroups_of_the_first_version(tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "cgroups"
    for controller, file, content in (
        ("cpu,cpuacct", "cpu.cfs_quota_us", "25000"),
        ("cpu,cpuacct", "cpu.cfs_period_us", "100000"),
        ("memory", "memory.limit_in_bytes", "2000000"),
        ("pids", "pids.max", "max"),
    ):
        folder = root / controller / "a"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    proc = tmp_path / "proc" / str(os.getpid())
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("4:cpu,cpuacct:/a\n3:memory:/a\n2:pids:/a\n1:name=systemd:/../x\n")
    monkeypatch.setattr(saturation, "_PROC", tmp_path / "proc")
    assert limits_of(os.getpid(), root) == Limits(0.25, 2_000_000, None)


def test_a_process_that_is_gone_has_the_limits_of_the_machine() -> None:
    limits = limits_of(2**22 - 1)
    assert limits.cores >= 1
    assert limits.memory > 0


def test_open_files_of_this_process_are_what_the_kernel_lists() -> None:
    gauge = saturation._open_files(os.getpid())
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert gauge is not None
    assert abs(gauge.value - len(os.listdir("/proc/self/fd"))) <= 3
    assert gauge.limit in (float(soft), None)


class One:
    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        gauge = Gauge("memory", 1.0, 2.0)
        return {one: Sample(1.0, 5, 1, gauges=(gauge,), values=(("restarts", 2.0),)) for one in version_ids}


def test_gauges_and_restarts_pass_the_target_as_a_source() -> None:
    source = OwnSignals(One())  # type: ignore[arg-type]
    reading = asyncio.run(source.read(["v1"], 1.0))["v1"]
    assert reading.gauges == (Gauge("memory", 1.0, 2.0),)
    assert reading.values == (("restarts", 2.0),)
    assert {"gauges", "values"} <= source.gives


def test_gauges_are_told_to_people_too() -> None:
    results = {one.name: one.values for one in asyncio.run(OwnSignals(One()).examine(["v1", "v2"], 1.0))}  # type: ignore[arg-type]
    assert results["memory"] == {"v1": 1.0, "v2": 1.0}
    assert results["requests"] == {"v1": 5, "v2": 5}
