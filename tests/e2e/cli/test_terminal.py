"""The command on a real terminal: the live tree, the question at a gate, Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte
import pytest

PIPELINE = """\
jobs:
  build:
    steps:
      - run: echo compiling; sleep 1; printf '\\033[2Jcleared\\n'
  lint:
    steps:
      - run: echo linting
  release:
    depends_on: [build, lint]
    trigger:
      manual:
        message: Is it well?
        inputs:
          ticket: {type: string, required: true, description: the ticket}
          region: {type: choice, options: [eu, us], default: eu}
    steps:
      - run: echo "released $TICKET $REGION"
        env:
          TICKET: ${{ inputs.ticket }}
          REGION: ${{ inputs.region }}
"""


class Terminal:
    """A process on a pseudo terminal, and the screen that its person sees."""

    def __init__(self, forge, *words: str, **env: str) -> None:
        self.screen = pyte.Screen(100, 40)
        self.stream = pyte.Stream(self.screen)
        self.raw = ""
        environ = {**forge.whole_env, "TERM": "xterm-256color", **env}
        command = str(Path(sys.executable).parent / "forge")
        self.child = pexpect.spawn(
            command, list(words), cwd=str(forge.folder), env=environ, dimensions=(40, 100), encoding="utf-8", timeout=30
        )

    def read(self, seconds: float = 0.1) -> bool:
        try:
            data = self.child.read_nonblocking(65536, timeout=seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self.stream.feed(data)
        return True

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).strip()

    def until(self, condition: Callable[[str], bool], seconds: float = 30) -> str:
        end = time.monotonic() + seconds
        while not condition(self.text):
            assert self.read() or condition(self.text), f"it ended:\n{self.text}"
            assert time.monotonic() < end, f"it never came:\n{self.text}"
        return self.text

    def end(self) -> int:
        while self.read(1):
            pass
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def terminal(project):
    opened: list[Terminal] = []
    forge = project(PIPELINE, real=True)

    def open_(*words: str, **env: str) -> Terminal:
        opened.append(Terminal(forge, *words, **env))
        return opened[-1]

    yield open_
    for one in opened:
        one.child.close(force=True)


def test_the_tree_lives_and_the_gate_asks(terminal):
    shown = terminal("run")
    tree = shown.until(lambda text: "◌ build" in text and "└── compiling" in text and "✔ lint" in text)
    assert "• release" in tree
    assert "[lint/1] linting" in tree, "lines scroll by above the tree"
    asked = shown.until(lambda text: "approve? [y]es, [n]o, [l]ater:" in text)
    assert "[build/1] cleared" in asked
    assert "[lint/1] linting" in asked, "no log line clears the screen"
    assert "Is it well?" in asked
    assert asked.count("◌ build") == 0, "the tree is drawn over, not again and again"
    shown.child.send("y\n")
    shown.until(lambda text: "the ticket:" in text)
    shown.child.send("X-1\n")
    shown.until(lambda text: "region [eu|us] (default eu):" in text)
    shown.child.send("mars\n")
    shown.until(lambda text: "not one of the choices" in text)
    shown.until(lambda text: text.count("region [eu|us]") == 2)
    shown.child.send("us\n")
    assert shown.end() == 0
    assert "[release/1] released X-1 us" in shown.text
    assert "✔ succeeded" in shown.text
    assert "\x1b[?25h" in shown.raw.rpartition("\x1b[?25l")[2], "the cursor is given back"


def test_later_leaves_it_waiting_and_no_rejects(terminal):
    first = terminal("run", NO_COLOR="1")
    first.until(lambda text: "approve?" in text)
    assert "\x1b[32m" not in first.raw
    first.child.send("l\n")
    assert first.end() == 8
    assert "forge approve run-1 release" in first.text
    second = terminal("resume")
    second.until(lambda text: "approve?" in text)
    second.child.send("n\n")
    second.until(lambda text: "why not?" in text)
    second.child.send("too early\n")
    assert second.end() == 3


def test_ctrl_c_at_the_question_leaves_the_run_waiting(terminal):
    shown = terminal("run")
    shown.until(lambda text: "approve?" in text)
    shown.child.sendintr()
    assert shown.end() == 130
    assert "forge resume run-1" in shown.text


def test_no_input_never_asks(terminal):
    shown = terminal("run", "--no-input", "--progress", "plain")
    assert shown.end() == 8
    assert "approve?" not in shown.text
    assert "[lint] ✔ succeeded" in shown.text
