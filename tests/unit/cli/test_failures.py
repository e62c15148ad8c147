from __future__ import annotations

import pytest
import typer

from forge.cli.failures import explain
from forge.cli.render.diagnostics import render_diagnostics, render_error, summary
from forge.cli.render.paint import Paint, strip_ansi
from forge.model.diagnostics import Diagnostic
from forge.model.errors import (
    DependencyFailed,
    InvalidConfiguration,
    NotAllowed,
    Rejected,
    StaleLease,
    StillRunning,
    UsageError,
)

PLAIN = Paint(colour=False)
WRONG = (
    Diagnostic("unknown-job", "there is no job `biuld`", "forge/pipeline.yaml", 9, 17, 5, "    depends_on: biuld", "did you mean `build`?"),
    Diagnostic("unused", "the artifact is never used", "forge/pipeline.yaml", 4, 5, 3, "    abc", severity="warning"),
    Diagnostic("too-large", "the file is too large", "forge/other.yaml"),
)  # fmt: skip


def test_everything_wrong_at_once_in_the_order_of_the_file(golden):
    golden("diagnostics", render_diagnostics(WRONG, PLAIN))


def test_colours_change_nothing_but_colours():
    coloured = render_diagnostics(WRONG, Paint(colour=True))
    assert "\x1b[31m" in coloured
    assert strip_ansi(coloured) == render_diagnostics(WRONG, PLAIN)


def test_summary_counts():
    assert summary(WRONG) == "2 errors, 1 warning"
    assert summary(()) == "no problems"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no"), 2),
        (InvalidConfiguration(WRONG), 2),
        (Rejected("no"), 3),
        (NotAllowed("no"), 4),
        (DependencyFailed("no"), 5),
        (StaleLease("no"), 5),
        (StillRunning("no"), 6),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (ExceptionGroup("two", [ValueError("x"), Rejected("no")]), 3),
    ],
)
def test_each_error_has_its_exit_code(error, code, capsys):
    assert explain(error, PLAIN) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_tells_what_to_do():
    error = UsageError("there is no run `run-9`", hint="did you mean `run-8`?")
    assert render_error(error, PLAIN) == "error: there is no run `run-9`\n  hint: did you mean `run-8`?"


def test_an_unexpected_error_is_one_line_and_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".forge").mkdir()
    with pytest.raises(KeyError) as raised:
        {}["missing\nkey"]
    assert explain(raised.value, PLAIN) == 5
    err = capsys.readouterr().err
    assert err.splitlines()[0].startswith("error: KeyError: ")
    written = list((tmp_path / ".forge").glob("crash-*.log"))
    assert len(written) == 1
    assert str(written[0]) in err
    assert "Traceback" in written[0].read_text()
    assert "Traceback" not in err


def test_debug_shows_the_traceback_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".forge").mkdir()
    assert explain(RuntimeError("boom"), PLAIN, debug=True) == 5
    assert "RuntimeError: boom" in capsys.readouterr().err
    assert not list((tmp_path / ".forge").iterdir())
