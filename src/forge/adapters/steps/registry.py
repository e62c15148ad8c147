"""Which class performs which kind of step. Loaded when first asked for, so that `forge --help` stays fast."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from forge.adapters.steps.base import Step
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

_CLASSES = {
    "checkout": "forge.adapters.steps.checkout:CheckoutStep",
    "run": "forge.adapters.steps.run:RunStep",
    "publish": "forge.adapters.steps.publish:PublishStep",
    "download": "forge.adapters.steps.download:DownloadStep",
    "cache": "forge.adapters.steps.cache:CacheStep",
    "quality": "forge.adapters.steps.quality:QualityStep",
    "job": "forge.adapters.steps.job:JobStep",
    "deploy": "forge.adapters.steps.deploy:DeployStep",
    "verify": "forge.adapters.steps.verify:VerifyStep",
    "rollback": "forge.adapters.steps.rollback:RollbackStep",
}


def kinds() -> tuple[str, ...]:
    """Return the names of all kinds of steps that an adapter performs."""
    return tuple(_CLASSES)


@cache
def step(kind: str) -> Step:
    """Return the step of that kind. Raises UsageError for an unknown one."""
    if kind not in _CLASSES:
        raise UsageError(f"no kind of step is called `{kind}`", hint=did_you_mean(kind, kinds()))
    module, _, name = _CLASSES[kind].partition(":")
    return cast("Step", getattr(import_module(module), name)())
