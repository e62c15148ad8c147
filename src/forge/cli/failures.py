"""How a command fails: every exception becomes words on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import typer
from typer.exceptions import TyperException

from forge.cli.render.diagnostics import render_error
from forge.cli.render.paint import Paint
from forge.model.errors import ExitCode, ForgeError, UsageError


def explain(error: BaseException, paint: Paint, *, debug: bool = False) -> int:
    """Say on stderr what went wrong and return the exit code for it."""
    if isinstance(error, BrokenPipeError):
        return _quiet_pipe()
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return ExitCode.INTERRUPTED
    if type(error).__name__ == "NoArgsIsHelpError":  # a group alone: its help is the answer
        _tell(error.format_message())  # type: ignore[attr-defined]
        return ExitCode.USAGE
    if isinstance(error, TyperException):
        _tell(render_error(_usage(error), paint))
        return ExitCode.USAGE
    if isinstance(error, BaseExceptionGroup):
        return explain(_telling(error), paint, debug=debug)
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, ForgeError):
        _tell(render_error(error, paint))
        return int(error.exit_code)
    return _unexpected(error, paint, debug=debug)


def _usage(error: TyperException) -> UsageError:
    """A mistake on the command line, in our own words and with a suggestion."""
    message = error.format_message().strip()
    message, _, guess = message.partition(" Did you mean ")
    message = message.rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "forge")
    possibilities = list(getattr(error, "possibilities", None) or ())
    if guess:
        hint = "did you mean " + guess.rstrip("?").replace("'", "`") + "?"
    elif possibilities:
        message = message.partition(" (Possible options:")[0]
        hint = f"did you mean `{possibilities[0]}`?"
    else:
        hint = f"see `{command} --help`"
    return UsageError(message[:1].lower() + message[1:].replace("'", "`"), hint=hint)


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together the first that was raised on purpose, else the first."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        one = pending.pop(0)
        if isinstance(one, BaseExceptionGroup):
            pending[:0] = one.exceptions
        else:
            flat.append(one)
    return next((one for one in flat if isinstance(one, ForgeError)), flat[0])


def _unexpected(error: BaseException, paint: Paint, *, debug: bool) -> int:
    """Forge's own failure: one line for the user, the traceback into a file for whoever mends it."""
    lines = [f"{paint.red('error:')} {type(error).__name__}: {str(error).strip() or 'no message'}".split("\n", 1)[0]]
    if not debug:
        where = _write_traceback(error)
        if where is not None:
            lines.append(f"  this is a fault of Forge or of what it runs on; the traceback is in {where}")
        lines.append(f"  {paint.cyan('hint:')} `--debug` shows it at once, `forge doctor` looks for the usual causes")
    _tell("\n".join(lines))
    return ExitCode.FORGE_FAILED


def _write_traceback(error: BaseException) -> Path | None:
    import traceback

    text = "".join(traceback.format_exception(error))
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (Path.cwd() / ".forge", Path(tempfile.gettempdir())):
        try:
            if folder.is_dir():
                (folder / name).write_text(text)
                return folder / name
        except OSError:
            continue
    return None


def _quiet_pipe() -> int:
    """The reader (`head`, `less`) went away: nobody is left to tell, and flushing at exit must not complain."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 128 + 13


def _tell(text: str) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
