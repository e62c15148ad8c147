"""`forge init`: a first pipeline that fits what is in the folder. Never overwrites anything."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from forge.cli.session import say, session_of, tell
from forge.engine.project import PIPELINE

_FIND = (
    ("Makefile", "make build", "make test"),
    ("package.json", "npm ci", "npm test"),
    ("pyproject.toml", "python3 -m compileall -q .", "python3 -m pytest"),
    ("go.mod", "go build ./...", "go test ./..."),
    ("Cargo.toml", "cargo build --release", "cargo test"),
    ("pom.xml", "mvn -q package -DskipTests", "mvn -q test"),
)
_MAKE_TARGET = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*:(?!=)", re.MULTILINE)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("init")(init)


def init(context: typer.Context) -> None:
    """Write a first forge/pipeline.yaml. A commented sample that fits what is in the folder; never overwrites."""
    session = session_of(context)
    wrote = write_sample(session.directory.resolve())
    if not wrote:
        tell("nothing to write: forge/pipeline.yaml is there, and .gitignore has .forge/")
        return
    for line in wrote:
        say(line)
    tell("next: `forge lint`, `forge plan`, `forge run`")


def write_sample(root: Path) -> list[str]:
    """Write what is missing below `root`; return a line for each file that was written or changed."""
    wrote = []
    if not (root / PIPELINE).exists():
        (root / PIPELINE).parent.mkdir(exist_ok=True)
        (root / PIPELINE).write_text(sample(root))
        wrote.append(f"wrote {PIPELINE}")
    ignore = root / ".gitignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    if not {".forge", ".forge/", "/.forge", "/.forge/"} & {line.strip() for line in lines}:
        verb = "added .forge/ to" if ignore.exists() else "wrote"
        ignore.write_text("\n".join([*lines, ".forge/"]) + "\n")
        wrote.append(f"{verb} .gitignore")
    return wrote


def sample(root: Path) -> str:
    """Return a pipeline for what is in the folder: a first command to build, one to test, both to be adapted."""
    build, test = commands(root)
    steps = [f"      - run: {command}" for command in (build, test) if command]
    return _SAMPLE.format(steps="\n".join(steps))


def commands(root: Path) -> tuple[str, str]:
    """Return (build, test) commands for the folder; an empty one when there is nothing to run."""
    for file, build, test in _FIND:
        path = root / file
        if not path.is_file():
            continue
        if file == "Makefile":
            targets = set(_MAKE_TARGET.findall(path.read_text(errors="replace")))
            found = tuple(command if command.split()[1] in targets else "" for command in (build, test))
            if any(found):
                return found[0], found[1]
            continue
        return build, test
    return "echo 'put the command that builds here'", "echo 'put the command that tests here'"


_SAMPLE = """\
# Forge's pipeline: `forge lint` checks it, `forge plan` shows what would happen, `forge run` does it.
# For editors: `forge schema > forge/schema.json`, then add
#   # yaml-language-server: $schema=schema.json
jobs:
  build_and_test:
    steps:
      - checkout: .
{steps}
      # Keep what you built, for the jobs below and for later:
      # - publish:
      #     artefact: myapp.tar.gz

  # A job that waits for a person: `forge approve RUN release` lets it go on.
  release:
    depends_on: build_and_test
    trigger: manual
    steps:
      # - download: myapp.tar.gz
      - run: echo "put the command that releases here"
"""
