"""`forge grafana`: a dashboard of releases to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.session import say, session_of
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

if TYPE_CHECKING:
    from forge.model.plan import EnvironmentPlan, Plan

app = typer.Typer(help="Show releases in Grafana.", no_args_is_help=True, rich_markup_mode=None)


def register(root: typer.Typer) -> None:
    """Add these commands."""
    root.add_typer(app, name="grafana")


@app.callback()
def _grafana() -> None:
    """Show releases in Grafana."""


@app.command("dashboard")
def dashboard(
    context: typer.Context,
    service: Annotated[
        str, typer.Argument(metavar="[SERVICE]", help="Show only its releases; default: all.", show_default=False)
    ] = "",
    environment: Annotated[
        str, typer.Option("--environment", "-e", metavar="NAME", help="One environment; default: all of the file.")
    ] = "",
) -> None:
    """Print a dashboard to import: traffic, errors, latency and saturation by version, and each release's steps.

    It asks the Prometheus that the environment is judged by, or one that reads Envoy's metrics.
    """
    import json

    from forge.adapters.notify.grafana_dashboard import dashboard as drawn
    from forge.engine.planning import load
    from forge.engine.project import Project

    plan = load(Project.find(session_of(context).directory))
    say(json.dumps(drawn(_chosen(plan, environment), service), indent=2, ensure_ascii=False))


def _chosen(plan: Plan, environment: str) -> tuple[EnvironmentPlan, ...]:
    names = [known.name for known in plan.environments]
    if not names:
        raise UsageError("the pipeline has no environment", hint="declare one under `environments:`")
    if environment and environment not in names:
        raise UsageError(f"the pipeline has no environment `{environment}`", hint=did_you_mean(environment, names))
    return tuple(known for known in plan.environments if environment in ("", known.name))
