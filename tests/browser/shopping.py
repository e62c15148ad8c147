"""A shop that is released on this machine, and somebody who works at its dashboard."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml
from playwright.sync_api import Page, expect

from cluster.releases import SERVICE
from serving.running import Server

WRONG = "another environment"
"""What somebody types who is not sure which environment it is."""
GATE = "Is it good enough for people?"


def make_shop(folder: Path, lines: int = 30) -> Path:
    """Write a project whose run logs so many lines, waits for a person, and releases by a canary that waits too."""
    (folder / "forge").mkdir(parents=True)
    (folder / "service.py").write_text(SERVICE)
    command = [sys.executable, "-I", "-S", str(folder / "service.py")]
    target = {
        "local": {
            "command": command,
            "replicas": 2,
            "drain": "200ms",
            "ready": {"http": "/healthz", "interval": "50ms"},
        }
    }
    env = {"POD_IP": "127.0.0.1", "VERSION": "${{ params.version }}"}
    canary = {"steps": [{"weight": "20%"}, {"pause": "until_resumed"}]}
    build = (
        f'i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo "part $i of {lines}"; done\n'
        r'printf "\033[31mred alert\033[0m <b>not bold</b>\n"' + "\n"
        r'printf "\033]0;title\007after a title\n\033[?25la hidden cursor\n"' + "\nsleep 1; echo the last part\n"
    )
    deploy = {"environment": "production", "version": "${{ params.version }}", "strategy": {"canary": canary},
              "target": {"env": env}}  # fmt: skip
    pipeline = {
        "name": "shop", "parameters": {"version": {"type": "string", "default": "1.0"}},
        "environments": {"production": {"target": target, "judge": "none"}},
        "jobs": {
            "build": {"steps": [{"id": "compile", "run": build}]},
            "release": {"depends_on": "build", "trigger": {"manual": GATE}, "steps": [{"deploy": deploy}]},
        },
    }  # fmt: skip
    (folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return folder


def end_shop(folder: Path) -> None:
    """Take down what runs in the shop's environment."""
    command = [sys.executable, "-m", "forge", "env", "down", "production", "-y", "--force"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)


class Person:
    """Somebody at the dashboard: what is seen comes without loading the page anew."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server

    def log_in(self) -> None:
        """Follow the one-time link."""
        self.page.goto(self.server.link)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("heading", name="Which version is where")).to_be_visible()

    def go(self, path: str) -> None:
        """Open a page by its path."""
        self.page.goto(self.server.url + path)

    def start(self, version: str) -> str:
        """Start a run from the project's page; return its id."""
        self.go("/projects/shop")
        start = self.page.locator("details", has_text="Start a run")
        if not start.evaluate("one => one.open"):
            start.locator("summary").click()
        self.page.get_by_label("version").fill(version)
        self.page.get_by_role("button", name="Start", exact=True).click()
        self.page.wait_for_url(re.compile(r"/runs/run-\d+$"))
        return self.page.url.rpartition("/")[2]

    def approve(self, comment: str) -> None:
        """Say yes at the gate, once it is there."""
        expect(self.page.get_by_text("release waits for a person")).to_be_visible(timeout=30_000)
        expect(self.page.get_by_text(GATE).first).to_be_visible()
        self.page.get_by_label("Comment").fill(comment)
        self.press("Approve")

    def press(self, button: str, *, type_: str = "") -> None:
        """Press a button that asks, and mean it."""
        self.page.get_by_role("button", name=button, exact=True).click()
        dialog = self.page.locator("dialog#confirm")
        expect(dialog).to_be_visible()
        if type_:
            dialog.locator("input").fill(type_)
        yes = dialog.get_by_role("button", name="Yes")
        if type_ == WRONG:
            yes.click()
            return
        with self.page.expect_navigation():
            yes.click()

    def expect_state(self, words: str, seconds: float = 40) -> None:
        """Wait until the page's heading has this state."""
        expect(self.page.locator("main .row .state").first).to_contain_text(words, timeout=seconds * 1000)
