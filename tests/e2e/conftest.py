"""The `forge` command as a person runs it: a process of its own in a project's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FORGE = Path(sys.executable).parent / "forge"


@dataclass
class ForgeCommand:
    """Runs `forge` in `folder`, without a terminal; `env` comes on top of this process's own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def whole_env(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
        own["PATH"] = f"{FORGE.parent}{os.pathsep}{own['PATH']}"
        return {**own, **self.env}

    def __call__(self, *words: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(FORGE), *words], cwd=self.folder, env=self.whole_env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def ok(self, *words: str, code: int = 0, timeout: float = 100) -> str:
        """Return the command's stdout; the test fails with all that was said unless it exits with `code`."""
        done = self(*words, timeout=timeout)
        assert done.returncode == code, f"forge {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        """Return what a command prints as JSON."""
        return json.loads(self.ok(*words, "-o", "json"))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        return subprocess.Popen(
            [str(FORGE), *words], cwd=self.folder, env=self.whole_env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture
def forge_in() -> Callable[..., ForgeCommand]:
    """Return how to get the command for a folder."""
    return ForgeCommand
