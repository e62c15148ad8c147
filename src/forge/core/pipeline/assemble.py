"""Joins the pipeline's files into drafts of jobs and declared environments, with every problem of their form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from forge.core.pipeline import leaves
from forge.core.pipeline.check_words import check_template, texts
from forge.core.pipeline.document import Document
from forge.core.pipeline.draft import JobDraft, Place, draft_job
from forge.core.pipeline.nodes import Node
from forge.core.pipeline.schema_environment import EnvironmentModel
from forge.core.pipeline.schema_gate import VALUE_NAME, named_values
from forge.core.pipeline.schema_notify import NotifierModel
from forge.core.pipeline.schema_pipeline import (
    EnvironmentsModel,
    JobModel,
    PipelineModel,
    TemplateModel,
    TemplatesModel,
)
from forge.core.pipeline.schema_signals import SourceModel
from forge.core.pipeline.templates import Bindings, bind
from forge.core.pipeline.validate import validate
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.plan import Parameter

MAX_JOBS = 5000


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a pipeline, read. `included` is by the path that `include:` names."""

    pipeline: Document
    environments: Document | None = None
    included: Mapping[str, Document] = field(default_factory=dict)


@dataclass(slots=True)
class Assembly:
    """Everything that the files say, joined. `whole` False: some of it was too broken to keep."""

    sources: Sources
    pipeline: PipelineModel | None
    whole: bool
    problems: list[Diagnostic]
    templates: dict[str, tuple[TemplateModel, Place]] = field(default_factory=dict)
    used_templates: set[str] = field(default_factory=set)
    environments: dict[str, tuple[EnvironmentModel, Place]] = field(default_factory=dict)
    jobs: dict[str, JobDraft] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)

    @property
    def job_names(self) -> tuple[str, ...]:
        """Every job of the file, also the ones that are too broken to draft."""
        return _names(self.sources.pipeline, "jobs")

    @property
    def environment_names(self) -> tuple[str, ...]:
        """Every declared environment, also the broken ones."""
        return _environment_names(self.sources)


def assemble(sources: Sources) -> Assembly:
    """Read the models of all files and join them."""
    checked = validate(PipelineModel, sources.pipeline)
    assembly = Assembly(sources, checked.model, checked.whole, list(checked.problems))
    if checked.model is None:
        return assembly
    if len(checked.model.jobs) > MAX_JOBS:
        message = f"there are {len(checked.model.jobs):,} jobs; at most {MAX_JOBS:,} are allowed"
        assembly.problems.append(sources.pipeline.problem("too-large", message, ("jobs",), key=True))
        return assembly
    _check_names(assembly, checked.model)
    _collect_templates(assembly, checked.model)
    _collect_environments(assembly, checked.model)
    _check_environments(assembly)
    for template, place in assembly.templates.values():
        assembly.problems += check_template(template, place)
    assembly.parameters = {parameter.name: parameter for parameter in named_values(checked.model.parameters)}
    for name, job in checked.model.jobs.items():
        _draft(assembly, checked.model, name, job)
    return assembly


def _names(document: Document, key: str) -> tuple[str, ...]:
    content = document.data.get(key) if isinstance(document.data, dict) else None
    return tuple(content) if isinstance(content, dict) else ()


def _environment_names(sources: Sources) -> tuple[str, ...]:
    names = _names(sources.pipeline, "environments")
    if sources.environments is not None:
        names += _names(under_key(sources.environments, "environments"), "environments")
    return tuple(dict.fromkeys(names))


def under_key(document: Document, key: str) -> Document:
    """Return the document with its content under `key`, if it is not there already."""
    if not isinstance(document.data, dict) or key in document.data:
        return document
    named = {name: value for name, value in document.data.items() if not name.startswith("x-")}
    root = document.root
    top = Node(root.span, root.end_line, "mapping", pairs=[(Node(root.span, root.span.line, "scalar", key), root)])
    return Document(document.file, document.lines, top, {key: named})


def _check_names(assembly: Assembly, pipeline: PipelineModel) -> None:
    """Names are keys of the file, so no model sees them."""
    document = assembly.sources.pipeline
    if not assembly.job_names:
        assembly.problems.append(document.problem("no-jobs", "there are no jobs", ("jobs",), key=True, hint=_JOBS_HINT))
    for section, names in (("jobs", assembly.job_names), ("environments", _names(document, "environments"))):
        for name in names:
            if "${{" in name or not leaves.NAME.fullmatch(name):
                hint = "use letters, digits, `_`, `-` and `.`, at most 100"
                message = f"{leaves.shown(name)} cannot be a name in `{section}`"
                assembly.problems.append(document.problem("name", message, (section, name), hint=hint, key=True))
    upper: dict[str, str] = {}
    for name in pipeline.parameters:
        path = ("parameters", name)
        if not VALUE_NAME.fullmatch(name):
            message = f"{leaves.shown(name)} cannot name a parameter"
            hint = "use letters, digits and `_`; expressions say `params.NAME`"
            assembly.problems.append(document.problem("name", message, path, hint=hint, key=True))
        elif (other := upper.setdefault(name.upper(), name)) != name:
            message = f"`{name}` and `{other}` would be the same environment variable"
            assembly.problems.append(document.problem("name", message, path, hint="rename one", key=True))
    _check_secrets(assembly, pipeline)


_JOBS_HINT = "write a job: a name, and under it `steps:`"


def _check_secrets(assembly: Assembly, pipeline: PipelineModel) -> None:
    document = assembly.sources.pipeline
    for name in pipeline.secrets:
        path = ("secrets", name)
        try:
            leaves.env_name(name)
        except leaves.LeafError as error:
            assembly.problems.append(
                document.problem("name", f"`secrets.{name}` {error}", path, hint=error.hint, key=True)
            )
    jobs = [(("jobs", name, "env"), job.env) for name, job in pipeline.jobs.items()]
    for section, env in [(("env",), pipeline.env), *jobs]:
        for name in env.keys() & pipeline.secrets.keys():
            message = f"`{name}` is a secret and a variable"
            hint = "steps see secrets as environment variables; remove it here"
            assembly.problems.append(document.problem("name", message, (*section, name), hint=hint, key=True))


def _collect_templates(assembly: Assembly, pipeline: PipelineModel) -> None:
    for name, template in pipeline.templates.items():
        assembly.templates[name] = (template, Place(assembly.sources.pipeline, ("templates", name)))
    for document in assembly.sources.included.values():
        checked = validate(TemplatesModel, document)
        assembly.problems += checked.problems
        assembly.whole &= checked.whole
        for name, template in (checked.model.templates if checked.model else {}).items():
            place = Place(document, ("templates", name))
            if name in assembly.templates:
                assembly.problems.append(_twice("template", name, place, assembly.templates[name][1]))
            else:
                assembly.templates[name] = (template, place)


def _collect_environments(assembly: Assembly, pipeline: PipelineModel) -> None:
    own = assembly.sources.pipeline
    for name, environment in pipeline.environments.items():
        assembly.environments[name] = (environment, Place(own, ("environments", name)))
    if assembly.sources.environments is None:
        return
    document = under_key(assembly.sources.environments, "environments")
    checked = validate(EnvironmentsModel, document)
    assembly.problems += checked.problems
    assembly.whole &= checked.whole
    for name, environment in (checked.model.environments if checked.model else {}).items():
        place = Place(document, ("environments", name))
        if not leaves.NAME.fullmatch(name):
            message = f"{leaves.shown(name)} cannot be a name in `environments`"
            assembly.problems.append(place.problem("name", message, key=True))
        elif name in assembly.environments:
            assembly.problems.append(_twice("environment", name, place, assembly.environments[name][1]))
        else:
            assembly.environments[name] = (environment, place)


def _check_environments(assembly: Assembly) -> None:
    """An environment outlives every run, so nothing of a run is known in it."""
    for name, (model, place) in assembly.environments.items():
        for text in texts(msgspec.to_builtins(model.plan(name))):
            fragment = text[text.index("${{") :]
            hint = "a `deploy` step's `target:` may have them"
            message = "an environment cannot have expressions"
            assembly.problems.append(place.problem_at(fragment, "expression", message, hint=hint))
        _check_secrets_of(assembly, model, place)


def _check_secrets_of(assembly: Assembly, model: EnvironmentModel, place: Place) -> None:
    """A source of signals, or somebody who is told, names the secrets that it needs; each must be declared."""
    known = tuple(assembly.pipeline.secrets) if assembly.pipeline else ()
    sections: dict[str, tuple[SourceModel | NotifierModel, ...]] = {"signals": model.signals, "notify": model.notify}
    needed = [
        (section, index, path, name)
        for section, models in sections.items()
        for index, one in enumerate(models)
        for path, name in one.secret_names()
    ]
    for section, index, path, name in needed:
        if name in known or not assembly.whole:
            continue
        where = place.document.existing((*place.path, section, index, *path))
        if len(where) == len(place.path) + 1:
            where = place.document.existing((*place.path, section, *path))
        hint = did_you_mean(name, known) or f"declare it: `secrets: [{name}]`"
        message = f"there is no secret `{name}`"
        assembly.problems.append(place.document.problem("unknown-secret", message, where, hint=hint))


def _twice(what: str, name: str, place: Place, first: Place) -> Diagnostic:
    hint = f"the first is at {first.document.file}:{first.line}; rename or remove one"
    return place.problem("duplicate-name", f"the {what} `{name}` is declared twice", hint=hint, key=True)


def _draft(assembly: Assembly, pipeline: PipelineModel, name: str, job: JobModel) -> None:
    place = Place(assembly.sources.pipeline, ("jobs", name))
    template: tuple[TemplateModel, Place] | None = None
    bindings = Bindings()
    if job.template:
        template = assembly.templates.get(job.template)
        if template is None:
            # A broken template was told where it stands; a job that uses it is not wrong for that.
            if assembly.whole:
                hint = did_you_mean(job.template, tuple(assembly.templates)) or "there are no templates"
                message = f"there is no template `{job.template}`"
                assembly.problems.append((place / "template").problem("unknown-template", message, hint=hint))
            return
        assembly.used_templates.add(job.template)
        bindings, misuses = bind(job.template, template[0].parameters, job.with_)
        for misuse in misuses:
            where = place / "with" / misuse.argument if misuse.argument else place / "template"
            assembly.problems.append(
                where.problem("template-parameter", misuse.message, hint=misuse.hint, key=bool(misuse.argument))
            )
        if misuses:
            return
    assembly.jobs[name] = draft_job(name, job, place, pipeline, template, bindings)
