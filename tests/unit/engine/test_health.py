from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from forge import __version__
from forge.engine.health import (
    Finding,
    check_artifacts,
    check_disk,
    check_pipeline,
    check_program,
    check_python,
    examine,
    without_password,
)
from forge.engine.project import Project

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.delenv("FORGE_DATABASE", raising=False)
    monkeypatch.delenv("FORGE_ARTIFACTS", raising=False)
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "pipeline.yaml").write_text("jobs: {a: {steps: [{run: 'true'}]}}\n")
    return Project(tmp_path)


async def test_a_project_that_never_ran_is_well(project):
    findings = [finding async for finding in examine(project)]
    assert [finding for finding in findings if finding.state == "fail"] == []
    assert findings[0] == Finding("forge", "ok", __version__)
    assert {finding.check for finding in findings} >= {
        "python",
        "git",
        "envoy",
        "pipeline",
        "disk",
        "database",
        "artifacts",
    }
    assert not project.state.exists(), "looking changes nothing"


async def test_without_a_project_the_rest_is_looked_at():
    findings = [finding async for finding in examine(None)]
    assert [finding.state for finding in findings if finding.check == "project"] == ["warn"]
    assert "forge init" in findings[-1].hint


async def test_a_program_that_is_not_there_or_fails_is_told_with_what_it_is_for():
    gone = await check_program("git", ("no-such-program",), needed="for sources")
    assert (gone.state, "for sources" in gone.hint) == ("fail", True)
    broken = await check_program("git", ("sh", "-c", "echo oh no; exit 3"), needed="for sources")
    assert (broken.state, broken.message) == ("fail", "exit code 3: oh no")
    well = await check_program("git", ("echo", "git version 2.39.5"), needed="for sources")
    assert well == Finding("git", "ok", "2.39.5")


@pytest.mark.parametrize(("free", "state"), [(50_000_000, "fail"), (500_000_000, "warn"), (5_000_000_000, "ok")])
def test_disk(project, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(free * 2, free, free))
    assert check_disk(project).state == state


def test_a_wrong_pipeline(project):
    assert check_pipeline(project).state == "ok"
    project.pipeline.write_text("jobs: {a: {step: []}}\n")
    assert check_pipeline(project).state == "fail"


async def test_artifacts_that_cannot_be_reached(project, monkeypatch):
    assert (await check_artifacts(project)).state == "ok"
    monkeypatch.setenv("FORGE_ARTIFACTS", "s33://bucket")
    assert (await check_artifacts(project)).state == "fail"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////a/forge.db", "sqlite:////a/forge.db"),
        ("postgresql://ann:hush@host/forge", "postgresql://ann@host/forge"),
        ("postgresql://ann:p@ss:word@host/forge", "postgresql://ann@host/forge"),
        ("postgresql://ann@host/forge", "postgresql://ann@host/forge"),
    ],
)
def test_a_password_is_never_shown(url, shown):
    assert without_password(url) == shown


def test_python():
    assert check_python().state == "ok"
