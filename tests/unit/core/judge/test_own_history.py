"""A/A calibration kept as sums: the same answers as over the whole history, small, and blind to gaps."""

from __future__ import annotations

import random

import msgspec

from forge.core.judge.calibrate import FALLBACK, calibrate
from forge.core.judge.evidence import Counts
from forge.core.judge.history import FADES_AT, OwnHistory, add_reading, calibration_of


def replicas(seconds: int, clump: int, seed: int, rate: float = 0.01) -> list[tuple[Counts, Counts]]:
    chance = random.Random(seed)
    return [
        (
            Counts(100, clump * sum(chance.random() < rate / clump for _ in range(100))),
            Counts(100, clump * sum(chance.random() < rate / clump for _ in range(100))),
        )
        for _ in range(seconds)
    ]


def fed(rows: list[tuple[Counts, Counts]]) -> OwnHistory:
    history, one, two = OwnHistory(), Counts(), Counts()
    history = add_reading(history, "1.3", (("a", 0, 0), ("b", 0, 0)), 1000.0)
    for second, (first, other) in enumerate(rows, 1):
        one, two = one + first, two + other
        groups = (("a", one.requests, one.errors), ("b", two.requests, two.errors))
        history = add_reading(history, "1.3", groups, 1000.0 + second)
    return history


def test_the_same_as_over_the_whole_history() -> None:
    for seed in range(6):
        rows = replicas(600, 1 + 9 * (seed % 2), seed)
        assert calibration_of(fed(rows)) == calibrate(rows)


def test_clumps_are_seen_and_clean_services_are_not_suspected() -> None:
    assert calibration_of(fed(replicas(1800, 10, 1))).clump > 10
    assert calibration_of(fed(replicas(1800, 1, 2))).clump == 1.0


def test_a_short_history_is_none() -> None:
    found = calibration_of(fed(replicas(200, 1, 3)))
    assert (found.clump, found.block) == (FALLBACK.clump, FALLBACK.block)
    assert calibration_of(OwnHistory()).clump == FALLBACK.clump


def test_a_gap_another_version_or_a_lone_replica_adds_nothing() -> None:
    history = fed(replicas(100, 1, 4))
    later = add_reading(history, "1.3", (("a", 10**6, 10**5), ("b", 10**6, 0)), 5000.0)
    other = add_reading(history, "1.4", (("a", 10**6, 10**5), ("b", 10**6, 0)), 1101.0)
    assert later.seconds == other.seconds == history.seconds
    assert (
        [one.above for one in later.blocks] == [one.above for one in other.blocks] == [b.above for b in history.blocks]
    )
    assert add_reading(history, "1.3", (("a", 10**6, 10**5),), 1101.0) == history
    assert add_reading(history, "1.3", (("a", 0, 0), ("b", 0, 0)), 1100.0) == history


def test_a_replica_that_counts_anew_gives_nothing_this_time() -> None:
    history = fed(replicas(10, 1, 5))
    after = add_reading(history, "1.3", (("a", 5, 5), ("c", 10**6, 10**6)), 1011.0)
    assert after.blocks[0].above == history.blocks[0].above
    assert after.last == {"a": (5, 5), "c": (10**6, 10**6)}


def test_old_history_fades_and_the_state_stays_small() -> None:
    history = fed(replicas(60, 5, 6))
    old = msgspec.structs.replace(history, seconds=FADES_AT)
    one = (
        ("a", history.last["a"][0] + 100, history.last["a"][1]),
        ("b", history.last["b"][0] + 100, history.last["b"][1]),
    )
    faded = add_reading(old, "1.3", one, 1061.0)
    assert faded.seconds == (FADES_AT + 1) / 2
    assert faded.blocks[3].above == old.blocks[3].above / 2
    assert len(msgspec.json.encode(history)) < 1000
    assert msgspec.json.decode(msgspec.json.encode(history), type=OwnHistory) == history
