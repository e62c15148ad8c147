"""When releases may start: weekly windows, windows by cron, and freezes, by the wall clock of a zone.

A wall clock may show a time twice (when summer time ends) or never (when it begins). A window opens at the first
moment at which its zone's clock shows its beginning or later, and closes at the first moment at which it shows its
end or later. So it is open once a day, and a window that lies in the missing hour does not open that day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from forge.model.policy import Freeze, Window

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
HORIZON_DAYS = 400
"""So far ahead a weekly window is looked for; a zone that skips a day loses at most a week."""
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_SPAN = re.compile(r"([A-Za-z]{3})(?:-([A-Za-z]{3}))?")


def zone(name: str) -> ZoneInfo:
    """Return the time zone. Raises ValueError for one that does not exist."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"there is no time zone `{name}`") from None


def parse_window(text: str, default_zone: str = "UTC") -> Window:
    """Return the window that `Mon-Fri 09:00-16:00 Europe/Berlin` means; days and zone may be left out.

    Raises ValueError.
    """
    words = text.split()
    clocks = [at for at, word in enumerate(words) if _CLOCK.fullmatch(word)]
    if len(clocks) != 1 or len(words) - clocks[0] > 2:
        raise ValueError(f"`{text}` is not a window")
    at = clocks[0]
    found = _CLOCK.fullmatch(words[at])
    opens, closes = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if opens >= DAY_MINUTES or closes > DAY_MINUTES or any(found and int(found[n]) > 59 for n in (2, 4)):
        raise ValueError(f"`{words[at]}` is not a time of day")
    name = words[at + 1] if len(words) > at + 1 else default_zone
    zone(name)
    days = _days("".join(words[:at])) if at else tuple(range(7))
    written = " ".join(words) if len(words) > at + 1 else f"{' '.join(words)} {name}"
    return Window(written, name, days, opens, closes)


def cron_window(expression: str, lasts: float, zone_name: str) -> Window:
    """Return the window that opens by a cron expression for `lasts` seconds. Raises ValueError."""
    tz = zone(zone_name)
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=tz)))
    except CronSimError as error:
        raise ValueError(f"`{expression}` is not a cron expression: {error}") from None
    except StopIteration:
        raise ValueError(f"`{expression}` never comes true") from None
    return Window(f"cron `{expression}` {zone_name}", zone_name, cron=expression, lasts=lasts)


def opens_at(windows: Sequence[Window], now: float) -> float | None:
    """Return `now` if any window is open, else when the first one opens; None: none ever does. No windows: now."""
    if not windows:
        return now
    times = [at for window in windows if (at := _next_open(window, now)) is not None]
    return min(times, default=None)


def closes_at(windows: Sequence[Window], now: float) -> float | None:
    """Return when the windows that are open now have all closed; None: none is open."""
    ends = [end for window in windows for start, end in _around(window, now) if start <= now < end]
    return max(ends, default=None)


def freeze_span(freeze: Freeze) -> tuple[float, float]:
    """Return (begin, end) of a freeze in seconds since the epoch; the end is not part of it. Raises ValueError."""
    begins, ends = datetime.fromisoformat(freeze.begins), datetime.fromisoformat(freeze.ends)
    return _instant(begins, freeze.zone), _instant(ends, freeze.zone)


def frozen(freezes: Sequence[Freeze], now: float) -> Freeze | None:
    """Return the freeze that holds now and ends last, or None."""
    holding = [freeze for freeze in freezes if freeze_span(freeze)[0] <= now < freeze_span(freeze)[1]]
    return max(holding, key=lambda freeze: freeze_span(freeze)[1], default=None)


def thaws_at(freezes: Sequence[Freeze], now: float) -> float:
    """Return the first moment, not before `now`, at which nothing is frozen."""
    while (freeze := frozen(freezes, now)) is not None:
        now = freeze_span(freeze)[1]
    return now


def local_words(at: float, zone_name: str) -> str:
    """Return a moment for people, by the wall clock of a zone: `Mon 2026-11-23 09:00 CET`."""
    local = datetime.fromtimestamp(at, zone(zone_name))
    return f"{DAYS[local.weekday()]} {local:%Y-%m-%d %H:%M} {local.tzname()}"


def _days(text: str) -> tuple[int, ...]:
    if text.lower() == "daily":
        return tuple(range(7))
    chosen: set[int] = set()
    for part in text.split(","):
        span = _SPAN.fullmatch(part)
        if span is None:
            raise ValueError(f"`{part}` is not a day of the week")
        first, last = _day(span[1]), _day(span[2] or span[1])
        chosen |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    return tuple(sorted(chosen))


def _day(text: str) -> int:
    try:
        return DAYS.index(text.capitalize())
    except ValueError:
        raise ValueError(f"`{text}` is not a day of the week") from None


def _next_open(window: Window, now: float) -> float | None:
    for start, end in _around(window, now):
        if now < end:
            return max(now, start)
    return None


def _around(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """Yield (start, end) of the window, in order, from one that began before now."""
    return _by_cron(window, now) if window.cron else _weekly(window, now)


def _weekly(window: Window, now: float) -> Iterator[tuple[float, float]]:
    first = datetime.fromtimestamp(now, zone(window.zone)).date() - timedelta(days=2)
    for offset in range(HORIZON_DAYS):
        day = first + timedelta(days=offset)
        if day.weekday() not in window.days:
            continue
        start = _wall(day, window.opens, window.zone)
        end = _wall(day, window.closes + (DAY_MINUTES if window.closes <= window.opens else 0), window.zone)
        if start < end:
            yield start, end


def _by_cron(window: Window, now: float) -> Iterator[tuple[float, float]]:
    since = datetime.fromtimestamp(int(now - window.lasts) - 1, zone(window.zone))
    for start in CronSim(window.cron, since):
        yield start.timestamp(), start.timestamp() + window.lasts


def _wall(day: date, minutes: int, zone_name: str) -> float:
    return _instant(datetime.combine(day, time()) + timedelta(minutes=minutes), zone_name)


@lru_cache(maxsize=4096)
def _instant(wall: datetime, zone_name: str) -> float:
    """Return the first moment at which the zone's clock shows this time or a later one."""
    tz = zone(zone_name)
    first = wall.replace(tzinfo=tz, fold=0)
    moment = first.astimezone(UTC)
    if moment.astimezone(tz).replace(tzinfo=None) == wall:
        return moment.timestamp()
    # The clock skips this time: find the second at which it jumps, between the two readings of the wall time.
    low, high = int(wall.replace(tzinfo=tz, fold=1).timestamp()), int(first.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        shown = datetime.fromtimestamp(middle, tz).replace(tzinfo=None)
        low, high = (middle, high) if shown < wall else (low, middle)
    return float(high)
