"""Reaching what runs in an environment: what it looks like right now, its logs, bringing it up, taking it down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from forge.cli.session import actor, leave, tell
from forge.cli.subjects import EnvironmentSubject
from forge.model.errors import DependencyFailed, ExitCode, UsageError
from forge.service.local import LocalService
from forge.service.locating import environment_state, look_closely
from forge.views.environment import EnvironmentView, environment_view

if TYPE_CHECKING:
    from forge.adapters.targets.base import Target
    from forge.cli.session import Session
    from forge.engine.engine import Engine
    from forge.model.plan import EnvironmentPlan
    from forge.views.run import RunView

UP_PATIENCE = 120.0
ABORT_PATIENCE = 120.0


def open_target(engine: Engine, plan: EnvironmentPlan) -> Target:
    """Return the target of an environment; starts nothing. Raises UsageError for one that is not known."""
    from forge.adapters.targets.registry import open_environment

    return open_environment(plan, engine.project.environment_folder(plan.name)).target


class Up(EnvironmentSubject):
    """An environment, watched until all that it wants is ready and has its traffic."""

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """Every wanted replica is ready, and the proxy reports the split that was asked for."""
        assert isinstance(view, EnvironmentView)
        if await self.service.records.waiting(self.name):
            return False
        now = await self.service.environments.get(self.name, closely=True)
        return not now.problem and all(
            arm.replicas.ready >= arm.replicas.desired and arm.actual_weight == arm.set_weight for arm in now.arms
        )

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """It is up."""
        del view
        return ExitCode.SUCCEEDED


async def bring_up(engine: Engine, session: Session, environment: str) -> int:
    """Bring up what the environment should run; wait until it is ready. Raises UsageError when that is nothing."""
    from forge.cli.render.progress import progress_for
    from forge.cli.watching import Foreground

    service = LocalService(engine)
    machine = await engine.store.machines.find("environment", environment)
    if machine is None or not (await environment_state(engine, machine)).versions:
        raise UsageError(f"nothing was released to {environment} yet", hint="a `deploy` step of a run does that")
    await engine.store.inbox.send(machine, "look", actor(), {})
    code = await Foreground(service, [Up(service, environment)], progress_for(session.terminal)).carry_on(
        timeout=UP_PATIENCE
    )
    view = await look_closely(engine, machine)
    tell(f"{environment}: {'up' if code == ExitCode.SUCCEEDED else 'not up yet'}  {view.address}".rstrip())
    return code


async def under_way(engine: Engine, environment: str) -> list[str]:
    """Return the ids of the releases that are under way in an environment."""
    machine = await engine.store.machines.find("environment", environment)
    if machine is None:
        return []
    view = environment_view(await environment_state(engine, machine), time.time())
    return [release.id for release in view.under_way]


def check_at_rest(environment: str, going: list[str]) -> None:
    """Raise UsageError, with what can be done, when releases are under way."""
    if going:
        hint = f"`forge env down {environment} --force` aborts first"
        raise UsageError(f"{', '.join(going)} is under way in {environment}", hint=hint)


class Rest(EnvironmentSubject):
    """An environment, watched until nothing is under way in it and no command waits, whatever would need a person."""

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """Every release is over."""
        assert isinstance(view, EnvironmentView)
        return not view.under_way and not await self.service.records.waiting(self.name)


async def abort_all(engine: Engine, session: Session, environment: str) -> None:
    """Abort what is under way in an environment, until nothing is. Raises DependencyFailed when that takes too long."""
    from forge.cli.render.progress import progress_for
    from forge.cli.watching import Foreground

    service = LocalService(engine)
    machine = await engine.store.machines.find("environment", environment)
    going = await under_way(engine, environment)
    if machine is None or not going:
        return
    for release in going:
        payload = {"release": release, "comment": f"{environment} is taken down"}
        await engine.store.inbox.send(machine, "abort", actor(), payload)
    code = await Foreground(service, [Rest(service, environment)], progress_for(session.terminal)).carry_on(
        timeout=ABORT_PATIENCE
    )
    if code == ExitCode.INTERRUPTED:
        leave(code)
    if still := await under_way(engine, environment):
        words = f"{', '.join(still)} was told to abort, and is not over after {ABORT_PATIENCE:.0f} s"
        raise DependencyFailed(words, hint=f"`forge release get {environment}` shows what it waits for")


async def give_back(engine: Engine, session: Session, environment: str) -> int:
    """Give an environment on a cluster back to whoever deploys next. Raises UsageError where that means nothing."""
    from forge.cli.render.progress import progress_for
    from forge.cli.subjects import InboxSubject
    from forge.cli.watching import Foreground
    from forge.engine.clusters import hand_back

    service = LocalService(engine)
    machine = await engine.store.machines.find("environment", environment)
    state = await environment_state(engine, machine) if machine is not None else None
    if machine is None or state is None or not state.stable:
        raise UsageError(f"nothing of {environment} is Forge's", hint="a release makes it so")
    if state.plan.target != "kubernetes":
        hint = f"`forge env down {environment}` ends what runs there"
        raise UsageError(
            f"{environment} is on the target `{state.plan.target}`: nobody else can take it over", hint=hint
        )
    check_at_rest(environment, await under_way(engine, environment))
    # On record first: from here on no worker touches it, and a second attempt goes on where this one was cut off.
    await engine.store.inbox.send(machine, "down", actor(), {})
    watching = Foreground(service, [InboxSubject(service, environment)], progress_for(session.terminal))
    await watching.carry_on()
    for line in await hand_back(engine.project, state):
        tell(line)
    await engine.store.inbox.send(machine, "handed_back", actor(), {})
    await Foreground(service, [InboxSubject(service, environment)], progress_for(session.terminal)).carry_on()
    tell(f"{environment}: handed back; the next release adopts what runs there")
    return ExitCode.SUCCEEDED


async def take_down(engine: Engine, session: Session, environment: str) -> int:
    """End everything that runs in an environment. Raises UsageError while a release is under way in it."""
    from forge.adapters.targets.local.environment import shutdown

    machine = await engine.store.machines.find("environment", environment)
    if machine is not None:
        if (await environment_state(engine, machine)).plan.target == "kubernetes":
            hint = f"`forge env hand-back {environment}` gives it back to whoever deploys next; `kubectl` ends it"
            raise UsageError(f"{environment} is on a cluster, which keeps it running", hint=hint)
        from forge.cli.render.progress import progress_for
        from forge.cli.subjects import InboxSubject
        from forge.cli.watching import Foreground

        service = LocalService(engine)
        check_at_rest(environment, await under_way(engine, environment))
        # On record first, so that no later tick brings it up again.
        await engine.store.inbox.send(machine, "down", actor(), {})
        await Foreground(service, [InboxSubject(service, environment)], progress_for(session.terminal)).carry_on()
    await shutdown(engine.project.environment_folder(environment))
    tell(f"{environment}: down; `forge env up {environment}` brings it back")
    return ExitCode.SUCCEEDED
