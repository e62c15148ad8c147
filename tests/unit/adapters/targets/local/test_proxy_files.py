"""Envoy's files and its process, as the agent keeps them."""

from __future__ import annotations

import json
import os

import pytest

from forge.adapters.routers.envoy_config import cluster_name, endpoints_file
from forge.adapters.targets.local import proxy_process
from forge.adapters.targets.local.folders import EnvironmentFolder
from forge.adapters.targets.local.operations import without
from forge.adapters.targets.local.protocol import Answer, Request, answer_error, raise_error
from forge.adapters.targets.local.proxy import ProxyFiles
from forge.adapters.targets.local.state import AgentState, Proxy
from forge.model.configs import EnvoyRouterConfig
from forge.model.errors import CorruptData, DependencyFailed, StaleLease, UsageError
from forge.model.traffic import Route, TrafficTable

CONFIG = EnvoyRouterConfig()
TABLE = TrafficTable({"1.0": 9000, "1.1": 1000}, 4)


@pytest.fixture
def files(tmp_path) -> ProxyFiles:
    return ProxyFiles(EnvironmentFolder(tmp_path / "environment"), tmp_path)


def version_in(path) -> str:
    return json.loads(path.read_text())["version_info"]


def test_a_file_is_written_only_when_it_changes(files) -> None:
    first = files.write_endpoints("1.0", [9001], [])
    path = endpoints_file(files.root, "1.0")
    inode = path.stat().st_ino
    assert files.write_endpoints("1.0", [9001], []) == first == version_in(path)
    assert path.stat().st_ino == inode
    second = files.write_endpoints("1.0", [9001], [9002])
    assert second == version_in(path) != first


def test_the_same_table_has_the_same_version_for_whoever_writes_it(files) -> None:
    version = files.write_routes(TABLE, CONFIG)
    assert version == files.routes_version(TABLE, CONFIG) == version_in(files.routes_path)
    assert version.startswith("4-")
    others = [
        (TrafficTable(TABLE.weights, 5), CONFIG),
        (TrafficTable({"1.0": 10000}, 4), CONFIG),
        (TABLE, EnvoyRouterConfig(request_timeout=1.0)),
        (None, CONFIG),
    ]
    assert len({version, *(files.routes_version(table, config) for table, config in others)}) == 5


def test_a_damaged_file_is_written_anew(files) -> None:
    version = files.write_routes(TABLE, CONFIG)
    files.routes_path.write_text("{half a fi")
    assert files.write_routes(TABLE, CONFIG) == version == version_in(files.routes_path)


def test_the_order_of_versions_makes_no_difference(files) -> None:
    assert files.write_clusters(["1.1", "1.0"], CONFIG) == files.write_clusters(["1.0", "1.1"], CONFIG)


def test_endpoints_of_gone_versions_stay_as_long_as_envoy_may_look(files) -> None:
    for version in ("1.0", "1.1", "1.2"):
        files.write_endpoints(version, [], [])
    os.utime(files.root / "eds" / cluster_name("1.1"), (1, 1))
    os.utime(files.root / "eds" / cluster_name("1.0"), (1, 1))
    files.forget({"1.0"})
    kept = sorted(path.name for path in (files.root / "eds").iterdir())
    assert kept == [cluster_name("1.0"), cluster_name("1.2")]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", ""),
        ("nothing of note\n", ""),
        ("[warning] config update rejected: short reason\n", "short reason"),
        ('[warning] config update rejected: debug  \nname: "x"\n}\n: Proto validation failed\n[info] y\n', "Proto"),
        ("update rejected: first\nupdate rejected: d\n: second\n", "second"),
    ],
)
def test_envoys_reason_is_found_in_its_log(files, log: str, reason: str) -> None:
    files.folder.envoy.mkdir(parents=True)
    files.folder.envoy_log.write_text(log)
    found = files.last_rejection()
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_without_a_log_there_is_no_reason(files) -> None:
    assert files.last_rejection() == ""


def test_the_proxy_comes_back_soon_at_first_and_then_less_often() -> None:
    state = AgentState(environment="production", proxy=Proxy(started_at=99.0))
    delays = []
    for _ in range(8):
        state = proxy_process.on_exit(state, "exited with code 1", 100.0)
        delays.append(round(state.proxy.retry_at - 100.0, 3))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert state.proxy.restarts == 8
    assert state.proxy.message == "the proxy exited with code 1"
    steady = proxy_process.on_exit(AgentState(proxy=Proxy(crashes=5, started_at=50.0)), "was killed", 100.0)
    assert steady.proxy.retry_at == pytest.approx(100.1)


def test_the_last_table_is_the_current_one() -> None:
    assert proxy_process.current_table(AgentState()) is None
    tables = {"3-a": TrafficTable({"1.0": 10000}, 3), "4-b": TABLE}
    assert proxy_process.current_table(AgentState(proxy=Proxy(tables=tables))) == TABLE


def test_a_table_without_a_version_keeps_all_else() -> None:
    table = TrafficTable({"1.0": 10000}, 4, (Route("1.1", header="a"), Route("1.2", cookie="b")), sticky=True)
    assert without(table, "1.1") == TrafficTable({"1.0": 10000}, 4, (Route("1.2", cookie="b"),), sticky=True)


@pytest.mark.parametrize(
    ("error", "arrives_as"),
    [
        (StaleLease("old", hint="h"), StaleLease),
        (UsageError("wrong"), UsageError),
        (DependencyFailed("away"), DependencyFailed),
        (CorruptData("bytes"), DependencyFailed),
        (ZeroDivisionError("oops"), DependencyFailed),
    ],
)
def test_errors_arrive_as_what_they_were(error: Exception, arrives_as: type[Exception]) -> None:
    with pytest.raises(arrives_as) as raised:
        raise_error(answer_error(error))
    assert type(raised.value) is arrives_as
    assert str(error) in raised.value.message
    raise_error(Answer(result=1))


def test_a_request_of_a_newer_forge_is_still_read() -> None:
    import msgspec

    line = b'{"operation": "hello", "protocol": 99, "something_new": {"a": 1}}'
    assert msgspec.json.decode(line, type=Request).protocol == 99
