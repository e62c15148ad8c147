"""One cluster for all test processes: started once, ended when the last lets go, and never left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import sharing
from cluster.access import until
from cluster.plane import ROOT, clean_up_after, note_processes, start_time

USER = """
import sys, time
from pathlib import Path
from cluster.sharing import shared_cluster
with shared_cluster(Path(sys.argv[1])) as cluster:
    cluster.api("GET", "/api/v1/nodes")
    print(cluster.kubeconfig, flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""


@pytest.fixture
def base(cluster) -> Iterator[Path]:
    """A folder of its own: these clusters are none that other tests use. `cluster` skips where none can be had."""
    folder = Path(tempfile.mkdtemp(prefix="fcb-"))
    yield folder
    for one in folder.glob("cluster-*"):
        clean_up_after(one)
    shutil.rmtree(folder, ignore_errors=True)


class User:
    """A process that uses the cluster until told to leave."""

    def __init__(self, base: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(base)], env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def kubeconfig(self) -> Path:
        assert self.process.stdout
        return Path(self.process.stdout.readline().strip())

    def leave(self) -> None:
        said, _ = self.process.communicate("\n", timeout=40)
        assert said.strip() == "left"

    def die(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


def running_parts(folder: Path) -> dict[str, psutil.Process]:
    """Return the cluster's processes that run, by name."""
    noted = json.loads((folder / "pids.json").read_text())
    return {name: psutil.Process(pid) for name, (pid, began) in noted.items() if start_time(pid) == began}


@pytest.mark.long
def test_two_processes_share_one_and_it_ends_when_the_last_of_them_is_killed(base):
    users = [User(base), User(base)]
    try:
        first, second = [user.kubeconfig() for user in users]
        assert first == second
        parts = running_parts(first.parent)
        assert set(parts) == {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "attendants"}
        users[0].leave()
        time.sleep(0.5)
        assert running_parts(first.parent).keys() == parts.keys()
    finally:
        for user in users:
            user.die()
    until(lambda: not any(process.is_running() for process in parts.values()), "the cluster's end", 30)
    until(lambda: not first.exists(), "keys and data to go", 10)
    assert (first.parent / "logs" / "kube-apiserver.log").stat().st_size


@pytest.mark.long
def test_a_killed_cluster_is_cleaned_up_and_another_takes_its_place(base):
    users = [User(base)]
    try:
        folder = users[0].kubeconfig().parent
        parts = running_parts(folder)
        server, _ = json.loads((folder / "server.json").read_text())
        os.kill(server, signal.SIGKILL)
        until(lambda: not sharing.alive(folder), "the program's end", 10)
        assert parts["etcd"].is_running()
        users.append(User(base))
        other = users[1].kubeconfig().parent
        assert other != folder
        assert not any(process.is_running() for process in parts.values())
        assert not folder.exists()
        parts = running_parts(other)
        users[1].leave()
        assert not any(process.is_running() for process in parts.values())
        assert not (other / "admin.kubeconfig").exists()
    finally:
        for user in users:
            user.die()


def test_a_cluster_that_cannot_start_says_why(base, monkeypatch):
    folder = Path(tempfile.mkdtemp(dir=base))
    for part in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        program = folder / part
        program.write_text("#!/bin/sh\necho it is Tuesday\nexit 3\n")
        program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
    with pytest.raises(sharing.NoCluster, match="etcd ended with 3: it is Tuesday"), sharing.shared_cluster(base):
        pytest.fail("it cannot have started")


def test_a_number_that_belongs_to_somebody_else_by_now_is_not_killed(tmp_path):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        folder = tmp_path / "cluster-1"
        folder.mkdir()
        (folder / "pids.json").write_text(json.dumps({"etcd": [bystander.pid, 12345.0]}))
        assert clean_up_after(folder) == []
        assert bystander.poll() is None
        folder.mkdir()
        note_processes(folder, {"etcd": bystander.pid})
        assert clean_up_after(folder) == ["etcd"]
        assert start_time(bystander.pid) is None
        assert not folder.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_what_a_killed_process_ran_for_itself_is_ended_by_the_next_one(tmp_path, capsys):
    words = """
import os, subprocess, sys, time
from pathlib import Path
from cluster.plane import note_processes
from cluster.sharing import own_folder
with own_folder(Path(sys.argv[1])) as folder:
    part = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    note_processes(folder, {"etcd": part.pid})
    print(part.pid, folder, flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    owner = subprocess.Popen(
        [sys.executable, "-c", words, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    pid, folder = owner.stdout.readline().split()
    with sharing.locked(tmp_path):
        sharing.clean_up(tmp_path)
    assert psutil.Process(int(pid)).is_running()
    owner.kill()
    owner.communicate(timeout=10)
    with sharing.own_folder(tmp_path) as mine:
        assert mine.exists()
        assert start_time(int(pid)) is None
        assert not Path(folder).exists()
    assert "left running: etcd" in capsys.readouterr().err
    assert not mine.exists()


def test_what_a_part_started_is_killed_with_it(tmp_path):
    parent = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    folder = tmp_path / "cluster-1"
    folder.mkdir()
    note_processes(folder, {"attendants": parent.pid})
    clean_up_after(folder)
    parent.communicate(timeout=5)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end", 5)


def test_only_the_newest_logs_stay(tmp_path):
    for number in range(1, 7):
        (tmp_path / f"cluster-{number}" / "logs").mkdir(parents=True)
    sharing.forget_old_logs(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cluster-4", "cluster-5", "cluster-6"]


def test_nobody_holds_what_its_users_let_go_of(tmp_path):
    (tmp_path / "users").mkdir()
    assert sharing.nobody_holds(tmp_path)
    held = sharing.hold(tmp_path)
    assert not sharing.nobody_holds(tmp_path)
    held.close()
    assert sharing.nobody_holds(tmp_path)


def test_steps_under_the_lock_come_one_after_the_other(tmp_path):
    order: list[str] = []

    def second() -> None:
        with sharing.locked(tmp_path):
            order.append("second")

    with sharing.locked(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join(5)
    assert order == ["first", "second"]
