"""Durations, percentages, weights and sizes: read from text, written for people."""

from __future__ import annotations

import math
import re

WHOLE = 10_000
"""All of the traffic, in basis points: weights are integers, so that they sum exactly."""

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB|Ki|Mi|Gi)?")
_BYTES = {
    "B": 1, "kB": 1000, "KB": 1000, "KiB": 1024, "Ki": 1024, "MB": 1000**2, "MiB": 1024**2,
    "Mi": 1024**2, "GB": 1000**3, "GiB": 1024**3, "Gi": 1024**3,
}  # fmt: skip


def parse_duration(text: str | float) -> float:
    """Return seconds for `30s`, `5m`, `1h30m`, `250ms`, or a plain number of seconds. Raises ValueError."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text < 0 or not math.isfinite(text):
            raise ValueError(f"{text!r} is not a duration; write it like `30s`, `5m` or `1h30m`")
        return float(text)
    cleaned = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", cleaned):
        return float(cleaned)
    parts = _DURATION_PART.findall(cleaned)
    if not parts or "".join(number + unit for number, unit in parts) != cleaned:
        raise ValueError(f"{text!r} is not a duration; write it like `30s`, `5m` or `1h30m`")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return a duration as people write it: `0.4s`, `12s`, `3m 5s`, `2h 10m`, `4d 3h`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def parse_fraction(text: str | float) -> float:
    """Return 0.05 for `5%` or `5 %`, or for the plain number 5 (a percentage). Raises ValueError."""
    cleaned = str(text).strip().removesuffix("%").strip()
    try:
        value = float(cleaned)
    except ValueError:
        value = -1.0
    if isinstance(text, bool) or not 0 <= value <= 100:
        raise ValueError(f"{text!r} is not a percentage between 0 and 100; write it like `5%`")
    return value / 100


def parse_weight(text: str | float) -> int:
    """Return basis points (100 % is 10,000) for a percentage such as `5%` or 5. Raises ValueError."""
    return round(parse_fraction(text) * WHOLE)


def format_weight(basis_points: int) -> str:
    """Return `5%` for 500 basis points, `0.05%` for 5."""
    return f"{basis_points / 100:g}%"


def parse_size(text: str | int) -> int:
    """Return bytes for `512Mi`, `64MB` or a plain number. Raises ValueError."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or isinstance(text, bool):
        raise ValueError(f"{text!r} is not a size; write it like `512MiB` or `64MB`")
    return int(float(match[1]) * _BYTES[match[2] or "B"])


def format_size(count: float) -> str:
    """Return bytes for people: `812 B`, `4.1 kB`, `36.9 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
