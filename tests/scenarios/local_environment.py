"""The real environment of the end-to-end tests (agent, Envoy, replicas, the `forge` command), for scenarios too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

E2E = Path(__file__).parent.parent / "e2e"


def _load(name: str, path: Path) -> ModuleType:
    """Conftests of other folders cannot be imported by name: there are several of them."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


local = _load("scenarios_local", E2E / "local" / "conftest.py")
command = _load("scenarios_command", E2E / "conftest.py")

new_world, load, forge_in = local.new_world, local.load, command.forge_in
Connection, LocalWorld, until = local.Connection, local.World, local.until
