"""What a step becomes in a cluster: nothing secret in the Job, paths as they are in the pod, names that stay."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.runners.base import StepFiles
from forge.adapters.runners.kubernetes_objects import (
    KEY,
    LARGEST_SECRET,
    SCOPE,
    StepObjects,
    build,
    job_name,
    labels_of,
    owned,
    places,
)
from forge.model.configs import KubernetesAccess, KubernetesRunnerConfig, Toleration
from forge.model.errors import UsageError

KEY_OF_STEP = "run-7/build (os=linux)#1/2#1"
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@pytest.fixture
def made(tmp_path: Path) -> Any:
    workspace = tmp_path / "job" / "1" / "workspace"
    private = workspace.with_name("workspace.private")
    private.mkdir(parents=True)
    script, outputs = private / "2-abc.script", private / "2-abc.outputs"
    script.write_text("echo $TOKEN")

    def make(config: KubernetesRunnerConfig | None = None, **fields: Any) -> StepObjects:
        env = {"TOKEN": "hunter22", "FORGE_OUTPUT": str(outputs), "FORGE_WORKSPACE": str(workspace), "MODE": "prodlike"}
        basics: dict[str, Any] = {
            "key": KEY_OF_STEP, "scope": "/work/shop", "cwd": workspace / "app", "env": env,
            "files": StepFiles(workspace, (script,), (outputs,)), "config": config or KubernetesRunnerConfig("debian:12"),
            "shared_outputs": private / "taken", "timeout": None, "grace": 10.0,
        }  # fmt: skip
        return build(["bash", "-eu", str(script)], **(basics | fields))

    make.root = tmp_path  # type: ignore[attr-defined]
    make.workspace = workspace  # type: ignore[attr-defined]
    return make


def value(made: StepObjects, key: str) -> str:
    return base64.b64decode(made.secret["data"][key]).decode()


def pod(made: StepObjects) -> dict[str, Any]:
    found: dict[str, Any] = made.job["spec"]["template"]["spec"]
    return found


def test_nothing_that_the_command_is_given_is_in_the_job(made: Any) -> None:
    objects = made()
    text = json.dumps(objects.job)
    assert "hunter22" not in text
    assert "prodlike" not in text
    assert "echo $TOKEN" not in text
    assert value(objects, "env.TOKEN") == "hunter22"
    assert value(objects, "file.2-abc.script") == "echo $TOKEN"
    variables = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in pod(objects)["containers"][0]["env"]}
    assert variables["TOKEN"] == {"name": objects.secret["metadata"]["name"], "key": "env.TOKEN"}


def test_without_a_shared_workspace_it_is_carried_and_paths_are_the_pods(made: Any) -> None:
    objects = made()
    command, keep = pod(objects)["containers"]
    (deliver,) = pod(objects)["initContainers"]
    assert command["command"] == ["bash", "-eu", "/forge/given/2-abc.script"]
    assert command["workingDir"] == "/workspace/app"
    assert value(objects, "env.FORGE_OUTPUT") == "/forge/taken/2-abc.outputs"
    assert value(objects, "env.FORGE_WORKSPACE") == "/workspace"
    assert [keep["name"], deliver["name"]] == ["keep", "deliver"]
    assert keep["image"] == deliver["image"] == "debian:12"
    given = {"name": "given", "mountPath": "/forge/given", "readOnly": True}
    assert command["volumeMounts"][0] == given
    assert given not in keep["volumeMounts"] + deliver["volumeMounts"]  # the script is for the command alone
    assert {"name": "workspace", "emptyDir": {}} in pod(objects)["volumes"]


def test_a_shared_folder_is_mounted_where_the_worker_has_it(made: Any) -> None:
    objects = made(KubernetesRunnerConfig("debian:12", host_path=str(made.root)))
    (command,) = pod(objects)["containers"]
    assert "initContainers" not in pod(objects)
    workspace = {"name": "shared", "mountPath": str(made.workspace), "subPath": "job/1/workspace"}
    taken = {"name": "shared", "mountPath": "/forge/taken", "subPath": "job/1/workspace.private/taken"}
    assert command["volumeMounts"][1:] == [workspace, taken]
    assert command["workingDir"] == str(made.workspace / "app")
    assert {"name": "shared", "hostPath": {"path": str(made.root), "type": "Directory"}} in pod(objects)["volumes"]


def test_a_claim_may_be_mounted_elsewhere(made: Any) -> None:
    config = KubernetesRunnerConfig("debian:12", claim="builds", root=str(made.root), mount="/src")
    objects = made(config)
    assert pod(objects)["containers"][0]["workingDir"] == "/src/app"
    assert value(objects, "env.FORGE_WORKSPACE") == "/src"
    assert {"name": "shared", "persistentVolumeClaim": {"claimName": "builds"}} in pod(objects)["volumes"]


def test_a_workspace_that_is_not_in_what_is_shared_is_refused(made: Any) -> None:
    with pytest.raises(UsageError, match=r"is not in /elsewhere, which the claim builds shares") as raised:
        made(KubernetesRunnerConfig("debian:12", claim="builds", root="/elsewhere"))
    assert "leave `workspace` out" in str(raised.value.hint)


def test_the_users_settings_are_the_pods(made: Any) -> None:
    config = KubernetesRunnerConfig(
        "debian:12", access=KubernetesAccess(namespace="builds"), requests={"cpu": "1"}, limits={"memory": "1Gi"},
        service_account="builder", node_selector={"disk": "fast"}, tolerations=(Toleration("builds", "Exists"),),
        env_secrets=("registry",), env_config_maps=("settings",), pull_secrets=("login",), user=1000,
        labels={"team": "shop"}, annotations={"forge.test/fail": "slow"},
    )  # fmt: skip
    objects = made(config)
    spec, command = pod(objects), pod(objects)["containers"][0]
    assert command["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    assert spec["serviceAccountName"] == "builder"
    assert spec["automountServiceAccountToken"] is True
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "builds", "operator": "Exists"}]
    assert command["envFrom"] == [{"secretRef": {"name": "registry"}}, {"configMapRef": {"name": "settings"}}]
    assert spec["imagePullSecrets"] == [{"name": "login"}]
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 1000
    assert spec["securityContext"]["runAsNonRoot"] is True
    containers = [*spec["initContainers"], *spec["containers"]]
    assert all(one["securityContext"]["allowPrivilegeEscalation"] is False for one in containers)
    assert "securityContext" not in pod(made(KubernetesRunnerConfig("x", user=0)))["containers"][0]
    metadata = objects.job["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "shop"
    assert metadata["annotations"]["forge.test/fail"] == "slow"


def test_the_job_waits_for_its_secret_runs_once_and_expires(made: Any) -> None:
    spec = made().job["spec"]
    assert (spec["suspend"], spec["backoffLimit"]) == (True, 0)
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert "activeDeadlineSeconds" not in spec
    assert pod(made())["automountServiceAccountToken"] is False
    assert pod(made())["restartPolicy"] == "Never"


def test_a_limit_in_time_holds_without_a_worker(made: Any) -> None:
    spec = made(KubernetesRunnerConfig("debian:12", start_timeout=100.0), timeout=30.0).job["spec"]
    assert spec["activeDeadlineSeconds"] == 30 + 10 + 100 + 60


def test_the_secret_goes_with_its_job(made: Any) -> None:
    objects = made()
    secret = owned(objects.secret, {"metadata": {"name": "forge-x", "uid": "u-1"}})
    assert secret["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "forge-x", "uid": "u-1"}
    ]
    assert "ownerReferences" not in objects.secret["metadata"]


def test_more_than_a_secret_can_hold_is_refused_in_words(made: Any) -> None:
    with pytest.raises(UsageError, match="the step's environment and script have"):
        made(env={"LARGE": "x" * LARGEST_SECRET})


def test_bytes_that_are_no_text_arrive_as_they_are(made: Any) -> None:
    objects = made(env={"RAW": "caf\udce9"})
    assert base64.b64decode(objects.secret["data"]["env.RAW"]) == b"caf\xe9"


def test_users_labels_cannot_replace_what_finds_the_step(made: Any) -> None:
    objects = made(KubernetesRunnerConfig("debian:12", labels={SCOPE: "mine"}, annotations={KEY: "other"}))
    metadata = objects.job["metadata"]
    assert metadata["labels"][SCOPE] == labels_of(KEY_OF_STEP, "/work/shop")[SCOPE]
    assert metadata["annotations"][KEY] == KEY_OF_STEP


@given(st.text(min_size=1, max_size=300), st.text(max_size=50))
def test_names_and_labels_are_ones_that_kubernetes_takes(key: str, scope: str) -> None:
    key = key.encode(errors="replace").decode()
    scope = scope.encode(errors="replace").decode()
    assert NAME.fullmatch(job_name(key, scope))
    assert all(LABEL.fullmatch(label) for label in labels_of(key, scope).values())


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_another_step_or_project_has_another_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    if one != other:
        assert job_name(*_clean(one)) != job_name(*_clean(other)) or _clean(one) == _clean(other)
    assert job_name(*_clean(one)) == job_name(*_clean(one))


def _clean(texts: tuple[str, str]) -> tuple[str, str]:
    first, second = (text.encode(errors="replace").decode() for text in texts)
    return first.replace("\0", ""), second.replace("\0", "")


def test_only_what_is_the_workspace_is_moved(tmp_path: Path) -> None:
    at = places(KubernetesRunnerConfig("x"), StepFiles(tmp_path / "w"))
    assert at.moved(str(tmp_path / "w" / "a b")) == "/workspace/a b"
    assert at.moved(str(tmp_path / "workshop")) == str(tmp_path / "workshop")
    assert at.moved("plain text") == "plain text"
