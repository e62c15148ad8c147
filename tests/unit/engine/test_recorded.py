from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from forge.core.judge.calibrate import FALLBACK
from forge.engine.analysing import judge_release
from forge.engine.recorded import WrongRows, each_release, read_index, read_release
from forge.model.errors import UsageError

HEADER = "release,t,arm,requests,errors\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "readings.csv"
    path.write_text(text)
    return path


def release(path: Path, name: str = "a", stable: str = "stable"):
    found, problems = read_release(read_index(path), name, stable)
    assert problems == []
    return found


def counters(arm, until, requests, errors=0, begin=0, name="a"):
    return [f"{name},{t},{arm},{requests * (t - begin)},{errors * (t - begin)}" for t in range(begin, until)]


def seen(samples):
    return [(sample.at, sample.requests, sample.errors) for sample in samples]


def test_readings_are_relative_to_the_first(tmp_path):
    rows = ["a,0,stable,1000,10", "a,1,stable,1100,11", "a,0,canary,0,0", "a,1,canary,9,3"]
    found = release(written(tmp_path, HEADER + "\n".join(rows)))
    assert seen(found.stable) == [(0, 0, 0), (1, 100, 1)]
    assert seen(found.arms["canary"]) == [(0, 0, 0), (1, 9, 3)]
    assert found.calibration == FALLBACK


def test_a_new_version_had_answered_nothing_before_its_first_reading(tmp_path):
    rows = [*counters("stable", 4, 100, begin=-1), "a,2,canary,10,2", "a,3,canary,20,4"]
    assert seen(release(written(tmp_path, HEADER + "\n".join(rows))).arms["canary"]) == [
        (1, 0, 0),
        (2, 10, 2),
        (3, 20, 4),
    ]


def test_a_reset_of_one_group_loses_nothing_of_the_other(tmp_path):
    rows = [
        "a,0,stable/1,500,5",
        "a,1,stable/1,600,6",
        "a,2,stable/1,40,1",
        "a,3,stable/1,140,2",
        "a,0,stable/2,500,5",
        "a,1,stable/2,600,5",
        "a,2,stable/2,700,6",
        "a,3,stable/2,800,6",
    ]
    found = release(written(tmp_path, HEADER + "\n".join(rows)))
    assert seen(found.stable) == [(0, 0, 0), (1, 200, 1), (2, 340, 3), (3, 540, 4)]


def test_rows_may_come_in_any_order_twice_and_empty(tmp_path):
    rows = [*counters("stable", 30, 100, 1), *counters("canary", 30, 10)]
    straight = release(written(tmp_path, HEADER + "\n".join(rows)))
    mixed = [*rows, *rows[5:9], "", "a,40,canary,NaN,", "a,41,canary,,"]
    random.Random(1).shuffle(mixed)
    assert release(written(tmp_path, HEADER + "\r\n".join(mixed) + "\r\n")) == straight


def test_releases_may_be_interleaved(tmp_path):
    rows = [*counters("stable", 30, 100, 1), *counters("canary", 30, 10), *counters("stable", 30, 50, name="b")]
    apart = [release(written(tmp_path, HEADER + "\n".join(rows)), name) for name in "ab"]
    random.Random(2).shuffle(rows)
    assert [release(written(tmp_path, HEADER + "\n".join(rows)), name) for name in "ab"] == apart


def test_columns_may_stand_in_any_order_with_others_between(tmp_path):
    path = written(
        tmp_path, "﻿t,team,errors,le_+Inf,requests,le_0.1,arm,release\n0,x,1,10,10,5,stable,a\n1,x,1,20,20,9,stable,a\n"
    )
    found = release(path)
    assert seen(found.stable)[-1] == (1, 20, 1)
    assert found.stable[-1].latency == ((0.1, 9), (float("inf"), 20))


def test_everything_that_is_wrong_is_told_at_once_with_its_place(tmp_path):
    text = (
        HEADER
        + "a,0,stable,1,0\na,x,stable,1,0\na,1,,5,4\na,2,stable,-3,0\na,3,stable\nb,1,stable,2,1e999\nb,2,stable,5,9\n"
    )
    with pytest.raises(WrongRows) as caught:
        each_release(read_index(written(tmp_path, text)), partial(judge_release), jobs=1)
    told = [(one.line, one.column, one.message) for one in caught.value.diagnostics]
    assert told == [
        (3, 3, "`x` is not a number"),
        (4, 5, "`arm` is empty"),
        (5, 12, "a counter is never negative"),
        (6, 1, "3 columns, and the header has 5"),
        (7, 14, "`1e999` is not a number"),
        (8, 14, "9 errors of 5 requests"),
    ]


def test_a_thousand_wrong_rows_are_not_all_told(tmp_path):
    text = HEADER + "a,x,stable,1,0\n" * 1000
    with pytest.raises(WrongRows, match="more than 20 problems") as caught:
        each_release(read_index(written(tmp_path, text)), partial(judge_release), jobs=1)
    assert len(caught.value.diagnostics) == 20


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("release,t,arm,requests", "no column `errors`"),
        ("release,t,arm,requests,errors,t", "twice"),
        ("release,t,arm,requests,errors,le_x", "no upper bound"),
        ("", "no column `release`"),
    ],
)
def test_a_wrong_header_is_told(tmp_path, header, words):
    with pytest.raises(WrongRows) as caught:
        read_index(written(tmp_path, header + "\n"))
    assert any(words in one.message for one in caught.value.diagnostics)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_index(tmp_path / "none.csv")


def test_history_of_groups_calibrates(tmp_path):
    rng, rows = random.Random(5), []
    total = {"stable/1": [0, 0], "stable/2": [0, 0]}
    for t in range(-600, 3):
        for arm, count in total.items():
            count[0] += 1000
            count[1] += 10 * sum(rng.random() < 0.25 for _ in range(2))  # ten at a time
            rows.append(f"a,{t},{arm},{count[0]},{count[1]}")
    found = release(written(tmp_path, HEADER + "\n".join(rows)))
    assert found.calibration.seconds == pytest.approx(600, abs=1)
    assert found.calibration.clump > 10
    assert [sample.at for sample in found.stable] == [-1, 0, 1, 2]


def test_many_processes_say_what_one_says(tmp_path):
    rows, rng = [], random.Random(7)
    for number in range(20):
        rate = 0.3 if number % 3 == 0 else 0.01
        counts = {"stable": [0, 0], "canary": [0, 0]}
        for t in range(60):
            for arm, p in (("stable", 0.01), ("canary", rate)):
                counts[arm][0] += 50
                counts[arm][1] += sum(rng.random() < p for _ in range(50))
                rows.append(f"r{number},{t},{arm},{counts[arm][0]},{counts[arm][1]}")
    index = read_index(written(tmp_path, HEADER + "\n".join(rows)))
    work = partial(judge_release)
    alone, told = each_release(index, work, jobs=1), []
    assert each_release(index, work, jobs=2, progress=lambda done, total: told.append((done, total))) == alone
    assert [one.analysis.release for one in alone] == [f"r{number}" for number in range(20)]
    assert [one.analysis.verdict == "rollback" for one in alone] == [number % 3 == 0 for number in range(20)]
    assert told[-1] == (20, 20)
