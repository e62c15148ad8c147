"""A developer's cluster: one in a folder, what a killed one left is ended, and keys do not outlive it."""

from __future__ import annotations

import subprocess

import pytest

from cluster.attendants import established
from cluster.plane import note_processes, start_time
from cluster.serve import AlreadyRuns, keep_only_logs, only_one, write_whole


def test_a_second_one_in_the_same_folder_is_refused_with_the_first_ones_kubeconfig(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    with only_one(folder):
        (folder / "admin.kubeconfig").write_text("in use")
        with pytest.raises(AlreadyRuns, match=r"already: KUBECONFIG=.*admin\.kubeconfig"), only_one(folder):
            pytest.fail("there were two")
        assert (folder / "admin.kubeconfig").read_text() == "in use"


def test_what_a_killed_one_left_is_ended_and_removed_first(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    left = subprocess.Popen(["sleep", "60"])
    try:
        note_processes(folder, {"etcd": left.pid})
        with only_one(folder):
            assert start_time(left.pid) is None
            assert list(folder.iterdir()) == []
    finally:
        left.kill()
        left.wait()


def test_only_logs_and_the_reason_outlive_it(tmp_path):
    for name in ("logs/etcd.log", "pki/ca.key", "etcd/member", "failed.txt", "admin.kubeconfig", "ready.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    keep_only_logs(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["failed.txt", "logs"]
    assert (tmp_path / "logs" / "etcd.log").exists()


def test_a_file_that_others_wait_for_is_whole(tmp_path):
    write_whole(tmp_path / "ready.json", {"pid": 1})
    assert (tmp_path / "ready.json").read_text() == '{"pid": 1}'
    assert [one.name for one in tmp_path.iterdir()] == ["ready.json"]


@pytest.mark.parametrize(
    ("status", "served"),
    [
        ({}, False),
        ({"status": {"conditions": None}}, False),
        ({"status": {"conditions": [{"type": "Established", "status": "False"}]}}, False),
        ({"status": {"conditions": [{"type": "NamesAccepted", "status": "True"}]}}, False),
        ({"status": {"conditions": [{"type": "Established", "status": "True"}]}}, True),
    ],
)
def test_a_definition_is_served_once_it_says_so(status, served):
    assert established(status) is served
