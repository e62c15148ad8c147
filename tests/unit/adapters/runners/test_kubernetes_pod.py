"""The pod of a step while it is waited for, by what a cluster may say of it that no test cluster is made to say."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from forge.adapters.kubernetes.errors import PERMISSIONS
from forge.adapters.runners import kubernetes_pod
from forge.adapters.runners.kubernetes_pod import StepPod
from forge.model.errors import DependencyFailed

RUNNING = {"running": {}}


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason}}


def pod(
    state: dict[str, Any] | None, *, name: str = "p-1", created: str = "2026-01-01T00:00:00Z", **status: Any
) -> Any:
    statuses = [{"name": "step", "state": state}] if state is not None else []
    metadata = {"name": name, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {}, "status": {"containerStatuses": statuses, **status}}


def job(condition: str = "", reason: str = "") -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True", "reason": reason}] if condition else []
    return {"metadata": {"name": "j"}, "status": {"conditions": conditions}}


class Cluster:
    """Shows one moment after the other, the last one for ever; an exception is a cluster that does not answer."""

    def __init__(self, *moments: Any) -> None:
        self.moments = list(moments)
        self.looks = 0
        self.now: Any = None

    async def get(self, kind: Any, name: str) -> Any:
        self.looks += 1
        self.now = self.moments.pop(0) if len(self.moments) > 1 else self.moments[0]
        if isinstance(self.now, Exception):
            raise self.now
        return self.now[0]

    async def objects(self, kind: Any, **_selectors: str) -> Any:
        return ([] if kind.name == "Event" else self.now[1]), "1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_pod, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(kubernetes_pod, "LOOK", 0.03)


class Watched:
    def __init__(self, *moments: Any, start_timeout: float = 60.0) -> None:
        self.cluster = Cluster(*moments)
        self.said: list[str] = []
        self.begun = 0
        self.step = StepPod(self.cluster, "j", self.said.append, start_timeout)  # type: ignore[arg-type]

    async def begin(self) -> None:
        self.begun += 1

    async def to_its_end(self) -> Any:
        async with asyncio.timeout(20):
            await self.step.watch(self.begin, None)
        return self.step.finished(1.0)


async def test_a_command_is_watched_from_nothing_to_its_end() -> None:
    watched = Watched(
        (job(), []),
        (job(), [pod(None)]),
        (job(), [pod(RUNNING)]),
        (job("Failed", "BackoffLimitExceeded"), [pod(ended(3))]),
    )
    finished = await watched.to_its_end()
    assert (finished.exit_code, finished.timed_out, finished.reason) == (3, False, "")
    assert watched.begun == 2
    assert watched.said == []


async def test_the_log_is_begun_for_a_command_that_ended_between_two_looks() -> None:
    watched = Watched((job(), []), (job("Complete"), [pod(ended(0, "Completed"))]))
    assert (await watched.to_its_end()).exit_code == 0
    assert watched.begun == 1


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ((job("Failed"), [pod(ended(137), reason="Evicted", message="low on memory", phase="Failed")]),
         "the node gave the pod up: Evicted: low on memory"),
        ((job("Failed", "BackoffLimitExceeded"), [pod(RUNNING, phase="Failed", reason="NodeLost")]),
         "the node gave the pod up: NodeLost"),
        ((job("Failed", "BackoffLimitExceeded"), []), "the command did not come to its end: BackoffLimitExceeded"),
        ((None, []), "the Job j was deleted by somebody else"),
        ((job("Failed"), [pod(ended(143), conditions=[
            {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "node lost"}])]),
         "the pod was taken away: DeletionByTaintManager: node lost"),
    ],
)  # fmt: skip
async def test_what_the_cluster_did_is_no_failure_of_the_work(moment: Any, words: str) -> None:
    with pytest.raises(DependencyFailed) as raised:
        await Watched((job(), [pod(RUNNING)]), moment).to_its_end()
    assert raised.value.message == words


async def test_a_command_that_succeeded_has_succeeded_whatever_came_then() -> None:
    gone = pod(ended(0, "Completed"), reason="Evicted")
    assert (await Watched((job("Failed"), [gone])).to_its_end()).exit_code == 0


async def test_the_clusters_own_time_limit_is_a_time_limit() -> None:
    moment = (job("Failed", "DeadlineExceeded"), [pod(ended(143), phase="Failed")])
    assert (await Watched(moment).to_its_end()).timed_out


async def test_the_newest_pod_counts() -> None:
    old, new = (
        pod(ended(1), name="old", created="2026-01-01T00:00:00Z"),
        pod(RUNNING, name="new", created="2026-01-01T00:00:09Z"),
    )
    watched = Watched((job(), [new, old]))
    await watched.step.look()
    assert watched.step.pod_name == "new"
    assert not watched.step.ended


async def test_a_cluster_that_is_away_for_a_moment_is_told_once_and_asked_again() -> None:
    away = DependencyFailed("c: list pods: no answer within 10 s")
    watched = Watched((job(), [pod(RUNNING)]), away, away, away, (job("Complete"), [pod(ended(0))]))
    assert (await watched.to_its_end()).exit_code == 0
    assert watched.said == ["forge: c: list pods: no answer within 10 s; asked again"]


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_pod, "PATIENCE", 0.1)
    with pytest.raises(DependencyFailed, match="no answer"):
        await Watched(DependencyFailed("no answer")).to_its_end()


async def test_what_is_not_allowed_is_not_asked_again() -> None:
    watched = Watched(DependencyFailed("not allowed to list pods", hint=PERMISSIONS))
    with pytest.raises(DependencyFailed, match="not allowed to list pods"):
        await watched.to_its_end()
    assert watched.cluster.looks == 1


async def test_an_obstacle_is_told_once_and_may_go_away() -> None:
    stuck = pod(None, conditions=[{"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}])
    watched = Watched((job(), [stuck]), (job(), [stuck]), (job(), [pod(RUNNING)]), (job("Complete"), [pod(ended(0))]))
    assert (await watched.to_its_end()).exit_code == 0
    assert watched.said == ["forge: no node takes the pod: 0/2 nodes"]


async def test_a_pod_that_does_not_begin_in_time_is_given_up() -> None:
    watched = Watched((job(), [pod({"waiting": {"reason": "ContainerCreating"}})]), start_timeout=0.1)
    with pytest.raises(DependencyFailed, match=r"the pod did not begin within 0\.1s: no reason was given"):
        await watched.to_its_end()


async def test_the_end_of_a_log_is_a_reason_to_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_pod, "FIRST_LOOK", 30.0)
    monkeypatch.setattr(kubernetes_pod, "LOOK", 30.0)
    watched = Watched((job(), [pod(RUNNING)]), (job("Complete"), [pod(ended(0))]))
    task = asyncio.create_task(watched.to_its_end())
    await asyncio.sleep(0.05)
    began = time.monotonic()
    assert watched.step.ended_now() is False
    assert (await task).exit_code == 0
    assert time.monotonic() - began < 5
