"""How long the command takes to say hello, against a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys

from bench.figures import Figure, compare, in_turn
from bench.many_jobs import FORGE


def measure(rounds: int = 15) -> list[Figure]:
    """Run both in turn."""

    def forge() -> None:
        subprocess.run([FORGE, "--help"], check=True, stdout=subprocess.DEVNULL)

    def python() -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    forge()
    return [compare("`forge --help`", *in_turn(forge, python, rounds), floor_is="`python -c pass`")]
