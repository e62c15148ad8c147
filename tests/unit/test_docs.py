"""The documents say what is: commands exist, snippets are valid, links lead somewhere."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import typer

from forge.cli.main import app
from forge.engine.planning import diagnose
from forge.simulate.scenario import parse_story

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
SNIPPET = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")

ENVIRONMENTS = """\
staging: {target: {local: {command: ./myapp}}}
production: {target: {local: {command: ./myapp}}}
"""
JOB = "jobs:\n  before:\n    steps:\n      - run: 'true'\n  job:\n    depends_on: before\n    steps:\n"


def snippets() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        for at, match in enumerate(SNIPPET.finditer(document.read_text(encoding="utf-8")), start=1):
            found.append((f"{document.relative_to(ROOT)}-{at}", match[1]))
    return found


def problems(folder: Path, pipeline: str, environments: str) -> list[str]:
    (folder / "forge").mkdir()
    (folder / "forge" / "pipeline.yaml").write_text(pipeline)
    (folder / "forge" / "environments.yaml").write_text(environments)
    found = diagnose(folder / "forge" / "pipeline.yaml")
    # A document has no repository: the manifests that it names are nowhere.
    return [problem.render() for problem in found if not problem.message.endswith("in the repository")]


def commands() -> list[str]:
    """Every command that a person can type, `release get` for one below another."""

    def below(command: object, words: list[str]) -> list[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return [" ".join(words)]
        return [name for word, sub in inner.items() if not sub.hidden for name in below(sub, [*words, word])]

    return below(typer.main.get_command(app), [])


@pytest.mark.parametrize(("name", "text"), snippets(), ids=[name for name, _ in snippets()])
def test_every_snippet_is_valid(tmp_path, name, text):
    if text.startswith("# forge/environments.yaml"):
        deploys = "jobs: {a: {steps: [{deploy: staging}, {deploy: production}]}}"
        found = problems(tmp_path, deploys, text)
    elif text.startswith("# a scenario"):
        parse_story(text, "scenario.yaml")
        return
    elif name.startswith("docs/signals/"):
        found = problems(tmp_path, text + "jobs: {build: {steps: [{run: make}]}}\n", "environments: {}\n")
    elif text.startswith("# steps of a job"):
        found = problems(tmp_path, JOB + textwrap.indent(text, "      "), ENVIRONMENTS)
    else:
        found = problems(tmp_path, text, ENVIRONMENTS)
    assert found == []


def test_the_snippets_are_found():
    assert len(snippets()) >= 8


def test_a_wrong_snippet_would_be_noticed(tmp_path):
    assert problems(tmp_path, "jobs: {a: {steps: [{rum: make}]}}", ENVIRONMENTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document):
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command):
    assert f"forge {command}" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_documents_name_no_command_that_does_not_exist():
    known = commands()
    groups = {command.split()[0] for command in known if " " in command}
    for document in DOCUMENTS:
        for line in re.findall(r"`forge ([a-z][^`]*)`", document.read_text(encoding="utf-8")):
            words = line.split()
            wanted = " ".join(words[:2]) if words[0] in groups and len(words) > 1 and words[1].islower() else words[0]
            assert wanted in known or wanted in groups, f"{document.name}: forge {line}"


def test_the_readme_begins_with_the_two_commands():
    top = (ROOT / "README.md").read_text(encoding="utf-8")[:600]
    assert "make demo" in top
    assert "make test" in top


def test_make_help_tells_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert {"demo", "test", "check", "bench", "clean", "format", "help"} <= targets


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/**/forge/pipeline.yaml")), ids=lambda path: path.parts[-3])
def test_every_example_is_valid(file):
    assert [problem.render() for problem in diagnose(file)] == []
