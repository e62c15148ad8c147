"""The shipped judge on the simulated readings."""

from __future__ import annotations

from bench.judge.worlds import COMPARED, Release
from forge.core.judge.analysis import AnalysisSettings, analyse_release
from forge.core.judge.calibrate import Calibration
from forge.core.judge.settings import SequentialSettings

DEFAULT, STRICT = "Forge", "Forge, strict (r0 = 1)"


def settings(ratio: float = 1.1, rate: float = 0.0002, *, limit: float | None = 0.05) -> AnalysisSettings:
    """Return the settings where errors are all that is measured; `limit` is the hard one."""
    return AnalysisSettings(SequentialSettings(ratio=ratio, rate=rate, weights={"errors": 1.0}), limit)


JUDGES = {DEFAULT: settings(), STRICT: settings(1.0)}


def fires(release: Release, judge: AnalysisSettings, found: Calibration | None = None) -> int | None:
    """Return the second of the rollback; it compares, so that it sees nothing once all traffic is on the arm."""
    until = min(COMPARED, release.seconds)
    said = analyse_release(
        release.stable.samples(until), {"arm": release.arm.samples(until)}, found or release.calibration, judge
    )[0]
    return round(said.t) if said.verdict == "rollback" else None
