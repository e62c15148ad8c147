"""`forge import`: the manifests of Argo Rollouts and Flagger as a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge.cli.session import Session, leave, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.core.importing.draft import Translation

_OUTPUTS = ("yaml", "json")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("import")(translate)


def translate(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rollouts or Canaries, with their templates.")],
    environment: Annotated[
        str, typer.Option("--env", metavar="NAME", help="What the environment is called.")
    ] = "production",
    manifests: Annotated[
        Path | None, typer.Option("--manifests", metavar="FILE", help="Write the Deployments that Rollouts become.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FORMAT", help="yaml or json.")] = "yaml",
) -> None:
    """Translate manifests of Argo Rollouts or Flagger into a pipeline, and say what could not be translated.

    Exits 1 when something could not.
    """
    from forge.adapters.kubernetes.documents import read_documents
    from forge.core.importing.translating import translate as translated

    session = session_of(context)
    if output not in _OUTPUTS:
        raise UsageError(f"unknown output `{output}`", hint="yaml or json")
    documents = [each for path in files for each in read_documents(_content(session.directory / path), str(path))]
    found = translated(documents)
    if len(found) > 1 and output == "yaml":
        raise UsageError(f"there are {len(found)} releases in these files", hint="one file at a time, or `-o json`")
    if manifests is not None:
        _write(session.directory / manifests, found)
    if output == "json":
        _json(found, environment)
    else:
        _yaml(session, found[0], environment)
    leave(ExitCode.DID_NOT_SUCCEED if any(each.lost for each in found) else ExitCode.SUCCEEDED)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror}") from None


def _json(found: list[Translation], environment: str) -> None:
    from forge.cli.render.tables import document

    whole: list[dict[str, Any]] = [
        {"name": each.draft.name, "pipeline": each.draft.pipeline(environment), "manifests": each.draft.manifests,
         "comments": each.draft.comments, "not_translated": list(each.lost)}
        for each in found
    ]  # fmt: skip
    say(document(whole, "json"))


def _yaml(session: Session, one: Translation, environment: str) -> None:
    from forge.cli.render.diagnostics import render_diagnostics
    from forge.cli.render.tables import document

    lines = ["# forge/pipeline.yaml", *(f"# - {comment}" for comment in one.draft.comments)]
    say("\n".join([*lines, document(one.draft.pipeline(environment), "yaml")]))
    if one.lost:
        tell(render_diagnostics(one.lost, session.err))
        tell(f"{len(one.lost)} not translated; all else of {one.draft.name} is")


def _write(path: Path, found: list[Translation]) -> None:
    import yaml

    objects = [item for each in found for item in each.draft.manifests]
    path.write_text(yaml.safe_dump_all(objects, sort_keys=False), encoding="utf-8")
    tell(f"wrote {path.name}: {len(objects)} object{'' if len(objects) == 1 else 's'}")
