"""What a run leaves in the database and on disk: its plan, its state in parts, its artifacts, its workspaces."""

from __future__ import annotations

import msgspec
import pytest

from forge.adapters.artifacts.memory import MemoryArtifacts
from forge.adapters.steps.base import PublishedArtifact
from forge.core.pipeline.decide import new_run
from forge.core.pipeline.state import JobState, StepState
from forge.engine.artifact_index import RunArtifacts, artifacts_of
from forge.engine.plans import Plans
from forge.engine.project import Project
from forge.engine.runs import RunMachine, encode_head, encode_parts, load_run
from forge.engine.workspaces import WorkspaceGone, Workspaces
from forge.model.errors import CorruptData, UsageError
from forge.model.plan import JobPlan, Plan, Source, StepPlan
from forge.store.contract import Record
from forge.store.database import open_store

STEPS = (StepPlan("1", "run", "one", {"script": "true"}), StepPlan("2", "approve", "two", {}))
PLAN = Plan(
    "p", tuple(JobPlan(name, name, STEPS) for name in ("b", "a", "c")), Source(""), parameters={"n": 1, "f": 2.5}
)


@pytest.fixture
async def documents(tmp_path):
    async with await open_store(f"sqlite:///{tmp_path / 'forge.db'}") as store:
        yield store.documents


def record(head, parts, version=1):
    return Record("run-7", "run", "", "queued", head, parts, 0.0, 0.0, None, version)


class TestState:
    def machine(self):
        return RunMachine(None, None, None)

    def test_a_state_comes_back_as_it_was_with_the_id_of_its_record(self):
        state = new_run(PLAN, "", actor="ana", at=5.0)
        back = load_run(record(encode_head(state), encode_parts(state)))
        assert back == msgspec.structs.replace(state, id="run-7")
        assert b"jobs" not in encode_head(state) or b'"jobs":{}' in encode_head(state)

    def test_a_head_without_parts_is_enough_for_a_list(self):
        state = new_run(PLAN, "", actor="ana", at=5.0)
        assert load_run(record(encode_head(state), {})).jobs == {}

    def test_a_job_that_did_not_change_is_not_encoded_again(self):
        machine, state = self.machine(), new_run(PLAN, "run-7", actor="ana", at=5.0)
        _, _, first = machine.dump(state)
        changed = msgspec.structs.replace(state, jobs={**state.jobs, "a": JobState("a", status="running")})
        status, _, second = machine.dump(changed)
        assert status == "queued"
        assert second["b"] is first["b"]
        assert second["a"] != first["a"]

    def test_a_run_of_a_newer_forge_is_left_alone(self):
        state = new_run(PLAN, "", actor="ana", at=5.0)
        with pytest.raises(CorruptData, match="newer Forge"):
            self.machine().load(record(encode_head(state), {}, version=99))


class TestPlans:
    async def test_a_plan_is_pinned_under_its_digest(self, documents):
        digest = await Plans(documents).pin(PLAN)
        found = await Plans(documents).get(digest)
        assert found == PLAN
        assert found.digest == digest

    async def test_one_digest_is_one_object_in_a_process(self, documents):
        plans = Plans(documents)
        digest = await plans.pin(PLAN)
        assert await plans.get(digest) is await plans.get(digest)

    async def test_a_plan_that_is_gone_or_broken_is_corrupt_data(self, documents):
        with pytest.raises(CorruptData, match="not in the database"):
            await Plans(documents).get("0" * 64)
        await documents.put("plans", "1" * 64, b'{"name": 3}')
        with pytest.raises(CorruptData, match="cannot be read"):
            await Plans(documents).get("1" * 64)


class TestArtifacts:
    def made(self, digest="d1", job="build", name="app.tar", at=1.0):
        return PublishedArtifact(name, digest, 3, "run-7", job, "1", "plan", "c0ffee", at)

    async def test_what_was_published_is_found(self, documents):
        index = RunArtifacts(documents, 1)
        await index.publish(self.made())
        assert await index.find("run-7", "app.tar") == self.made()
        assert await index.find("run-8", "app.tar") is None
        assert await index.find("run-7", "app") is None

    async def test_publishing_the_same_again_is_fine(self, documents):
        await RunArtifacts(documents, 1).publish(self.made())
        await RunArtifacts(documents, 1).publish(self.made(at=2.0))
        assert (await artifacts_of(documents, "run-7"))[0].created_at == 1.0

    async def test_artifacts_never_change_within_an_attempt(self, documents):
        await RunArtifacts(documents, 1).publish(self.made())
        with pytest.raises(UsageError, match="other contents"):
            await RunArtifacts(documents, 1).publish(self.made("d2"))

    async def test_a_later_attempt_of_the_job_may_publish_anew(self, documents):
        await RunArtifacts(documents, 1).publish(self.made())
        await RunArtifacts(documents, 2).publish(self.made("d2"))
        assert (await RunArtifacts(documents, 1).find("run-7", "app.tar")).digest == "d2"

    async def test_a_straggler_of_an_earlier_attempt_cannot_replace_it(self, documents):
        await RunArtifacts(documents, 2).publish(self.made("d2"))
        with pytest.raises(UsageError):
            await RunArtifacts(documents, 1).publish(self.made("d1"))

    async def test_two_jobs_cannot_publish_the_same_name(self, documents):
        await RunArtifacts(documents, 1).publish(self.made())
        with pytest.raises(UsageError, match="job `build` has published"):
            await RunArtifacts(documents, 9).publish(self.made(job="other"))

    async def test_they_are_listed_oldest_first_and_by_run(self, documents):
        index = RunArtifacts(documents, 1)
        await index.publish(self.made(name="late", at=2.0))
        await index.publish(self.made(name="early", at=1.0))
        await index.publish(msgspec.structs.replace(self.made(), run="run-70"))
        assert [artifact.name for artifact in await artifacts_of(documents, "run-7")] == ["early", "late"]


class TestWorkspaces:
    @pytest.fixture
    def workspaces(self, tmp_path):
        return Workspaces(Project(tmp_path), MemoryArtifacts())

    def job(self, **steps):
        return JobState("a", steps={name[1:]: StepState(*status) for name, status in steps.items()})

    async def prepare(self, workspaces, state, attempt=1):
        return await workspaces.prepare(PLAN, "run-7", PLAN.job("a"), state, attempt)

    async def test_it_is_made_once_and_kept_between_steps(self, workspaces):
        folder = await self.prepare(workspaces, self.job(_1=("running", 1)))
        (folder / "made").touch()
        assert await self.prepare(workspaces, self.job(_1=("succeeded", 1))) == folder
        assert (folder / "made").exists()

    async def test_each_attempt_has_its_own(self, workspaces):
        first = await self.prepare(workspaces, self.job())
        assert await self.prepare(workspaces, self.job(), attempt=2) != first

    async def test_one_that_was_half_made_when_forge_died_is_made_anew(self, workspaces):
        folder = await self.prepare(workspaces, self.job())
        (folder.parent / "ready").unlink()
        (folder / "half").touch()
        await self.prepare(workspaces, self.job(_1=("running", 1)))
        assert not (folder / "half").exists()

    async def test_one_that_is_gone_with_results_is_told(self, workspaces):
        folder = await self.prepare(workspaces, self.job())
        folder.rmdir()
        with pytest.raises(WorkspaceGone, match="not on this host"):
            await self.prepare(workspaces, self.job(_1=("succeeded", 1)))

    async def test_gates_and_skipped_steps_leave_nothing_to_lose(self, workspaces):
        await self.prepare(workspaces, self.job(_1=("skipped", 0), _2=("succeeded", 1)))
