"""The registry of steps."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forge.adapters.steps.registry import _CLASSES, kinds, step
from forge.model.errors import UsageError


@pytest.mark.parametrize("kind", ["checkout", "run", "publish", "download", "cache", "quality"])
def test_a_kind_gives_its_step(kind):
    assert step(kind).kind == kind
    assert step(kind) is step(kind)


def test_an_unknown_kind_is_refused_with_a_hint():
    with pytest.raises(UsageError, match="no kind of step is called `chekout`") as refused:
        step("chekout")
    assert refused.value.hint == "did you mean `checkout`?"


def test_every_kind_names_a_class_of_its_own():
    assert len(set(_CLASSES.values())) == len(kinds())


def test_nothing_is_loaded_before_it_is_asked_for():
    code = "import sys; import forge.adapters.steps.registry; print([m for m in sys.modules if 'steps.run' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
