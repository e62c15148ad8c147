"""Help in sections: commands in the order of use, not in one long list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

SECTIONS = (
    ("Describe", ("init", "import", "lint", "plan", "graph", "schema", "simulate", "analyse", "backtest")),
    ("Run", ("run", "runs", "status", "logs", "approve", "reject", "cancel", "retry", "resume", "artifacts")),
    ("Release", ("release", "rollback", "explain", "env", "signals", "grafana")),
    ("For a team", ("serve", "worker", "user", "token", "login", "logout", "whoami")),
    ("Forge itself", ("doctor", "audit", "completion", "version", "help")),
)


class SectionedGroup(TyperGroup):
    """The root command."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands, section by section; one that no section names comes last."""
        named = {name for _, names in SECTIONS for name in names}
        rest = tuple(name for name in self.list_commands(ctx) if name not in named)
        longest = max(map(len, self.list_commands(ctx)))
        for title, names in (*SECTIONS, ("Others", rest)):
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    short = command.get_short_help_str(formatter.width - 6 - longest)
                    rows.append((name.ljust(longest), short))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write the epilog line by line: it is a table."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog.rstrip() + "\n")
