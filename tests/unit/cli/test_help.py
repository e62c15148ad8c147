from __future__ import annotations

import json
import subprocess
import sys

import pytest

from forge import __version__
from forge.cli.main import run_command

HEAVY = {
    "sqlalchemy",
    "pydantic",
    "yaml",
    "rich",
    "asyncio",
    "httpx2",
    "obstore",
    "cel_expr_python",
    "aiosqlite",
    "psycopg",
}


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize(
    "words", [["--help"], ["release", "--help"], ["help", "exit-codes"], ["version"], ["--version"]]
)
def test_help_imports_nothing_heavy(words):
    program = f"""
import json, sys
from forge.cli.main import run_command
code = run_command({words!r})
print(json.dumps([code, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    typers_own = set() if words == ["--help"] else {"pydantic"}  # Typer reads the values of options with it
    assert (HEAVY - typers_own).isdisjoint(modules)


@pytest.mark.parametrize("words", [["version"], ["--version"], ["-C", "/nowhere", "--version"]])
def test_the_version_is_told_wherever_forge_is_called(capsys, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command(words) == 0
    assert capsys.readouterr().out == f"forge {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [[], ["run"], ["runs"], ["approve"], ["resume"], ["release"], ["release", "promote"], ["rollback"], ["env"], ["artifacts", "get"], ["doctor"]],
)  # fmt: skip
def test_help(golden, capsys, words):
    assert run_command([*words, "--help"]) == 0
    golden("-".join(["help", *words]), capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runz"], "error: no such command `runz`\n  hint: did you mean `run`, `runs`?\n"),
        (["runs", "--limmit", "3"], "error: no such option: --limmit\n  hint: did you mean `--limit`?\n"),
        (["release", "promot", "x"], "error: no such command `promot`\n  hint: did you mean `promote`?\n"),
        (["approve"], "error: missing argument `RUN`\n  hint: see `forge approve --help`\n"),
        (["runs", "-n", "0"], "error: invalid value for `--limit` / `-n`: Input should be greater than or equal to 1\n  hint: see `forge runs --help`\n"),
        (["-C", "/nonexistent", "runs"], "error: there is no folder /nonexistent\n"),
        (["runs", "-o", "jsn"], "error: unknown output `jsn`\n  hint: did you mean `json`?\n"),
        (["run", "--progress", "ttty"], "error: unknown progress mode `ttty`\n  hint: did you mean `tty`?\n"),
        (["help", "exit-cods"], "error: there is no command or topic `exit-cods`\n  hint: did you mean `exit-codes`?\n"),
        (["completion", "bsh"], "error: there is no shell `bsh`\n  hint: did you mean `bash`?\n"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_exits_2_and_suggests(capsys, words, says):
    assert run_command(words) == 2
    out, err = capsys.readouterr()
    assert err == says
    assert out == ""


def test_a_group_alone_explains_itself_and_exits_2(capsys):
    assert run_command(["release"]) == 2
    assert "Usage: forge release" in capsys.readouterr().err


def test_outside_a_project_it_says_how_to_begin(capsys, tmp_path):
    assert run_command(["runs", "-C", str(tmp_path)]) == 2
    assert "`forge init`" in capsys.readouterr().err


@pytest.mark.parametrize("topic", ["exit-codes", "environment", "output"])
def test_topics(capsys, topic):
    assert run_command(["help", topic]) == 0
    assert capsys.readouterr().out.startswith(f"{topic}:")


def test_help_of_a_command_is_that_of_the_command(capsys):
    assert run_command(["help", "release", "promote"]) == 0
    shown = capsys.readouterr().out
    assert run_command(["release", "promote", "--help"]) == 0
    assert shown == capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(capsys, shell):
    assert run_command(["completion", shell]) == 0
    assert "_FORGE_COMPLETE" in capsys.readouterr().out


def test_completion_answers(capsys, monkeypatch):
    monkeypatch.setenv("_FORGE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "forge rel")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run_command([]) == 0
    assert "release" in capsys.readouterr().out


def test_version(capsys):
    assert run_command(["version"]) == 0
    assert capsys.readouterr().out == "forge 0.1.0\n"
