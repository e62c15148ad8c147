from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge.cli.tail import LONGEST_LINE, LogTail, last_lines
from forge.service.base import LogPart

LINES = st.lists(st.text(st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8"), max_size=30), max_size=20)  # fmt: skip


def of(path: Path):
    """Read a file as a service reads a log: never beyond its end."""

    async def read(offset: int, limit: int) -> LogPart:
        data = path.read_bytes() if path.exists() else b""
        begin = max(0, len(data) + offset) if offset < 0 else min(offset, len(data))
        return LogPart(data[begin : begin + limit], begin, len(data), False)

    return read


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(LINES, st.integers(1, 7), st.booleans())
async def test_lines_come_whole_once_and_in_order_however_they_are_cut(tmp_path: Path, lines, piece, newline):
    path = tmp_path / "log"
    path.write_bytes(b"")
    data = "\n".join(lines).encode() + (b"\n" if newline and lines else b"")
    tail = LogTail(of(path))
    seen: list[str] = []
    with path.open("ab", buffering=0) as file:
        for at in range(0, len(data), piece):
            file.write(data[at : at + piece])
            seen += await tail.lines(at_most=piece + 1)
    while more := await tail.lines(ended=True):
        seen += more
    expected = data.decode().split("\n")
    assert seen == (expected[:-1] if expected[-1] == "" else expected)
    assert tail.backlog == 0


async def test_a_file_that_is_not_there_yet_is_no_error(tmp_path):
    tail = LogTail(of(tmp_path / "none"))
    assert await tail.lines(ended=True) == []
    (tmp_path / "none").write_text("now\n")
    assert await tail.lines() == ["now"]


async def test_a_line_without_an_end_is_held_back_until_the_end(tmp_path):
    path = tmp_path / "log"
    path.write_text("half")
    tail = LogTail(of(path))
    assert await tail.lines() == []
    path.write_text("half a line")
    assert await tail.lines(ended=True) == ["half a line"]
    assert await tail.lines(ended=True) == []


async def test_a_line_that_never_ends_does_not_grow_memory(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (LONGEST_LINE * 10))
    tail = LogTail(of(path))
    pieces = []
    while piece := await tail.lines(at_most=1024):
        pieces += piece
    while tail.backlog:
        pieces += await tail.lines(at_most=1024)
    assert sum(map(len, pieces)) >= LONGEST_LINE * 9
    assert max(map(len, pieces)) <= LONGEST_LINE + 1024


async def test_a_file_that_shrank_is_read_from_its_start(tmp_path):
    path = tmp_path / "log"
    path.write_text("one\ntwo\n")
    tail = LogTail(of(path))
    assert await tail.lines() == ["one", "two"]
    path.write_text("new\n")
    assert await tail.lines() == ["new"]


async def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"a\xff\xfeb\r\n")
    assert (await LogTail(of(path)).lines()) == ["a\ufffd\ufffdb"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.text("abc é", max_size=40), max_size=30), st.integers(0, 40))
async def test_the_last_lines(tmp_path: Path, lines, count):
    path = tmp_path / "log"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert (await last_lines(of(path), count))[0] == (lines[-count:] if count else [])


async def test_the_last_lines_of_a_large_file(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(200_000)))
    assert (await last_lines(of(path), 2))[0] == ["line 199998", "line 199999"]
