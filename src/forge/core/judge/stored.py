"""How a judge's memory is stored: the same numbers in fewer characters, for it is written at every look.

States of before, which have all of it in full, are read as well.
"""

from __future__ import annotations

import itertools
from typing import Any

DIGITS = 6
"""Of a stake or a sum: far more than any decision turns on."""
LOST = 1e-30
"""What is smaller is nothing: no stake is (see `evidence.LEAST`), only what is still to be placed."""
LATEST = 1e12
"""No time is later, in seconds."""
FINE = 10_000
"""Steps of the interval's likelihood in 1: it has four digits."""
READINGS = ("arm", "stable", "alone")
EVIDENCE = ("errors", "latency", "cpu", "memory", "slo", "written")
UNSAID: dict[str, Any] = {
    "latency": [], "groups": [], "templates": [], "gauges": [], "values": [], "lacks": [], "good_for": 15.0,
    "cpu_seconds": None, "memory": None, "log_errors": None,
}  # fmt: skip
"""What a reading is without being told."""
TIMES = ("at", "opened")


def shortened(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state, as JSON gives it, to be stored."""
    short = {name: _rounded(value) if name in EVIDENCE else value for name, value in state.items()}
    for name in READINGS:
        if name in short:
            short[name] = {key: value for key, value in short[name].items() if UNSAID.get(key, short) != value}
    likelihood = short.get("interval", {}).get("likelihood", ())
    if likelihood:
        whole = [round(value * FINE) for value in likelihood]
        # It bends slowly: how much each step differs from the one before is a small number.
        short["interval"] = {"bends": _differences(_differences(whole))}
    return short


def restored(state: dict[str, Any]) -> dict[str, Any]:
    """Return a stored state in full, ready to be converted; one of before is returned as it is."""
    bends = state.get("interval", {}).get("bends", ())
    if not bends:
        return state
    whole = itertools.accumulate(itertools.accumulate(bends))
    return {**state, "interval": {"likelihood": [value / FINE for value in whole]}}


def _differences(values: list[int]) -> list[int]:
    return [values[0], *(after - before for before, after in itertools.pairwise(values))]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: each if key in TIMES else _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    # Times stand in lists too: what may be one keeps its digits.
    if not isinstance(value, float):
        return value
    if not 1000 <= abs(value) < LATEST:
        value = 0.0 if abs(value) < LOST else float(f"{value:.{DIGITS}g}")
    return int(value) if value.is_integer() and abs(value) < LATEST else value
