"""The engine with everything real: database, worker, processes, artifacts, files."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from forge.adapters import source
from forge.engine.engine import Engine
from forge.engine.project import Project
from forge.model.decision import Event
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import Approval, Concurrency, JobPlan, Plan, Retry, SecretReference, Source, StepPlan
from forge.service.local_runs import LocalRuns
from forge.store.contract import Write

FINAL = {"succeeded", "failed", "cancelled", "rejected", "error"}


def run(script: str, **fields) -> StepPlan:
    return StepPlan("", "run", script.splitlines()[0], {"script": script}, **fields)


def steps(*made: StepPlan) -> tuple[StepPlan, ...]:
    """Number the steps, as the resolver does, unless they have an id."""
    return tuple(msgspec.structs.replace(step, id=step.id or str(number)) for number, step in enumerate(made, 1))


def always(script: str) -> StepPlan:
    return StepPlan("always-1", "run", "clean up", {"script": script}, run_on="always")


def job(name: str, *made: StepPlan, **fields) -> JobPlan:
    return JobPlan(name, name, steps(*made), **fields)


def pipeline(*jobs: JobPlan, **fields) -> Plan:
    return Plan("test", jobs, fields.pop("source", Source("")), **fields)


@pytest.fixture
def project(tmp_path) -> Project:
    root = tmp_path / "project"
    (root / "forge").mkdir(parents=True)
    (root / "forge" / "pipeline.yaml").write_text("jobs: {}\n")
    return Project(root)


@pytest.fixture
async def engine(project):
    async with Engine.open(project, max_parallel=2) as opened:
        yield opened


async def finish(engine: Engine, run_id: str, *statuses: str, seconds: float = 30):
    """Work until the run is final, or in one of `statuses`; return its state."""

    async def over() -> bool:
        state, _ = await engine.run_state(run_id)
        return state.status in (statuses or FINAL)

    async with asyncio.timeout(seconds):
        await engine.work(over)
    return (await engine.run_state(run_id))[0]


def log_of(engine: Engine, run_id: str, job_name: str, step: str = "1", attempt: int = 1) -> str:
    return engine.project.step_log(run_id, job_name, attempt, step).read_text()


async def events(engine: Engine, run_id: str) -> list[str]:
    return [stored.event.kind for stored in await engine.store.log.read(run_id)]


async def test_goes_from_source_to_a_shipped_artifact_past_a_gate(engine, project, tmp_path):
    (project.root / "app.txt").write_text("the app\n")
    (project.root / "k8s").mkdir()
    (project.root / "k8s" / "deployment.yaml").write_text("kind: Deployment\n")
    taken = await source.snapshot(project.root, engine.artifacts, tmp_path / "scratch")
    shipped = tmp_path / "shipped"
    ship = f"cat myapp.tar.gz k8s/deployment.yaml >> {shipped}"
    plan = pipeline(
        job(
            "build_and_test",
            StepPlan("", "checkout", "checkout .", {"path": "."}),
            run("cp app.txt myapp.tar.gz"),
            run("test -s myapp.tar.gz"),
            StepPlan("", "publish", "publish", {"name": "myapp.tar.gz"}),
        ),
        job(
            "deploy_staging",
            StepPlan("", "download", "download", {"name": "myapp.tar.gz"}),
            run(ship),
            depends_on=("build_and_test",),
        ),
        job(
            "deploy_production",
            StepPlan("", "download", "download", {"name": "myapp.tar.gz"}),
            run(ship),
            depends_on=("deploy_staging",),
            gate=Approval(),
        ),
        source=taken,
    )
    run_id = await engine.start_run(plan, actor="ana")
    waiting = await finish(engine, run_id, "waiting")
    assert waiting.jobs["deploy_production"].status == "waiting_approval"
    assert "approval" in waiting.waits_for
    assert shipped.read_text() == "the app\nkind: Deployment\n"

    await LocalRuns(engine).command(run_id, "approve", {"job": "deploy_production"}, actor="ben")
    done = await finish(engine, run_id)
    assert done.status == "succeeded", done.message
    assert shipped.read_text() == "the app\nkind: Deployment\n" * 2
    assert [artifact.name for artifact in await engine.artifacts_of(run_id)] == ["myapp.tar.gz"]
    assert await engine.store.log.verify() is None


def running_in(project: Project) -> list[int]:
    """Return the processes on this machine that steps of the project have started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FORGE_SCOPE") == str(project.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def until(condition, seconds: float = 20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def reached(engine: Engine, run_id: str, condition, seconds: float = 20):
    """Return the run's state as soon as it fulfils a condition; somebody else works on it."""
    async with asyncio.timeout(seconds):
        while not condition(state := (await engine.run_state(run_id))[0]):
            await asyncio.sleep(0.02)
    return state


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@asynccontextmanager
async def working(engine: Engine):
    """Work in the background."""
    stop = asyncio.Event()

    async def stopped() -> bool:
        return stop.is_set()

    task = asyncio.create_task(engine.work(stopped))
    yield
    stop.set()
    await task


class TestWhatStepsSee:
    async def test_a_clean_environment_with_what_was_declared(self, engine, monkeypatch):
        monkeypatch.setenv("LEAKED", "from the worker")
        show = "env | sort; pwd"
        gate = Approval()
        plan = pipeline(
            job("a", run('echo "tag=v${FORGE_PARAM_NUMBER}" >> "$FORGE_OUTPUT"')),
            job(
                "show", run(show, env={"WHERE": "${{ env.BASE }}/${{ jobs.a.outputs.tag }}", "LEVEL": "step"}),
                depends_on=("a",), env={"LEVEL": "job", "BASE": "${{ params.number }}"}, matrix={"os": "linux"}, gate=gate,
            ),
            env={"LEVEL": "pipeline", "BASE": "x"},
            parameters={"number": 7},
        )  # fmt: skip
        run_id = await engine.start_run(plan, actor="ana")
        await finish(engine, run_id, "waiting")
        await LocalRuns(engine).command(run_id, "approve", {}, actor="ben")
        done = await finish(engine, run_id)
        assert done.status == "succeeded", done.message
        lines = log_of(engine, run_id, "show").splitlines()
        for line in ("LEVEL=step", "BASE=7", "WHERE=7/v7", "FORGE_PARAM_NUMBER=7", "FORGE_MATRIX_OS=linux", "CI=true",
                     f"FORGE_RUN={run_id}", "FORGE_JOB=show", "FORGE_ACTOR=ana", f"HOME={os.environ['HOME']}"):  # fmt: skip
            assert line in lines
        assert not any(line.startswith("LEAKED") for line in lines)
        assert lines[-1] == str(engine.project.workspace(run_id, "show", 1))

    async def test_secrets_reach_the_step_and_nothing_else(self, engine, project, monkeypatch):
        monkeypatch.setenv("VAULT", "s3cr3t-value")
        (project.root / "token").write_text("t0ken-in-file\n")
        plan = pipeline(
            job(
                "a",
                run('echo "$PASSWORD and $TOKEN and $MADE"; test ${#PASSWORD} = 12; echo "out=$TOKEN" >> "$FORGE_OUTPUT"'),
                run('printf "%s" "${PASSWORD:0:6}"; sleep 0.1; echo "${PASSWORD:6}"; false'),
            ),
            secrets=(
                SecretReference("PASSWORD", env="VAULT"),
                SecretReference("TOKEN", file="token"),
                SecretReference("MADE", command=("sh", "-c", "printf made-; printf by-command")),
            ),
        )  # fmt: skip
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert done.status == "failed"
        assert log_of(engine, run_id, "a") == "*** and *** and ***\n"
        assert log_of(engine, run_id, "a", "2") == "***\n"
        assert done.jobs["a"].steps["1"].outputs == {"out": "***"}
        everything = b"".join(path.read_bytes() for path in project.state.rglob("*") if path.is_file())
        for secret in (b"s3cr3t-value", b"t0ken-in-file", b"made-by-command"):
            assert secret not in everything

    async def test_a_secret_that_is_not_there_is_an_error_that_names_it(self, engine):
        plan = pipeline(job("a", run("true")), secrets=(SecretReference("PASSWORD", env="NOT_SET_ANYWHERE"),))
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert done.status == "error"
        assert "`PASSWORD`" in done.message
        assert "NOT_SET_ANYWHERE" in done.message

    async def test_each_attempt_of_a_job_begins_in_a_fresh_workspace(self, engine):
        plan = pipeline(job("a", run('test ! -e left; touch left; test "$FORGE_JOB_ATTEMPT" = 2'), retry=Retry(2, 0.0)))
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert done.status == "succeeded", done.message
        assert done.jobs["a"].attempt == 2

    async def test_a_working_directory_outside_of_the_workspace_is_refused(self, engine):
        plan = pipeline(job("a", run("pwd", working_directory="../../..")))
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert done.status == "error"
        assert "out of the workspace" in done.message

    async def test_caches_are_found_by_the_next_run(self, engine):
        cache = StepPlan("", "cache", "cache", {"key": "deps", "paths": ["deps"]})
        plan = pipeline(job("a", cache, run("ls deps || mkdir deps; touch deps/one")))
        first = await engine.start_run(plan, actor="ana")
        await finish(engine, first)
        second = await engine.start_run(plan, actor="ana")
        done = await finish(engine, second)
        assert done.jobs["a"].steps["1"].outputs["hit"] is True
        assert log_of(engine, second, "a", "2") == "one\n"


class TestEndings:
    async def test_an_exit_code_is_the_works_failure(self, engine):
        plan = pipeline(
            job("bad", run("exit 3")), job("after", run("true"), depends_on=("bad",)), job("good", run("true"))
        )
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert done.status == "failed"
        assert {name: one.status for name, one in done.jobs.items()} == {
            "bad": "failed",
            "after": "blocked",
            "good": "succeeded",
        }
        assert done.jobs["bad"].steps["1"].exit_code == 3
        assert "exit code 3" in done.message

    async def test_a_retry_runs_only_what_failed(self, engine, tmp_path):
        count = tmp_path / "count"
        plan = pipeline(
            job("good", run(f"echo good >> {count}")),
            job("bad", run(f"echo bad >> {count}; test $(grep -c bad {count}) = 2"), depends_on=("good",)),
        )
        run_id = await engine.start_run(plan, actor="ana")
        assert (await finish(engine, run_id)).status == "failed"
        await LocalRuns(engine).command(run_id, "retry", {}, actor="ana")
        done = await finish(engine, run_id, "succeeded")
        assert done.attempt == 2
        assert count.read_text().split() == ["good", "bad", "bad"]
        with pytest.raises(UsageError, match="nothing to do again"):
            await LocalRuns(engine).command(run_id, "retry", {}, actor="ana")

    async def test_a_steps_timeout_ends_all_of_its_processes(self, engine):
        plan = pipeline(job("a", run("sleep 300 & sleep 301", timeout=0.3), always("true")))
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert done.jobs["a"].steps["1"].status == "timed_out"
        assert done.jobs["a"].steps["always-1"].status == "succeeded"
        assert not running_in(engine.project)

    async def test_a_jobs_timeout_stops_its_step(self, engine):
        plan = pipeline(job("a", run("sleep 300"), always("true"), timeout=0.5))
        run_id = await engine.start_run(plan, actor="ana")
        done = await finish(engine, run_id)
        assert (done.status, done.jobs["a"].steps["1"].status) == ("failed", "timed_out")
        assert done.jobs["a"].steps["always-1"].status == "succeeded"

    async def test_cancelling_ends_the_processes_before_it_cleans_up(self, engine, tmp_path):
        alive = tmp_path / "alive"
        script = f"set +e; trap 'sleep 0.3; rm {alive}; exit 1' TERM; touch {alive}; while true; do sleep 0.05; done"
        plan = pipeline(job("a", run(script), always(f"test ! -e {alive}")))
        run_id = await engine.start_run(plan, actor="ana")
        async with working(engine):
            await until(alive.exists)
            await LocalRuns(engine).command(run_id, "cancel", {"comment": "wrong branch"}, actor="ben")
            done = await reached(engine, run_id, lambda state: state.status in FINAL)
        assert done.status == "cancelled"
        assert done.jobs["a"].steps["always-1"].status == "succeeded"
        assert not running_in(engine.project)

    async def test_a_workspace_that_is_gone_makes_the_job_begin_again(self, engine, tmp_path):
        import shutil

        count = tmp_path / "count"
        gate = StepPlan("", "approve", "approve", {"approval": {}})
        plan = pipeline(job("a", run(f"echo made >> {count}; touch made"), gate, run("test -e made")))
        run_id = await engine.start_run(plan, actor="ana")
        await finish(engine, run_id, "waiting")
        shutil.rmtree(engine.project.workspace(run_id, "a", 1))
        await LocalRuns(engine).command(run_id, "approve", {}, actor="ana")
        async with working(engine):
            await reached(engine, run_id, lambda state: state.status == "waiting" and state.jobs["a"].attempt == 2)
            await LocalRuns(engine).command(run_id, "approve", {}, actor="ana")
            done = await reached(engine, run_id, lambda state: state.status in FINAL)
        assert done.status == "succeeded", done.message
        assert count.read_text().split() == ["made", "made"]
        assert "job_restarted" in await events(engine, run_id)


class TestGroups:
    async def test_runs_of_one_group_never_overlap(self, engine, tmp_path):
        lock, count = tmp_path / "lock", tmp_path / "count"
        script = f"mkdir {lock}; sleep 0.1; echo once >> {count}; rmdir {lock}"
        plan = pipeline(job("a", run(script), concurrency=Concurrency("deploy")))
        runs = [await engine.start_run(plan, actor="ana") for _ in range(4)]
        async with working(engine):
            for run_id in runs:
                done = await reached(engine, run_id, lambda state: state.status in FINAL)
                assert done.status == "succeeded", done.message
        assert count.read_text().split() == ["once"] * 4
        assert await engine.store.slots.holders("deploy") == []

    async def test_a_place_that_a_cut_off_worker_took_for_nobody_is_given_back(self, engine):
        plan = pipeline(job("a", run("true"), concurrency=Concurrency("deploy")))
        first = await engine.start_run(plan, actor="ana")
        await finish(engine, first)
        assert await engine.store.slots.ask("deploy", f"{first}/a@1", 1) == 0
        second = await engine.start_run(plan, actor="ana")
        assert (await finish(engine, second)).status == "succeeded"
        assert await engine.store.slots.holders("deploy") == []

    async def test_a_place_in_the_queue_that_a_cut_off_worker_left_holds_up_nobody(self, engine):
        plan = pipeline(job("a", run("true"), concurrency=Concurrency("deploy")))
        gone = await engine.start_run(plan, actor="ana")
        await finish(engine, gone)
        slots = engine.store.slots
        # The holder's own place is left too: the one that asks must get past both.
        assert [await slots.ask("deploy", f"{gone}/{name}@1", 1) for name in ("a", "b")] == [0, 1]
        assert await slots.ask("deploy", "run-99/a@1", 1) == 2, "of a run that is gone from the database"
        await slots.free("deploy", f"{gone}/b@1")
        await slots.ask("deploy", f"{gone}/a@0", 1)
        assert await slots.queue("deploy") == ["run-99/a@1", f"{gone}/a@0"]
        second = await engine.start_run(plan, actor="ana")
        assert (await finish(engine, second)).status == "succeeded"
        assert await slots.holders("deploy") == await slots.queue("deploy") == []

    async def test_a_place_is_asked_for_again_while_the_database_is_away(self, engine, monkeypatch):
        plan = pipeline(job("a", run("true"), concurrency=Concurrency("deploy")))
        slots, asks, frees = engine.store.slots, [], []
        ask, free = slots.ask, slots.free

        async def failing_ask(*words):
            asks.append(words)
            if len(asks) == 1:
                raise DependencyFailed("the database cannot be reached")
            return await ask(*words)

        async def failing_free(*words):
            frees.append(words)
            if len(frees) == 1:
                raise DependencyFailed("the database cannot be reached")
            await free(*words)

        monkeypatch.setattr(slots, "ask", failing_ask)
        monkeypatch.setattr(slots, "free", failing_free)
        done = await finish(engine, await engine.start_run(plan, actor="ana"))
        assert done.status == "succeeded", done.message
        assert (len(asks), len(frees)) == (2, 2)
        assert await slots.holders("deploy") == []

    async def test_a_newer_run_may_take_the_place_of_the_one_that_runs(self, engine, tmp_path):
        begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
        newest = Concurrency("preview", when_busy="cancel_running")
        old = pipeline(job("a", run(f"touch {begun}; sleep 300"), always(f"touch {cleaned}")), concurrency=newest)
        new = pipeline(job("a", run(f"test -e {cleaned}")), concurrency=newest)
        first = await engine.start_run(old, actor="ana")
        async with working(engine):
            await until(begun.exists)
            second = await engine.start_run(new, actor="ana")
            done = await reached(engine, second, lambda state: state.status in FINAL)
        assert done.status == "succeeded", done.message
        superseded, _ = await engine.run_state(first)
        assert superseded.status == "cancelled"
        assert superseded.cancel_requested == second
        assert "`preview`" in superseded.message


class TestKilled:
    """kill -9 of a worker process in the middle of a step; another one takes over."""

    @asynccontextmanager
    async def worker(self, project):
        program = Path(__file__).with_name("engine_program.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), str(project.root), "1.0", stdout=asyncio.subprocess.PIPE
        )
        assert await process.stdout.readline() == b"works\n"
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def test_what_had_finished_is_not_run_again_and_nothing_of_the_dead_one_survives(self, engine, tmp_path):
        count, go = tmp_path / "count", tmp_path / "go"
        second = f"echo two $$ >> {count}; while ! test -e {go}; do sleep 0.05; done"
        plan = pipeline(
            job(
                "a", run(f"echo one >> {count}; echo kept > file"), run(second), run(f"cat file; echo three >> {count}")
            )
        )
        run_id = await engine.start_run(plan, actor="ana")
        async with self.worker(engine.project) as process:
            await until(lambda: count.exists() and "two" in count.read_text())
            process.send_signal(signal.SIGKILL)
            await process.wait()
        go.touch()
        orphan = int(count.read_text().split()[-1])
        done = await finish(engine, run_id)
        assert done.status == "succeeded", done.message
        assert [word for word in count.read_text().split() if word.isalpha()] == ["one", "two", "two", "three"]
        assert not is_alive(orphan)
        assert done.jobs["a"].attempt == 1
        assert "run again" in log_of(engine, run_id, "a", "2")

    async def test_a_step_that_must_not_be_repeated_is_reported(self, engine, tmp_path):
        count = tmp_path / "count"
        plan = pipeline(
            job("a", run(f"echo one >> {count}; sleep 300", on_crash="report"), always(f"echo clean >> {count}"))
        )
        run_id = await engine.start_run(plan, actor="ana")
        async with self.worker(engine.project) as process:
            await until(count.exists)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        done = await finish(engine, run_id)
        assert done.status == "error"
        assert count.read_text().split() == ["one", "clean"]
        assert done.jobs["a"].steps["1"].status == "error"

    async def test_another_worker_takes_a_gate_over(self, engine, tmp_path):
        plan = pipeline(job("a", run("true")), job("b", run("true"), depends_on=("a",), gate=Approval()))
        run_id = await engine.start_run(plan, actor="ana")
        async with self.worker(engine.project):
            while (await engine.run_state(run_id))[0].status != "waiting":
                await asyncio.sleep(0.02)
        await LocalRuns(engine).command(run_id, "approve", {}, actor="ben")
        assert (await finish(engine, run_id)).status == "succeeded"


class TestTalkingToTheEngine:
    async def test_unknown_runs_and_jobs_are_refused_with_a_hint(self, engine):
        with pytest.raises(UsageError) as nothing:
            await engine.run_state("run-1")
        assert nothing.value.hint == "`forge run` starts one"
        run_id = await engine.start_run(pipeline(job("build", run("true"))), actor="ana")
        with pytest.raises(UsageError) as unknown:
            await LocalRuns(engine).command("run-11", "approve", {"job": "build"}, actor="ben")
        assert unknown.value.hint == f"did you mean `{run_id}`?"
        with pytest.raises(UsageError) as typo:
            await LocalRuns(engine).command(run_id, "cancel", {"job": "biuld"}, actor="ben")
        assert typo.value.hint == "did you mean `build`?"
        with pytest.raises(UsageError, match="still queued"):
            await LocalRuns(engine).command(run_id, "retry", {}, actor="ben")

    async def test_a_key_starts_one_run(self, engine):
        plan = pipeline(job("build", run("true")))
        assert await engine.start_run(plan, actor="ana", key="push-1") == await engine.start_run(
            plan, actor="ana", key="push-1"
        )
        assert await engine.start_run(plan, actor="ana") != await engine.start_run(plan, actor="ana")
        assert len((await LocalRuns(engine).page()).items) == 3
        assert await engine.unfinished() == ["run-1", "run-2", "run-3"]

    async def test_an_event_between_reading_and_waiting_is_told_at_once(self, engine, monkeypatch):
        run_id = await engine.start_run(pipeline(job("a", run("true"))), actor="ana")
        log, store = engine.store.log, engine.store
        read = log.read

        async def read_then_write(*words, **named):
            found = await read(*words, **named)
            if not found:
                monkeypatch.undo()
                (claim,) = await store.machines.claim("w", ("run",), 1, 30)
                await store.machines.write(claim, Write("queued", b"{}", events=(Event("late", "it came late"),)))
            return found

        monkeypatch.setattr(log, "read", read_then_write)
        async with asyncio.timeout(3):  # it would be seen only at the next look, after 5 s
            async for stored in engine.follow(run_id):
                if stored.event.kind == "late":
                    break

    async def test_events_can_be_followed_while_they_happen(self, engine):
        run_id = await engine.start_run(pipeline(job("a", run("true"))), actor="ana")
        seen = []
        async with working(engine), asyncio.timeout(20):
            async for stored in engine.follow(run_id):
                seen.append(stored.event.kind)
                if stored.event.kind == "run_finished":
                    break
        assert seen == [
            "run_created",
            "job_started",
            "step_started",
            "run_started",
            "step_finished",
            "job_finished",
            "run_finished",
        ]

    async def test_logs_of_all_attempts_can_be_read(self, engine):
        run_id = await engine.start_run(pipeline(job("a", run("echo hello; false"), retry=Retry(2, 0.0))), actor="ana")
        done = await finish(engine, run_id)
        assert done.jobs["a"].attempt == 2
        for attempt in (1, 2):
            part = await LocalRuns(engine).log(run_id, "a", attempt, "1")
            assert (part.data, part.ended) == (b"hello\n", True)

    async def test_a_plan_that_was_changed_on_disk_is_refused(self, engine):
        run_id = await engine.start_run(pipeline(job("a", run("true"))), actor="ana")
        state, plan = await engine.run_state(run_id)
        changed = msgspec.json.encode(msgspec.structs.replace(plan, name="other"))
        await engine.store.documents.put("plans", state.plan_digest, changed, replace=True)
        engine.plans._known.clear()
        with pytest.raises(Exception, match="not the one that was pinned"):
            await engine.run_state(run_id)
