"""Reading a project's files: where they are, what may be included, and everything wrong at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from forge.engine.planning import diagnose, load, plan_document, read_sources
from forge.engine.project import Project
from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.plan import Source

JOB = "jobs: {a: {steps: [{run: make}]}}\n"
STAGING = "target: {local: {command: run}}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge/pipeline.yaml").write_text(JOB)
    return Project(tmp_path)


def write(project: Project, **files: str) -> None:
    for name, text in files.items():
        path = project.root / "forge" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def problems(project: Project, **parameters: str):
    with pytest.raises(InvalidConfiguration) as wrong:
        load(project, parameters)
    return wrong.value.diagnostics


def test_a_plan_is_loaded_with_its_source(project: Project):
    plan = load(project, source=Source("d" * 64, commit="abc"))
    assert plan.source == Source("d" * 64, commit="abc")
    assert plan.file == "forge/pipeline.yaml"
    assert [job.name for job in plan.jobs] == ["a"]


def test_parameters_are_given_as_text(project: Project):
    write(project, pipeline="parameters: {n: 1}\n" + JOB)
    assert load(project, {"n": "7"}).parameters == {"n": 7}


def test_the_same_files_give_the_same_digest_wherever_they_are(project: Project, tmp_path: Path):
    other = tmp_path / "elsewhere"
    (other / "forge").mkdir(parents=True)
    (other / "forge/pipeline.yaml").write_text(JOB)
    assert load(project).digest == load(Project(other)).digest


@pytest.mark.parametrize("text", [f"staging: {{{STAGING}}}\n", f"environments:\n  staging: {{{STAGING}}}\n"])
def test_environments_come_from_the_file_beside(project: Project, text: str):
    write(project, environments=text, pipeline="jobs: {a: {steps: [{verify: staging}]}}")
    assert load(project).environment("staging").target_config["command"] == ["sh", "-c", "exec run"]


def test_environments_of_both_files_are_joined(project: Project):
    write(project, environments=f"b: {{{STAGING}}}", pipeline=f"environments: {{a: {{{STAGING}}}}}\n{JOB}")
    assert [one.name for one in load(project).environments] == ["a", "b"]


def test_an_environment_in_both_files_is_told_with_both_places(project: Project):
    write(
        project,
        environments=f"# mine\nstaging: {{{STAGING}}}",
        pipeline=f"environments: {{staging: {{{STAGING}}}}}\n{JOB}",
    )
    (one,) = problems(project)
    assert (one.file, one.line) == ("forge/environments.yaml", 2)
    assert "forge/pipeline.yaml:1" in one.hint


def test_an_error_in_the_environments_file_points_into_it(project: Project):
    write(project, environments="staging:\n  target: {lokal: {}}\n")
    (one,) = problems(project)
    assert (one.file, one.line, one.column) == ("forge/environments.yaml", 2, 12)


def test_templates_are_included_by_a_path_from_the_project(project: Project):
    write(project, templates="templates: {t: {steps: [{run: from template}]}}")
    write(project, pipeline="include: forge/templates.yaml\njobs: {a: {template: t}}")
    assert load(project).jobs[0].steps[0].config == {"script": "from template"}


def test_several_files_may_be_included(project: Project):
    write(project, one="templates: {t: {steps: [{run: a}]}}", two="templates: {u: {steps: [{run: b}]}}")
    write(project, pipeline="include: [forge/one.yaml, forge/two.yaml]\njobs: {a: {template: t}, b: {template: u}}")
    assert len(load(project).jobs) == 2


@pytest.mark.parametrize("path", ["../outside.yaml", "/etc/passwd", "forge/../../outside.yaml", "forge/link.yaml"])
def test_an_include_never_leaves_the_project(project: Project, path: str):
    (project.root.parent / "outside.yaml").write_text("templates: {t: {steps: [{run: a}]}}")
    os.symlink(project.root.parent / "outside.yaml", project.root / "forge/link.yaml")
    write(project, pipeline=f"include: [{path}]\n{JOB}")
    (one,) = problems(project)
    assert one.code == "include"
    assert "outside the project" in one.message
    assert (one.file, one.line) == ("forge/pipeline.yaml", 1)


def test_an_include_that_is_missing_is_told_with_what_was_meant(project: Project):
    write(project, templates="templates: {t: {steps: [{run: a}]}}", pipeline=f"include: templates.yaml\n{JOB}")
    (one,) = problems(project)
    assert "no file `templates.yaml`" in one.message
    assert "write `forge/templates.yaml`" in one.hint


def test_an_included_file_holds_only_templates(project: Project):
    write(project, more="templates: {}\njobs: {}\n", pipeline=f"include: forge/more.yaml\n{JOB}")
    assert [(one.file, one.code) for one in problems(project)] == [("forge/more.yaml", "unknown-key")]


def test_problems_of_all_files_are_told_at_once(project: Project):
    write(
        project,
        pipeline="include: [forge/gone.yaml, forge/bad.yaml]\nnmae: x\njobs: {a: {depends_on: b, steps: [{run: x}]}}",
        environments="staging: {}\n",
        bad="templates: [\n",
    )
    assert [(one.file, one.code) for one in problems(project)] == [
        ("forge/bad.yaml", "syntax"),
        ("forge/environments.yaml", "missing-key"),
        ("forge/pipeline.yaml", "include"),
        ("forge/pipeline.yaml", "unknown-key"),
        ("forge/pipeline.yaml", "unknown-job"),
    ]


def test_what_an_unreadable_file_would_have_held_is_not_missed(project: Project):
    write(
        project,
        pipeline="include: forge/bad.yaml\njobs: {a: {template: t}, b: {steps: [{verify: staging}]}}",
        environments="staging: [\n",
        bad="templates: {t: \n",
    )
    assert [(one.file, one.code) for one in problems(project)] == [
        ("forge/bad.yaml", "syntax"),
        ("forge/environments.yaml", "syntax"),
    ]


def test_a_huge_file_is_refused_without_being_read(project: Project):
    with project.pipeline.open("wb") as file:
        file.truncate(5_000_000_000)  # sparse: 5 GB that take no disk
    start = time.process_time()
    (one,) = problems(project)
    assert time.process_time() - start < 1
    assert one.code == "too-large"
    assert "5000.0 MB" in one.message
    assert one.file == "forge/pipeline.yaml"


def test_ten_megabytes_of_pipeline_are_refused(project: Project):
    project.pipeline.write_bytes(b"# " + b"x" * 10_000_000)
    (one,) = problems(project)
    assert "10.0 MB; at most 1 MB are read" in one.message


def test_a_file_that_is_not_there_is_the_callers_mistake(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        diagnose(tmp_path / "nope.yaml")


def test_a_folder_is_no_pipeline(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        diagnose(tmp_path)


def test_diagnose_tells_warnings_too(project: Project):
    write(project, pipeline=f"templates: {{t: {{steps: [{{run: a}}]}}}}\n{JOB}")
    (one,) = diagnose(project.pipeline)
    assert (one.severity, one.code, one.file) == ("warning", "unused-template", "forge/pipeline.yaml")
    assert load(project).jobs


def test_diagnose_takes_any_file(tmp_path: Path):
    path = tmp_path / "other.yaml"
    path.write_text("jobs: {a: {steps: [{rum: x}]}}")
    (one,) = diagnose(path)
    assert (one.file, one.code) == ("other.yaml", "unknown-key")


def test_diagnose_takes_an_environments_file(project: Project):
    write(project, environments=f"a: {{{STAGING}}}\nb: {{target: {{local: {{}}}}}}\n")
    (one,) = diagnose(project.root / "forge/environments.yaml")
    assert (one.file, one.line, one.code) == ("forge/environments.yaml", 2, "missing-key")
    write(project, environments=f"a: {{{STAGING}}}\n")
    assert diagnose(project.root / "forge/environments.yaml") == []


def test_diagnose_of_a_broken_file_is_its_one_problem(project: Project):
    write(project, pipeline="jobs: [")
    assert [one.code for one in diagnose(project.pipeline)] == ["syntax"]


def test_a_parameter_that_is_not_there_is_told_with_the_others(project: Project):
    write(project, pipeline="parameters: {tag: x}\njobs: {a: {depends_on: b, steps: [{run: x}]}}")
    assert [one.message for one in problems(project, tga="1")] == [
        "the pipeline has no parameter `tga`",
        "there is no job `b`",
    ]


def test_an_include_that_is_no_text_is_left_to_the_schema(project: Project):
    write(project, pipeline=f"include: [[a]]\n{JOB}")
    sources, unread = read_sources(project.pipeline, project.root)
    assert sources is not None
    assert unread == []
    assert [one.code for one in problems(project)] == ["value"]


def test_a_nul_in_an_include_is_refused(project: Project):
    write(project, pipeline=f'include: "a\\0b"\n{JOB}')
    assert [one.code for one in problems(project)] == ["include"]


def test_the_examples_are_valid():
    for path in (Path(__file__).parents[3] / "examples").glob("*/forge/pipeline.yaml"):
        assert diagnose(path) == [], path
        assert plan_document(load(Project(path.parents[1]))).jobs


def test_a_key_that_is_there_twice_hides_nothing_else(project: Project):
    text = "jobs:\n  a:\n    retry: 022\n    steps: [{rum: x}]\n  a:\n    steps: []\n  b: {depends_on: c, steps: [{run: x}]}\n"
    write(project, pipeline=text)
    found = [(one.code, one.line) for one in problems(project)]
    assert found == [("scalar", 3), ("unknown-key", 4), ("duplicate-key", 5), ("unknown-job", 7)]
    assert [(one.code, one.line) for one in diagnose(project.pipeline)] == found
