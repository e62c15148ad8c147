"""The demo: a real service, real traffic, one good release and one bad one that goes back by itself.

It does nothing that a person could not do: it changes files, runs the `forge` command, and sends requests
to the environment's address. `FORGE_DEMO_YES=1`, or no terminal: never asks. `--keep` leaves production up.
In the end the dashboard shows what happened. The last line of its output is one JSON object; it exits 0 only if
everything came as it should.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dashboard
from load import Load, Tally
from rich.console import Console
from rich.table import Table

from shop import Shop

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".cache" / "demo" / "shop"
FORGE = Path(sys.executable).parent / "forge"
RATE = 150
"""Requests a second."""
FAULT = 0.25
"""The share of requests that the bad version fails."""

console = Console(highlight=False, soft_wrap=True)


class WentWrong(Exception):
    """Something did not come as the demo promises."""


@dataclass(frozen=True)
class Release:
    """What became of one version: as Forge tells it."""

    version: str
    state: str
    run_state: str
    seconds: float
    forge: dict[str, Any]


class Forge:
    """The command, in the shop's folder."""

    def __init__(self, folder: Path, *, asks: bool) -> None:
        self.folder = folder
        self._asks = asks
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FORGE_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self) -> int:
        """Run the pipeline, as a person would see it; return the exit code."""
        words = ["run"] if self._asks else ["run", "--yes"]
        console.print(f"[dim]$[/] [bold]forge {' '.join(words)}[/]")
        sys.stdout.flush()
        stdin = None if self._asks else subprocess.DEVNULL
        return subprocess.run([str(FORGE), *words], cwd=self.folder, env=self._env, stdin=stdin, timeout=300).returncode

    def read(self, *words: str) -> Any:
        """Return what a command prints as JSON. Raises WentWrong."""
        return json.loads(self._quietly(*words, "-o", "json"))

    def down(self, environment: str) -> None:
        """End everything that runs in an environment. Raises WentWrong."""
        try:
            self._quietly("env", "down", environment, "--yes")
        except WentWrong:  # after an interruption a release may be under way, and has to end first
            subprocess.run(
                [str(FORGE), "release", "abort", environment],
                cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            )  # fmt: skip
            self._quietly("env", "down", environment, "--yes")

    def _quietly(self, *words: str) -> bytes:
        command = [str(FORGE), *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
        )
        if done.returncode != 0:
            raise WentWrong(f"`forge {' '.join(words)}` exited {done.returncode}: {done.stderr.decode()}")
        return done.stdout


def tell(text: str) -> None:
    """Print a line of the story."""
    console.print()
    console.print(text)


def release(forge: Forge, version: str) -> Release:
    """Run the pipeline and return what became of the version that it released."""
    began = time.monotonic()
    code = forge.run()
    seconds = time.monotonic() - began
    newest = forge.read("runs")[0]
    last = newest_release(forge.read("release", "get", "production"))
    if last["version"] != version:
        raise WentWrong(f"production's last release is {last['version']}, not {version}; the run ended {code}")
    if (code == 0) != (newest["state"] == "succeeded"):
        raise WentWrong(f"`forge run` exited {code}, but the run is {newest['state']}")
    return Release(version, last["state"], newest["state"], seconds, last)


def newest_release(view: dict[str, Any]) -> dict[str, Any]:
    """Return the release that began last, of an environment's view or of a single release's."""
    releases = view.get("releases")
    return max(releases, key=lambda one: one["created_at"]) if releases else view


def expect(found: Release, state: str, run_state: str) -> None:
    """Raise WentWrong unless the release ended as it should."""
    if (found.state, found.run_state) != (state, run_state):
        raise WentWrong(
            f"release {found.version} is {found.state} and its run {found.run_state}; "
            f"they should be {state} and {run_state}: {found.forge.get('reason')}"
        )


def story(forge: Forge, shop: Shop) -> tuple[list[Release], Tally, float]:
    """Release three versions; return them, all that the clients met, and how long they met the bad one."""
    tell("[bold]1.0.0[/] A shop opens: build, test, publish, staging, a person's yes, production.")
    first = release(forge, "1.0.0")
    expect(first, "promoted", "succeeded")
    address = forge.read("env", "show", "production")["address"]
    load = Load(address, rate=RATE)
    load.start()
    tell(f"[bold]From now on {RATE} requests a second come to {address}[/]")
    try:
        time.sleep(1.0)
        shop.add_a_product("1.1.0")
        tell("[bold]1.1.0[/] A good change: 5 %, 25 %, 50 % of the traffic, then all of it.")
        good = release(forge, "1.1.0")
        expect(good, "promoted", "succeeded")
        shop.make_it_fail("1.2.0", FAULT)
        tell(f"[bold]1.2.0[/] A bad change: its tests pass, but under traffic {FAULT:.0%} of its answers are errors.")
        bad = release(forge, "1.2.0")
        expect(bad, "rolled_back", "failed")
        afterwards = check_that_all_is_well(load, "1.1.0")
        tell(f"[bold]Afterwards[/] {afterwards.requests['1.1.0']} more requests, all answered by 1.1.0.")
    finally:
        whole = load.stop()
    return [first, good, bad], whole, whole.exposure("1.2.0")


def check_that_all_is_well(load: Load, version: str) -> Tally:
    """Watch for two seconds; raise WentWrong unless `version` answers every request, and well."""
    before = load.tally()
    time.sleep(2.0)
    after = load.tally().since(before)
    if set(after.requests) != {version} or after.failed.total():
        raise WentWrong(f"after the rollback the clients met {dict(after.requests)}, failed {dict(after.failed)}")
    return after


def summary(releases: list[Release], whole: Tally, exposure: float) -> dict[str, Any]:
    """Print the table and return what the last line says."""
    table = Table(title="What the users met", title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("release", "outcome", "took", "its requests", "failed", "Forge, while releasing"):
        table.add_column(heading, justify="left" if heading in {"release", "outcome"} else "right")
    colours = {"promoted": "green", "rolled_back": "red"}
    for one in releases:
        table.add_row(
            one.version,
            f"[{colours.get(one.state, 'yellow')}]{one.state.replace('_', ' ')}[/]",
            f"{one.seconds:.1f} s",
            str(whole.requests[one.version]),
            str(whole.failed[one.version]),
            f"{one.forge['failed_requests']} of {one.forge['requests']}",
        )
    console.print()
    console.print(table)
    requests, failed = whole.requests.total(), whole.failed.total()
    tell(
        f"Of {requests} requests [bold]{failed}[/] failed ({failed / requests:.2%}). "
        f"The bad version was gone {exposure:.1f} s after its first error; nobody had to act."
    )
    _, good, bad = releases
    return {
        "good_release": good.state,
        "bad_release": bad.state,
        "bad_release_failed_requests": bad.forge["failed_requests"],
        "bad_release_failed_requests_seen_by_clients": whole.failed["1.2.0"],
        "requests": requests,
        "failed_requests": failed,
        "seconds_from_first_error_to_last_bad_answer": round(exposure, 2),
    }


def interrupted(*_: object) -> None:
    """Treat TERM like Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; return the exit code."""
    options = argparse.ArgumentParser(description="Release a good and a bad version of a real service.")
    options.add_argument("--keep", action="store_true", help="leave the environments up afterwards")
    options.add_argument("--folder", type=Path, default=FOLDER, help="where the service's working copy goes")
    chosen = options.parse_args()
    keep, folder = chosen.keep, chosen.folder
    asks = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("FORGE_DEMO_YES", "") in {"", "0"}
    signal.signal(signal.SIGTERM, interrupted)
    shop, forge = Shop(folder), Forge(folder, asks=asks)
    dashboard.stop(folder)
    end_what_runs(forge)
    shop.begin()
    try:
        result = summary(*story(forge, shop))
    except WentWrong as problem:
        sys.stderr.write(f"\nerror: {problem}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once begun, cleaning up is not to be interrupted
        if not keep:
            end_what_runs(forge)
    show_dashboard(folder)
    if keep:
        tell(f"The environments are still up: `cd {os.path.relpath(folder)}`, then `forge env list`.")
    print(json.dumps(result), flush=True)
    return 0


def show_dashboard(folder: Path) -> None:
    """Serve the dashboard on the demo's history, and say how to stop it."""
    try:
        told = dashboard.start(folder)
    except OSError as problem:  # the demo has shown what it promised all the same
        sys.stderr.write(f"warning: {problem}\n")
        return
    tell(
        f"[bold]Look at it[/] {told['link']}  (logs one browser in; it stops by itself in an hour, or: make demo-stop)"
    )


def end_what_runs(forge: Forge) -> None:
    """Shut both environments down, if they are there."""
    for environment in ("production", "staging"):
        if (forge.folder / ".forge" / "environments" / environment).exists():
            try:
                forge.down(environment)
            except WentWrong as problem:
                sys.stderr.write(f"warning: {problem}\n")


if __name__ == "__main__":
    sys.exit(main())
