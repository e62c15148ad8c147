"""What a router has to say besides its table reaches whoever looks at the environment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from forge.adapters.routers.base import Remarking
from forge.adapters.routers.memory import MemoryRouter
from forge.core.release import fulfil
from forge.engine.environments import EnvironmentMachine
from forge.model.traffic import TrafficTable


class Edited:
    """A router whose object was edited."""

    remark = ""

    async def observed(self) -> TrafficTable:
        self.remark = "HTTPRoute shop was changed by kubectl-edit"
        return TrafficTable({"1.0": 5000, "1.1": 5000}, fulfil.CHANGED)


async def nothing(*_: Any) -> dict[str, Any]:
    return {}


def test_only_routers_that_have_remarks_are_asked() -> None:
    assert isinstance(Edited(), Remarking)
    assert not isinstance(MemoryRouter(lambda: 0.0), Remarking)


@pytest.mark.parametrize("routers", [Edited])
async def test_who_changed_the_split_is_part_of_the_observation(routers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target, signals = SimpleNamespace(observe=nothing), SimpleNamespace(read=nothing)
    world = SimpleNamespace(target=target, signals=signals, router=routers())
    monkeypatch.setattr(EnvironmentMachine, "_world", lambda *_: world)
    environments = EnvironmentMachine.__new__(EnvironmentMachine)
    seen = await environments.observe(SimpleNamespace(down=False, name="production", versions={}), 1.0)  # type: ignore[arg-type]
    assert (seen.weights, seen.generation) == ({"1.0": 5000, "1.1": 5000}, -1)
    assert seen.problem == "traffic: HTTPRoute shop was changed by kubectl-edit"
