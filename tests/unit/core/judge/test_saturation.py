"""What is going to be full, with more load or after more time, and when a step is refused for it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.saturation import MOST, Track, follow, outlooks, refusal
from forge.model.traffic import Gauge


def followed(*readings, name="connections", limit=100.0, grows=True, every=5.0):
    """Follow one gauge; each reading is (load, value)."""
    tracks: dict[str, Track] = {}
    for index, (load, value) in enumerate(readings):
        tracks = follow(tracks, (Gauge(name, value, limit, grows),), load, index * every, weight=round(load))
    return tracks


def test_at_one_load_the_forecast_is_in_proportion():
    (outlook,) = outlooks(followed(*[(10, 8.0)] * 5), 100, 3600)
    assert outlook.expected == pytest.approx(80.0)
    assert outlook.share == pytest.approx(0.8)


def test_with_two_loads_it_is_a_line_with_what_is_used_at_rest():
    tracks = followed(*[(10, 30.0)] * 3, *[(20, 40.0)] * 3)
    (outlook,) = outlooks(tracks, 50, 3600)
    assert outlook.expected == pytest.approx(70.0)


def test_noise_at_one_weight_is_no_second_load():
    """Counts of few requests vary; a line through them would be flat, and promise room that is not there."""
    tracks: dict[str, Track] = {}
    for index, load in enumerate((5, 20, 8, 15, 10, 12)):
        tracks = follow(tracks, (Gauge("x", 10.0, 100.0),), load, index, weight=500)
    (outlook,) = outlooks(tracks, 120, 60)
    assert outlook.expected == pytest.approx(100.0)


def test_what_is_used_at_rest_is_not_multiplied():
    """Forty open files before the first request are no sign of eight hundred at twenty times the load."""
    tracks = follow({}, (Gauge("open_files", 40.0, 1024.0),), 0.0, 0.0, weight=0)
    for index in range(1, 5):
        tracks = follow(tracks, (Gauge("open_files", 44.0, 1024.0),), 10.0, index * 5.0, weight=500)
    (outlook,) = outlooks(tracks, 200.0, 60)
    assert outlook.expected == pytest.approx(120.0)


def test_readings_at_rest_alone_say_nothing():
    tracks: dict[str, Track] = {}
    for index in range(10):
        tracks = follow(tracks, (Gauge("open_files", 40.0, 50.0),), 0.0, index * 5.0, weight=0)
    assert outlooks(tracks, 200.0, 60) == []


def test_less_load_is_never_forecast_to_use_more():
    (outlook,) = outlooks(followed(*[(10, 8.0)] * 5), 5, 3600)
    assert outlook.expected == 8.0


def test_two_readings_say_nothing():
    assert outlooks(followed((10, 8.0), (10, 8.0)), 100, 3600) == []


def test_what_does_not_grow_with_load_stays():
    (outlook,) = outlooks(followed(*[(10, 50.0)] * 12, grows=False), 1000, 3600)
    assert (outlook.expected, outlook.seconds_left) == (50.0, None)


def test_a_leak_is_forecast_at_the_load_to_come():
    tracks = followed(*[(10, 10.0 + index) for index in range(20)], grows=False, every=10.0)
    (outlook,) = outlooks(tracks, 100, 3600)
    # 71 left, at 0.1 a second and ten times the load.
    assert outlook.seconds_left == pytest.approx(71.0, rel=0.01)
    assert "grows all the time" in refusal([outlook], 0.9, 3600)


def test_a_leak_that_fills_it_only_after_the_patience_refuses_nothing():
    tracks = followed(*[(10, 10.0 + index / 1000) for index in range(20)], grows=False, every=10.0)
    assert refusal(outlooks(tracks, 10, 3600), 0.9, 3600) == ""


def test_the_refusal_names_the_gauge_now_and_then():
    told = refusal(outlooks(followed(*[(10, 30.0)] * 3), 40, 3600), 0.9, 3600)
    assert told == "connections would come to 120 % of its limit (now 30 %), above 90 %"


def test_the_fullest_is_told_first():
    tracks = followed(*[(10, 10.0)] * 3) | followed(*[(10, 20.0)] * 3, name="cpu")
    assert [outlook.name for outlook in outlooks(tracks, 20, 60)] == ["cpu", "connections"]


@pytest.mark.parametrize(
    "gauge", [Gauge("x", 1.0), Gauge("x", 1.0, 0.0), Gauge("x", float("nan"), 5.0), Gauge("x", -1, 5.0)]
)
def test_what_has_no_limit_or_is_no_number_is_left_out(gauge: Gauge):
    assert follow({}, (gauge,), 1.0, 0.0) == {}


def test_so_many_gauges_are_followed_and_no_more():
    gauges = tuple(Gauge(f"g{index}", 1.0, 2.0) for index in range(100))
    assert len(follow({}, gauges, 1.0, 0.0)) == MOST


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=30), st.floats(0, 1e7))
def test_a_forecast_is_a_number_never_below_now_and_survives_json(readings, load):
    tracks = followed(*readings)
    again = {name: msgspec.json.decode(msgspec.json.encode(track), type=Track) for name, track in tracks.items()}
    assert again == tracks
    for outlook in outlooks(tracks, load, 60):
        assert outlook.expected >= outlook.value
        assert outlook.expected < float("inf")


@given(st.floats(1, 100), st.floats(1.0, 50.0), st.floats(0.0, 40.0), st.floats(0.01, 1.0))
def test_a_straight_service_is_forecast_exactly_after_two_loads(load, times, idle, each):
    loads = [load] * 3 + [load * 2] * 3
    tracks = followed(*[(at, idle + each * at) for at in loads])
    (outlook,) = outlooks(tracks, load * 2 * times, 60)
    assert outlook.expected == pytest.approx(idle + each * load * 2 * times, rel=1e-6)
