"""Windows and freezes around the days on which a zone's clock jumps, against a clock that is read minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.policy.windows import (
    DAYS,
    closes_at,
    cron_window,
    freeze_span,
    frozen,
    local_words,
    opens_at,
    parse_window,
    thaws_at,
    zone,
)
from forge.model.policy import Freeze, Window

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC")
JUMPS = {
    "Europe/Berlin": (date(2026, 3, 29), date(2026, 10, 25)),
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
    "Asia/Kolkata": (date(2026, 3, 29),),
    "Australia/Lord_Howe": (date(2026, 4, 5), date(2026, 10, 4)),
    "UTC": (date(2026, 3, 29),),
}


def at(zone_name: str, *parts: int, fold: int = 0) -> float:
    return datetime(*parts, tzinfo=ZoneInfo(zone_name), fold=fold).timestamp()  # type: ignore[misc, arg-type]


def first_minute_showing(day: date, minutes: int, zone_name: str) -> float:
    """Read the clock minute by minute: the oracle for when a clock first shows a time or a later one."""
    wanted = datetime.combine(day, datetime.min.time()) + timedelta(minutes=minutes)
    moment = datetime(wanted.year, wanted.month, wanted.day, tzinfo=UTC) - timedelta(hours=30)
    while moment.astimezone(ZoneInfo(zone_name)).replace(tzinfo=None) < wanted:
        moment += timedelta(minutes=1)
    return moment.timestamp()


def open_by_reading(window: Window, now: float) -> bool:
    today = datetime.fromtimestamp(now, ZoneInfo(window.zone)).date()
    for back in range(-1, 3):
        day = today - timedelta(days=back)
        if day.weekday() in window.days:
            end = window.closes + (1440 if window.closes <= window.opens else 0)
            start = first_minute_showing(day, window.opens, window.zone)
            if start <= now < first_minute_showing(day, end, window.zone):
                return True
    return False


class TestParse:
    @pytest.mark.parametrize(
        ("text", "days", "opens", "closes", "zone_name"),
        [
            ("Mon-Fri 09:00-16:00 Europe/Berlin", (0, 1, 2, 3, 4), 540, 960, "Europe/Berlin"),
            ("sat,SUN 22:00-02:00 UTC", (5, 6), 1320, 120, "UTC"),
            ("Fri-Mon 9:30-24:00 Asia/Kolkata", (0, 4, 5, 6), 570, 1440, "Asia/Kolkata"),
            ("00:00-24:00", tuple(range(7)), 0, 1440, "America/New_York"),
            ("daily 10:00-11:00", tuple(range(7)), 600, 660, "America/New_York"),
            ("Mon, Wed 10:00-11:00", (0, 2), 600, 660, "America/New_York"),
        ],
    )
    def test_what_people_write(self, text: str, days: tuple[int, ...], opens: int, closes: int, zone_name: str) -> None:
        window = parse_window(text, "America/New_York")
        assert (window.days, window.opens, window.closes, window.zone) == (days, opens, closes, zone_name)
        assert zone_name in window.text

    @pytest.mark.parametrize(
        "text",
        ["", "Mon", "Mon 9-16", "Mon 09:00-16:00 Nowhere/At", "Mon 25:00-26:00", "Mon 09:60-10:00", "Xyz 09:00-10:00",
         "Mon 09:00-10:00 11:00-12:00", "Mon 09:00-10:00 UTC now", "Mon 09:00-24:30", "Mon..Fri 09:00-10:00"],
    )  # fmt: skip
    def test_what_means_nothing_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            parse_window(text)

    @pytest.mark.parametrize("bad", ["* *", "99 * * * *", "0 0 30 2 *", "often", ""])
    def test_cron_that_means_nothing_is_refused(self, bad: str) -> None:
        with pytest.raises(ValueError):
            cron_window(bad, 60.0, "UTC")

    @pytest.mark.parametrize("bad", ["Mars/Olympus", "", "../etc/passwd", "Europe", "/etc/localtime"])
    def test_a_zone_that_is_none_is_refused(self, bad: str) -> None:
        with pytest.raises(ValueError, match="no time zone"):
            zone(bad)


class TestWeekly:
    def test_opens_on_the_next_working_day_in_its_own_zone(self) -> None:
        window = parse_window("Mon-Fri 09:00-16:00 Europe/Berlin")
        friday_evening = at("Europe/Berlin", 2026, 11, 20, 17, 0)
        opens = opens_at([window], friday_evening)
        assert opens == at("Europe/Berlin", 2026, 11, 23, 9, 0)
        assert local_words(opens, "Europe/Berlin") == "Mon 2026-11-23 09:00 CET"

    def test_the_beginning_is_part_of_it_and_the_end_is_not(self) -> None:
        window = parse_window("Mon 09:00-16:00 UTC")
        begin, end = at("UTC", 2026, 11, 23, 9), at("UTC", 2026, 11, 23, 16)
        assert opens_at([window], begin) == begin
        assert opens_at([window], end - 1) == end - 1
        assert opens_at([window], end) == at("UTC", 2026, 11, 30, 9)
        assert closes_at([window], begin) == end
        assert closes_at([window], end) is None

    def test_one_over_midnight_is_still_open_on_a_day_that_it_does_not_name(self) -> None:
        window = parse_window("Sat 22:00-02:00 Europe/Berlin")
        sunday = at("Europe/Berlin", 2026, 11, 22, 1, 59)
        assert opens_at([window], sunday) == sunday
        assert opens_at([window], sunday + 60) == at("Europe/Berlin", 2026, 11, 28, 22)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("02:30-02:45", None), ("02:00-03:00", None), ("02:30-03:30", (3, 0)), ("01:00-02:30", (1, 0))],
    )
    def test_berlin_loses_an_hour(self, text: str, expected: tuple[int, int] | None) -> None:
        window = parse_window(f"Sun {text} Europe/Berlin")
        opens = opens_at([window], at("Europe/Berlin", 2026, 3, 29, 0, 30))
        assert opens is not None
        if expected is None:
            assert datetime.fromtimestamp(opens, ZoneInfo("Europe/Berlin")).date() == date(2026, 4, 5)
        else:
            assert opens == at("Europe/Berlin", 2026, 3, 29, *expected)

    def test_berlin_has_an_hour_twice_and_the_window_opens_once(self) -> None:
        window = parse_window("Sun 02:30-03:30 Europe/Berlin")
        first, second = at("Europe/Berlin", 2026, 10, 25, 2, 30), at("Europe/Berlin", 2026, 10, 25, 2, 30, fold=1)
        assert second - first == 3600
        assert opens_at([window], first - 60) == first
        assert opens_at([window], second) == second
        assert closes_at([window], first) == at("Europe/Berlin", 2026, 10, 25, 3, 30) == first + 7200

    @settings(max_examples=60, deadline=None)
    @given(data=st.data(), zone_name=st.sampled_from(ZONES))
    def test_open_and_opening_agree_with_the_clock_read_minute_by_minute(
        self, data: st.DataObject, zone_name: str
    ) -> None:
        quarter = st.integers(0, 95).map(lambda n: n * 15)
        days = data.draw(st.sets(st.integers(0, 6), min_size=1))
        window = Window("w", zone_name, tuple(sorted(days)), data.draw(quarter), data.draw(quarter))
        jump = data.draw(st.sampled_from(JUMPS[zone_name]))
        start = datetime(jump.year, jump.month, jump.day, tzinfo=UTC).timestamp() - 86400
        now = start + 60 * data.draw(st.integers(0, 3 * 1440))
        opens = opens_at([window], now)
        assert opens is not None
        assert (opens == now) == open_by_reading(window, now)
        assert open_by_reading(window, opens)
        if opens > now:
            assert not open_by_reading(window, opens - 60)
            for step in range(1, 6):
                between = now + 60 * int((opens - now) / 60 * step / 6)
                assert between == opens or not open_by_reading(window, between)

    def test_several_windows_open_with_the_first(self) -> None:
        pair = [parse_window("Mon 09:00-10:00 UTC"), parse_window("Mon 08:00-08:30 Europe/Berlin")]
        assert opens_at(pair, at("UTC", 2026, 11, 22, 12)) == at("UTC", 2026, 11, 23, 7)

    def test_no_window_is_always_open(self) -> None:
        assert opens_at([], 12.0) == 12.0


class TestCron:
    def test_open_for_as_long_as_it_lasts(self) -> None:
        window = cron_window("0 9 * * 1-5", 7 * 3600.0, "Europe/Berlin")
        nine = at("Europe/Berlin", 2026, 11, 23, 9)
        assert opens_at([window], nine - 3600) == nine
        assert opens_at([window], nine) == nine
        assert opens_at([window], nine + 7 * 3600 - 1) == nine + 7 * 3600 - 1
        assert opens_at([window], nine + 7 * 3600) == at("Europe/Berlin", 2026, 11, 24, 9)

    def test_an_hour_that_is_missing_opens_when_the_clock_has_jumped(self) -> None:
        window = cron_window("30 2 * * *", 600.0, "America/New_York")
        opens = opens_at([window], at("America/New_York", 2026, 3, 8, 0, 0))
        assert opens == at("America/New_York", 2026, 3, 8, 3, 0)

    @settings(max_examples=40, deadline=None)
    @given(
        zone_name=st.sampled_from(ZONES), hour=st.integers(0, 23), lasts=st.integers(1, 30 * 60),
        offset=st.integers(0, 5 * 1440), jump=st.integers(0, 1),
    )  # fmt: skip
    def test_it_is_open_exactly_between_a_start_and_its_end(
        self, zone_name: str, hour: int, lasts: int, offset: int, jump: int
    ) -> None:
        day = JUMPS[zone_name][min(jump, len(JUMPS[zone_name]) - 1)]
        window = cron_window(f"15 {hour} * * *", lasts * 60.0, zone_name)
        now = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + 60 * (offset - 2 * 1440)
        today = datetime.fromtimestamp(now, ZoneInfo(zone_name)).date()
        starts = [first_minute_showing(today + timedelta(days=n), hour * 60 + 15, zone_name) for n in range(-3, 4)]
        opens = opens_at([window], now)
        if any(start <= now < start + lasts * 60 for start in starts):
            assert opens == now
        else:
            assert opens == min(start for start in starts if start > now)


class TestFreeze:
    def test_from_its_first_to_its_last_second(self) -> None:
        freeze = Freeze("2026-12-20T00:00:00", "2027-01-03T00:00:00", "Europe/Berlin", "holidays")
        begin, end = freeze_span(freeze)
        assert (begin, end) == (at("Europe/Berlin", 2026, 12, 20), at("Europe/Berlin", 2027, 1, 3))
        assert frozen([freeze], begin - 1) is None
        assert frozen([freeze], begin) is freeze
        assert frozen([freeze], end - 1) is freeze
        assert frozen([freeze], end) is None

    def test_one_after_the_other_thaws_at_the_end_of_the_last(self) -> None:
        first = Freeze("2026-12-20T00:00:00", "2026-12-27T00:00:00")
        second = Freeze("2026-12-26T00:00:00", "2027-01-03T00:00:00")
        third = Freeze("2027-01-03T00:00:00", "2027-01-04T00:00:00")
        inside = at("UTC", 2026, 12, 21)
        assert thaws_at([third, first, second], inside) == at("UTC", 2027, 1, 4)
        assert thaws_at([first], at("UTC", 2026, 12, 19)) == at("UTC", 2026, 12, 19)

    def test_one_that_begins_in_a_missing_hour_begins_when_the_clock_has_jumped(self) -> None:
        freeze = Freeze("2026-03-29T02:15:00", "2026-03-29T12:00:00", "Europe/Berlin")
        assert freeze_span(freeze)[0] == at("Europe/Berlin", 2026, 3, 29, 3, 0)


def test_the_days_are_those_of_the_calendar() -> None:
    for offset in range(7):
        day = date(2026, 11, 23) + timedelta(days=offset)
        assert day.strftime("%a") == DAYS[day.weekday()]
