"""Commands about the command itself: completion, version, help topics."""

from __future__ import annotations

from typing import Annotated

import typer

from forge.cli.options import pick
from forge.cli.session import say

EXIT_CODES = """\
  0    succeeded
  1    ran and did not succeed: a failed job, a rolled-back release
  2    usage, or an invalid configuration
  3    aborted or rejected by a person or a policy
  4    not logged in, or not allowed
  5    Forge or what it depends on failed; nothing could be judged
  6    timed out waiting; it is still running
  8    waiting for approval
  130  interrupted by Ctrl-C"""

ENVIRONMENT = """\
  FORGE_ACTOR        who acts (default: the operating system's user)
  FORGE_PROGRESS     auto, tty, plain, json or quiet
  FORGE_NO_INPUT     1: never ask
  FORGE_SERVER       the server that is asked, such as https://forge.example.org (default: none, work here)
  FORGE_TOKEN        the token for it (default: the one that `forge login` keeps)
  FORGE_PROJECT      which of its projects, as -P (default: the only one)
  FORGE_DATABASE     where state is kept: sqlite:///path or postgresql://host/name (default: .forge/forge.db)
  FORGE_ARTIFACTS    where artifacts are kept: a folder, s3://, gs:// or az:// (default: .forge/artifacts)
  NO_COLOR, FORCE_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM=dumb are honoured"""

OUTPUT = """\
  Data goes to stdout, progress and messages to stderr.
  -o table|wide|json|yaml|name   wherever a table is printed
  --progress tty                 a live tree, redrawn at most five times a second
  --progress plain               one line for each log line and each change
  --progress json                JSON lines on stderr: type run, environment, event, log, note
  --progress quiet               nothing but the result"""

TOPICS = {"exit-codes": EXIT_CODES, "environment": ENVIRONMENT, "output": OUTPUT}
SHELLS = ["bash", "zsh", "fish"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("completion")(completion)
    app.command("version")(version)
    app.command("help")(help_)


def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")]) -> None:
    """Print the completion script of a shell. For example: forge completion bash > ~/.forge-completion."""
    from typer._completion_shared import get_completion_script

    say(get_completion_script(prog_name="forge", complete_var="_FORGE_COMPLETE", shell=pick(shell, SHELLS, "shell")))


def version() -> None:
    """Print the version of Forge."""
    from forge import __version__

    say(f"forge {__version__}")


def help_(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[TOPIC|COMMAND...]", show_default=False)] = None,
) -> None:
    """Explain a command or a topic: exit-codes, environment, output."""
    root = context.find_root()
    if not words:
        say(root.get_help())
        return
    if len(words) == 1 and words[0] in TOPICS:
        say(f"{words[0]}:\n{TOPICS[words[0]]}")
        return
    command, below = root.command, root
    for word in words:
        known = dict(getattr(command, "commands", {}))
        pick(word, [*known, *(TOPICS if command is root.command else ())], "command or topic")
        command = known[word]
        below = typer.Context(command, info_name=word, parent=below)
    say(command.get_help(below))
