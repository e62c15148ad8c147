"""The logs of the local target: nothing twice, nothing lost, whatever happens to the files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.adapters.signals import log_files
from forge.adapters.signals.log_files import GrowingLog
from forge.adapters.signals.logs import Config, ProcessLogs
from forge.adapters.signals.registry import SourceContext, open_source
from forge.adapters.targets.local.folders import EnvironmentFolder
from forge.adapters.targets.local.logs import rotate
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan, SourcePlan


class Logs:
    """The log files of an environment, and a source that reads them."""

    def __init__(self, root: Path, **config) -> None:
        self.folder = EnvironmentFolder(root)
        self.config = Config(**config)
        self.source = self.another()

    def another(self) -> ProcessLogs:
        return ProcessLogs("logs", self.folder, self.config)

    def path(self, version: str = "v1", replica: int = 1) -> Path:
        path = self.folder.log(version, replica)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, *lines: str, version: str = "v1", replica: int = 1, end: str = "\n") -> None:
        with self.path(version, replica).open("a") as file:
            file.write("\n".join(lines) + end)

    def count(self, version: str = "v1", *, looks: int = 2) -> int:
        """Errors so far: an error at the end of a file is complete when a second look finds nothing more."""
        for _ in range(looks):
            found = self.source._read([version], 1.0)
        return found[version].log_errors or 0


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_errors_of_all_replicas_are_counted_once(logs: Logs) -> None:
    logs.write("INFO up", "ERROR a 1", "INFO b")
    logs.write("ERROR a 2", "INFO b", replica=2)
    assert logs.count() == 2
    assert logs.count() == 2
    logs.write("ERROR a 3")
    assert logs.count() == 3
    (kind,) = logs.source._read(["v1"], 2.0)["v1"].templates
    assert (kind.text, kind.lines, kind.example) == ("ERROR a <num>", 3, "ERROR a 3")


def test_a_version_without_a_log_has_no_word(logs: Logs) -> None:
    logs.write("INFO up")
    assert set(logs.source._read(["v1", "v2"], 1.0)) == {"v1"}


def test_versions_are_told_apart_whatever_they_are_called(logs: Logs) -> None:
    logs.write("ERROR a", version="../x")
    logs.write("ERROR b", "ERROR c", version="x")
    assert (logs.count("../x"), logs.count("x")) == (1, 2)


def test_a_line_is_read_when_it_is_whole(logs: Logs) -> None:
    logs.write("INFO up", "ERR", end="")
    assert logs.count() == 0
    logs.write("OR x")
    assert logs.count() == 1


def test_a_trace_that_is_written_in_pieces_is_one_error(logs: Logs) -> None:
    logs.write("INFO up")
    logs.count()
    logs.write("ERROR paying", "Traceback (most recent call last):", '  File "a.py", line 1, in f')
    assert logs.count(looks=1) == 0
    logs.write("    raise", "ValueError: boom")
    assert logs.count() == 1
    (kind,) = logs.source._read(["v1"], 2.0)["v1"].templates
    assert kind.text == "ERROR paying | ValueError: boom"


def test_a_log_that_was_rotated_is_read_to_its_end(logs: Logs) -> None:
    logs.write("ERROR a", "INFO b")
    assert logs.count() == 1
    logs.write("ERROR c", "INFO d")
    assert rotate(logs.path(), limit=1)
    logs.write("ERROR e", "INFO f")
    assert logs.count(looks=4) == 3
    assert logs.count() == 3


def test_a_reader_in_the_middle_of_a_rotation_waits(logs: Logs) -> None:
    logs.write("ERROR a", "INFO b")
    assert logs.count() == 1
    logs.write("ERROR c", "INFO d")
    path = logs.path()
    coming = path.with_name(f"{path.name}.new")
    coming.write_bytes(path.read_bytes())
    os.truncate(path, 0)
    assert logs.count() == 1
    coming.rename(path.with_name(f"{path.name}.1"))
    assert logs.count(looks=4) == 2


def test_a_log_that_was_emptied_is_read_from_its_beginning(logs: Logs) -> None:
    logs.write("ERROR a", "ERROR b")
    assert logs.count() == 2
    os.truncate(logs.path(), 0)
    logs.write("ERROR c")
    assert logs.count() == 3


def test_a_log_that_is_gone_takes_no_counts_along_and_may_come_back(logs: Logs) -> None:
    logs.write("ERROR a", "ERROR b")
    logs.write("INFO", replica=2)
    assert logs.count() == 2
    logs.path().unlink()
    assert logs.count() == 2
    logs.write("ERROR c")
    assert logs.count() == 3


def test_another_file_of_the_same_name_is_read_from_its_beginning(logs: Logs, tmp_path: Path) -> None:
    logs.write("ERROR a", "INFO", "INFO")
    assert logs.count() == 1
    (tmp_path / "other").write_text("ERROR b\nINFO\nINFO\nINFO\n")
    (tmp_path / "other").rename(logs.path())
    assert logs.count() == 2


def test_a_restart_of_forge_counts_nothing_twice_and_misses_nothing(logs: Logs) -> None:
    logs.write("ERROR a", "INFO b", "ERROR open")
    assert logs.count(looks=1) == 1
    state = json.loads(json.dumps(logs.source.state()))
    logs.write("  at x", "ERROR c", "INFO d")
    logs.source = logs.another()
    logs.source.restore(state)
    assert logs.count() == 3


@pytest.mark.parametrize(
    "state",
    [{"places": 3}, {"places": {"../../etc/passwd": {"inode": 1, "position": 0}}}, {"kinds": {"lines": 4}}, {}],
)
def test_a_state_that_does_not_fit_is_ignored(logs: Logs, state) -> None:
    logs.source.restore(state)
    logs.write("ERROR a", "INFO")
    assert logs.count() == 1


def test_the_state_of_a_log_that_was_removed_is_forgotten(logs: Logs) -> None:
    for replica in range(5):
        logs.write("INFO", replica=replica)
    logs.count()
    for replica in range(4):
        logs.path(replica=replica).unlink()
    logs.count()
    assert len(logs.source.state()["places"]) == 1


def test_the_first_look_at_a_version_reads_the_end_of_its_log(logs: Logs, monkeypatch) -> None:
    monkeypatch.setattr("forge.adapters.signals.logs.FIRST_LOOK", 1000)
    logs.write(*[f"ERROR line {number:05}" for number in range(1000)], "INFO")
    assert 40 < logs.count() < 65


def test_a_replica_that_comes_later_is_read_from_its_beginning(logs: Logs, monkeypatch) -> None:
    monkeypatch.setattr("forge.adapters.signals.logs.FIRST_LOOK", 100)
    logs.write("INFO up")
    logs.count()
    logs.write(*[f"ERROR line {number:05}" for number in range(100)], "INFO", replica=2)
    assert logs.count() == 100


def test_what_is_too_much_is_skipped_and_told(logs: Logs, monkeypatch) -> None:
    monkeypatch.setattr(log_files, "TOO_MUCH", 10_000)
    monkeypatch.setattr(log_files, "AT_ONCE", 1_000)
    logs.write("INFO up")
    logs.count()
    logs.write(*[f"ERROR line {number:05}" for number in range(2000)], "INFO")
    assert 40 < logs.count() < 65
    assert "skipped" in logs.source._skipped()


def test_a_large_backlog_is_read_over_several_looks(logs: Logs, monkeypatch) -> None:
    monkeypatch.setattr("forge.adapters.signals.logs.AT_ONCE", 1_000)
    logs.write("INFO up")
    logs.count()
    logs.write(*[f"ERROR line {number:05}" for number in range(200)], "INFO")
    first = logs.count(looks=1)
    assert 30 < first < 65
    assert logs.count(looks=10) == 200


def test_a_flood_of_one_version_keeps_no_other_from_being_read(logs: Logs, monkeypatch) -> None:
    monkeypatch.setattr("forge.adapters.signals.logs.AT_ONCE", 10_000)
    for version in ("v1", "v2"):
        logs.write("INFO up", version=version)
        logs.count(version)
    logs.write(*["ERROR flood"] * 20_000, "INFO")
    logs.write("ERROR one", "INFO", version="v2")
    found = logs.source._read(["v1", "v2"], 1.0)
    assert found["v2"].log_errors == 1
    assert (found["v1"].log_errors or 0) > 100


def test_a_flood_is_counted_whole_and_sorted_in_part(logs: Logs) -> None:
    logs.write("INFO up")
    logs.count()
    logs.write(*["ERROR flood"] * 5_000, "INFO")
    assert logs.count() == 5_000
    (kind,) = logs.source._read(["v1"], 2.0)["v1"].templates
    assert kind.lines == 1_000


def test_a_file_without_line_ends_is_not_kept_in_memory(logs: Logs) -> None:
    logs.write("x" * 3_000_000, end="")
    assert logs.count(looks=4) == 0
    logs.write("", "ERROR a", "INFO")
    assert logs.count(looks=4) == 1


def test_bytes_that_are_no_text_are_no_obstacle(logs: Logs) -> None:
    logs.path().write_bytes(b"\xff\xfe\x00ERROR \xc3\x28\n\x80\x81\nINFO\n")
    assert logs.count() == 1
    json.dumps(logs.source.state())


def test_a_log_that_may_not_be_read_is_no_zero(logs: Logs) -> None:
    logs.write("ERROR a")
    logs.path().unlink()
    logs.path().mkdir()
    with pytest.raises(DependencyFailed, match="logs"):
        logs.source._read(["v1"], 1.0)


async def test_examining_tells_the_counts(logs: Logs) -> None:
    logs.write("ERROR a", "INFO")
    (result,) = await logs.source.examine(["v1", "v2"], 5.0)
    assert (result.values, result.problem) == ({"v1": 1.0, "v2": None}, "")


def test_what_the_user_says_is_an_error(tmp_path: Path) -> None:
    logs = Logs(tmp_path, errors="^!!", ignore=("harmless",))
    logs.write("!! one", "ERROR two", "!! harmless", "INFO")
    assert logs.count() == 1


async def no_secret(name: str) -> str:
    raise AssertionError(name)


def test_it_is_opened_by_its_name_alone(tmp_path: Path) -> None:
    context = SourceContext(EnvironmentPlan("production"), tmp_path, no_secret)
    source = open_source(SourcePlan("logs", "logs", {}), context)
    assert source.gives == {"logs", "templates"}


def test_a_target_without_logs_here_is_an_error(tmp_path: Path) -> None:
    context = SourceContext(EnvironmentPlan("production", target="kubernetes"), tmp_path, no_secret)
    with pytest.raises(UsageError, match="keeps no logs on this machine"):
        open_source(SourcePlan("logs", "logs", {}), context)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 4)),
        st.just(("rotate", 0)),
        st.just(("read", 0)),
        st.just(("restart", 0)),
        st.just(("part", 0)),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(STEPS)
def test_every_line_counts_once_over_rotations_and_restarts(tmp_path_factory, steps) -> None:
    logs = Logs(tmp_path_factory.mktemp("logs"))
    logs.write("INFO up")
    logs.count()
    written = before = 0
    rotated = False
    for step, number in steps:
        if step == "write":
            for _ in range(number):
                logs.write("ERROR x", "  at y", "INFO z")
            written += number
        elif step == "part":
            logs.write("ERROR ", end="")
            logs.write("in parts", "INFO z")
            written += 1
        elif step == "rotate" and not rotated:
            rotated = rotate(logs.path(), limit=0)  # twice in a row without a look would lose lines
        elif step == "restart":
            state = json.loads(json.dumps(logs.source.state()))
            logs.source = logs.another()
            logs.source.restore(state)
        elif step == "read":
            now = logs.count()
            assert before <= now <= written
            before, rotated = now, False
    assert logs.count(looks=6) == written


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_any_bytes_are_read_once(tmp_path_factory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "1.log"
    path.write_bytes(b"")
    log = GrowingLog(path)
    log.read()
    lines: list[str] = []
    for piece in pieces:
        with path.open("ab") as file:
            file.write(piece)
        while (found := log.read(most=1000)).lines:
            lines += found.lines
            log.done(found.ends[-1])
    data = b"".join(pieces)
    whole = data.split(b"\n")
    assert lines == [line.decode(errors="replace") for line in whole[:-1]]
