"""Where a Prometheus finds the replicas: a file that its `file_sd_configs` reads whenever it changes."""

from __future__ import annotations

import json

from forge.adapters.targets.local.state import AgentState

FILE = "prometheus-targets.json"
"""In the environment's folder."""


def targets(state: AgentState) -> str:
    """Return every replica that is ready, with its environment, version and number as labels."""
    ready = (one for one in state.replicas.values() if one.phase == "running" and one.ready and one.port)
    listed = [
        {
            "targets": [f"127.0.0.1:{one.port}"],
            "labels": {"environment": state.environment, "version": one.version, "replica": str(one.number)},
        }
        for one in sorted(ready, key=lambda one: (one.version, one.number))
    ]
    return json.dumps(listed, indent=1) + "\n"
