"""Projects in a folder, and the command in them: mostly in this process, which is quicker, or as one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from forge.cli.main import run_command

GATED = """\
jobs:
  build:
    steps:
      - run: |
          echo building
          printf '\\033[32mgreen\\033[0m\\n'
          echo hello > out.txt
      - publish:
          artefact: out.txt
  release:
    depends_on: build
    trigger:
      manual:
        message: Is it well?
        inputs:
          ticket: {type: string, required: true, description: the ticket}
          region: {type: choice, options: [eu, us], default: eu}
    steps:
      - download: out.txt
      - run: echo "$(cat out.txt) $TICKET $REGION"
        env:
          TICKET: ${{ inputs.ticket }}
          REGION: ${{ inputs.region }}
"""


@dataclass
class ForgeHere:
    """Runs the command in this process: everything of it is real but the process."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, {**own, **self.env}, clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            Path(os.devnull).open() as nothing,
            patch("sys.stdin", nothing),
        ):
            code = run_command(list(words))
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def ok(self, *words: str, code: int = 0) -> str:
        done = self(*words)
        assert done.returncode == code, f"forge {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "-o", "json"))


@pytest.fixture
def project(tmp_path: Path, forge_in: Callable[..., Any]) -> Callable[..., Any]:
    """Return how to make a project with a pipeline; the answer is the command in it."""

    def make(pipeline: str = GATED, *, real: bool = False, **env: str) -> Any:
        folder = tmp_path / "project"
        (folder / "forge").mkdir(parents=True, exist_ok=True)
        (folder / "forge" / "pipeline.yaml").write_text(pipeline)
        return (forge_in if real else ForgeHere)(folder, {"FORGE_ACTOR": "ann", **env})

    return make
