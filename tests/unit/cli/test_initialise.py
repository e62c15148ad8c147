from __future__ import annotations

import pytest

from forge.cli.initialise import commands, sample, write_sample
from forge.engine.planning import diagnose


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"Makefile": "build:\n\ttrue\ntest: build\n\ttrue\n"}, ("make build", "make test")),
        ({"Makefile": "test:\n\ttrue\n"}, ("", "make test")),
        ({"Makefile": "build := x\nall:\n\ttrue\n", "go.mod": ""}, ("go build ./...", "go test ./...")),
        ({"package.json": "{}"}, ("npm ci", "npm test")),
        ({"Cargo.toml": ""}, ("cargo build --release", "cargo test")),
    ],
)
def test_the_commands_fit_what_is_there(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert commands(tmp_path) == expected


@pytest.mark.parametrize("files", [{}, {"Makefile": "build:\ntest:\n"}, {"pyproject.toml": ""}])
def test_the_sample_has_no_problem(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert write_sample(tmp_path)[0] == "wrote forge/pipeline.yaml"
    assert [one for one in diagnose(tmp_path / "forge" / "pipeline.yaml") if one.severity == "error"] == []


def test_nothing_is_ever_overwritten(tmp_path):
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "pipeline.yaml").write_text("mine")
    (tmp_path / ".gitignore").write_text("build\n.forge/\n")
    assert write_sample(tmp_path) == []
    assert (tmp_path / "forge" / "pipeline.yaml").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "build\n.forge/\n"


def test_gitignore_gets_its_line_and_keeps_the_others(tmp_path):
    (tmp_path / ".gitignore").write_text("build")
    assert "added .forge/ to .gitignore" in write_sample(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "build\n.forge/\n"
    assert write_sample(tmp_path) == []


def test_the_sample_itself(golden, tmp_path):
    (tmp_path / "Makefile").write_text("build:\ntest:\n")
    golden("init", sample(tmp_path))
