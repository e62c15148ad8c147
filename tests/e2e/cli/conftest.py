"""Projects in a folder, and the real command in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def project(tmp_path: Path, forge_in: Callable[..., Any]) -> Callable[..., Any]:
    """Return how to make a project with that pipeline; the answer is its command."""

    def make(pipeline: str, **env: str) -> Any:
        folder = tmp_path / "project"
        (folder / "forge").mkdir(parents=True)
        (folder / "forge" / "pipeline.yaml").write_text(pipeline)
        return forge_in(folder, {"FORGE_ACTOR": "ann", **env})

    return make
