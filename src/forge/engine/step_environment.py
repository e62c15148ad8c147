"""What the commands of a step find in their environment: nothing by accident."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from forge.core.pipeline.keys import StepKey
from forge.core.pipeline.state import RunState
from forge.model.plan import JobPlan, Plan, StepPlan

KEPT = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "KUBECONFIG",
    "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "no_proxy",
})  # fmt: skip
"""What a step inherits from whoever started the worker; everything else is declared in the pipeline."""


def base(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the clean environment that every step begins with."""
    found = os.environ if environ is None else environ
    kept = {name: value for name, value in found.items() if name in KEPT or name.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    kept.setdefault("TERM", "dumb")
    return kept


def of_forge(plan: Plan, run: RunState, job: JobPlan, step: StepPlan, key: StepKey) -> dict[str, str]:
    """Return what Forge itself tells a step."""
    told = {
        "CI": "true",
        "FORGE": "true",
        "FORGE_RUN": run.id,
        "FORGE_RUN_ATTEMPT": str(run.attempt),
        "FORGE_ACTOR": run.actor,
        "FORGE_PIPELINE": plan.name,
        "FORGE_JOB": job.name,
        "FORGE_JOB_ATTEMPT": str(key.attempt),
        "FORGE_STEP": step.id,
        "FORGE_STEP_ATTEMPT": str(key.step_attempt),
        "FORGE_COMMIT": plan.source.commit,
        "FORGE_REF": plan.source.ref,
    }
    if job.environment:
        told["FORGE_ENVIRONMENT"] = job.environment
    state = run.jobs[job.name]
    told |= {f"FORGE_PARAM_{variable(name)}": as_text(value) for name, value in plan.parameters.items()}
    told |= {f"FORGE_MATRIX_{variable(name)}": as_text(value) for name, value in job.matrix.items()}
    told |= {f"FORGE_INPUT_{variable(name)}": as_text(value) for name, value in state.inputs.items()}
    return told


def variable(name: str) -> str:
    """Return a name as part of an environment variable's: `log-level` is `LOG_LEVEL`."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


def as_text(value: object) -> str:
    """Return a value as shells compare it: `true`, `3`, `text`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
