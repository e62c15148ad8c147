"""Commands as scripts use them: exit codes, what is on stdout and what on stderr."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

SLOW = """\
jobs:
  slow:
    steps:
      - run: "echo begun; touch {folder}/begun; sleep {seconds}; echo ended >> {folder}/ended"
  after:
    depends_on: slow
    steps:
      - run: echo after
"""
FLAKY = """\
jobs:
  good:
    steps:
      - run: echo good >> {folder}/good
  bad:
    depends_on: good
    steps:
      - run: test -e {folder}/mended
"""


def until(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return result


def test_a_gate_without_a_terminal_then_approve_and_resume(project):
    forge = project(real=True)
    done = forge("run")
    assert done.returncode == 8, done.stderr
    forge = project()
    assert "forge approve run-1 release" in done.stdout
    assert "[build/1] building" in done.stderr
    assert "[build/1] green" in done.stderr, "its colours are left out where nobody sees them"
    assert "[build/1]" not in done.stdout
    assert forge.json("runs")[0]["state"] == "waiting"
    assert forge("status", "1").returncode == 8

    assert forge("approve", "run-9").returncode == 2
    assert "did you mean `release`?" in forge("approve", "1", "relaese").stderr
    assert "does not wait" in forge("approve", "1", "build").stderr
    missing = forge("approve", "1", "release")
    assert (missing.returncode, "needs `ticket`" in missing.stderr) == (2, True)
    assert "did you mean `ticket`?" in forge("approve", "1", "release", "-i", "tikcet=X").stderr
    assert "not one of the choices" in forge("approve", "1", "release", "-i", "ticket=X", "-i", "region=mars").stderr
    forge.ok("approve", "1", "-i", "ticket=X-1", "-i", "region=us", "-m", "looks well")

    resumed = forge("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "[release/2] hello X-1 us" in resumed.stderr
    assert "building" not in resumed.stderr, "what was shown before is not shown again"
    assert forge("approve", "1", "release").returncode == 2
    assert forge.ok("resume") == "", "nothing is left to do"

    assert forge.ok("logs", "1", "release", "2") == "hello X-1 us\n"
    assert forge.ok("logs", "1", "build").splitlines()[:2] == ["[build/1] building", "[build/1] green"]
    assert forge.ok("artifacts", "list", "1", "-o", "name") == "out.txt\n"
    forge.ok("artifacts", "get", "1", "out.txt", "--to", "got")
    assert (forge.folder / "got").read_text() == "hello\n"
    assert forge("artifacts", "get", "1", "out.txt", "--to", "got").returncode == 2, "a file is never replaced unasked"
    assert forge("logs", "1", "biuld").returncode == 2


def test_yes_cannot_make_up_an_answer(project):
    forge = project()
    done = forge("run", "--yes")
    assert done.returncode == 8
    assert "-i ticket=…" in done.stderr


def test_reject_is_exit_code_3_and_kept(project):
    forge = project()
    forge.ok("run", code=8)
    forge.ok("reject", "1", "-m", "not on a Friday")
    forge.ok("resume", "1", code=3)
    status = forge("status", "1", "-o", "json")
    assert status.returncode == 3
    assert "not on a Friday" in status.stdout


def test_one_may_not_approve_what_one_started(project):
    forge = project(
        "jobs:\n  ship:\n    trigger: {manual: {approvers: [ann, bob], allow_self: false}}\n    steps:\n      - run: echo shipped\n"
    )
    forge.ok("run", code=8)
    refused = forge("approve", "1")
    assert refused.returncode == 3
    assert "may not approve" in refused.stderr
    forge.env["FORGE_ACTOR"] = "eve"
    assert forge("approve", "1").returncode == 3
    forge.env["FORGE_ACTOR"] = "bob"
    forge.ok("approve", "1")
    forge.ok("resume")


def test_retry_runs_only_what_failed(project, tmp_path):
    forge = project(FLAKY.format(folder=tmp_path))
    failed = forge("run")
    assert failed.returncode == 1
    assert "forge retry run-1" in failed.stdout
    assert "forge logs run-1 bad" in failed.stdout
    assert forge("status", "run-1").returncode == 1
    (tmp_path / "mended").touch()
    forge.ok("retry", "1")
    assert (tmp_path / "good").read_text() == "good\n"
    assert forge("retry", "1").returncode == 2


def test_wrong_files_are_told_all_at_once_with_exit_code_2(project):
    forge = project("jobs:\n  a:\n    depends_on: c\n    steps: []\n  b:\n    step:\n      - run: x\n")
    for command in ("run", "plan", "graph"):
        done = forge(command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("--> forge/pipeline.yaml:") >= 2, done.stderr
    assert forge("lint").returncode == 2
    told = json.loads(forge("lint", "-o", "json").stdout)
    assert {"code", "message", "file", "line", "column"} <= told[0].keys()
    assert not (forge.folder / ".forge" / "runs").exists()


def test_json_progress_is_json_lines_on_stderr_and_the_result_on_stdout(project):
    forge = project("jobs:\n  a:\n    steps:\n      - run: echo one; echo two\n")
    done = forge("run", "--progress", "json", "-o", "json")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["text"] for line in lines if line["type"] == "log"] == ["one", "two"]
    states = [line["state"] for line in lines if line["type"] == "run"]
    assert states[-1] == "succeeded"
    assert len(states) < 20, "that time passes is no news"
    assert {line["kind"] for line in lines if line["type"] == "event"} >= {"job_started", "job_finished"}
    assert json.loads(done.stdout)["id"] == "run-1"


def test_quiet_says_only_the_result(project):
    forge = project("jobs:\n  a:\n    steps:\n      - run: echo one\n")
    done = forge("run", "--progress", "quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "run-1\n", "")
    assert yaml.safe_load(forge.ok("status", "1", "-o", "yaml"))["state"] == "succeeded"


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(project, tmp_path):
    forge = project(SLOW.format(folder=tmp_path, seconds=3), real=True)
    run = forge.start("run")
    until((tmp_path / "begun").exists)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "forge resume run-1" in said
    assert not (tmp_path / "ended").exists()
    forge.ok("resume")
    assert (tmp_path / "ended").read_text() == "ended\n"
    assert forge.json("runs")[0]["state"] == "succeeded"


def test_cancel_a_run_that_another_process_works_on(project, tmp_path):
    forge = project(SLOW.format(folder=tmp_path, seconds=60), real=True)
    run = forge.start("run")
    until((tmp_path / "begun").exists)
    forge.ok("cancel", "1", "-m", "never mind")
    said, _ = run.communicate(timeout=20)
    assert run.returncode == 3, said
    assert forge.json("runs")[0]["state"] == "cancelled"
    assert forge("cancel", "1").returncode == 2


def test_cancel_a_run_that_nobody_works_on(project):
    forge = project()
    forge.ok("run", code=8)
    forge.ok("cancel", "1")
    assert forge.json("runs")[0]["state"] == "cancelled"


def test_detach_status_wait_and_logs_follow(project, tmp_path):
    forge = project(SLOW.format(folder=tmp_path, seconds=6), real=True)
    assert forge.ok("run", "--detach") == "run-1\n"
    until((tmp_path / "begun").exists)
    assert forge("status", "1", "--wait", "--timeout", "0.2s").returncode == 6
    followed = forge.ok("logs", "1", "-f")
    assert followed == "[slow/1] begun\n[after/1] after\n"
    forge.ok("status", "1", "--wait", "--timeout", "20s")


def test_runs_are_newest_first(project):
    forge = project("jobs:\n  a:\n    steps:\n      - run: 'true'\n")
    for _ in range(3):
        forge.ok("run", "--progress", "quiet")
    assert [one["id"] for one in forge.json("runs")] == ["run-3", "run-2", "run-1"]
    assert forge.json("runs", "-n", "1")[0]["jobs"] == [{"name": "a", "state": "succeeded"}]
    assert forge.ok("runs", "--state", "failed", "-o", "json") == "[]\n"
    assert forge("runs", "--state", "faild").returncode == 2


def test_a_reader_that_goes_away_is_no_error(project):
    forge = project("jobs:\n  a:\n    steps:\n      - run: seq 1 100000\n", real=True)
    forge.ok("run", "--progress", "quiet")
    command = f"{sys.executable} -m forge logs 1 | head -n 1"
    done = subprocess.run(command, shell=True, cwd=forge.folder, env=forge.whole_env, capture_output=True, text=True)
    assert done.stdout == "[a/1] 1\n"
    assert done.stderr == ""


def test_init_then_run_and_doctor(project):
    forge = project()
    (forge.folder / "forge" / "pipeline.yaml").unlink()
    (forge.folder / "Makefile").write_text("build:\n\techo built\ntest:\n\techo tested\n")
    assert "wrote forge/pipeline.yaml" in forge.ok("init")
    forge.ok("lint")
    done = forge("run")
    assert done.returncode == 8
    assert "tested" in done.stderr
    forge.folder = forge.folder / "a" / "b"
    forge.folder.mkdir(parents=True)
    assert forge.json("runs")[0]["id"] == "run-1"
    assert json.loads(forge("doctor", "-o", "json").stdout)[0]["check"] == "forge"
    assert forge("doctor").returncode == 0


def test_doctor_finds_a_changed_log(project):
    import sqlite3

    forge = project("jobs:\n  a:\n    steps:\n      - run: 'true'\n")
    forge.ok("run", "--progress", "quiet")
    with sqlite3.connect(forge.folder / ".forge" / "forge.db") as database:
        database.execute("UPDATE events SET at = at + 1 WHERE seq = 2")
    database.close()
    done = forge("doctor")
    assert done.returncode == 5
    assert "record 2 does not fit the hash chain" in done.stdout


def test_a_database_that_is_away_is_exit_code_5_and_its_password_is_not_told(project):
    forge = project(FORGE_DATABASE="postgresql://ann:hush@127.0.0.1:1/forge")
    done = forge("runs")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    told = forge("doctor")
    assert told.returncode == 5
    assert "hush" not in done.stdout + done.stderr + told.stdout + told.stderr


def test_environments_of_the_pipeline_are_known_before_anything_is_released(project):
    forge = project("jobs:\n  a:\n    steps:\n      - run: 'true'\n")
    Path(forge.folder, "forge", "environments.yaml").write_text(
        "production:\n  target: {local: {command: sleep 9, replicas: 1}}\n"
    )
    assert forge.json("env", "list")[0]["name"] == "production"
    assert forge.json("env", "show", "production")["state"] == "empty"
    assert "did you mean `production`?" in forge("env", "show", "prodution").stderr
    for command in (("release", "get"), ("release", "promote"), ("rollback",), ("env", "up")):
        done = forge(*command, "production")
        assert done.returncode == 2, command
        assert "nothing was released to production yet" in done.stderr
