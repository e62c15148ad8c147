"""Replicas, agent and proxy: kept alive, adopted, drained and stopped, and nothing of it lost by a kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap

import psutil
import pytest

from forge.adapters.targets.local import logs
from forge.adapters.targets.local.client import AgentClient
from forge.adapters.targets.local.environment import open_local, shutdown, status
from forge.adapters.targets.local.folders import EnvironmentFolder, agent_socket
from forge.model.configs import EnvoyRouterConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Version


async def test_a_killed_replica_comes_back_and_no_request_fails(world, load) -> None:
    await world.up("1.0", replicas=2)
    await world.split(_1_0=10000)
    before = await world.replica("1.0")
    async with load(await world.router.address()) as clients:
        os.kill(before["pid"], signal.SIGKILL)
        await asyncio.sleep(0.3)
        await world.ready("1.0", 2)
        await asyncio.sleep(0.2)
    after = await world.replica("1.0")
    assert clients.failures == []
    assert after["pid"] != before["pid"]
    assert (after["port"], after["restarts"]) == (before["port"], 1)


async def test_a_killed_agent_is_replaced_and_replicas_never_notice(world, load) -> None:
    await world.up("1.0", "1.1", replicas=2)
    await world.split(_1_0=5000, _1_1=5000)
    before = await world.status()
    async with load(await world.router.address()) as clients:
        for _ in range(3):
            agent = (await world.status())["agent"]
            os.kill(agent, signal.SIGKILL)
            await world.ready("1.0", 2)
            assert (await world.status())["agent"] != agent
        await world.split(_1_0=0, _1_1=10000)
    after = await world.status()
    assert clients.failures == []
    assert after["proxy"] == before["proxy"]
    assert after["versions"] == before["versions"]


async def test_what_died_while_no_agent_lived_is_started_again(world, eventually) -> None:
    await world.up("1.0", replicas=2)
    await world.split(_1_0=10000)
    state = await world.status()
    os.kill(state["agent"], signal.SIGKILL)
    victim = state["versions"]["1.0"]["replicas"][0]["pid"]
    os.kill(victim, signal.SIGKILL)
    os.kill(state["proxy"]["pid"], signal.SIGKILL)
    await world.ready("1.0", 2)

    async def serves() -> bool:
        return (await world.get()).version == "1.0"

    await eventually(serves, "the proxy serves again")
    assert (await world.router.address()) == state["address"]
    assert (await world.replica("1.0", 2))["pid"] == state["versions"]["1.0"]["replicas"][1]["pid"]


async def test_a_killed_proxy_comes_back_at_the_same_port_with_the_same_split(world, eventually) -> None:
    await world.up("1.0", "1.1")
    await world.split(_1_0=0, _1_1=10000)
    table, address = await world.router.observed(), await world.router.address()
    pid = (await world.status())["proxy"]["pid"]
    os.kill(pid, signal.SIGKILL)

    async def back() -> bool:
        return (await world.status())["proxy"]["pid"] not in (None, pid) and (await world.get()).version == "1.1"

    await eventually(back, "the proxy serves again")
    assert (await world.router.observed(), await world.router.address()) == (table, address)
    assert (await world.status())["proxy"]["restarts"] == 1


async def test_killing_forge_touches_neither_agent_nor_replicas(world, tmp_path) -> None:
    """A process like Forge brings a version up, carrying the cookie of a step, and its whole group is killed."""
    script = tmp_path / "forge_like.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, time
        from pathlib import Path
        from forge.adapters.targets.local.environment import open_local
        from forge.model.plan import EnvironmentPlan
        from forge.model.traffic import Version
        plan = EnvironmentPlan(name="production", target_config={world.plan.target_config!r})
        async def main():
            target = open_local(plan, Path({str(world.folder)!r})).target
            await target.ensure(Version("1.0"), 1, None, 1)
            while (await target.observe())["1.0"].ready < 1:
                await asyncio.sleep(0.02)
            print("ready", flush=True)
            time.sleep(60)
        asyncio.run(main())
        """)
    )
    cookie = {"FORGE_STEP": "deploy", "FORGE_WORKER": "worker-1", "API_TOKEN": "geheim"}
    process = subprocess.Popen(  # noqa: ASYNC220  killed as a whole group below
        [sys.executable, str(script)], env=os.environ | cookie, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        descendants = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    state = await world.status()
    pids = {state["agent"], state["proxy"]["pid"], (await world.replica("1.0"))["pid"]}
    assert None not in pids
    assert not descendants & pids
    for pid in pids:
        environment = psutil.Process(pid).environ()
        assert not cookie.keys() & environment.keys()
    assert (await world.replica("1.0"))["ready"]


async def test_a_replica_is_told_who_it_is(world) -> None:
    await world.up("1.0+build.7/x", env={"GREETING": "hallo", "PORT": "1"})
    replica = await world.replica("1.0+build.7/x")
    environment = psutil.Process(replica["pid"]).environ()
    assert environment["PORT"] == str(replica["port"])
    assert environment["FORGE_VERSION"] == "1.0+build.7/x"
    assert (environment["FORGE_REPLICA"], environment["FORGE_ENVIRONMENT"]) == ("1", "production")
    assert environment["GREETING"] == "hallo"
    await world.route({"1.0+build.7/x": 10000})
    assert (await world.get()).version == "1.0+build.7/x"


async def test_a_crash_loop_is_told_with_its_last_words(world, eventually) -> None:
    command = ["sh", "-c", "echo warming up; echo no database at db:5432 >&2; exit 3"]
    await world.want("1.0", 1, command=command, restart_delay=0.05, restart_max_delay=0.2)

    async def crashed_thrice() -> bool:
        return (await world.target.observe())["1.0"].restarts >= 3

    await eventually(crashed_thrice, "three restarts")
    count = (await world.target.observe())["1.0"]
    assert count.ready == 0
    assert "replica 1 exited with code 3" in count.message
    assert "warming up | no database at db:5432" in count.message


async def test_a_command_that_does_not_exist_is_told(world, eventually) -> None:
    await world.want("1.0", 1, command=["no-such-program"])

    async def told() -> bool:
        return "no-such-program" in (await world.target.observe())["1.0"].message

    await eventually(told, "the message names the program")


async def test_a_replica_that_never_gets_ready_says_why(world, eventually) -> None:
    cases = {
        "1.0": ({"http": "/?status=500", "interval": 0.05}, "GET /?status=500 answered 500"),
        "1.1": ({"http": "/?sleep=9", "interval": 0.05, "timeout": 0.2}, "gave no answer within 0.2s"),
        "1.2": ({"command": ["sh", "-c", "exit 4"], "tcp": False, "interval": 0.05}, "exited with code 4"),
        "1.3": ({"command": ["sleep", "60"], "interval": 0.05, "timeout": 0.1}, "gave no answer within 0.1s"),
        "1.4": ({"command": ["no-such-probe"], "tcp": False, "interval": 0.05}, "no-such-probe"),
    }
    for version, (ready, _) in cases.items():
        await world.want(version, 1, ready=ready)

    async def told() -> bool:
        counts = await world.target.observe()
        return all(words in counts[version].message for version, (_, words) in cases.items())

    await eventually(told, "each says why")
    for count in (await world.target.observe()).values():
        assert (count.desired, count.running, count.ready) == (1, 1, 0)


async def test_ready_by_tcp_and_by_command(world) -> None:
    await world.up("1.0", ready={"tcp": True})
    await world.up("1.1", ready={"command": ["sh", "-c", 'test -n "$PORT"']})


async def test_a_replica_that_stops_answering_leaves_the_proxy(world, eventually) -> None:
    await world.up("1.0", replicas=2, ready={"http": "/", "interval": 0.05, "timeout": 0.2, "failures": 2})
    await world.split(_1_0=10000)
    pid = (await world.replica("1.0"))["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await world_ready(world, eventually, 1)
        assert {(await world.get()).body for _ in range(10)} == {"1.0 2"}
    finally:
        os.kill(pid, signal.SIGCONT)
    await world_ready(world, eventually, 2)


async def world_ready(world, eventually, ready: int) -> None:
    async def so_many() -> bool:
        return (await world.target.observe())["1.0"].ready == ready

    await eventually(so_many, f"{ready} ready")


async def test_an_archive_is_unpacked_where_the_command_runs(world, tmp_path) -> None:
    (tmp_path / "greeting.txt").write_text("hello")
    archive = tmp_path / "0123abcd"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "greeting.txt", "app/greeting.txt")
        tar.add(world.service, "app/service.py")
    version = Version("1.0", artifact="a" * 64, artifact_name="app.tar.gz", config={"command": command_in_archive()})
    await world.target.ensure(version, 1, str(archive), 1)
    await world.ready("1.0")
    await world.split(_1_0=10000)
    assert (await world.get()).version == "1.0"
    other = Version("1.0", artifact="b" * 64, artifact_name="app.tar.gz", config=version.config)
    with pytest.raises(UsageError, match="made from another artifact"):
        await world.target.ensure(other, 1, str(archive), 1)


def command_in_archive() -> list[str]:
    return ["sh", "-c", f"test -f app/greeting.txt && exec {sys.executable} -I -S app/service.py"]


async def test_a_version_never_changes_its_configuration(world) -> None:
    await world.up("1.0", env={"A": "1"})
    with pytest.raises(UsageError, match="already runs with another configuration"):
        await world.want("1.0", 1, env={"A": "2"})
    with pytest.raises(UsageError, match="knows no option 'comand'") as wrong:
        await world.want("2.0", 1, comand=["true"])
    assert "'command'" in wrong.value.hint


async def test_new_defaults_leave_a_version_alone_that_pinned_its_own(world) -> None:
    pinned = Version("1.0", config=world.plan.target_config)
    await world.target.ensure(pinned, 1, None, 1)
    await world.ready("1.0")
    changed = EnvironmentPlan("production", target_config={**world.plan.target_config, "env": {"NEW": "1"}})
    target = open_local(changed, world.folder).target
    await target.ensure(pinned, 2, None, 1)
    await world.ready("1.0", 2)
    assert (await world.replica("1.0"))["restarts"] == 0


async def test_an_agent_that_speaks_another_protocol_gives_way(world) -> None:
    """What an update of Forge finds: an agent of the version before, which leaves when it is asked to."""
    folder = EnvironmentFolder(world.folder)
    said: list[str] = []

    async def old_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        operation = json.loads(await reader.readline())["operation"]
        said.append(operation)
        if operation == "leave":
            server.close()
            agent_socket(folder.runtime()).unlink()
        writer.write(b'{"result": {"protocol": 0, "pid": 1}}\n')
        writer.close()

    server = await asyncio.start_unix_server(old_agent, str(agent_socket(folder.runtime())))
    await AgentClient(folder, "production", EnvoyRouterConfig()).start()
    assert said[:2] == ["hello", "leave"]
    assert (await world.status())["agent"] not in (None, 1)


async def test_an_agent_that_cannot_start_says_why(world) -> None:
    world.folder.mkdir(parents=True)
    (world.folder / "state.json").write_text("{broken")
    with pytest.raises(DependencyFailed, match=r"ended at its start: .*state.json cannot be read"):
        await world.target.observe()
    (world.folder / "state.json").unlink()
    assert await world.target.observe() == {}


async def test_a_version_can_come_back_right_after_it_went(world) -> None:
    for _ in range(3):
        await world.up("1.0")
        await world.target.remove("1.0", 1)
    await world.up("1.0")
    await world.split(_1_0=10000)
    assert (await world.get()).version == "1.0"


async def test_what_ignores_term_is_killed_after_its_grace_with_all_its_children(world, eventually) -> None:
    script = f"trap '' TERM; {sys.executable} -I -S {world.service} & sleep 600 & wait; wait"
    await world.up("1.0", command=["sh", "-c", script], stop_grace=0.3)
    pid = (await world.replica("1.0"))["pid"]
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(family) >= 3
    await world.target.remove("1.0", 1)

    async def gone() -> bool:
        return "1.0" not in await world.target.observe()

    await eventually(gone, "1.0 is gone")

    async def all_dead() -> bool:
        return not {process.pid for process in family} & (world.processes() | sleepers())

    await eventually(all_dead, "its children are gone too")


def sleepers() -> set[int]:
    running = psutil.process_iter(["pid", "cmdline", "status"])
    return {p.pid for p in running if p.info["cmdline"] == ["sleep", "600"] and p.info["status"] != "zombie"}


async def test_logs_are_read_followed_and_bounded_while_the_replica_writes(world, eventually, monkeypatch) -> None:
    talker = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done"
    await world.want("1.0", 1, command=["sh", "-c", talker], ready={"tcp": False})
    await world.ready("1.0")
    seen = []
    async for line in world.target.logs("1.0", follow=True, tail=1):
        seen.append(line)
        if len(seen) == 10:
            assert logs.rotate(EnvironmentFolder(world.folder).log("1.0", 1), limit=20)
        if len(seen) == 25:
            break
    assert all(line.startswith("1.0/1: line ") for line in seen)
    numbers = [int(line.split()[-1]) for line in seen]
    assert numbers == sorted(set(numbers))
    assert (await world.replica("1.0"))["restarts"] == 0
    folder = EnvironmentFolder(world.folder)
    assert logs.last_lines(folder.log("1.0", 1), 1000)[0] == "line 1"


async def test_taking_an_environment_down_leaves_its_logs_and_its_port(world) -> None:
    await world.up("1.0", replicas=2)
    await world.split(_1_0=10000)
    address = await world.router.address()
    world.token = 5
    await world.split(_1_0=10000)
    await shutdown(world.folder)
    assert world.processes() == set()
    down = await status(world.folder)
    assert (down["agent"], down["versions"], down["address"]) == (None, {}, address)
    assert [line async for line in world.target.logs(None, follow=False, tail=1)]
    assert await world.router.address() == address
    assert await world.target.observe() == {}
    await world.up("1.1")


async def test_removing_its_folder_ends_an_environment_and_its_path_can_be_used_again(world, eventually) -> None:
    await world.up("1.0")
    world.token = 9
    await world.split(_1_0=10000)
    before = world.processes()
    assert len(before) >= 3
    shutil.rmtree(world.folder)
    world.token = 1
    await world.up("1.1")
    assert set(await world.target.observe()) == {"1.1"}

    async def gone() -> bool:
        return not before & world.processes()

    await eventually(gone, "what ran before is gone")
    await world.split(_1_1=10000)
    assert (await world.get()).version == "1.1"


async def test_a_version_may_be_known_before_its_artifact_comes(world, tmp_path) -> None:
    (tmp_path / "site").mkdir()
    shutil.copy(world.service, tmp_path / "site" / "app.py")
    config = {"command": [*world.command[:-1], "app.py"]}
    version = Version("1.0", artifact="a" * 64, config=config)
    await world.target.ensure(version, 0, None, 1)
    assert (await world.target.observe())["1.0"].desired == 0
    await world.target.ensure(version, 1, str(tmp_path / "site"), 1)
    await world.ready("1.0")


async def test_taking_down_goes_on_when_the_agent_is_killed_meanwhile(world) -> None:
    script = "trap '' TERM; while true; do sleep 0.1; done"
    await world.up("1.0", command=["sh", "-c", script, str(world.service)], ready={"tcp": False}, stop_grace=1.0)
    agent = (await world.status())["agent"]
    down = asyncio.create_task(shutdown(world.folder))
    await asyncio.sleep(0.5)
    os.kill(agent, signal.SIGKILL)
    await down
    assert world.processes() == set()


async def test_sockets_that_a_cleaner_takes_away_come_back(world, eventually, monkeypatch) -> None:
    await world.up("1.0")
    agent = (await world.status())["agent"]
    agent_socket(EnvironmentFolder(world.folder).runtime()).unlink()

    async def answers() -> bool:
        return (await world.status())["agent"] == agent

    await eventually(answers, "the same agent answers")


async def test_a_very_long_path_is_no_obstacle(tmp_path) -> None:
    folder = tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 6)
    environment = open_local(EnvironmentPlan(name="production"), folder)
    try:
        assert (await environment.router.address()).startswith("http://127.0.0.1:")
    finally:
        await shutdown(folder)


async def test_a_replica_that_hangs_is_started_anew(world, eventually) -> None:
    live = {"http": "/", "interval": 0.1, "timeout": 0.3, "failures": 3}
    ready = {"http": "/", "interval": 0.05, "timeout": 0.3}
    await world.up("1.0", replicas=2, ready=ready, live=live, stop_grace=0.3, restart_delay=0.1)
    pids = [(await world.replica("1.0", number))["pid"] for number in (1, 2)]
    os.kill(pids[0], signal.SIGSTOP)  # it keeps its port open, and takes no TERM

    async def another_process_is_ready() -> bool:
        replica = await world.replica("1.0")
        return replica["ready"] and replica["pid"] not in {None, pids[0]} and replica["restarts"] == 1

    await eventually(another_process_is_ready, "the replica was started anew")
    assert not psutil.pid_exists(pids[0])
    other = await world.replica("1.0", 2)
    assert (other["pid"], other["restarts"]) == (pids[1], 0)


async def test_when_what_all_replicas_need_is_away_they_are_not_all_started_anew(world, eventually, tmp_path) -> None:
    needed = tmp_path / "dependency"
    needed.touch()
    live = {"command": ["test", "-e", str(needed)], "interval": 0.05, "failures": 2}
    await world.up("1.0", replicas=3, live=live, stop_grace=0.3, restart_delay=0.05)
    needed.unlink()

    async def one_went() -> bool:
        return (await world.target.observe())["1.0"].restarts == 1

    await eventually(one_went, "one replica was started anew")
    await asyncio.sleep(1.0)  # twenty checks of each
    count = (await world.target.observe())["1.0"]
    assert (count.restarts, count.ready) == (1, 3)
