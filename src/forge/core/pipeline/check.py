"""What is wrong between jobs: unknown names, cycles, artifacts that are not there yet, gates and environments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from forge.core.pipeline.assemble import Assembly
from forge.core.pipeline.check_kubernetes import check_targets
from forge.core.pipeline.check_runners import check_jobs_and_migrations, check_runner, environments_named
from forge.core.pipeline.check_values import check_values
from forge.core.pipeline.check_words import Scope, check_job
from forge.core.pipeline.draft import JobDraft, Place
from forge.core.pipeline.instances import Instance
from forge.core.pipeline.order import Ancestry, cycles
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.plan import Parameter, StepPlan


def check_jobs(assembly: Assembly) -> Iterator[Diagnostic]:
    """Yield what is wrong between the jobs of the file, before matrices are expanded."""
    dependencies = {name: draft.plan.depends_on for name, draft in assembly.jobs.items()}
    for draft in assembly.jobs.values():
        yield from _unknown_jobs(draft, assembly)
    for loop in cycles({name: [n for n in needs if n != name] for name, needs in dependencies.items()}):
        path = " -> ".join(f"`{name}`" for name in loop)
        hint = f"`{loop[0]}` waits for itself; remove one of these"
        place = _dependency_place(assembly.jobs[loop[0]], loop[1])
        yield place.problem("cycle", f"jobs depend on each other: {path}", hint=hint)
    ancestry = Ancestry(dependencies)
    everyone = frozenset(assembly.job_names)
    for draft in assembly.jobs.values():
        yield from check_job(draft, _scope(draft, assembly, ancestry, everyone))
        yield from check_runner(draft)
        yield from _step_names(draft)
        yield from _secret_names(draft, assembly)


def _unknown_jobs(draft: JobDraft, assembly: Assembly) -> Iterator[Diagnostic]:
    for name in draft.plan.depends_on:
        place = _dependency_place(draft, name)
        if name == draft.name:
            yield place.problem("cycle", f"the job `{name}` depends on itself", hint="remove it from `depends_on`")
        elif name not in assembly.job_names:
            hint = did_you_mean(name, tuple(other for other in assembly.job_names if other != draft.name))
            yield place.problem("unknown-job", f"there is no job `{name}`", hint=hint)


def _dependency_place(draft: JobDraft, name: str) -> Place:
    place = draft.place / "depends_on"
    data = draft.place.document.data["jobs"][draft.name].get("depends_on")
    if isinstance(data, list):
        for index, item in enumerate(data):
            if str(getattr(item, "text", item)) == name:
                return place / index
    return place


def _scope(draft: JobDraft, assembly: Assembly, ancestry: Ancestry, everyone: frozenset[str]) -> Scope:
    pipeline_env = assembly.pipeline.env if assembly.pipeline else {}
    matrix = draft.matrix or {}
    axes = {name for name in matrix if name not in {"include", "exclude"}}
    axes |= {name for entry in matrix.get("include", []) for name in entry}
    inputs: dict[str, Parameter] = {}
    gates = [draft.plan.gate] if draft.plan.gate else []
    gates += [model.approve.approval() for model in draft.models if model.approve is not None]
    for gate in gates:
        inputs |= {parameter.name: parameter for parameter in gate.inputs}
    return Scope(
        params=assembly.parameters,
        env=frozenset(pipeline_env) | frozenset(draft.plan.env),
        matrix=frozenset(axes),
        inputs=inputs,
        jobs=everyone,
        upstream=ancestry.before(draft.name),
    )


def _step_names(draft: JobDraft) -> Iterator[Diagnostic]:
    first: dict[str, Place] = {}
    for step, place in zip(draft.plan.steps, draft.steps, strict=True):
        if step.id in first:
            hint = f"the first is at line {first[step.id].line}"
            where = place / "id"
            yield where.problem("duplicate-name", f"two steps have the id `{step.id}`", hint=hint)
        first.setdefault(step.id, place)


def _secret_names(draft: JobDraft, assembly: Assembly) -> Iterator[Diagnostic]:
    secrets = assembly.pipeline.secrets if assembly.pipeline else {}
    for step, place in zip(draft.plan.steps, draft.steps, strict=True):
        for name in step.env.keys() & secrets.keys():
            hint = "steps see secrets as environment variables; remove it here"
            where = place / "env" / name
            yield where.problem("name", f"`{name}` is a secret and a variable", hint=hint, key=True)


def check_instances(rows: list[Instance], assembly: Assembly, *, certain: bool) -> Iterator[Diagnostic]:
    """Yield what is wrong between expanded jobs. `certain` False: parameters are not known yet."""
    told: set[tuple[str, int, int, str]] = set()
    found: list[Diagnostic] = []
    for row in rows:
        found += _unknown_environments(row, assembly, certain=certain)
        found += check_values(row, assembly)
        found += check_targets(row, assembly)
        found += check_jobs_and_migrations(row, assembly)
    if assembly.whole and len(assembly.jobs) == len(assembly.job_names):
        found += _artifacts(rows, assembly)
    for problem in found:
        mark = (problem.file, problem.line, problem.column, problem.message)
        if mark not in told:
            told.add(mark)
            yield problem


def _unknown_environments(row: Instance, assembly: Assembly, *, certain: bool) -> Iterator[Diagnostic]:
    known = assembly.environment_names
    wanted: list[tuple[str, str, Place]] = []
    if row.plan.environment:
        wanted.append((row.plan.environment, row.draft.plan.environment, row.draft.place / "environment"))
    for step, original, place in zip(row.plan.steps, row.draft.plan.steps, row.draft.steps, strict=True):
        if step.kind in {"deploy", "verify", "rollback"} and step.config["environment"]:
            where = place / step.kind
            inside = where.document.span((*where.path, "environment"))
            if inside != where.document.span(where.path, key=True):
                where /= "environment"
            wanted.append((step.config["environment"], original.config["environment"], where))
    wanted += environments_named(row)
    for name, written, place in wanted:
        if name in known or "${{" in name or ("${{" in written and not certain):
            continue
        hint = did_you_mean(name, known) or "declare it under `environments:` or in forge/environments.yaml"
        yield place.problem("unknown-environment", f"there is no environment `{name}`", hint=hint)


def _artifacts(rows: list[Instance], assembly: Assembly) -> Iterator[Diagnostic]:
    ancestry = Ancestry({name: draft.plan.depends_on for name, draft in assembly.jobs.items()})
    publishers: dict[str, tuple[Instance, int]] = {}
    for row in rows:
        for index, step in enumerate(row.plan.steps):
            if step.kind == "publish" and "${{" not in step.config["name"]:
                name = step.config["name"]
                if name in publishers:
                    yield _published_twice(name, row, index, *publishers[name])
                else:
                    publishers[name] = (row, index)
    for row in rows:
        for index, step in enumerate(row.plan.steps):
            name = _wanted_artifact(step)
            if name and "${{" not in name:
                yield from _artifact_use(name, row, index, publishers, ancestry)


def _wanted_artifact(step: StepPlan) -> str:
    if step.kind == "download":
        return str(step.config["name"])
    return str(step.config["artifact"]) if step.kind == "deploy" else ""


def _artifact_place(row: Instance, index: int) -> Place:
    place = row.draft.steps[index] / row.plan.steps[index].kind
    inside = place / "artifact"
    document = place.document
    missing = document.span(inside.path) == document.span(place.path, key=True)
    return place if missing else inside


def _published_twice(name: str, row: Instance, index: int, first: Instance, first_index: int) -> Diagnostic:
    place = _artifact_place(row, index)
    if first.draft is row.draft and first_index == index:
        message = f"every instance of `{row.draft.name}` publishes the artifact `{name}`"
        axis = next(iter(row.plan.matrix), "os")
        return place.problem(
            "artifact-twice", message, hint=f"put a matrix value in its name: `${{{{ matrix.{axis} }}}}`"
        )
    where = _artifact_place(first, first_index)
    hint = f"`{first.plan.name}` publishes it at {where.document.file}:{where.line}; give one another name"
    return place.problem("artifact-twice", f"the artifact `{name}` is published twice", hint=hint)


def _artifact_use(
    name: str, row: Instance, index: int, publishers: Mapping[str, tuple[Instance, int]], ancestry: Ancestry
) -> Iterator[Diagnostic]:
    place = _artifact_place(row, index)
    if name not in publishers:
        hint = did_you_mean(name, tuple(publishers)) or f"publish it in a job before: `- publish: {name}`"
        yield place.problem("unknown-artifact", f"no job publishes the artifact `{name}`", hint=hint)
        return
    publisher, published_at = publishers[name]
    if publisher.plan.name == row.plan.name:
        if published_at >= index:
            message = f"the artifact `{name}` is published later in the same job"
            yield place.problem("artifact-order", message, hint="move `publish` before this step")
    elif not ancestry.precedes(publisher.draft.name, row.draft.name):
        message = f"`{row.draft.name}` does not depend on `{publisher.draft.name}`, which publishes `{name}`"
        hint = f"add `{publisher.draft.name}` to `depends_on`"
        yield place.problem("artifact-order", message, hint=hint)
