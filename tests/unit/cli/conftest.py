"""Golden texts: whole outputs, compared letter by letter. `FORGE_UPDATE_GOLDEN=1` writes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "cli"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Return how to compare a text with the golden one of that name."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if os.environ.get("FORGE_UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.rstrip("\n") + "\n")
        assert path.exists(), f"there is no golden text {path.name}: look at it, then run with FORGE_UPDATE_GOLDEN=1"
        assert path.read_text() == text.rstrip("\n") + "\n"

    return compare
