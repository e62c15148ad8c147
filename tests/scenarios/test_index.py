"""The README of the scenarios names what is there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROW = re.compile(r"^\| (A\d+) \|.*\| (.*) \|$", re.MULTILINE)
NAME = re.compile(r"`(test_\w+\.py)(?:::(\w+))?`")


def test_every_scenario_is_listed_with_a_test_that_exists() -> None:
    rows = dict(ROW.findall((HERE / "README.md").read_text()))
    assert {f"A{number}" for number in [*range(1, 12), 13, *range(15, 19), 23, 24, 25]} <= rows.keys()
    for number, tests in rows.items():
        found = NAME.findall(tests)
        assert found, number
        for file, name in found:
            text = (HERE / file).read_text()
            kind = "class" if name.startswith("Test") else "def"
            assert not name or re.search(rf"\b{kind} {name}", text), f"{number}: {file} has no {name}"
