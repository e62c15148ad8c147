"""A draft: the jobs of all files joined, templates filled in, each thing with its place in a file.

A draft job is a `JobPlan` that still has its matrix to expand and its names to resolve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from forge.core.pipeline.document import Document, Path
from forge.core.pipeline.schema_pipeline import JobBody, JobModel, PipelineModel, TemplateModel
from forge.core.pipeline.schema_steps import StepModel
from forge.core.pipeline.templates import Bindings, substitute
from forge.model.diagnostics import Diagnostic
from forge.model.plan import JobPlan, Retry, StepPlan
from forge.model.strategy import StrategyName


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    document: Document
    path: Path

    def __truediv__(self, part: str | int) -> Place:
        return Place(self.document, (*self.path, part))

    def problem(
        self, code: str, message: str, *, hint: str = "", key: bool = False, warning: bool = False
    ) -> Diagnostic:
        """Return a diagnostic that points here."""
        return self.document.problem(code, message, self.path, hint=hint, key=key, warning=warning)

    def problem_at(self, text: str, code: str, message: str, *, hint: str = "", warning: bool = False) -> Diagnostic:
        """Return a diagnostic that points at `text` somewhere inside."""
        at = self.document.find(self.path, text)
        return self.document.problem(code, message, self.path, hint=hint, at=at, warning=warning)

    @property
    def line(self) -> int:
        """The line of the key."""
        return self.document.span(self.path, key=True).line


@dataclass(frozen=True, slots=True)
class JobDraft:
    """One job of the file."""

    plan: JobPlan
    matrix: dict[str, list[Any]] | None
    place: Place
    matrix_place: Place
    steps: tuple[Place, ...]
    """The places of the plan's steps."""
    models: tuple[StepModel, ...]
    retry_place: Place | None = None
    template: str = ""

    @property
    def name(self) -> str:
        """The job's name in the file."""
        return self.plan.base


def draft_job(
    name: str,
    job: JobModel,
    place: Place,
    pipeline: PipelineModel,
    template: tuple[TemplateModel, Place] | None,
    bindings: Bindings,
) -> JobDraft:
    """Return the draft of a job: its own words win over its template's, and these over `defaults`."""
    body: JobBody = template[0] if template else job
    body_place = template[1] if template else place
    steps, places, models = draft_steps(body, body_place)
    if template:
        steps = [substitute(step, StepPlan, bindings) for step in steps]
        for own in ("on_failure", "always"):
            if getattr(job, own):
                keep = [index for index, step in enumerate(steps) if not step.id.startswith(f"{own}-")]
                more, more_places, more_models = draft_steps(JobBody(**{own: getattr(job, own)}), place)
                steps = [steps[index] for index in keep] + more
                places = [places[index] for index in keep] + more_places
                models = [models[index] for index in keep] + more_models
    outer = substitute(_frame(name, body, body_place), JobPlan, bindings) if template else None
    frame = _frame(name, job, place)
    plan = _merged(frame, outer, pipeline)
    own_matrix = job.matrix is not None or template is None
    return JobDraft(
        plan=msgspec.structs.replace(plan, steps=tuple(steps)),
        matrix=job.matrix if own_matrix else body.matrix,
        place=place,
        matrix_place=(place if own_matrix else body_place) / "matrix",
        steps=tuple(places),
        models=tuple(models),
        retry_place=(place / "retry") if job.retry else None,
        template=job.template,
    )


def _frame(name: str, body: JobBody, place: Place) -> JobPlan:
    """A job without its steps."""
    trigger = body.trigger if isinstance(body, JobModel) else None
    return JobPlan(
        name=name,
        base=name,
        steps=(),
        depends_on=tuple(dict.fromkeys(body.depends_on)) if isinstance(body, JobModel) else (),
        gate=trigger.manual.approval() if trigger and trigger.manual else None,
        when=body.when,
        env=body.env,
        timeout=body.timeout,
        retry=body.retry.retry() if body.retry else Retry(),
        concurrency=body.concurrency.concurrency() if body.concurrency else None,
        working_directory=body.working_directory,
        shell=body.shell,
        runner=body.runner.name if body.runner else "",
        runner_config=body.runner.given() if body.runner else {},
        environment=body.environment,
        line=place.line,
    )


_INHERITED = ("when", "timeout", "concurrency", "working_directory", "shell", "environment")


def _merged(job: JobPlan, template: JobPlan | None, pipeline: PipelineModel) -> JobPlan:
    changes: dict[str, Any] = {}
    if template is not None:
        changes = {name: getattr(job, name) or getattr(template, name) for name in _INHERITED}
        if job.timeout is None:
            changes["timeout"] = template.timeout
        changes["env"] = {**template.env, **job.env}
        changes["retry"] = job.retry if job.retry != Retry() else template.retry
        changes |= _runner(job, template.runner, template.runner_config)
        job = msgspec.structs.replace(job, **changes)
    defaults = pipeline.defaults
    return msgspec.structs.replace(
        job,
        timeout=defaults.timeout if job.timeout is None else job.timeout,
        retry=defaults.retry.retry() if job.retry == Retry() and defaults.retry else job.retry,
        working_directory=job.working_directory or defaults.working_directory,
        shell=job.shell or defaults.shell,
        **_runner(job, *(defaults.runner.name, defaults.runner.given()) if defaults.runner else ("process", {})),
    )


def _runner(job: JobPlan, outer: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the job's runner: the outer one where it names none; its own settings over the outer ones of the same."""
    if not job.runner or job.runner == outer:
        return {"runner": outer, "runner_config": {**settings, **job.runner_config}}
    return {"runner": job.runner, "runner_config": job.runner_config}


_LISTS: tuple[tuple[str, Any], ...] = (("steps", "success"), ("on_failure", "failure"), ("always", "always"))


def draft_steps(body: JobBody, place: Place) -> tuple[list[StepPlan], list[Place], list[StepModel]]:
    """Return all steps in order of execution, with their places and models."""
    steps: list[StepPlan] = []
    places: list[Place] = []
    models: list[StepModel] = []
    for key, run_on in _LISTS:
        for index, model in enumerate(getattr(body, key)):
            where = place / key / index
            number = str(index + 1) if key == "steps" else f"{key}-{index + 1}"
            steps.append(_step(model, model.id or number, run_on, where.line))
            places.append(where)
            models.append(model)
    return steps, places, models


def _step(model: StepModel, identity: str, run_on: Any, line: int) -> StepPlan:
    config = model.config()
    return StepPlan(
        id=identity,
        kind=model.kind,
        name=model.name or _title(model.kind, config),
        config=config,
        run_on=run_on,
        when=model.when,
        env=model.env,
        timeout=model.timeout,
        retry=model.retry.retry() if model.retry else Retry(),
        working_directory=model.working_directory,
        shell=model.shell,
        on_crash=model.on_crash,
        migration=model.migration.migration() if model.migration else None,
        line=line,
    )


_STRATEGY_WORDS: dict[StrategyName, str] = {"rolling": "rolling", "canary": "canary", "blue_green": "blue-green"}


def _title(kind: str, config: dict[str, Any]) -> str:
    """Return what people read for a step without a name."""
    if kind == "run":
        lines = [line.strip() for line in config["script"].strip().splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), lines[0])
        return first if len(first) <= 72 else f"{first[:69]}..."
    if kind == "checkout":
        return f"checkout {config['repository'] or config['path'] or '.'}"
    if kind in {"publish", "download"}:
        return f"{kind} {config['name']}"
    if kind == "deploy":
        return f"deploy to {config['environment']} ({_STRATEGY_WORDS[config['strategy']['name']]})"
    if kind == "job":
        return f"job {config['manifest']}"
    if kind in {"verify", "rollback"}:
        return f"{kind} {config['environment']}"
    if kind == "cache":
        return f"cache {config['key']}"
    if kind == "approve":
        return config["approval"]["message"] or "approve"
    return "quality gate"
