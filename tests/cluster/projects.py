"""Fixtures: the `forge` command for any folder, and projects that it releases to the cluster."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cluster.releases import Project

TESTS = Path(__file__).parents[1]


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def forge_command() -> Callable[..., Any]:
    """Return how to get the `forge` command for a folder, with its environment."""
    made: Callable[..., Any] = _module("forge_command_for_cluster", TESTS / "e2e" / "conftest.py").ForgeCommand
    return made


@pytest.fixture
def project(tmp_path, cluster, namespace, pod_prometheus, forge_command) -> Callable[[str], Project]:
    """Return how to make a project whose traffic is split by the router of that name."""
    from cluster.releases import Project

    def made(router: str) -> Project:
        fresh = Project(tmp_path / "project", cluster, namespace, forge_command, router, pod_prometheus)
        fresh.write()
        return fresh

    return made
