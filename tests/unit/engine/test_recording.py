"""What goes on record, when, and what does not."""

from __future__ import annotations

import zlib

import pytest
from msgspec.structs import replace

from forge.core.release.replay import state_digest
from forge.core.release.state import EnvironmentState
from forge.engine import recording
from forge.engine.recording import LOOKS_TOGETHER, Recorder, read, rules
from forge.model.decision import Action, Command, Decision, Event, Outcome
from forge.model.errors import CorruptData
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Observation

START = EnvironmentState("production", EnvironmentPlan("production"))


class Story:
    """An environment whose state is but a number that grows with every look."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.state = START
        self.now = 0.0
        self.records = []

    def tick(self, *, same: bool = False, wake: bool = True, commands=(), outcomes=(), **answer) -> bytes:
        self.now += 1.0
        after = self.state if same else replace(self.state, asked_at=self.now)
        decision = Decision(after, wake_at=self.now + 1 if wake else None, **answer)
        body = self.recorder.record(self.state, Observation(self.now), commands, outcomes, self.now, decision)
        self.state = after
        if body:
            self.records.append(read(body, len(self.records) + 1))
        return body


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.mark.parametrize(
    "something",
    [
        {"events": (Event("a", "b"),)},
        {"actions": (Action("a", "ensure"),)},
        {"cancel": ("a",)},
        {"commands": (Command(1, "pause", "ann", 1.0),)},
        {"outcomes": (Outcome("a", "succeeded", 1.0),)},
        {"wake": False},
    ],
)
def test_what_has_consequences_is_written_at_once_with_the_looks_before_it(story, something):
    assert story.tick() == b""
    assert story.tick() == b""
    assert story.tick(**something)
    (segment,) = story.records
    assert [tick.now for tick in segment.ticks] == [1.0, 2.0, 3.0]
    assert segment.start == START
    assert segment.before == state_digest(START)
    assert segment.ticks[-1].after == state_digest(story.state)
    assert segment.rules == rules()


def test_a_look_that_changes_nothing_is_not_on_record(story):
    for _ in range(1000):
        assert story.tick(same=True) == b""
    assert story.tick(events=(Event("a", "b"),))
    assert len(story.records[0].ticks) == 1


def test_looks_are_written_together(story):
    for _ in range(LOOKS_TOGETHER * 2):
        story.tick()
    assert [len(segment.ticks) for segment in story.records] == [LOOKS_TOGETHER, LOOKS_TOGETHER]
    assert story.records[1].start is None
    assert story.records[1].before == story.records[0].ticks[-1].after


def test_of_a_long_quiet_time_only_the_last_looks_are_kept(story):
    for _ in range(5000):
        story.tick()
    assert len(story.records) == 10
    story.tick(events=(Event("a", "b"),))
    last = story.records[-1]
    assert len(last.ticks) == LOOKS_TOGETHER + 1
    assert last.start is not None
    assert last.before == state_digest(last.start)
    assert last.passed == 5001 - 600 - len(last.ticks)
    story.tick(events=(Event("a", "b"),))
    assert (story.records[-1].start, story.records[-1].passed) == (None, 0)


def test_what_happens_begins_the_quiet_time_anew(story):
    for _ in range(5):
        for _ in range(500):
            story.tick()
        story.tick(events=(Event("a", "b"),))
    assert sum(len(segment.ticks) for segment in story.records) == 5 * 501
    assert all(segment.passed == 0 for segment in story.records)


def test_a_state_that_was_read_anew_but_is_the_same_goes_on(story):
    story.tick(events=(Event("a", "b"),))
    story.state = replace(story.state)
    story.tick(events=(Event("a", "b"),))
    assert story.records[1].start is None


def test_a_state_that_is_another_one_begins_a_record_with_itself(story):
    story.tick(events=(Event("a", "b"),))
    before = story.state
    story.tick()
    story.state = before  # the write of that look was lost
    story.tick(events=(Event("a", "b"),))
    assert story.records[1].start == before
    assert [tick.now for tick in story.records[1].ticks] == [3.0]


def test_now_and_then_a_record_begins_with_the_whole_state(story):
    for _ in range(200):
        story.tick(events=(Event("a", "b"),))
    whole = [number for number, segment in enumerate(story.records) if segment.start is not None]
    assert whole == [0, 51, 102, 153]


def test_the_signal_readers_memory_is_not_on_record(story):
    story.state = replace(START, signals_state={"secret": "of the reader"})
    body = story.tick(events=(Event("a", "b"),))
    assert b"of the reader" not in zlib.decompress(body)


def test_the_rules_have_a_name_that_stays(monkeypatch):
    name = rules()
    assert name.startswith(recording.__version__ + "+")
    rules.cache_clear()
    assert rules() == name


def test_other_rules_have_another_name(monkeypatch):
    name = rules()
    sources = recording._sources

    def changed(folder, path):
        return [(file, content + b"\n") for file, content in sources(folder, path)]

    rules.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(recording, "_sources", changed)
        assert rules() != name
    rules.cache_clear()


@pytest.mark.parametrize("body", [b"", b"nonsense", zlib.compress(b"{}"), zlib.compress(b"\xff")])
def test_a_record_that_cannot_be_read_says_which(body):
    with pytest.raises(CorruptData, match="record 7 "):
        read(body, 7)


def test_a_tick_is_recorded_in_well_under_a_millisecond(story):
    import time

    begun = time.process_time()
    for _ in range(2000):
        story.tick()
    assert time.process_time() - begun < 2.0
