"""From files to a plan: everything is checked, expanded and pinned; or every problem is told at once."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from forge.core.pipeline.assemble import Assembly, Sources, assemble, under_key
from forge.core.pipeline.check import check_instances, check_jobs
from forge.core.pipeline.check_kubernetes import check_environment_words, with_environment_words
from forge.core.pipeline.check_prudence import check_prudence
from forge.core.pipeline.document import Document
from forge.core.pipeline.instances import Instance, instances
from forge.core.pipeline.order import topological
from forge.core.pipeline.schema_gate import convert, misfit
from forge.core.pipeline.schema_pipeline import EnvironmentsModel, PipelineModel
from forge.core.pipeline.validate import validate
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.errors import InvalidConfiguration
from forge.model.plan import JobPlan, Parameter, Plan, Scalar, Source

NO_SOURCE = Source("")
MAX_INSTANCES = 10_000


def resolve(sources: Sources, parameters: Mapping[str, Scalar] | None = None, source: Source = NO_SOURCE) -> Plan:
    """Return the plan of a run. Raises InvalidConfiguration with every problem (warnings are left out)."""
    assembly = assemble(sources)
    values, problems = parameter_values(assembly, parameters or {})
    assembly.problems += problems
    rows = _examine(assembly, values, certain=True)
    errors = tuple(problem for problem in in_order(assembly.problems) if problem.severity == "error")
    if errors or assembly.pipeline is None:
        raise InvalidConfiguration(errors)
    return _plan(assembly, assembly.pipeline, rows, values, source)


def diagnose(sources: Sources) -> list[Diagnostic]:
    """Return everything that is wrong, and every warning, whatever the parameters will be."""
    assembly = assemble(sources)
    values = {name: _stand_in(parameter) for name, parameter in assembly.parameters.items()}
    _examine(assembly, values, certain=False)
    return in_order(assembly.problems)


def diagnose_environments(document: Document) -> list[Diagnostic]:
    """Return everything that is wrong with an environments file."""
    return in_order(list(validate(EnvironmentsModel, under_key(document, "environments")).problems))


def _examine(assembly: Assembly, values: Mapping[str, Scalar], *, certain: bool) -> list[Instance]:
    assembly.problems += check_jobs(assembly)
    assembly.problems += check_environment_words(assembly)
    rows: list[Instance] = []
    for draft in assembly.jobs.values():
        found = instances(draft, values, assembly.problems)
        rows += [with_environment_words(row, assembly) for row in found]
        if len(rows) > MAX_INSTANCES:
            message = f"matrices make more than {MAX_INSTANCES:,} jobs in all"
            assembly.problems.append(draft.matrix_place.problem("too-large", message, key=True))
            return rows
    assembly.problems += check_instances(rows, assembly, certain=certain)
    assembly.problems += check_prudence(assembly)
    return rows


def in_order(problems: list[Diagnostic]) -> list[Diagnostic]:
    """Return diagnostics as they stand in the files, each once."""
    unique: dict[tuple[str, int, int, str, str], Diagnostic] = {}
    for one in problems:
        unique.setdefault((one.file, one.line, one.column, one.code, one.message), one)
    return sorted(unique.values(), key=lambda problem: (problem.file, problem.line, problem.column))


def parameter_values(assembly: Assembly, given: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], list[Diagnostic]]:
    """Return every declared parameter's value, and what is wrong with the given ones."""
    document = assembly.sources.pipeline
    problems: list[Diagnostic] = []
    for name in given:
        if name not in assembly.parameters:
            hint = did_you_mean(name, tuple(assembly.parameters)) or "the pipeline has no parameters"
            message = f"the pipeline has no parameter `{name}`"
            problems.append(Diagnostic("parameter", message, file=document.file, hint=hint))
    values: dict[str, Scalar] = {}
    for name, parameter in assembly.parameters.items():
        path = ("parameters", name)
        if name in given:
            problem = misfit(given[name], parameter.type, parameter.options)
            if problem:
                message = f"the value of the parameter `{name}` {problem}"
                problems.append(document.problem("parameter", message, path, key=True))
            else:
                values[name] = convert(given[name], parameter.type)
        elif parameter.default is not None:
            values[name] = parameter.default
        elif parameter.required:
            message, hint = f"the parameter `{name}` needs a value", f"give it with `--param {name}=...`"
            problems.append(document.problem("parameter", message, path, key=True, hint=hint))
        else:
            values[name] = _nothing(parameter)
    for name in assembly.parameters.keys() - values.keys():
        values[name] = _stand_in(assembly.parameters[name])
    return {name: values[name] for name in assembly.parameters}, problems


def _nothing(parameter: Parameter) -> Scalar:
    """What a parameter without a value is, so that expressions need not ask."""
    empty: dict[str, Scalar] = {"string": "", "number": 0, "boolean": False}
    return parameter.options[0] if parameter.type == "choice" else empty[parameter.type]


def _stand_in(parameter: Parameter) -> Scalar:
    if parameter.default is not None:
        return parameter.default
    return parameter.name if parameter.type == "string" else _nothing(parameter)


def _plan(
    assembly: Assembly, pipeline: PipelineModel, rows: list[Instance], values: Mapping[str, Scalar], source: Source
) -> Plan:
    by_base: dict[str, list[JobPlan]] = {}
    for row in rows:
        by_base.setdefault(row.draft.name, []).append(row.plan)
    ordered = topological({name: draft.plan.depends_on for name, draft in assembly.jobs.items()})
    jobs = tuple(
        msgspec.structs.replace(
            job, depends_on=tuple(before.name for base in job.depends_on for before in by_base[base])
        )
        for name in ordered
        for job in by_base[name]
    )
    references = {name: model.reference(name) for name, model in pipeline.secrets.items()}
    return Plan(
        name=pipeline.name,
        jobs=jobs,
        source=source,
        parameters=dict(values),
        env=pipeline.env,
        secrets=tuple(references.values()),
        concurrency=pipeline.concurrency.concurrency() if pipeline.concurrency else None,
        environments=tuple(model.plan(name, references) for name, (model, _) in assembly.environments.items()),
        max_parallel=pipeline.max_parallel,
        file=assembly.sources.pipeline.file,
    )
