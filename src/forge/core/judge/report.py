"""A verdict in words and numbers: how much worse, how sure, at what cost so far, with which bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from forge.core.judge.interval import ratio_interval, update_interval, upper_rate
from forge.core.judge.memory import Memory, open_block
from forge.core.judge.spread import shapes, slower_words

LEVEL = 0.95
LARGEST_SHOWN = 1_000_000


class Picture(msgspec.Struct, frozen=True):
    """What the data say of one arm. `log_e` is the natural logarithm of all evidence together; `interval` holds
    the ratios of error rates that are not excluded; `metrics` the evidence of each metric."""

    log_e: float
    metrics: Mapping[str, float]
    interval: tuple[float, float]
    data: dict[str, Any]

    @property
    def leading(self) -> str:
        """The metric that says most."""
        return max(self.metrics, key=lambda name: self.metrics[name], default="errors")


def picture(memory: Memory, metrics: Mapping[str, float], log_e: float, slo: float | None, alpha: float) -> Picture:
    """Return the numbers behind a verdict."""
    # What is in the open block is shown, though only closed blocks count as evidence.
    shown = update_interval(memory.interval, *open_block(memory), memory.calibration.clump)
    low, high = ratio_interval(shown, LEVEL)
    arm, stable = memory.compared
    own = memory.arm_counts
    data: dict[str, Any] = {
        "requests": own.requests,
        "errors": own.errors,
        "rate": own.errors / own.requests if own.requests else 0.0,
        "stable_requests": stable.requests,
        "stable_errors": stable.errors,
        "ratio": _ratio(arm.errors, arm.requests, stable.errors, stable.requests),
        "ratio_interval": [low, None if math.isinf(high) else high],
        "log_evidence": round(log_e, 6),
        "evidence": _evidence(log_e),
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
        "p_value": min(1.0, math.exp(-max(0.0, memory.errors.largest))),
        "upper_rate": upper_rate(own.errors, own.requests, LEVEL),
        "alpha": alpha,
        "clump": memory.calibration.clump,
        "block": memory.calibration.block,
    }
    if memory.latency is not None and (seen := shapes(memory.latency)):
        data["shapes"] = seen
    if slo is not None:
        data |= {"limit": memory.limit, "log_slo": round(slo, 6)}
    return Picture(log_e, metrics, (low, high), data)


def comparison(shown: Picture) -> str:
    """Return how the arm compares with stable."""
    data = shown.data
    if not data["stable_requests"]:
        return "there is nothing to compare with"
    if data["ratio"] is None and not data["errors"]:
        return "no request of either failed"
    low, high = shown.interval
    upper = "unbounded" if math.isinf(high) else f"{high:.2g}"
    times = "fails while stable does not" if data["ratio"] is None else f"fails {data['ratio']:.2g}x as often as stable"
    return f"{times} (95 % anytime interval {low:.2g}-{upper})"


def passing(shown: Picture) -> str:
    """Return what is known of an arm against which nothing speaks."""
    data = shown.data
    counted = f"{data['errors']} of {data['requests']} requests failed ({percent(data['rate'])})"
    if not data["stable_requests"]:
        return f"{counted}; {comparison(shown)}"
    return f"{counted}; {comparison(shown)}, evidence {odds(shown.log_e)} against it"


def against(shown: Picture) -> str:
    """Return the evidence against the arm, its cost so far and the bound, as one clause."""
    data = shown.data
    slower = {
        "latency": slower_words(data.get("shapes", {})),
        "saturation": "uses more than stable, ",
        "logs": _written(data),
    }
    return (
        f"{slower.get(shown.leading, '')}{comparison(shown)}, evidence {odds(shown.log_e)}, {data['errors']} failed "
        f"requests so far, bound on false alarms {data['alpha'] * 100:g} %"
    )


def _written(data: dict[str, Any]) -> str:
    """Return what an arm writes that stable does not: the kind with most evidence, how often, and an example."""
    kinds = data.get("templates") or ()
    if not kinds:
        return "writes more error lines than stable, "
    more = f" and {len(kinds) - 1} more kinds" if len(kinds) > 1 else ""
    example = kinds[0]["example"] or kinds[0]["text"]
    return f"writes error lines that stable never wrote, {kinds[0]['lines']} like `{example}`{more}, "


def odds(log_e: float) -> str:
    """Return evidence as people say it: `131:1`."""
    value = math.exp(min(log_e, 700.0))
    if value > LARGEST_SHOWN:
        return "more than 1,000,000:1"
    return f"{value:,.0f}:1" if value >= 10 else f"{value:.2g}:1"


def percent(fraction: float) -> str:
    """Return a fraction as people read it."""
    return f"{fraction * 100:.3g} %"


def _evidence(log_e: float) -> float:
    return float(f"{math.exp(min(log_e, 700.0)):.9g}")


def _ratio(errors: int, requests: int, stable_errors: int, stable_requests: int) -> float | None:
    if not requests or not stable_requests or not stable_errors:
        return None
    return (errors / requests) / (stable_errors / stable_requests)
