"""Makes `world.py` importable from the scenarios beside it, and makes every decision of every scenario again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge.core.release.replay import replay
from forge.engine.recording import rules

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))  # for what `bench` measures at full size

if TYPE_CHECKING:
    from stenographer import Stenographer


@pytest.fixture(autouse=True)
def stenographer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stenographer]:
    """After every scenario, whatever happened in it: the record alone gives the same decisions, bit for bit."""
    import world
    from stenographer import Stenographer

    writing = Stenographer()
    monkeypatch.setattr(world, "decide", writing.decide)
    yield writing
    found = replay(writing.segments(), rules())
    assert found.difference is None
    assert found.segments == len(writing.bodies)
