"""`verify:` waits for the rollout, then holds the version that serves against its limits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from forge.adapters.steps.base import StepContext, StepResult
from forge.model.configs import VerifyConfig
from forge.model.units import format_duration

LOOK = 0.25
"""Seconds between two looks while the rollout is waited for; `interval` is how often that is told."""


class VerifyStep:
    """Fails when a limit is exceeded (and rolls back, if it is told to). What cannot be measured is neither a
    pass nor a failure: it is waited for until `timeout`, then reported as an error of what was to measure."""

    kind = "verify"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, VerifyConfig)
        if config.workload is not None:
            from forge.adapters.steps.workload import verify_workload

            return await verify_workload(context, config, config.workload)
        problem = await _rolled_out(context, config)
        result = StepResult("failed", problem) if problem else await _checked(context, config)
        if result.outcome != "failed" or not config.rollback:
            return result
        name = config.environment
        payload = {"comment": result.message}
        key = f"{context.key} rollback"
        refusal = await context.releases.command(name, "rollback", payload, key=key, actor=context.actor)
        if refusal:
            return StepResult("failed", f"{result.message}; it could not be rolled back: {refusal}")
        view = await _settled(context, name)
        message = f"{result.message}; {name} went back to {view['stable']}"
        context.say(message)
        return StepResult("failed", message, outputs=result.outputs | {"stable": view["stable"]})


async def _rolled_out(context: StepContext, config: VerifyConfig) -> str:
    """Wait until no release is under way and stable is ready as a whole; return why not, if it is late."""
    waited, told = 0.0, 0.0
    while True:
        view = await context.releases.view(config.environment)
        if view["settled"] and view["stable"] and view["ready"] >= view["wanted"]:
            context.say(f"{view['stable']} is rolled out: {view['ready']} of {view['wanted']} replicas are ready")
            return ""
        missing = view["waits_for"] or f"{view['ready']} of {view['wanted']} replicas are ready {view['problem']}"
        if waited >= config.timeout:
            late = format_duration(config.timeout)
            return f"{config.environment} did not reach its ready state within {late}: {missing}"
        if waited >= told:
            context.say(f"waiting for the rollout: {missing}")
            told = waited + config.interval
        await asyncio.sleep(LOOK)
        waited += LOOK


async def _checked(context: StepContext, config: VerifyConfig) -> StepResult:
    """Check until every limit could be judged and `for_seconds` have passed; the first that is exceeded decides."""
    waited, told = 0.0, ""
    while True:
        findings = await context.releases.examine(config.environment, config.thresholds)
        words = "; ".join(finding["why"] for finding in findings) or "there is nothing to check"
        if words != told:
            context.say(words)
            told = words
        exceeded = [finding for finding in findings if finding["exceeded"]]
        if exceeded:
            return StepResult("failed", exceeded[0]["why"], outputs=_numbers(exceeded[0]))
        unknown = _unknown(findings)
        if not unknown and waited >= config.for_seconds:
            return StepResult("succeeded", words, outputs=_numbers(findings[0]) if findings else {})
        if unknown and waited >= max(config.timeout, config.for_seconds):
            late = f"nothing could be judged within {format_duration(waited)}: {unknown[0]}"
            return StepResult("error", late + _advice(findings))
        limit = config.for_seconds if not unknown else max(config.timeout, config.for_seconds)
        pause = min(config.interval, max(LOOK, limit - waited))
        await asyncio.sleep(pause)
        waited += pause


def _unknown(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["why"] for finding in findings if finding["exceeded"] is None]


def _advice(findings: list[dict[str, Any]]) -> str:
    """Return what to do when nobody asked the version; empty when something else could not be measured."""
    if any(finding["exceeded"] is None and finding.get("requests") != 0 for finding in findings):
        return ""
    return (
        ": nobody asked the version. Put `verify` where there is traffic, or write `minimum_requests: 0` in its checks"
        " to accept a version that nobody asks"
    )


async def _settled(context: StepContext, environment: str) -> dict[str, Any]:
    while not (view := await context.releases.view(environment))["settled"]:
        await asyncio.sleep(LOOK)
    return view


def _numbers(finding: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in finding.items() if isinstance(value, (int, float, str))}
