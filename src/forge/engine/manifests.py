"""Manifests that are in the repository, looked at before a run starts: slips, and capacity that they give up.

Only files that a deploy step will find as they are now can be judged: what an earlier step of its job may rewrite is
told as a warning, and what is not there yet is left to the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forge.core.pipeline.assemble import Assembly, Sources, assemble
from forge.core.pipeline.draft import JobDraft, Place
from forge.core.pipeline.schema_kubernetes import KubernetesTargetModel
from forge.model.diagnostics import Diagnostic
from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.plan import StepPlan

_UNCERTAIN = "${{"


def examine_manifests(sources: Sources, root: Path) -> list[Diagnostic]:
    """Return what is wrong with the manifests of deploy steps to clusters, and what they give up."""
    assembly = assemble(sources)
    if not any(model.target.kubernetes for model, _ in assembly.environments.values()):
        return []
    found: list[Diagnostic] = []
    for draft in assembly.jobs.values():
        for index, step in enumerate(draft.plan.steps):
            found += _step(assembly, draft, index, step, root)
    return found


def _step(assembly: Assembly, draft: JobDraft, index: int, step: StepPlan, root: Path) -> Iterator[Diagnostic]:
    if step.kind != "deploy" or step.config["environment"] not in assembly.environments or step.config["artifact"]:
        return
    model, place = assembly.environments[step.config["environment"]]
    if model.target.kubernetes is None or _comes_from_elsewhere(draft, index):
        return
    folder = step.working_directory or draft.plan.working_directory
    config = _merged(model.target.kubernetes, step.config["target"])
    if not config["manifests"] or _UNCERTAIN in folder or any(_UNCERTAIN in path for path in config["manifests"]):
        return
    rewritten = any(before.kind == "run" for before in draft.plan.steps[:index])
    where = place / "target" / "kubernetes"
    router = model.router.name_for("kubernetes")
    strategy = step.config["strategy"]["name"]
    for problem in _examine(config, strategy, router, root, root / folder, where, draft.steps[index]):
        yield _as_warning(problem) if rewritten else problem


def _comes_from_elsewhere(draft: JobDraft, index: int) -> bool:
    """Whether the job replaces the run's own source by something else before it deploys."""
    return any(
        step.kind == "checkout" and (step.config["repository"] or step.config["path"] not in {"", ".", "./"})
        for step in draft.plan.steps[:index]
    )


def _merged(model: KubernetesTargetModel, target: dict[str, Any]) -> dict[str, Any]:
    return {**model.config(), **target, "images": {**model.images, **target.get("images", {})}}


def _examine(
    config: dict[str, Any], strategy: str, router: str, root: Path, base: Path, place: Place, step: Place
) -> Iterator[Diagnostic]:
    from forge.adapters.kubernetes.objects import find_service, find_workload, key_of
    from forge.adapters.kubernetes.prudence import capacity_warnings
    from forge.adapters.kubernetes.rendering import check_front, read_manifests, with_images

    paths = tuple(path for path in config["manifests"] if (base / path).exists())
    if len(paths) < len(config["manifests"]):
        yield from _not_there(config["manifests"], base, place)
        return
    try:
        manifests = read_manifests(paths, base, root)
        items = [manifest.item for manifest in manifests]
        main = find_workload(items, config["workload"])
        check_front(main, find_service(items, main, config["service"]), router)
        with_images(main, config["images"])
        kind = key_of(main).kind
        if kind != "Deployment" and strategy != "rolling":
            message = f"{key_of(main).title} cannot run two versions beside each other, which `{strategy}` needs"
            hint = "write `strategy: rolling`: it goes pod by pod, and pauses at a partition"
            yield (step / "deploy").problem_at("strategy", "capability", message, hint=hint)
        yield from capacity_warnings(
            manifests, workload=config["workload"], service=config["service"], replicas=config["replicas"]
        )
    except InvalidConfiguration as wrong:
        yield from wrong.diagnostics
    except UsageError as wrong:
        yield place.problem("manifest", wrong.message, hint=wrong.hint or "", key=True)


def _not_there(paths: list[str], base: Path, place: Place) -> Iterator[Diagnostic]:
    """A path that is not there may be made by a step; one that is nearly there is most likely a slip."""
    from forge.adapters.paths import near_names

    for path in paths:
        if not (base / path).exists():
            hint = near_names(base, path) or "a step before must make it"
            message = f"there is no file or folder `{path}` in the repository"
            yield place.problem_at(path, "manifest", message, hint=hint, warning=True)


def _as_warning(problem: Diagnostic) -> Diagnostic:
    import msgspec

    return msgspec.structs.replace(problem, severity="warning") if problem.code == "manifest" else problem
