"""Thirty simulated days of one environment's releases, through the real core: under a minute is what is promised."""

from __future__ import annotations

import time

from bench.figures import Figure
from forge.simulate.policy import instructive_story
from forge.simulate.run import simulate

LIMIT = 60.0
"""Seconds."""


def measure() -> list[Figure]:
    """Play the month that `forge simulate` plays without a file."""
    began = time.process_time()
    report = simulate(instructive_story())
    took = time.process_time() - began
    what = f"forge simulate, {report.days:g} days with {report.totals.releases} releases"
    return [Figure(what, f"{took:.0f} s of processor", f"{LIMIT:.0f} s", f"{took / LIMIT:.2f}")]
