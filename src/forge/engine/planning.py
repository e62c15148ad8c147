"""Reads a project's files and makes the plan; the core does the thinking, this does the reading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forge.core.pipeline.assemble import Sources, assemble
from forge.core.pipeline.document import MAX_BYTES, Document, examine
from forge.core.pipeline.outline import PlanDocument, plan_document
from forge.core.pipeline.resolve import NO_SOURCE, diagnose_environments, in_order, resolve
from forge.core.pipeline.resolve import diagnose as diagnose_sources
from forge.engine.project import PIPELINE, Project
from forge.model.diagnostics import Diagnostic
from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.plan import Parameter, Plan, Scalar, Source

__all__ = ["PlanDocument", "diagnose", "load", "plan_document", "read_sources"]
ENVIRONMENTS = "environments.yaml"
MAX_INCLUDES = 50


def load(project: Project, parameters: Mapping[str, Scalar] | None = None, *, source: Source | None = None) -> Plan:
    """Return the plan of a project's pipeline.

    Raises InvalidConfiguration with everything that is wrong in all of its files and parameters.
    """
    sources, problems = read_sources(project.pipeline, project.root)
    if problems:
        found = [one for one in _all(sources, problems) if one.severity == "error"]
        raise InvalidConfiguration(tuple(found))
    assert sources is not None
    plan = resolve(sources, parameters, source or NO_SOURCE)
    found = [one for one in _of_manifests(sources, project.root) if one.severity == "error"]
    if found:
        raise InvalidConfiguration(tuple(in_order(found)))
    return plan


def declared_parameters(project: Project) -> tuple[Parameter, ...]:
    """Return what a run of the project's pipeline may be given. Raises InvalidConfiguration as `load` does."""
    sources, problems = read_sources(project.pipeline, project.root)
    found = [one for one in _all(sources, problems) if one.severity == "error"]
    if found or sources is None:
        raise InvalidConfiguration(tuple(found))
    return tuple(assemble(sources).parameters.values())


def _of_manifests(sources: Sources, root: Path) -> list[Diagnostic]:
    """Return what is wrong with the manifests of environments on clusters; most projects have none."""
    documents = [sources.pipeline, *([sources.environments] if sources.environments else [])]
    if not any("kubernetes" in line for document in documents for line in document.lines):
        return []
    from forge.engine.manifests import examine_manifests

    return examine_manifests(sources, root)


def diagnose(path: Path) -> list[Diagnostic]:
    """Return every problem and warning of a pipeline file and of what belongs to it, or of an environments file.

    Raises UsageError when there is no such file.
    """
    resolved = path.resolve()
    problems: list[Diagnostic]
    root = resolved.parent.parent if resolved.parent.name == PIPELINE.parent.name else resolved.parent
    if path.name == ENVIRONMENTS:
        problems = []
        document = _document(path, root, problems)
        return in_order(problems + (diagnose_environments(document) if document else []))
    sources, problems = read_sources(path, root)
    return in_order(_all(sources, problems) + (_of_manifests(sources, root) if sources else []))


def _all(sources: Sources | None, unread: list[Diagnostic]) -> list[Diagnostic]:
    """Join what cannot be read with what is wrong in the rest, without what only follows from the former."""
    found = diagnose_sources(sources) if sources else []
    follows = {"unknown-environment", "unknown-template"} if sources is None or _lost(unread) else set()
    lines = {(one.file, one.line) for one in unread}
    rest = [one for one in found if one.code not in follows and (one.file, one.line) not in lines]
    return in_order(unread + rest)


def _lost(unread: list[Diagnostic]) -> bool:
    """Whether whole files are missing, so that what they define is unknown."""
    return any(one.code not in {"duplicate-key", "scalar", "key"} for one in unread)


def read_sources(path: Path, root: Path) -> tuple[Sources | None, list[Diagnostic]]:
    """Return the parsed files of a pipeline, and what cannot be read; None: the pipeline itself cannot.

    `include:` and the diagnostics' file names are relative to `root`, and an include never leaves it.
    """
    problems: list[Diagnostic] = []
    pipeline = _document(path, root, problems)
    beside = path.parent / ENVIRONMENTS
    environments = _document(beside, root, problems) if beside.is_file() else None
    if pipeline is None:
        return None, problems
    included = _included(pipeline, root, problems)
    return Sources(pipeline, environments, included), problems


def _document(path: Path, root: Path, problems: list[Diagnostic]) -> Document | None:
    name = shown(path, root)
    try:
        document, unread = examine(_content(path, name), name)
    except InvalidConfiguration as wrong:
        problems.extend(wrong.diagnostics)
        return None
    problems.extend(unread)
    return document


def _content(path: Path, name: str) -> bytes:
    """Return a file's bytes; never more than one too many, whatever its size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as wrong:
        raise UsageError(
            f"{path} cannot be read: {wrong.strerror}", hint="check the path and its permissions"
        ) from None
    if len(content) > MAX_BYTES:
        message = f"the file is {max(size, len(content)) / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
        hint = "split it into templates that it includes"
        raise InvalidConfiguration((Diagnostic("too-large", message, file=name, hint=hint),))
    return content


def shown(path: Path, root: Path) -> str:
    """Return how diagnostics name a file: relative to the project where it is inside."""
    resolved = path.resolve()
    return resolved.relative_to(root.resolve()).as_posix() if resolved.is_relative_to(root.resolve()) else str(path)


def _included(pipeline: Document, root: Path, problems: list[Diagnostic]) -> dict[str, Document]:
    wanted = pipeline.data.get("include") if isinstance(pipeline.data, dict) else None
    names = wanted if isinstance(wanted, list) else [wanted]
    documents: dict[str, Document] = {}
    for index, name in enumerate(names[:MAX_INCLUDES]):
        if not isinstance(name, str):
            continue  # the model says what is wrong with it
        place = ("include", index) if isinstance(wanted, list) else ("include",)
        target = (root / name.replace("\0", "")).resolve()
        if "\0" in name or not target.is_relative_to(root.resolve()):
            message = f"`{name}` is outside the project"
            hint = "copy it into the project; a run builds only from its own source"
            problems.append(pipeline.problem("include", message, place, hint=hint))
        elif not target.is_file():
            beside = (root / pipeline.file).parent / name
            hint = "paths begin at the project's folder"
            if beside.is_file():
                hint += f": write `{beside.resolve().relative_to(root.resolve()).as_posix()}`"
            problems.append(pipeline.problem("include", f"there is no file `{name}`", place, hint=hint))
        elif (document := _document(target, root, problems)) is not None:
            documents[name] = document
    return documents
