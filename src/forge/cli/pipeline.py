"""Commands about the pipeline file: lint, plan, graph, schema. They read and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from forge.cli.options import Output, Parameters, PipelineFile, pairs, pick
from forge.cli.session import leave, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.cli.render.paint import Paint
    from forge.engine.differences import StepDifferences
    from forge.model.plan import Plan

GRAPH_FORMATS = ["text", "mermaid", "svg"]
SCHEMAS = ["pipeline", "environments", "templates"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("lint")(lint)
    app.command("plan")(plan)
    app.command("graph")(graph)
    app.command("schema")(schema)


def lint(context: typer.Context, file: PipelineFile = None, output: Output = "table") -> None:
    """Check the pipeline file. Tells everything that is wrong with it, at once, with line and column."""
    from forge.cli.render.diagnostics import render_diagnostics
    from forge.cli.render.tables import check_output, document
    from forge.engine.planning import diagnose

    check_output(output)
    session = session_of(context)
    path = session.directory / file if file else session.project.pipeline
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    diagnostics = diagnose(path)
    if output in {"json", "yaml"}:
        say(document(diagnostics, output))
    elif diagnostics:
        tell(render_diagnostics(diagnostics, session.err))
    else:
        tell(f"{session.err.icon('ok')} {_shown(path)}: no problems")
    leave(ExitCode.USAGE if any(one.severity == "error" for one in diagnostics) else ExitCode.SUCCEEDED)


def plan(
    context: typer.Context,
    parameters: Parameters = [],  # noqa: B006
    output: Output = "table",
    offline: Annotated[bool, typer.Option("--offline", help="Ask no cluster what a release would change.")] = False,
) -> None:
    """Show what a run would do: in which order, at which gates, with which releases.

    Of releases to a Kubernetes cluster it also tells, field by field, what they would change there; nothing is written.
    """
    import msgspec

    from forge.cli.render.tables import check_output, document
    from forge.cli.render.tree import plan_tree
    from forge.engine.planning import load
    from forge.views.plan import plan_view

    check_output(output)
    session = session_of(context)
    made = load(session.project, pairs(parameters, "-p"))
    view = plan_view(made)
    found = [] if offline or output == "name" else _differences(made, session.project.root)
    if output in {"json", "yaml"}:
        say(document({**msgspec.to_builtins(view), "changes": found} if found else view, output))
    elif output == "name":
        say("\n".join(job.name for job in view.jobs))
    else:
        say("\n".join([*plan_tree(view, session.out), *_difference_lines(found, session.out)]))


def _differences(plan: Plan, root: Path) -> list[StepDifferences]:
    """Ask the clusters that the plan deploys to what it would change there."""
    if not any(environment.target == "kubernetes" for environment in plan.environments):
        return []
    import asyncio

    from forge.engine.differences import differences

    return asyncio.run(differences(plan, root))


def _difference_lines(found: list[StepDifferences], paint: Paint) -> list[str]:
    if not found:
        return []
    from forge.cli.render.differences import difference_lines

    return difference_lines(found, paint)


def graph(
    context: typer.Context,
    format_: Annotated[str, typer.Option("-f", "--format", metavar="text|mermaid|svg", help="What to print.")] = "text",
    parameters: Parameters = [],  # noqa: B006
) -> None:
    """Print the graph of the jobs: text for here, Mermaid for Markdown, SVG for a page."""
    from forge.core.pipeline.graph import mermaid, svg, text_tree
    from forge.engine.planning import load

    session = session_of(context)
    pick(format_, GRAPH_FORMATS, "format")
    draw = {"text": text_tree, "mermaid": mermaid, "svg": svg}[format_]
    say(draw(load(session.project, pairs(parameters, "-p"))))


def schema(
    file: Annotated[str, typer.Argument(metavar="pipeline|environments|templates", help="Of which file.")] = "pipeline",
) -> None:
    """Print the JSON Schema of forge/pipeline.yaml, for editors."""
    from forge.cli.render.tables import document
    from forge.core.pipeline.schema_pipeline import json_schema

    say(document(json_schema(cast("Any", pick(file, SCHEMAS, "schema"))), "json"))


def _shown(path: Path) -> str:
    """The path as the user would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
