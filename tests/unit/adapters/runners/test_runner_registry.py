"""Which runner a job gets, without a cluster being asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forge.adapters.runners.kubernetes_job import KubernetesRunner, always
from forge.adapters.runners.registry import remote_runner
from forge.model.errors import UsageError


def test_pods_are_a_runner() -> None:
    runner = remote_runner("kubernetes", {"image": "debian:12", "access": {"context": "x"}}, "/work", always)
    assert isinstance(runner, KubernetesRunner)
    assert runner.local is False


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("docker", {}, "no runner is called `docker`"),
        ("kubernetes", {}, "settings cannot be read: .*image"),
        ("kubernetes", {"image": 3}, "settings cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, config: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        remote_runner(name, config, "/work", always)


def test_who_runs_no_pods_loads_nothing_of_it() -> None:
    program = (
        "import sys; import forge.engine.step_performing, forge.adapters.steps.run; "
        "print([name for name in sys.modules if name.startswith(('lightkube', 'httpx2', 'forge.adapters.kubernetes'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
