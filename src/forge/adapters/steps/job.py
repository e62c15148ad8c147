"""`job:` runs a Kubernetes Job from a manifest, a migration or a load test, and ends as it ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.documents import read_documents
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.jobs import JobFollower
from forge.adapters.kubernetes.kinds import JOB
from forge.adapters.kubernetes.naming import MANAGED_BY, MANAGER, annotation
from forge.adapters.kubernetes.pods import job_end
from forge.adapters.kubernetes.sharing import shared_cluster
from forge.adapters.paths import inside
from forge.adapters.runners.kubernetes_job import end_job
from forge.adapters.runners.kubernetes_objects import KEY, SCOPE, STEP, hash_of, labels_of
from forge.adapters.runners.process import uninterrupted
from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.migrating import migrated
from forge.adapters.steps.private import private_folder
from forge.model.configs import JobStepConfig, KubernetesAccess
from forge.model.errors import DependencyFailed, InvalidConfiguration, UsageError
from forge.model.migrations import Migration
from forge.model.plan import Plan

MIGRATION = "forge.dev/migration"
"""Annotation of a manifest: `expand` or `contract`."""
SINCE = "forge.dev/since"
"""Annotation of a manifest: the oldest version that still runs after a contract."""
GRACE = 30.0
_LONGEST = 63


class JobStep:
    """Creates the Job under a name of this execution's own, so that a new worker finds it again and follows it."""

    kind = "job"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, JobStepConfig)
        try:
            manifest = await asyncio.to_thread(_manifest, inside(context.workspace, config.manifest, context.cwd))
        except InvalidConfiguration as error:
            return StepResult("failed", "; ".join(f"{one.file}:{one.line}: {one.message}" for one in error.diagnostics))
        except _UnfitError as error:
            return StepResult("failed", f"{config.manifest} {error}")
        access = _access(context.plan, config)
        own = str(manifest["metadata"].get("namespace") or access.namespace)
        if access.namespace not in {"", own}:
            return StepResult(
                "failed", f"{config.manifest} is for namespace {own}, but the step is for {access.namespace}"
            )
        execution = _Execution(context, config, manifest, access)
        declared = annotation(manifest, MIGRATION)
        if not declared or context.step.migration is not None:
            return await execution.run(context)
        since = annotation(manifest, SINCE)
        if declared not in {"expand", "contract"} or (declared == "contract" and not since):
            return StepResult(
                "failed", f"{config.manifest} has `{MIGRATION}: {declared}` without a `{SINCE}` that fits"
            )
        return await migrated(execution, context, Migration(declared, "", since))  # type: ignore[arg-type]


async def end_left(plan: Plan, config: Mapping[str, Any], key: str, project: Path) -> None:
    """End the Job of a step that no worker performs any more. Raises DependencyFailed, UsageError."""
    cluster = shared_cluster(_access(plan, msgspec.convert(config, JobStepConfig)))
    labels = labels_of(key, str(project))
    jobs, _ = await cluster.objects(JOB, labels=f"{SCOPE}={labels[SCOPE]},{STEP}={labels[STEP]}")
    for job in jobs:
        if not job_end(job)[0]:
            await end_job(cluster, str(job["metadata"]["name"]), GRACE)


class _UnfitError(Exception):
    """What is wrong with the manifest, after its name."""


def _manifest(path: Path) -> dict[str, Any]:
    try:
        documents = read_documents(path.read_bytes(), path.name)
    except OSError as error:
        raise _UnfitError(f"cannot be read: {error.strerror}") from error
    kinds = [str(one.data.get("kind")) if isinstance(one.data, dict) else "text" for one in documents]
    if kinds != ["Job"]:
        raise _UnfitError(f"must hold one Job and nothing else; it holds {', '.join(kinds) or 'nothing'}")
    job: dict[str, Any] = documents[0].data
    metadata = job.get("metadata") or {}
    if not (metadata.get("name") or metadata.get("generateName")):
        raise _UnfitError("has a Job without a name")
    if (job.get("spec") or {}).get("suspend"):
        raise _UnfitError("has a Job that is suspended: it would never end")
    return job


class _Execution:
    """One execution of the Job: created once, followed to its end, removed or kept."""

    kind = "job"

    def __init__(
        self, context: StepContext, config: JobStepConfig, manifest: dict[str, Any], access: KubernetesAccess
    ) -> None:
        self._config = config
        self._cluster: Cluster = shared_cluster(access)
        self._job = _named(manifest, context)
        self._name = str(self._job["metadata"]["name"])
        self._namespace = str(self._job["metadata"].get("namespace") or access.namespace)

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        marks = private_folder(context.workspace) / f"job-{hash_of(self._name)[:12]}"
        marks.mkdir(mode=0o700, exist_ok=True)
        follower = JobFollower(
            self._cluster, self._name, self._namespace, write=context.output.write, say=context.say, marks=marks,
            start_timeout=self._config.start_timeout,
        )  # fmt: skip
        try:
            await self._create(context)
            end = await follower.end()
        except asyncio.CancelledError:
            if await asyncio.shield(context.told_to_stop()):
                await uninterrupted(self._stop)
            raise
        except DependencyFailed:
            # What could not begin now must not begin some day when nobody waits for it any more.
            with contextlib.suppress(DependencyFailed):
                await uninterrupted(self._stop)
            raise
        await self._tidy(end.succeeded, context)
        shutil.rmtree(marks, ignore_errors=True)
        outputs = {"job": self._name, "namespace": self._namespace or self._cluster.namespace}
        if end.succeeded:
            return StepResult("succeeded", f"Job {self._name} completed", outputs=outputs)
        return StepResult("failed", f"Job {self._name} failed: {end.words}", end.exit_code, outputs=outputs)

    async def _create(self, context: StepContext) -> None:
        with contextlib.suppress(Conflict):
            await self._cluster.create(self._job)
            context.say(f"forge: Job {self._name} in {self._namespace or self._cluster.namespace}")
            return
        there = await self._cluster.get(JOB, self._name, self._namespace) or {}
        if annotation(there, KEY) != context.key:
            raise DependencyFailed(f"there is a Job {self._name} already that Forge did not make")

    async def _stop(self) -> None:
        await end_job(self._cluster, self._name, GRACE, self._namespace)

    async def _tidy(self, succeeded: bool, context: StepContext) -> None:
        if self._config.keep == "always" or (self._config.keep == "failed" and not succeeded):
            where = self._namespace or self._cluster.namespace
            context.say(f"forge: it is kept: kubectl --namespace {where} describe job {self._name}")
            return
        with contextlib.suppress(DependencyFailed):
            await self._cluster.delete(JOB, self._name, namespace=self._namespace)


def _access(plan: Plan, config: JobStepConfig) -> KubernetesAccess:
    if not config.environment:
        return config.access
    environment = plan.environment(config.environment)
    if environment.target != "kubernetes":
        raise UsageError(f"{config.environment} is no cluster but a {environment.target} target")
    access = msgspec.convert(environment.target_config.get("access") or {}, KubernetesAccess)
    return msgspec.structs.replace(access, namespace=config.access.namespace or access.namespace)


def _named(manifest: dict[str, Any], context: StepContext) -> dict[str, Any]:
    """Return the manifest as this execution's own: named by the step's key, with labels that find it."""
    metadata = dict(manifest["metadata"])
    base = re.sub(r"[^a-z0-9-]+", "-", str(metadata.get("name") or metadata.pop("generateName"))).strip("-")
    digest = hash_of(f"{context.project}\0{context.key}")[:10]
    labels = labels_of(context.key, str(context.project))
    metadata["name"] = f"{base[: _LONGEST - len(digest) - 1].strip('-')}-{digest}"
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), KEY: context.key}
    spec = dict(manifest.get("spec") or {})
    template = dict(spec.get("template") or {})
    inner = dict(template.get("metadata") or {})
    inner["labels"] = {**(inner.get("labels") or {}), MANAGED_BY: MANAGER, **labels}
    spec["template"] = {**template, "metadata": inner}
    return {**manifest, "metadata": metadata, "spec": spec}
