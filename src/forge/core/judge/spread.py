"""For people: what both versions' latency looks like, and whether only its spread is another one.

The evidence comes from the whole histogram (latency.py); here it is said what kind of change it saw. Means come from
the middle of each bucket, quantiles from a straight line within it: as fine as the buckets are.
"""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

from forge.core.judge.latency import LatencyEvidence
from forge.core.judge.windows import LARGEST, quantile

QUANTILES = (0.05, 0.5, 0.95, 0.99)
SAME_MEAN = 0.15
"""Means that differ by no more than this part are the same: buckets tell them no better."""
WIDER = 1.5
"""How many times as wide between the 5 % and the 95 % quantile is another spread."""
ENOUGH = 100
"""Requests of each before anything is said."""
UNKNOWN = 0.001
"""Above the last bound nobody knows the latency: with more than this part there, the mean is not known."""


def shapes(state: LatencyEvidence) -> dict[str, Any]:
    """Return what all requests so far looked like: `arm` and `stable` with quantiles and mean in seconds, and
    `change`: `spread` (wider, the mean equal), `narrower`, or empty. Nothing before both answered enough."""
    if not state.memories or not state.bounds:
        return {}
    past = state.memories[0]
    arm = _shape(state.bounds, tuple(map(operator.add, past.arm, state.arm)))
    stable = _shape(state.bounds, tuple(map(operator.add, past.stable, state.stable)))
    return {"arm": arm, "stable": stable, "change": _change(arm, stable)} if arm and stable else {}


def slower_words(told: dict[str, Any]) -> str:
    """Return how the arm answers more slowly, before and after, as the beginning of a sentence."""
    if not told:
        return "answers more slowly than stable, "
    arm, stable = told["arm"], told["stable"]
    moved = ", ".join(
        f"p{q * 100:g} {_time(stable[f'p{q * 100:g}'])} to {_time(arm[f'p{q * 100:g}'])}" for q in QUANTILES
    )
    if told["change"] == "spread":
        means = f"{_time(stable['mean'])} and {_time(arm['mean'])}"
        return f"answers with another variance than stable, not another mean ({means}): {moved}, "
    return f"answers more slowly than stable ({moved}), "


def _shape(bounds: tuple[float, ...], counts: tuple[float, ...]) -> dict[str, Any]:
    total = math.fsum(counts)
    if total < ENOUGH:
        return {}
    rising = itertools.accumulate(counts)
    buckets = tuple(zip((*bounds, LARGEST), map(round, rising), strict=True))
    found: dict[str, Any] = {}
    for q in QUANTILES:
        at = quantile(buckets, q)
        found[f"p{q * 100:g}"] = round(at[0], 6) if at is not None else 0.0
    middles = [(low + high) / 2 for low, high in itertools.pairwise((0.0, *bounds))]
    known = math.fsum(middle * count for middle, count in zip(middles, counts, strict=False))
    beyond = counts[-1] / total
    found["mean"] = round(known / (total - counts[-1]), 6) if beyond <= UNKNOWN else None
    return found


def _change(arm: dict[str, Any], stable: dict[str, Any]) -> str:
    if arm["mean"] is None or not stable["mean"] or abs(arm["mean"] / stable["mean"] - 1) > SAME_MEAN:
        return ""
    own, other = (shape["p95"] - shape["p5"] for shape in (arm, stable))
    if own > WIDER * other:
        return "spread"
    return "narrower" if other > WIDER * own else ""


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
