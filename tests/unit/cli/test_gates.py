from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager

import pytest

from forge.cli import gates
from forge.cli.gates import Gatekeeper, ask_field, question
from forge.cli.render.paint import Paint
from forge.model.errors import NotAllowed, UsageError
from forge.service.gates import check_field, check_inputs, waiting_job
from forge.views.run import GateView, InputView, JobView, RunView

TICKET = InputView("ticket", description="the ticket", required=True)
REGION = InputView("region", "choice", default="eu", options=("eu", "us"))


def waiting(*inputs: InputView, since: float = 1.0, name: str = "ship") -> JobView:
    return JobView(name, "waiting_approval", waiting_since=since, gate=GateView("Well?", 1, (), inputs=inputs))


def run(*jobs: JobView, attempt: int = 1) -> RunView:
    return RunView("run-1", "waiting", "", jobs, attempt=attempt)


class Recorder:
    """A service as far as a gatekeeper sees it, and a progress; both remember."""

    def __init__(self, refuses: bool = False) -> None:
        self.sent: list[tuple] = []
        self.notes: list[str] = []
        self.refuses = refuses

    @property
    def runs(self):
        return self

    async def command(self, run, kind, payload, *, actor):
        if self.refuses:
            raise NotAllowed("you may not")
        self.sent.append((kind, run, *payload.values(), actor))

    def note(self, text):
        self.notes.append(text)

    @contextmanager
    def aside(self):
        yield


def keeper(recorder: Recorder, *, yes: bool = False, ask: bool = False) -> Gatekeeper:
    return Gatekeeper(recorder, actor="ann", yes=yes, ask=ask, paint=Paint())  # type: ignore[arg-type]


async def test_yes_approves_each_gate_once_and_says_so():
    recorder = Recorder()
    gatekeeper = keeper(recorder, yes=True)
    assert await gatekeeper.attend(run(waiting(REGION)), recorder)
    assert not await gatekeeper.attend(run(waiting(REGION)), recorder), "the second of two people is somebody else"
    assert recorder.sent == [("approve", "run-1", "ship", "--yes", {"region": "eu"}, "ann")]
    assert await gatekeeper.attend(run(waiting(REGION, since=9.0)), recorder), "a later gate is another one"
    assert await gatekeeper.attend(run(waiting(REGION, since=9.0), attempt=2), recorder)
    assert len(recorder.sent) == 3


async def test_yes_leaves_a_gate_that_needs_an_answer():
    recorder = Recorder()
    assert not await keeper(recorder, yes=True).attend(run(waiting(TICKET)), recorder)
    assert recorder.sent == []
    assert "forge approve run-1 ship -i ticket=…" in recorder.notes[0]


async def test_a_refusal_is_told_and_leaves_the_gate():
    recorder = Recorder(refuses=True)
    assert not await keeper(recorder, yes=True).attend(run(waiting()), recorder)
    assert recorder.notes == ["[ship] you may not"]


async def test_without_a_person_and_without_yes_nothing_happens():
    recorder = Recorder()
    assert not await keeper(recorder).attend(run(waiting()), recorder)
    assert recorder.sent == recorder.notes == []


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        (["y", "X-1", ""], [("approve", "run-1", "ship", "", {"ticket": "X-1", "region": "eu"}, "ann")]),
        (
            ["yes", "", "X-1", "mars", "us"],
            [("approve", "run-1", "ship", "", {"ticket": "X-1", "region": "us"}, "ann")],
        ),
        (["n", "too early"], [("reject", "run-1", "ship", "too early", "ann")]),
        (["l"], []),
        ([""], []),
    ],
)
async def test_a_person_is_asked(monkeypatch, answers, sent):
    asked = iter(answers)

    async def answer(_text: str) -> str:
        return next(asked)

    monkeypatch.setattr(gates, "question", answer)
    recorder = Recorder()
    assert await keeper(recorder, ask=True).attend(run(waiting(TICKET, REGION)), recorder) is bool(sent)
    assert recorder.sent == sent
    assert list(asked) == []


async def test_an_optional_field_may_be_left_out(monkeypatch):
    async def nothing(_text: str) -> str:
        return ""

    monkeypatch.setattr(gates, "question", nothing)
    assert await ask_field(InputView("note")) is None


@pytest.mark.parametrize(
    ("field", "answer", "fits"),
    [
        (InputView("n", "number"), "1.5", True),
        (InputView("n", "number"), "many", False),
        (InputView("b", "boolean"), "Yes", True),
        (InputView("b", "boolean"), "maybe", False),
        (REGION, "us", True),
        (REGION, "su", False),
        (InputView("s"), "anything at all", True),
    ],
)
def test_answers_are_checked(field, answer, fits):
    if fits:
        assert check_field(field, answer) == answer
        return
    with pytest.raises(UsageError):
        check_field(field, answer)


async def test_a_question_is_answered_by_one_line_and_ends_with_the_input(monkeypatch, capsys):
    read, write = os.pipe()
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        asking = asyncio.create_task(question("well? "))
        await asyncio.sleep(0.01)
        os.write(write, b"ye")
        await asyncio.sleep(0.01)
        assert not asking.done()
        os.write(write, b"s \n")
        assert await asyncio.wait_for(asking, 5) == "yes"
        os.close(write)
        assert await asyncio.wait_for(question("again? "), 5) == ""
    assert capsys.readouterr().err == "well? again? "


def test_the_job_may_be_left_out_when_one_waits():
    two = (JobView("build", "succeeded"), waiting())
    assert waiting_job("run-1", "", two).name == "ship"
    assert waiting_job("run-1", "ship", two).name == "ship"
    for name, jobs in [("", (*two, waiting(name="other"))), ("", two[:1]), ("build", two), ("shop", two)]:
        with pytest.raises(UsageError) as raised:
            waiting_job("run-1", name, jobs)
        assert raised.value.hint


def test_fields_of_a_gate_are_completed_and_checked():
    gate = waiting(TICKET, REGION)
    assert check_inputs(gate, {"ticket": "X"}) == {"ticket": "X", "region": "eu"}
    for given in ({}, {"ticket": "X", "regoin": "us"}, {"ticket": "X", "region": "mars"}):
        with pytest.raises(UsageError):
            check_inputs(gate, given)
