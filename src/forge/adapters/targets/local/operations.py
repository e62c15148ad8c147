"""What an environment's agent can be asked to do."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from forge.adapters.targets.local import reconcile
from forge.adapters.targets.local.processes import is_alive
from forge.adapters.targets.local.protocol import PROTOCOL, Answer, Request, answer_error
from forge.adapters.targets.local.proxy_process import current_table
from forge.adapters.targets.local.state import Wish
from forge.adapters.targets.local.supervisor import Supervisor
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.traffic import TrafficTable
from forge.model.units import format_weight

_LIVE_WAIT = 5.0
_LOOK_WAIT = 1.0
_MEMBERS_WAIT = 5.0
_HOPELESS = 3
"""After so many failed starts in a row a request does not wait for the next one."""
_ACKNOWLEDGE_WAIT = 2.0
_TABLES_KEPT = 20


class Operations:
    """Answers requests. Whatever changes something carries a token, and an old one is refused."""

    def __init__(self, supervisor: Supervisor, leave: Callable[[], None]) -> None:
        self.supervisor = supervisor
        self.leave = leave
        self._operations: dict[str, Callable[[Request], Awaitable[Any]]] = {
            "hello": self._hello,
            "leave": self._leave,
            "ensure": self._ensure,
            "remove": self._remove,
            "observe": self._observe,
            "apply": self._apply,
            "observed": self._observed,
            "address": self._address,
            "processes": self._processes,
            "status": self._status,
            "shutdown": self._shutdown,
        }

    async def answer(self, line: bytes) -> bytes:
        """Return the answer to one line, a line too."""
        try:
            request = msgspec.json.decode(line, type=Request)
            operation = self._operations.get(request.operation)
            if operation is None:
                msg = f"the agent knows no operation {request.operation!r}"
                raise UsageError(msg)
            self._introduce(request)
            answer = Answer(result=await operation(request))
        except Exception as error:
            answer = answer_error(error)
        return msgspec.json.encode(answer) + b"\n"

    def _introduce(self, request: Request) -> None:
        """Learn the environment's name and, while no proxy runs, how it should be from who asks."""
        state = self.supervisor.state
        if not request.environment or state.stopping:
            return
        idle = state.proxy.process is None and request.router != state.proxy.config
        if idle or not state.environment:
            proxy = replace(state.proxy, config=request.router, retry_at=0.0)
            self.supervisor.update(replace(state, environment=request.environment, proxy=proxy))

    async def _fence(self, request: Request) -> None:
        """Refuse a request of an earlier holder of the environment; else remember its token for good."""
        supervisor = self.supervisor
        if request.token < supervisor.state.token:
            msg = f"token {request.token} is stale: {supervisor.state.token} was seen for {request.environment}"
            raise StaleLease(msg)
        if supervisor.state.stopping:
            msg = f"the environment {request.environment} is being taken down"
            raise DependencyFailed(msg, hint="try again when it is down")
        state = replace(supervisor.state, token=request.token)
        before = state.proxy.config
        if request.router != before:
            state = replace(state, proxy=replace(state.proxy, config=request.router))
        supervisor.update(state)
        moved = request.router.listen != before.listen or (
            request.router.port not in (0, state.proxy.port) and request.router.port != before.port
        )
        if moved and state.proxy.process is not None:
            supervisor.stop_proxy()
        elif request.router != before:
            async with supervisor.traffic:
                await self._write_routes(current_table(supervisor.state))

    async def _hello(self, _request: Request) -> dict[str, Any]:
        return {"protocol": PROTOCOL, "pid": os.getpid()}

    async def _leave(self, _request: Request) -> None:
        self.leave()

    async def _ensure(self, request: Request) -> None:
        if request.version is None or request.config is None:
            msg = "ensure needs a version and its configuration"
            raise UsageError(msg)
        version = request.version
        await self._fence(request)
        supervisor = self.supervisor
        if request.replicas and not supervisor.folder.working_directory(version.id).is_dir():
            msg = f"the files of version {version.id} are not there"
            raise DependencyFailed(msg)
        wish = Wish(version, request.config, request.replicas)
        known = supervisor.state.wishes.get(version.id)
        running = any(r.version == version.id and r.process for r in supervisor.state.replicas.values())
        if known and running and replace(known.config, replicas=0) != replace(wish.config, replicas=0):
            msg = f"version {version.id} already runs with another configuration, and versions never change"
            raise UsageError(msg, hint="give the deploy a `version` of its own")
        supervisor.update(reconcile.want(supervisor.state, wish))

    async def _remove(self, request: Request) -> None:
        await self._fence(request)
        supervisor = self.supervisor
        async with supervisor.traffic:
            table = current_table(supervisor.state)
            if table is not None:
                weight = table.weights.get(request.version_id, 0)
                if weight > 0:
                    msg = f"version {request.version_id} still has {format_weight(weight)} of the traffic"
                    raise DependencyFailed(msg, hint="move its traffic away first")
                if any(route.version == request.version_id for route in table.routes):
                    await self._hand_over(without(table, request.version_id))
            supervisor.update(reconcile.unwant(supervisor.state, request.version_id))

    async def _observe(self, _request: Request) -> Any:
        return msgspec.to_builtins(reconcile.count(self.supervisor.state))

    async def _processes(self, _request: Request) -> Any:
        proxy = self.supervisor.state.proxy.process
        restarts: dict[str, int] = {}
        for replica in self.supervisor.state.replicas.values():
            restarts[replica.version] = restarts.get(replica.version, 0) + replica.restarts
        return {
            "versions": self.supervisor.processes(),
            "restarts": restarts,
            "proxy": f"{proxy.boot}/{proxy.pid}/{proxy.started}" if proxy else "",
        }

    async def _status(self, _request: Request) -> Any:
        return self.supervisor.view()

    async def _address(self, _request: Request) -> str:
        await self._proxy_is_up()
        address: str = self.supervisor.view()["address"]
        return address

    async def _proxy_is_up(self, patience: float = _LIVE_WAIT) -> None:
        supervisor = self.supervisor
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            process = supervisor.state.proxy.process
            if process is not None and is_alive(process) and await supervisor.files.wait_live(0.0):
                return
            if process is None and supervisor.state.proxy.crashes >= _HOPELESS:
                break
            await asyncio.sleep(0.01)
        why = supervisor.state.proxy.message or "it has not come up yet"
        msg = f"the proxy of {supervisor.state.environment} does not run: {why}"
        raise DependencyFailed(msg, hint=f"its log is {supervisor.folder.envoy_log}")

    async def _apply(self, request: Request) -> None:
        if request.table is None:
            msg = "apply needs a table"
            raise UsageError(msg)
        await self._fence(request)
        async with self.supervisor.traffic:
            await self._hand_over(request.table)

    async def _hand_over(self, table: TrafficTable) -> None:
        """Give Envoy a table: endpoints and clusters first, and routes when Envoy knows them."""
        supervisor = self.supervisor
        needed = sorted({v for v, weight in table.weights.items() if weight > 0} | {r.version for r in table.routes})
        for version in needed:
            if not reconcile.endpoints(supervisor.state, version)[0]:
                count = reconcile.count(supervisor.state).get(version)
                why = (count.message if count else "the target does not know it") or "none is ready"
                msg = f"version {version} has no ready replica to send traffic to: {why}"
                raise DependencyFailed(msg)
        supervisor.publish()
        await self._proxy_is_up()
        lacking = await supervisor.files.wait_members(needed, _MEMBERS_WAIT)
        if lacking:
            msg = f"the proxy sees no endpoint of version {', '.join(lacking)} after {_MEMBERS_WAIT:g}s"
            raise DependencyFailed(msg)
        await self._write_routes(table)

    async def _write_routes(self, table: TrafficTable | None) -> None:
        supervisor = self.supervisor
        if table is None:
            supervisor.files.write_routes(None, supervisor.state.proxy.config)
            return
        files, before = supervisor.files, supervisor.state
        config = before.proxy.config
        refused = await files.rejections()
        version = files.routes_version(table, config)
        tables = {name: known for name, known in before.proxy.tables.items() if name != version}
        tables[version] = table
        kept = dict(list(tables.items())[-_TABLES_KEPT:])
        # Saved first: an agent that takes over must know the table behind the version that Envoy tells.
        supervisor.update(replace(before, proxy=replace(before.proxy, tables=kept)))
        files.write_routes(table, config)
        deadline = time.monotonic() + _ACKNOWLEDGE_WAIT
        while time.monotonic() < deadline:
            if await files.acknowledged() == version:
                return
            if await files.rejections() > refused:
                why = files.last_rejection()
                state = supervisor.state
                supervisor.update(replace(state, proxy=replace(state.proxy, tables=before.proxy.tables)))
                files.write_routes(current_table(supervisor.state), config)
                msg = f"the proxy refused the new traffic table: {why}"
                raise DependencyFailed(msg)
            await asyncio.sleep(0.002)

    async def _observed(self, _request: Request) -> Any:
        supervisor = self.supervisor
        await self._proxy_is_up(_LOOK_WAIT)
        version = await supervisor.files.acknowledged()
        table = supervisor.state.proxy.tables.get(version or "")
        return None if table is None else msgspec.to_builtins(table)

    async def _shutdown(self, request: Request) -> None:
        """Take everything down: no new requests, then no proxy, then no replicas."""
        supervisor = self.supervisor
        if request.token and request.token < supervisor.state.token:
            msg = f"token {request.token} is stale: {supervisor.state.token} was seen for {request.environment}"
            raise StaleLease(msg)
        drains = [wish.config.drain for wish in supervisor.state.wishes.values()]
        supervisor.proxy_wanted = False
        await self._drain_proxy(max(drains, default=0.0))
        supervisor.stop_proxy()
        deadline = time.monotonic() + 5.0
        while supervisor.state.proxy.process is not None:
            if time.monotonic() >= deadline:
                supervisor.stop_proxy(signal.SIGKILL)
            await asyncio.sleep(0.01)
        supervisor.update(replace(supervisor.state, stopping=True))
        while supervisor.state.replicas:
            async with supervisor.settled:
                await supervisor.settled.wait()
        self.leave()

    async def _drain_proxy(self, longest: float) -> None:
        files = self.supervisor.files
        try:
            await files.admin.get("/drain_listeners", method="POST")
            deadline = time.monotonic() + longest
            while time.monotonic() < deadline:
                active = (await files.admin.stats(r"^http\.edge\.downstream_rq_active$")).values()
                if all(value == "0" for value in active):
                    return
                await asyncio.sleep(0.05)
        except DependencyFailed:
            return


def without(table: TrafficTable, version: str) -> TrafficTable:
    """Return the table with no route to a version."""
    return replace(table, routes=tuple(route for route in table.routes if route.version != version))
