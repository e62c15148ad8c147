"""Recorded releases judged by the command itself, in processes of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twenty releases: every fourth fails a fifth of its requests."""
    path, rng = tmp_path_factory.mktemp("analysed"), random.Random(11)
    with (path / "readings.csv").open("w") as file, (path / "truth.csv").open("w") as truth:
        file.write("release,t,arm,requests,errors\n")
        truth.write("release,bad\n")
        for number in range(20):
            bad = number % 4 == 1
            truth.write(f"v{number},{str(bad).lower()}\n")
            counts = {"stable": [0, 0], "canary": [0, 0]}
            for t in range(-5, 150):
                for arm, rate in (("stable", 0.01), ("canary", 0.2 if bad else 0.01)):
                    if arm == "canary" and t < 0:
                        continue
                    counts[arm][0] += 40
                    counts[arm][1] += sum(rng.random() < rate for _ in range(40))
                    file.write(f"v{number},{t},{arm},{counts[arm][0]},{counts[arm][1]}\n")
    return path


def forge(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "forge", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_twenty_releases(folder):
    lines = forge(folder, "analyse", "readings.csv", "-o", "json", "--jobs", "2").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [one["release"] for one in told] == [f"v{number}" for number in range(20)]
    assert [one["verdict"] == "rollback" for one in told] == [number % 4 == 1 for number in range(20)]
    assert list(told[0]) == [
        "release", "verdict", "t_verdict", "arm", "evidence", "p_value", "ratio_interval", "failed_requests",
        "excess_failed_requests",
    ]  # fmt: skip
    for one in told:
        if one["verdict"] == "rollback":
            assert one["evidence"] >= 100
            assert one["p_value"] <= 0.01
            assert one["arm"] == "canary"
            assert one["t_verdict"] <= 20
            assert one["failed_requests"] <= 300
    assert forge(folder, "analyse", "readings.csv", "-o", "json", "--jobs", "1").stdout.splitlines() == lines


def test_one_release_is_drawn_and_may_fail_a_script(folder):
    done = forge(folder, "analyse", "readings.csv", "--release", "v1", "--fail-on", "rollback", code=1)
    assert "v1: ROLLBACK of canary" in done.stdout
    assert "evidence against it" in done.stdout
    assert "█" in done.stdout
    assert "\x1b" not in done.stdout


def test_what_a_policy_would_have_cost(folder):
    done = forge(
        folder,
        "backtest",
        "readings.csv",
        "--truth",
        "truth.csv",
        "-o",
        "json",
        "--judge",
        "sequential",
        "--judge",
        "failure_limit",
    )
    ours, rule = json.loads(done.stdout)
    assert (ours["releases"], ours["caught"], ours["missed"], ours["false_alarms"]) == (20, 5, 0, 0)
    assert ours["failed_requests"] < rule["failed_requests"]
    assert rule["missed"] == 5  # its fourth failure comes after these data


def test_wrong_rows_are_told_with_their_place(folder):
    (folder / "wrong.csv").write_text("release,t,arm,requests,errors\nv,0,stable,x,0\nv,1,stable,5,y\n")
    done = forge(folder, "analyse", "wrong.csv", code=2)
    assert "wrong.csv:2:12" in done.stderr
    assert "wrong.csv:3:14" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--judge", "sequentail"], "did you mean `sequential`?"),
        (["--stable", "stabel"], "did you mean `stable`?"),
        (["--limit", "x"], "is no rate"),
        (["--alpha", "2"], "alpha"),
        (["--release", "v99"], "no release `v99`"),
    ],
)
def test_wrong_words(folder, words, told):
    assert told in forge(folder, "analyse", "readings.csv", *words, code=2).stderr


PIPELINE = """\
environments:
  production:
    target: {{local: {{command: [./serve], replicas: 1}}}}
    judge: {judge}
jobs:
  release:
    steps:
      - publish: app.tar.gz
      - deploy:
          environment: production
          artifact: app.tar.gz
          strategy: {{canary: {{steps: [{{weight: 5%}}, {{pause: 30m}}]}}}}
          checks: [{{error_rate: {{above: 90%, over: 1m}}}}]
"""


@pytest.mark.parametrize(("judge", "caught"), [("sequential", 5), ("{sequential: {ratio: 100, rate: 40%}}", 0)])
def test_a_policy_is_judged_with_the_settings_of_its_environment(folder, tmp_path, judge, caught):
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "pipeline.yaml").write_text(PIPELINE.format(judge=judge))
    words = ["backtest", str(folder / "readings.csv"), "--truth", str(folder / "truth.csv")]
    told = json.loads(forge(tmp_path, *words, "--judge", "sequential", "-o", "json").stdout)[0]
    assert (told["caught"], told["missed"]) == (caught, 5 - caught)
    assert told["hours"] >= (20 - caught) * 0.5  # the step of half an hour, unless rolled back
