"""What a step becomes in a cluster: one Job of one pod, and a Secret with everything that the command is given.

The command's environment and script are in the Secret alone: whoever may read Jobs does not read them. The Job begins
suspended, so that its Secret, which it owns, is there before its pod.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from forge.adapters.kubernetes.naming import MANAGED_BY, MANAGER
from forge.adapters.runners.base import StepFiles
from forge.model.configs import KubernetesRunnerConfig
from forge.model.errors import UsageError
from forge.model.units import format_size

STEP = "forge.dev/step"
"""Label: the hash of the step's key."""
SCOPE = "forge.dev/scope"
"""Label: the hash of the project that it belongs to."""
RUN = "forge.dev/run"
KEY = "forge.dev/key"
"""Annotation: the step's key."""
COMMAND, DELIVER, KEEP = "step", "deliver", "keep"
"""The containers: the command's own, and the two that only hold the workspace while it comes and goes."""
GIVEN = "/forge/given"
TAKEN = "/forge/taken"
WORKSPACE = "/workspace"
DELIVERED, FETCHED = f"{TAKEN}/.delivered", f"{TAKEN}/.fetched"
LARGEST_SECRET = 1_000_000
KEPT_SECONDS = 6 * 3600
"""How long a workspace waits in a pod for a worker that fetches it."""
EXPIRES_AFTER = 3600
"""Seconds after which the cluster removes a Job that is over and that no worker removed."""
_LONGEST = 63
_UNPRIVILEGED = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_UNPRIVILEGED_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_WAIT = 'n=0; until [ -e "$1" ]; do n=$((n+1)); [ "$n" -gt "$2" ] && exit 1; sleep 0.5 || sleep 1; done'


class StepObjects(msgspec.Struct, frozen=True):
    """The Job and its Secret, as the apiserver takes them; the Secret's owner is set when the Job exists."""

    job: dict[str, Any]
    secret: dict[str, Any]


class Places(msgspec.Struct, frozen=True):
    """Where the worker's folders and files are in the pod."""

    workspace: Path
    mount: str
    files: dict[str, str] = {}

    def moved(self, text: str) -> str:
        """Return a text (a path, an argument, a variable) as it has to be in the pod."""
        for ours, theirs in self.files.items():
            text = text.replace(ours, theirs)
        own = str(self.workspace)
        if text == own or text.startswith(f"{own}/"):
            return self.mount + text[len(own) :]
        return text


def hash_of(text: str) -> str:
    """Return a text as a label's value: the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def job_name(key: str, scope: str) -> str:
    """Return the name that the step of that key has in every worker; what people read of it comes first."""
    readable = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")
    digest = hash_of(f"{scope}\0{key}")[:10]
    return f"forge-{readable[: _LONGEST - len(digest) - 7].strip('-')}-{digest}"


def labels_of(key: str, scope: str) -> dict[str, str]:
    """Return the labels of everything that belongs to a step."""
    run = re.sub(r"[^A-Za-z0-9_.-]", "-", key.partition("/")[0])[:_LONGEST].strip("-_.")
    return {MANAGED_BY: MANAGER, SCOPE: hash_of(scope), STEP: hash_of(key), RUN: run}


def is_shared(config: KubernetesRunnerConfig) -> bool:
    """Whether pod and worker see the same workspace; if not, it is sent and fetched."""
    return bool(config.claim or config.host_path)


def places(config: KubernetesRunnerConfig, files: StepFiles) -> Places:
    """Return where things are in the pod. Raises UsageError for a workspace that is not in what is shared."""
    if is_shared(config):
        root = Path(config.root or config.host_path)
        if not files.workspace.is_relative_to(root):
            what = f"claim {config.claim}" if config.claim else "host_path"
            raise UsageError(
                f"the workspace {files.workspace} is not in {root}, which the {what} shares with pods",
                hint="start the worker in a project below that folder, or leave `workspace` out",
            )
        mount = config.mount or str(files.workspace)
    else:
        mount = config.mount or WORKSPACE
    given = {str(path): f"{GIVEN}/{path.name}" for path in files.reads}
    taken = {str(path): f"{TAKEN}/{path.name}" for path in files.writes}
    return Places(files.workspace, mount, {**given, **taken})


def build(
    argv: Sequence[str],
    *,
    key: str,
    scope: str,
    cwd: Path,
    env: Mapping[str, str],
    files: StepFiles,
    config: KubernetesRunnerConfig,
    shared_outputs: Path | None,
    timeout: float | None,
    grace: float,
) -> StepObjects:
    """Return the Job and the Secret of a step. `shared_outputs`: the folder for its outputs in a shared workspace.

    Blocks while it reads `files.reads`. Raises UsageError for what does not fit a Secret.
    """
    at = places(config, files)
    name, labels = job_name(key, scope), labels_of(key, scope)
    given = {path.name: path.read_bytes() for path in files.reads}
    secret = _secret(name, labels, {n: at.moved(v) for n, v in env.items()}, given)
    command = {
        "name": COMMAND,
        "image": config.image,
        "command": [at.moved(word) for word in argv],
        "workingDir": at.moved(str(cwd)),
        "env": _variables(env, name),
        "envFrom": [
            *({"secretRef": {"name": one}} for one in config.env_secrets),
            *({"configMapRef": {"name": one}} for one in config.env_config_maps),
        ],
        "resources": {"requests": config.requests, "limits": config.limits},
        "volumeMounts": _mounts(config, at, files, shared_outputs, given=True),
    }
    pod = _pod(config, command, _volumes(config, name, tuple(given)), grace)
    if not is_shared(config):
        mounts = _mounts(config, at, files, None, given=False)
        pod["initContainers"] = [_holder(DELIVER, config.image, mounts, DELIVERED)]
        pod["containers"].append(_holder(KEEP, config.image, mounts, FETCHED))
    if config.user:  # nobody who is not root needs more, and namespaces that are `restricted` take nothing else
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            container["securityContext"] = _UNPRIVILEGED_CONTAINER
    metadata = {"labels": {**config.labels, **labels}, "annotations": {**config.annotations, KEY: key}}
    spec: dict[str, Any] = {
        "suspend": True,
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "ttlSecondsAfterFinished": EXPIRES_AFTER,
        "template": {"metadata": metadata, "spec": pod},
    }
    if timeout is not None:  # for the day when no worker is there to end it
        spec["activeDeadlineSeconds"] = round(timeout + grace + config.start_timeout + 60)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, **metadata}, "spec": spec}
    return StepObjects(job, secret)


def _pod(
    config: KubernetesRunnerConfig, command: dict[str, Any], volumes: list[dict[str, Any]], grace: float
) -> dict[str, Any]:
    """Return the pod of one container, as the user's settings want it."""
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": max(1, round(grace)),
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # else the command is process 1, which a TERM does not end by itself
        "automountServiceAccountToken": bool(config.service_account),
        "nodeSelector": config.node_selector,
        "tolerations": [_toleration(msgspec.to_builtins(one)) for one in config.tolerations],
        "imagePullSecrets": [{"name": one} for one in config.pull_secrets],
        "containers": [command],
        "volumes": volumes,
    }
    if config.service_account:
        pod["serviceAccountName"] = config.service_account
    if config.user is not None:
        user = config.user
        pod["securityContext"] = {
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            **(_UNPRIVILEGED if user else {}),
        }
    return pod


def owned(secret: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Secret as the Job's own: it goes when that goes."""
    owner = {
        "apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
    }  # fmt: skip
    return {**secret, "metadata": {**secret["metadata"], "ownerReferences": [owner]}}


def _secret(name: str, labels: dict[str, str], env: Mapping[str, str], files: Mapping[str, bytes]) -> dict[str, Any]:
    data = {f"env.{variable}": value.encode(errors="surrogateescape") for variable, value in env.items()}
    data |= {f"file.{file}": content for file, content in files.items()}
    size = sum(map(len, data.values()))
    if size > LARGEST_SECRET:
        raise UsageError(
            f"the step's environment and script have {format_size(size)}; a pod can be given {format_size(LARGEST_SECRET)}",
            hint="put large things into files of the workspace",
        )
    encoded = {field: base64.b64encode(value).decode() for field, value in data.items()}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def _variables(env: Mapping[str, str], secret: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": f"env.{name}"}}} for name in sorted(env)
    ]


def _volumes(config: KubernetesRunnerConfig, secret: str, given: Sequence[str]) -> list[dict[str, Any]]:
    items = [{"key": f"file.{file}", "path": file} for file in given]
    volumes: list[dict[str, Any]] = []
    if items:
        volumes.append({"name": "given", "secret": {"secretName": secret, "items": items, "defaultMode": 0o444}})
    if config.claim:
        return [*volumes, {"name": "shared", "persistentVolumeClaim": {"claimName": config.claim}}]
    if config.host_path:
        return [*volumes, {"name": "shared", "hostPath": {"path": config.host_path, "type": "Directory"}}]
    return [*volumes, {"name": "workspace", "emptyDir": {}}, {"name": "taken", "emptyDir": {}}]


def _mounts(
    config: KubernetesRunnerConfig, at: Places, files: StepFiles, outputs: Path | None, *, given: bool
) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = []
    if given and files.reads:
        mounts.append({"name": "given", "mountPath": GIVEN, "readOnly": True})
    if not is_shared(config):
        return [*mounts, {"name": "workspace", "mountPath": at.mount}, {"name": "taken", "mountPath": TAKEN}]
    root = Path(config.root or config.host_path)
    mounts.append(_part("shared", at.mount, files.workspace, root))
    if outputs is not None:
        mounts.append(_part("shared", TAKEN, outputs, root))
    return mounts


def _part(volume: str, mount: str, folder: Path, root: Path) -> dict[str, Any]:
    below = PurePosixPath(folder.relative_to(root))
    return {"name": volume, "mountPath": mount, **({"subPath": str(below)} if below.parts else {})}


def _holder(name: str, image: str, mounts: list[dict[str, Any]], until: str) -> dict[str, Any]:
    """A container that only waits for a file, while the workspace is sent to it or fetched from it."""
    script = f"trap 'exit 0' TERM; {_WAIT}"
    return {
        "name": name,
        "image": image,
        "command": ["sh", "-c", script, "sh", until, str(KEPT_SECONDS)],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": mounts,
    }


def _toleration(toleration: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in toleration.items() if value}
