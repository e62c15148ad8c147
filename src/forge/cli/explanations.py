"""`forge explain`: why a release went as it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Output
from forge.cli.session import say, session_of
from forge.model.errors import ExitCode

if TYPE_CHECKING:
    from forge.service.base import Service


def register(root: typer.Typer) -> None:
    """Add this command."""
    root.command("explain")(explain)


def explain(
    context: typer.Context,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="Such as production-3.", show_default=False)],
    output: Output = "table",
) -> None:
    """Tell why a release went as it did. Who asked, what was seen, what decided, what it cost."""
    from forge.cli.render.tables import check_output, document

    check_output(output)
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.cli.render.explanation import explanation_lines

        story = await service.environments.explanation(release)
        if output in {"json", "yaml"}:
            say(document(story, output))
        elif output == "name":
            say(story.id)
        else:
            say("\n".join(explanation_lines(story, session.out)))
        return ExitCode.SUCCEEDED

    session.run(work)
