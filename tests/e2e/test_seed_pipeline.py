"""The pipeline that Forge began with, unchanged: a Makefile, k8s manifests, and a `kubectl` that writes down calls."""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden" / "pipeline" / "seed.yaml"

MAKEFILE = """\
build:
\ttar -czf myapp.tar.gz app.txt
\techo build >> made
test:
\ttest -f myapp.tar.gz
\techo test >> made
"""

KUBECTL = """\
#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
if [ "$1" = apply ]; then cp "$3" "$here/applied" || exit 1; fi
cp myapp.tar.gz "$here/shipped.tar.gz" || exit 1
if [ -f "$here/broken" ] && [ "$1 $2" = "rollout status" ]; then
  echo "error: deployment exceeded its progress deadline" >&2
  exit 1
fi
"""

STAGING = ["apply -f k8s/staging/deployment.yaml", "rollout status deployment/myapp-staging"]
PRODUCTION = ["apply -f k8s/production/deployment.yaml", "rollout status deployment/myapp-production"]


@dataclass
class Seed:
    """A project as the seed describes it, and the folder of the recording kubectl."""

    forge: object
    folder: Path
    tools: Path

    @property
    def calls(self) -> list[str]:
        record = self.tools / "calls"
        return record.read_text().splitlines() if record.exists() else []


@pytest.fixture
def seed(tmp_path, forge_in) -> Seed:
    folder, tools = tmp_path / "myapp", tmp_path / "tools"
    (folder / "forge").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(GOLDEN, folder / "forge" / "pipeline.yaml")
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "app.txt").write_text("the app\n")
    for environment in ("staging", "production"):
        manifest = folder / "k8s" / environment / "deployment.yaml"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(f"kind: Deployment\nmetadata: {{name: myapp-{environment}}}\n")
    kubectl = tools / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    forge = forge_in(folder)
    forge.env["PATH"] = f"{tools}{os.pathsep}{forge.whole_env['PATH']}"
    return Seed(forge, folder, tools)


def jobs(seed: Seed) -> dict[str, str]:
    return {job["name"]: job["state"] for job in seed.forge.json("runs")[0]["jobs"]}


def test_runs_unchanged_and_calls_kubectl_as_it_says(seed):
    seed.forge.ok("run", "--yes")
    assert seed.calls == STAGING + PRODUCTION
    assert "myapp-production" in (seed.tools / "applied").read_text()
    with tarfile.open(seed.tools / "shipped.tar.gz") as shipped:
        assert shipped.extractfile("app.txt").read() == b"the app\n"
    assert jobs(seed) == {
        "build_and_test": "succeeded",
        "deploy_staging": "succeeded",
        "deploy_production": "succeeded",
    }


def test_leaves_the_working_tree_alone(seed):
    seed.forge.ok("run", "--yes")
    assert not (seed.folder / "made").exists()
    assert not (seed.folder / "myapp.tar.gz").exists()


def test_stops_at_the_manual_job_until_somebody_approves(seed):
    seed.forge.ok("run", code=8)
    assert seed.calls == STAGING
    assert jobs(seed)["deploy_production"] == "waiting_approval"
    run = seed.forge.json("runs")[0]["id"]
    seed.forge.ok("approve", run, "deploy_production")
    assert seed.calls == STAGING, "approving takes effect when somebody resumes"
    seed.forge.ok("resume")
    assert seed.calls == STAGING + PRODUCTION
    assert set(jobs(seed).values()) == {"succeeded"}
    assert len(seed.forge.json("runs")) == 1


def test_a_rejected_production_ends_the_run_and_never_reaches_kubectl(seed):
    seed.forge.ok("run", code=8)
    run = seed.forge.json("runs")[0]["id"]
    seed.forge.ok("reject", run, "deploy_production")
    seed.forge.ok("resume", run, code=3)
    assert seed.calls == STAGING
    assert jobs(seed)["deploy_production"] == "rejected"


def test_a_rollout_that_fails_stops_the_pipeline(seed):
    (seed.tools / "broken").touch()
    done = seed.forge("run", "--yes")
    assert done.returncode == 1, done.stderr
    assert "exceeded its progress deadline" in done.stdout + done.stderr
    assert seed.calls == STAGING
    assert jobs(seed) == {"build_and_test": "succeeded", "deploy_staging": "failed", "deploy_production": "blocked"}


def test_a_retry_after_the_repair_runs_only_what_is_missing(seed):
    (seed.tools / "broken").touch()
    seed.forge.ok("run", "--yes", code=1)
    (seed.tools / "broken").unlink()
    seed.forge.ok("retry", seed.forge.json("runs")[0]["id"], "--yes")
    assert seed.calls == STAGING + STAGING + PRODUCTION
    assert set(jobs(seed).values()) == {"succeeded"}


def test_tests_that_fail_keep_everything_from_being_deployed(seed):
    (seed.folder / "Makefile").write_text(MAKEFILE.replace("test -f myapp.tar.gz", "false"))
    seed.forge.ok("run", "--yes", code=1)
    assert seed.calls == []
    assert jobs(seed) == {"build_and_test": "failed", "deploy_staging": "blocked", "deploy_production": "blocked"}
