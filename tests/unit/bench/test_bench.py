"""The measurements measure the same thing twice, and say what they found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _bench_is_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    for told_by_make in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(told_by_make, raising=False)


def test_pipeline_and_makefile_are_the_same_graph(tmp_path):
    from bench.many_jobs import job_name, makefile, pipeline
    from forge.engine.planning import diagnose

    (tmp_path / "forge").mkdir()
    file = tmp_path / "forge" / "pipeline.yaml"
    file.write_text(pipeline(20, 4))
    assert diagnose(file) == []
    assert file.read_text().count("run:") == 20
    (tmp_path / "Makefile").write_text(makefile(20, 4, shutil.which("bash") or "/bin/sh"))
    shown = subprocess.run(["make", "-n", "all"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.split() == [":"] * 20
    assert f"{job_name(3, 4)}: {job_name(3, 3)}" in (tmp_path / "Makefile").read_text()


def test_a_run_of_many_jobs_is_measured(monkeypatch):
    from bench.many_jobs import measure

    (figure,) = measure(jobs=12, wide=3, rounds=1)
    assert "12 no-op jobs" in figure.what
    assert float(figure.ratio) > 0


def test_the_local_target_is_measured():
    from bench.local_target import measure

    figures = {figure.what: figure.measured for figure in measure(changes=6, kills=1, rounds=1)}
    assert figures["requests lost over 6 weight changes"].startswith("0 of ")
    assert len(figures) == 6


def test_two_things_are_timed_in_turn():
    from bench.figures import in_turn

    order: list[str] = []
    ours, floor = in_turn(lambda: order.append("a"), lambda: order.append("b"), rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert len(ours) == len(floor) == 3


def test_the_table_is_markdown():
    from bench.figures import Figure, compare, table

    text = table([Figure("x", "1 s"), compare("y", [0.2, 0.4], [0.1, 0.1], "`floor`", each=10)])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "3.00 (2.00-4.00)" in lines[3]
    assert "300.0 ms, 30.00 ms each" in lines[3]


def test_an_unknown_part_is_an_error():
    done = subprocess.run([sys.executable, "-m", "bench", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no part 'nothing'" in done.stderr
