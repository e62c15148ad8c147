"""What a policy would have cost on recorded releases: failed requests, hours, false alarms."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from forge.engine.analysing import Judged
from forge.model.errors import UsageError
from forge.model.strategy import Strategy

WORDS = {"1": True, "true": True, "yes": True, "bad": True, "0": False, "false": False, "no": False, "good": False}


class Cost(msgspec.Struct, frozen=True):
    """What one judge would have cost. `failed_requests` are the arms' until their rollback, else all recorded;
    `hours` add up to the verdict, or to the end of the steps where that is later. The last three are None without
    the truth."""

    judge: str
    releases: int
    rolled_back: int
    failed_requests: int
    excess_failed_requests: float
    hours: float
    caught: int | None = None
    missed: int | None = None
    false_alarms: int | None = None


def cost_of(judge: str, found: Sequence[Judged], truth: Mapping[str, bool] | None, steps: float = 0.0) -> Cost:
    """Add up what `judge` said; `steps` is how long a release takes that is not rolled back, in seconds."""
    back = {one.analysis.release for one in found if one.analysis.verdict == "rollback"}
    hours = sum(_seconds(one, steps) for one in found) / 3600
    known = {one.analysis.release: truth[one.analysis.release] for one in found} if truth is not None else None
    bad = None if known is None else {name for name, is_bad in known.items() if is_bad}
    return Cost(
        judge, len(found), len(back), sum(one.all_failed for one in found),
        round(sum(one.all_excess for one in found), 1), round(hours, 3),
        None if bad is None else len(bad & back), None if bad is None else len(bad - back),
        None if bad is None else len(back - bad),
    )  # fmt: skip


def step_seconds(strategy: Strategy) -> float:
    """Return how long the strategy's pauses take."""
    return sum(step.pause or 0.0 for step in strategy.steps) + strategy.bake


def read_truth(path: Path, releases: Sequence[str]) -> dict[str, bool]:
    """Return which releases were bad. Raises UsageError for what is wrong, or a release that is not told."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"release", "bad"} <= set(rows.fieldnames or ()):
                raise UsageError(f"{path.name} needs the columns `release` and `bad`")
            truth = {}
            for row in rows:
                word = (row["bad"] or "").strip().lower()
                if word not in WORDS:
                    raise UsageError(f"{path.name}:{rows.line_num}: `{word}` is neither true nor false")
                truth[row["release"]] = WORDS[word]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    missing = [name for name in releases if name not in truth]
    if missing:
        raise UsageError(f"{path.name} does not tell of {len(missing)} releases, such as {missing[0]}")
    return truth


def _seconds(one: Judged, steps: float) -> float:
    return one.analysis.t_verdict if one.analysis.verdict == "rollback" else max(one.analysis.t_verdict, steps)
