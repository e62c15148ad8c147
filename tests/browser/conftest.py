"""A real browser: Debian's Chromium, driven by Playwright, that sees loopback only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).parents[2]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


def _program() -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "chromium.py")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(done.stderr.strip())
        pytest.skip(done.stderr.strip())
    return done.stdout.strip()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module; its event loop must be gone before asynchronous tests of other modules."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from chromium import FLAGS
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    program = _program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A person's browser: no cookies yet. Whatever a page tries to fetch from elsewhere fails the test."""
    context = chromium.new_context(viewport=DESK)
    context.set_default_timeout(10_000)
    elsewhere: list[str] = []

    def guard(route) -> None:
        address = route.request.url
        if address.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            elsewhere.append(address)
            route.abort()

    context.route("**/*", guard)
    try:
        yield context
    finally:
        context.close()
    assert not elsewhere, f"pages must work without other hosts: {elsewhere}"


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose script errors fail the test."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            errors.append(message.text)
            if message.type == "error" and "Content Security Policy" in message.text
            else None
        ),
    )
    yield page
    assert not errors, errors
