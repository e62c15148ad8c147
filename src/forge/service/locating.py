"""Finding the runs and environments of a project by name, with a suggestion when there is none."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from forge.core.release.state import EnvironmentState
from forge.engine.environments import EnvironmentMachine
from forge.model.diagnostics import did_you_mean
from forge.model.errors import ForgeError, UsageError
from forge.model.plan import EnvironmentPlan
from forge.views.environment import EnvironmentView, environment_view

if TYPE_CHECKING:
    from forge.engine.engine import Engine

_RUN = re.compile(r"run-\d+")
_MACHINE = re.compile(r"[a-z]+-\d+")


async def find_run(engine: Engine, run: str) -> str:
    """Return the id of an existing run. Raises UsageError with a suggestion."""
    record = await engine.store.machines.load(run)
    if record is not None and record.kind == "run":
        return run
    raise await engine.unknown(run)


async def find_machine(engine: Engine, name: str) -> str:
    """Return the machine of a run's id, an environment's name, or of its own id. Raises UsageError."""
    if _RUN.fullmatch(name):  # who has an event exists, which is cheaper to see than by loading it
        return name if await engine.store.log.last(name) else await find_run(engine, name)
    machine = await engine.store.machines.find("environment", name)
    if machine is None and _MACHINE.fullmatch(name) and await engine.store.machines.load(name) is not None:
        return name
    return machine or await find_environment(engine, name)


async def find_environment(engine: Engine, name: str) -> str:
    """Return the id of the machine of an environment that something was released to. Raises UsageError."""
    machine = await engine.store.machines.find("environment", name)
    if machine is None:
        known = await known_environments(engine)
        if name in known:
            raise UsageError(f"nothing was released to {name} yet", hint="a `deploy` step of a run does that")
        raise UsageError(f"there is no environment `{name}`", hint=did_you_mean(name, known))
    return machine


async def check_known(engine: Engine, name: str) -> None:
    """Raise UsageError, with a suggestion, for an environment that neither the pipeline nor the database knows."""
    known = await known_environments(engine)
    if name not in known:
        raise UsageError(f"there is no environment `{name}`", hint=did_you_mean(name, known) or "the pipeline has none")


async def known_environments(engine: Engine) -> list[str]:
    """Return the environments of the pipeline file, in its order, then those that only the database knows."""
    names = [plan.name for plan in planned_environments(engine)]
    records = await engine.store.machines.newest("environment", limit=1000)
    return names + sorted(record.key for record in records if record.key not in names)


def planned_environments(engine: Engine) -> tuple[EnvironmentPlan, ...]:
    """Return what the pipeline file says; nothing when it is wrong: what runs can be looked at all the same."""
    from forge.engine.planning import load  # its schemas cost a sixth of a second, which most commands need not wait

    try:
        return load(engine.project).environments
    except ForgeError:
        return ()


async def environment_plan(engine: Engine, name: str) -> EnvironmentPlan:
    """Return the plan that an environment runs by: the stored one, else the file's. Raises UsageError."""
    machine = await engine.store.machines.find("environment", name)
    if machine is not None:
        return (await environment_state(engine, machine)).plan
    for plan in planned_environments(engine):
        if plan.name == name:
            return plan
    await check_known(engine, name)
    raise UsageError(f"nothing is known of {name}")  # it went away between the two looks


async def environment_state(engine: Engine, machine: str) -> EnvironmentState:
    """Return the stored state of an environment. Raises UsageError when there is none."""
    record = await engine.store.machines.load(machine)
    if record is None:
        raise UsageError(f"there is no environment `{machine}`")
    return EnvironmentMachine.load(record)


async def environment_of(engine: Engine, name: str, *, closely: bool = True) -> EnvironmentView:
    """Return the view of an environment, an empty one when nothing was released to it. Raises UsageError."""
    machine = await engine.store.machines.find("environment", name)
    if machine is None:
        plan = await environment_plan(engine, name)
        return EnvironmentView(name, "empty", "", (), (), target=plan.target, router=plan.router)
    if closely:
        return await look_closely(engine, machine)
    return environment_view(await environment_state(engine, machine), time.time())


async def look_closely(engine: Engine, machine: str) -> EnvironmentView:
    """Return an environment as it is this very moment, not as its last tick saw it; starts nothing."""
    from forge.adapters.targets.local.environment import status

    state = await environment_state(engine, machine)
    now = time.time()
    if state.plan.target != "local":
        observed = await EnvironmentMachine(engine.project, engine.artifacts).observe(state, now)
        return environment_view(state, now, observed)
    local = await status(engine.project.environment_folder(state.name))
    address = local["address"] or ""
    if local["agent"] is None:
        view = environment_view(state, now, address=address)
        wanted = any(version.wanted for version in state.versions.values())
        problem = f"its agent does not run: `forge env up {state.name}`" if wanted else "nothing runs"
        return replace(view, problem=problem)
    observed = await EnvironmentMachine(engine.project, engine.artifacts).observe(state, now)
    return environment_view(state, now, observed, address=address)
