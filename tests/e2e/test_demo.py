"""`make demo` as a machine runs it: no terminal, no questions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_demo_promotes_the_good_version_and_takes_the_bad_one_back(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py"), "--folder", str(tmp_path / "shop")],
        env={**os.environ, "FORGE_DEMO_YES": "1"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=220,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["good_release"] == "promoted"
    assert told["bad_release"] == "rolled_back"
    assert 0 < told["bad_release_failed_requests"] < 200
    assert told["requests"] > 1000
    assert told["failed_requests"] == told["bad_release_failed_requests_seen_by_clients"], "nobody else failed"
    # A request may be under way while one side counts, so the two counts may differ by a few.
    assert abs(told["bad_release_failed_requests"] - told["failed_requests"]) <= 5
    check_the_dashboard(tmp_path / "shop", done.stdout)


def check_the_dashboard(shop, output):
    """It is open, shows what happened to whoever follows the link, and ends when told to."""
    link = re.search(r"http://127\.0\.0\.1:\d+/login\?link=\S+", output)
    assert link, output
    base, _, secret = link[0].partition("/login?link=")
    try:
        with httpx2.Client(base_url=base, follow_redirects=True, trust_env=False, timeout=20) as browser:
            home = browser.post("/login", data={"link": secret}).raise_for_status().text
            assert "1.2.0 rolled back" in home
            assert "evidence" in browser.get("/projects/shop/releases/production-3").raise_for_status().text
    finally:
        stopped = subprocess.run(
            [sys.executable, str(ROOT / "demo" / "dashboard.py"), "stop", str(shop)], capture_output=True, text=True
        )
    assert stopped.stdout == "the dashboard is stopped\n"
    left = [one.info for one in psutil.process_iter(["pid", "cmdline"]) if str(shop) in str(one.info["cmdline"])]
    assert left == []


@pytest.mark.long
@pytest.mark.timeout(120)
def test_an_interrupted_demo_leaves_nothing_running(tmp_path):
    folder = tmp_path / "shop"
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "demo" / "run.py"), "--folder", str(folder)],
        env={**os.environ, "FORGE_DEMO_YES": "1"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    with demo:
        assert any("1.1.0 carries 5%" in line for line in demo.stdout), "it never came to the canary"
        demo.terminate()
        assert "interrupted" in demo.stdout.read()
        assert demo.wait(timeout=60) == 130
    left = [one.info for one in psutil.process_iter(["pid", "cmdline"]) if str(folder) in str(one.info["cmdline"])]
    assert left == []


def test_the_demos_load_goes_to_this_machine_only():
    code = "import load; load.Load('http://192.0.2.1/', rate=1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "demo", capture_output=True, text=True)
    assert done.returncode == 1
    assert "this machine only" in done.stderr
