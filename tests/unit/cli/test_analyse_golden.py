"""What `forge analyse` and `forge backtest` print, letter by letter. `FORGE_UPDATE_GOLDEN=1` writes it anew."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from forge.cli.main import run_command

GOLDEN = Path(__file__).parents[2] / "golden" / "analyse"
RATES = {"good": 0.01, "twice": 0.05, "down": 0.9, "slow": 0.01, "quiet": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five releases: a good one, bad ones of several sizes, one that is only slow, one that nobody asks."""
    path, rng = tmp_path_factory.mktemp("recorded"), random.Random(7)
    lines, truth = ["release,t,arm,requests,errors,le_0.1,le_0.5,le_inf"], ["release,bad"]
    for name, rate in RATES.items():
        truth.append(f"{name},{str(name in {'twice', 'down', 'slow'}).lower()}")
        counts = {"stable": [0, 0, 0], "canary": [0, 0, 0]}
        for t in range(-60, 240):
            for arm in ("stable", "canary"):
                if arm == "canary" and (t < 0 or name == "quiet"):
                    continue
                requests = 40 if arm == "stable" else 20
                slow = 0.6 if (name, arm) == ("slow", "canary") else 0.1
                failing = rate if arm == "canary" else 0.01
                counts[arm][0] += requests
                counts[arm][1] += sum(rng.random() < failing for _ in range(requests))
                counts[arm][2] += sum(rng.random() > slow for _ in range(requests))
                total, errors, fast = counts[arm]
                lines.append(f"{name},{t},{arm},{total},{errors},{fast},{total},{total}")
    (path / "readings.csv").write_text("\n".join(lines))
    (path / "truth.csv").write_text("\n".join(truth))
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("several", ["analyse", "readings.csv", "--jobs", "1", "-o", "wide"]),
        ("down", ["analyse", "readings.csv", "--release", "down", "--jobs", "1"]),
        ("good-and-slow", ["analyse", "readings.csv", "--release", "good", "--release", "slow", "--jobs", "1"]),
        ("quiet", ["analyse", "readings.csv", "--release", "quiet", "--jobs", "1", "-o", "yaml"]),
        ("backtest", ["backtest", "readings.csv", "--truth", "truth.csv", "--jobs", "1"]),
        ("analyse-help", ["analyse", "--help"]),
        ("backtest-help", ["backtest", "--help"]),
        ("simulate-help", ["simulate", "--help"]),
    ],
)
def test_what_it_prints(
    name: str, words: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(folder)
    assert run_command(words) == 0
    told = capsys.readouterr()
    text = told.out + (f"--- stderr\n{told.err}" if told.err else "")
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
