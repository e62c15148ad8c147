"""The dashboard of the demo's shop: started when the demo is over, and ended by `python demo/dashboard.py stop`.

It runs beside the terminal, on loopback, for an hour at most, so that a forgotten demo leaves nothing running.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / ".cache" / "demo" / "shop"
FORGE = Path(sys.executable).parent / "forge"
HOUR = 3600.0
START_SECONDS = 30.0
STATE = "dashboard.json"


def start(shop: Path) -> dict[str, Any]:
    """Serve the shop on a free port; return its `url` and the `link` that logs in once. Raises OSError."""
    stop(shop)
    log = (shop / ".forge" / "dashboard.log").open("ab")
    keeper = subprocess.Popen(
        [sys.executable, __file__, "keep", str(shop)],
        cwd=shop, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
    )  # fmt: skip
    log.close()
    assert keeper.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(keeper.stdout, selectors.EVENT_READ)
        line = keeper.stdout.readline() if selector.select(START_SECONDS) else b""
    if not line:
        keeper.terminate()
        raise OSError(f"the dashboard did not start; {shop / '.forge' / 'dashboard.log'} tells why")
    told: dict[str, Any] = json.loads(line)
    (shop / ".forge" / STATE).write_text(json.dumps({"pid": keeper.pid, "url": told["url"]}))
    return told


def stop(shop: Path) -> bool:
    """End the shop's dashboard, if one runs; return whether one did."""
    state = shop / ".forge" / STATE
    try:
        pid = int(json.loads(state.read_text())["pid"])
        state.unlink()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError, KeyError):
        return False
    if __file__ not in command:  # the number is somebody else's by now
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.05)
    return True


def keep(shop: Path) -> int:
    """Run the server, pass on what it says at first, and end it when told to or when an hour is over."""
    server = subprocess.Popen(
        [str(FORGE), "serve", "--port", "0", "-o", "json"], cwd=shop, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    assert server.stdout is not None
    sys.stdout.write(server.stdout.readline().decode())
    sys.stdout.flush()
    try:
        return server.wait(HOUR)
    except subprocess.TimeoutExpired:
        server.terminate()
        return server.wait(START_SECONDS)


if __name__ == "__main__":
    action, *given = sys.argv[1:] or ["stop"]
    place = Path(given[0]) if given else FOLDER
    if action == "keep":
        sys.exit(keep(place))
    print("the dashboard is stopped" if stop(place) else "no dashboard runs")
