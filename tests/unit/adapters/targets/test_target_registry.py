"""Targets by name, and the configuration of the local one."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.adapters.targets import registry
from forge.adapters.targets.local.environment import open_local, shutdown, status
from forge.adapters.targets.local.target import target_config
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan


def test_opening_starts_nothing(tmp_path) -> None:
    opened = registry.open_environment(EnvironmentPlan("production"), tmp_path / "production")
    assert "weights" in opened.router.capabilities
    assert not (tmp_path / "production").exists()


def test_an_unknown_name_is_an_error_with_a_suggestion() -> None:
    for plan, words in (
        (EnvironmentPlan("production", target="lokal"), "no target `lokal`"),
        (EnvironmentPlan("production", router="envoi"), "no router `envoi`"),
        (EnvironmentPlan("production", signals="envoi"), "no signals `envoi`"),
    ):
        with pytest.raises(UsageError, match=words) as wrong:
            registry.open_environment(plan, Path("/nowhere"))
        assert "did you mean" in wrong.value.hint


async def test_what_was_never_up_is_shown_and_taken_down_without_ado(tmp_path) -> None:
    view = await status(tmp_path / "production")
    assert (view["agent"], view["address"], view["versions"]) == (None, None, {})
    await shutdown(tmp_path / "production")
    assert not (tmp_path / "production").exists()


def test_a_wrong_router_configuration_is_named(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"envoy router of staging is wrong: .*port"):
        open_local(EnvironmentPlan("staging", router_config={"port": "eighty"}), tmp_path)


def test_a_command_may_be_a_line_for_the_shell() -> None:
    assert target_config({"command": "serve --port $PORT"}).command == ("sh", "-c", "exec serve --port $PORT")
    assert target_config({"command": ["serve"]}).command == ("serve",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "command"),
        ({"command": []}, "`command` is empty"),
        ({"command": ["x"], "replicas": "many"}, "replicas"),
        ({"command": ["x"], "ready": {"http": 5}}, "ready"),
        ({"command": ["x"], "reddy": {}}, "'reddy'"),
    ],
)
def test_a_wrong_configuration_is_named(data: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        target_config(data)
