"""What a command watches, and what of it need not be shown any more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forge.cli.subjects import Before, EnvironmentSubject, InboxSubject, RunSubject, TakenIn, before
from forge.model.decision import Command
from forge.service.base import Accepted
from forge.views.environment import EnvironmentView
from forge.views.release import ReleaseView
from forge.views.run import JobView, RunView


class Known:
    """A service that knows one run and one environment; the test says what it knows of them."""

    def __init__(self) -> None:
        self.run = RunView("run-1", "waiting", "", (JobView("ship", "waiting_approval"),))
        self.commands: list[Command] = []
        self.released: set[str] = set()
        self.asked: list[str] = []
        self.runs = self.environments = self.records = self

    async def get(self, name):
        return self.run if name == "run-1" else EnvironmentView(name, "stable", "1", (), ())

    async def plan(self, run):
        self.asked.append(run)
        return SimpleNamespace(environments=[SimpleNamespace(name=name) for name in ("staging", "production")])

    async def exists(self, name):
        self.asked.append(name)
        return name in self.released

    async def waiting(self, name):
        del name
        return self.commands

    async def last(self):
        return 41


def command(number: int) -> Command:
    return Command(number, "approve", "ann", 0.0)


async def test_a_run_that_waits_goes_on_once_a_word_is_taken_in():
    known = Known()
    subject = RunSubject(known, "run-1")  # type: ignore[arg-type]
    assert await subject.settled(known.run)
    known.commands = [command(1)]
    assert not await subject.settled(known.run)
    assert not await subject.settled(RunView("run-1", "succeeded", "", ())), "a retry may be on its way"
    known.commands = []
    assert not await subject.settled(RunView("run-1", "running", "", ()))
    assert await subject.settled(RunView("run-1", "failed", "", ()))


async def test_environments_belong_to_a_run_from_their_first_release_on():
    known = Known()
    subject = RunSubject(known, "run-1")  # type: ignore[arg-type]
    assert await subject.environments() == ()
    known.released = {"production"}
    assert await subject.environments() == ("production",)
    known.released = {"production", "staging"}
    assert await subject.environments() == ("production", "staging")
    before_last = len(known.asked)
    assert await subject.environments() == ("production", "staging")
    assert len(known.asked) == before_last, "what is known is not asked for again"
    assert known.asked.count("run-1") == 1


async def test_what_was_there_before_the_command_is_known():
    known = Known()
    assert await before(known) == Before(41, None)  # type: ignore[arg-type]
    assert await before(known, "run-1") == Before(41, known.run)  # type: ignore[arg-type]
    fresh = RunSubject(known, "run-1", Before(7, None))  # type: ignore[arg-type]
    assert await fresh.before() == Before(7, None)
    assert await RunSubject(known, "run-1").before() == Before(41, known.run)  # type: ignore[arg-type]
    assert await EnvironmentSubject(known, "production").before() == Before(41, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("waiting", "any_waits", "mine_waits"), [([], False, False), ([3], True, False), ([3, 4], True, True)]
)
async def test_a_command_is_taken_in_or_waits(waiting, any_waits, mine_waits):
    known = Known()
    known.commands = [command(number) for number in waiting]
    view = await known.get("production")
    mine = TakenIn(known, "production", Accepted("env-1", 4, 9))  # type: ignore[arg-type]
    assert await InboxSubject(known, "production").settled(view) is not any_waits  # type: ignore[arg-type]
    assert await mine.settled(view) is not mine_waits


async def test_an_environment_is_settled_when_a_person_is_needed_or_all_is_over():
    known = Known()
    subject = EnvironmentSubject(known, "production")  # type: ignore[arg-type]

    def view(state: str) -> EnvironmentView:
        release = ReleaseView("production-1", "production", "1", state, "canary", 0, (), 0, None)
        return EnvironmentView("production", "stable", "1", (), (release,))

    assert not await subject.settled(view("progressing"))
    for state in ("paused", "waiting_approval", "promoted", "rolled_back"):
        assert await subject.settled(view(state))
    known.commands = [command(1)]
    assert not await subject.settled(view("paused"))
    other = EnvironmentSubject(known, "production", release="production-2")  # type: ignore[arg-type]
    known.commands = []
    assert await other.settled(view("progressing")), "only the named one counts"
