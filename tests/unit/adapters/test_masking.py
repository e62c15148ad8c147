"""Secrets do not get out, however a text is cut; everything else does, at once."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import time
import tracemalloc
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.masking import CUT, LONGEST_LINE, Masker, StepLog
from forge.adapters.secret_forms import forms

few = st.text("ab1\n", min_size=4, max_size=9)
"""Values of few letters overlap, contain and repeat one another."""


def masker(*values: str) -> Masker:
    return Masker({f"S{number}": value for number, value in enumerate(values)})


def stream(masker: Masker, pieces: list[bytes]) -> bytes:
    return b"".join([*(masker.feed(piece) for piece in pieces), masker.flush()])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def slowly_masked(text: bytes, values: list[str]) -> bytes:
    """What masking means, spelled out: every byte that belongs to a secret is hidden, a stretch by one mark."""
    needles = {needle for value in values for needle in forms(value)}
    found = sorted(
        (start, start + len(needle))
        for needle in needles
        for start in range(len(text))
        if text.startswith(needle, start)
    )
    stretches: list[list[int]] = []
    for start, end in found:
        if stretches and start < stretches[-1][1]:
            stretches[-1][1] = max(stretches[-1][1], end)
        else:
            stretches.append([start, end])
    out, position = b"", 0
    for start, end in stretches:
        out += text[position:start] + b"***"
        position = end
    return out + text[position:]


@given(st.lists(few, max_size=4), st.text("ab1\nx", max_size=60), st.lists(st.integers(0, 100), max_size=12))
def test_for_every_cut_the_output_is_the_masked_whole(values, text, places):
    data = text.encode()
    assert stream(masker(*values), cut(data, places)) == slowly_masked(data, values)


@given(st.lists(few, max_size=3), st.lists(st.sampled_from(["ab", "1", "\n", "x", "aaaa"]) | few, max_size=20))
def test_byte_by_byte_is_the_same_as_at_once(values, words):
    data = "".join(words).encode()
    assert stream(masker(*values), [data[i : i + 1] for i in range(len(data))]) == slowly_masked(data, values)
    assert masker(*values).mask(data.decode()).encode() == slowly_masked(data, values)


@given(st.text(min_size=4, max_size=30), st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 200))
def test_any_secret_in_any_bytes_is_hidden(value, before, after, place):
    needle = value.encode()
    if len(value.strip()) < 4:
        return
    output = stream(masker(value), cut(before + needle + after, [place, place // 2, place // 3]))
    assert needle not in output
    assert b"***" in output


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_without_secrets_bytes_pass_untouched(data, places):
    assert stream(Masker(), cut(data, places)) == data
    assert stream(masker("a-secret-that-is-not-in-there"), cut(data, places)) == data


@given(st.lists(few, max_size=3), st.lists(st.text("ab1\nx", max_size=9), max_size=9))
def test_nothing_that_came_out_is_ever_part_of_a_secret_to_be(values, pieces):
    """At every moment the output is a beginning of the final output: nothing has to be taken back."""
    one = masker(*values)
    whole = slowly_masked("".join(pieces).encode(), values)
    output = b""
    for piece in pieces:
        output += one.feed(piece.encode())
        assert whole.startswith(output)


def test_only_what_may_begin_a_secret_waits():
    one = masker("hunter22")
    assert one.feed(b"progress 10%") == b"progress 10%"
    assert one.feed(b" for h") == b" for "
    assert one.feed(b"unter") == b""
    assert one.feed(b"s\n") == b"hunters\n"
    assert one.feed(b"hunter2") == b""
    assert one.feed(b"2!") == b"***!"
    assert one.feed(b"hunt") == b""
    assert one.flush() == b"hunt"


@pytest.mark.parametrize(
    "shown",
    [
        lambda s: s,
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
        lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
        lambda s: quote(s, safe=""),
        lambda s: quote(s),
        lambda s: re.sub("%..", lambda found: found[0].lower(), quote(s, safe="")),
        lambda s: json.dumps(s),
        lambda s: json.dumps({"password": s}),
    ],
)
@pytest.mark.parametrize("value", ["p/ss?w+rd&x=Ü~", 'with "quotes" and \\', "plain-Value_123"])
def test_the_encodings_that_tools_print_are_hidden(value, shown):
    text = shown(value)
    output = stream(masker(value), [f"before {text} after".encode()])
    assert b"***" in output
    for part in (value.encode(), base64.b64encode(value.encode())[:-4], quote(value, safe="").encode()):
        assert part not in output


@pytest.mark.parametrize("user", ["", "u", "us", "use", "admin"])
def test_base64_of_user_and_password_hides_the_password(user):
    secret = "correct-horse-battery"
    header = base64.b64encode(f"{user}:{secret}:x".encode())
    output = stream(masker(secret), [b"Authorization: Basic " + header])
    hidden = output.removeprefix(b"Authorization: Basic ")
    assert b"***" in hidden
    # What is left are the characters that are mixed with the neighbours: at most one byte of the secret an end.
    left = b"".join(hidden.split(b"***"))
    assert len(left) <= len(header) - len(base64.b64encode(secret.encode()).rstrip(b"=")) + 3


def test_each_line_of_a_multi_line_secret_is_hidden():
    key = "-----BEGIN KEY-----\nMIIEabcdefgh\n  indented-line\nab\n-----END KEY-----\n"
    output = stream(masker(key), [b"x MIIEabcdefgh y\r\nindented-line\nab\n", key.encode(), b"end\n"])
    assert output == b"x *** y\r\n***\nab\n***\nend\n" or b"MIIE" not in output
    assert b"indented" not in output
    assert output.startswith(b"x *** y\r\n***\nab\n")
    assert output.endswith(b"end\n")


def test_a_secret_with_windows_line_ends_is_hidden_by_its_lines():
    output = stream(masker("first-line\nsecond-line"), [b"first-line\r\nsecond-line\r\n"])
    assert output == b"***\r\n***\r\n"


def test_overlapping_secrets_leave_nothing_between_them():
    assert stream(masker("abcdef", "defghi"), [b"<abcdefghi>"]) == b"<***>"
    assert stream(masker("abcd", "abcdefgh"), [b"abcd", b"efgh abcdef"]) == b"*** ***ef"


def test_short_values_are_named_and_not_masked():
    one = Masker({"PIN": "123", "BLANK": "", "SPACES": "  x ", "GOOD": "1234"})
    assert one.too_short == ("PIN", "SPACES")
    assert stream(one, [b"123 1234 12345"]) == b"123 *** ***5"


def test_a_stream_of_endless_overlap_does_not_grow():
    one = masker("aaaa")
    output = one.feed(b"aaaaa")
    for _ in range(1000):
        output += one.feed(b"a" * 1000)
    assert output == b"***"
    assert one.feed(b"b") + one.flush() == b"b"


def test_a_large_secret_and_many_secrets_are_quick():
    values = [os.urandom(24).hex() for _ in range(30)] + ["\n".join(os.urandom(32).hex() for _ in range(50))]
    one = masker(*values)
    data = b"".join(f"{n} an ordinary line of output, as they are\n".encode() for n in range(20_000))
    started = time.process_time()
    output = stream(one, [data[i : i + 65536] for i in range(0, len(data), 65536)])
    assert output == data
    assert time.process_time() - started < 2


def test_maskers_of_two_streams_do_not_mix():
    first = masker("secret-value")
    second = first.fresh()
    assert first.feed(b"secret-") == b""
    assert second.feed(b"value") == b"value"
    assert first.feed(b"value") == b"***"


class TestStepLog:
    def test_output_is_masked_appended_and_keeps_its_colours(self, tmp_path):
        path = tmp_path / "deep" / "step.log"
        for attempt in (1, 2):
            with StepLog(path, masker("hunter22")) as log:
                log.write(b"\x1b[31mred\x1b[0m hun")
                log.write(b"ter22 %d\n" % attempt)
        assert path.read_bytes() == b"\x1b[31mred\x1b[0m *** 1\n\x1b[31mred\x1b[0m *** 2\n"
        assert path.stat().st_mode & 0o077 == 0

    def test_the_file_can_be_followed_before_a_line_is_complete(self, tmp_path):
        log = StepLog(tmp_path / "log", masker("hunter22"))
        log.write(b"working ... ")
        assert (tmp_path / "log").read_bytes() == b"working ... "
        log.close()
        log.close()

    def test_whole_lines_reach_the_listener_masked(self, tmp_path):
        lines: list[str] = []
        log = StepLog(tmp_path / "log", masker("hunter22"), on_line=lines.append)
        log.write(b"a\n\nhunter")
        log.write(b"22 b\r\nc \xff\xc3")
        assert lines == ["a", "", "*** b"]
        log.close()
        assert lines == ["a", "", "*** b", "c ��"]

    def test_own_words_stand_on_lines_of_their_own(self, tmp_path):
        lines: list[str] = []
        with StepLog(tmp_path / "log", masker("hunter22"), on_line=lines.append) as log:
            log.say("one hunter22")
            log.write(b"unfinished")
            log.say("two")
            log.write(b"three\n")
        assert lines == ["one ***", "unfinished", "two", "three"]
        assert (tmp_path / "log").read_text().splitlines() == lines

    def test_a_line_of_a_hundred_megabytes_does_not_grow_memory(self, tmp_path):
        lines: list[str] = []
        with StepLog(tmp_path / "log", masker("hunter22"), on_line=lines.append) as log:
            slice_ = b"x" * 65536
            tracemalloc.start()
            try:
                for _ in range(100_000_000 // 65536):
                    log.write(slice_)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            log.write(b"\nnext\n")
        assert peak < 2_000_000
        assert (tmp_path / "log").stat().st_size > 99_000_000
        assert lines == ["x" * LONGEST_LINE + CUT, "next"]

    def test_a_full_disk_is_told_and_does_not_stop_the_step(self):
        lines: list[str] = []
        with StepLog(Path("/dev/full"), on_line=lines.append) as log:
            log.write(b"a\n")
            log.write(b"b\n")
        assert log.problem == "the log could not be written: No space left on device"
        assert lines == ["a", "b"]

    def test_a_text_can_be_masked_by_itself(self, tmp_path):
        with StepLog(tmp_path / "log", masker("hunter22")) as log:
            log.write(b"hunt")
            assert log.mask("er22 hunter22") == "er22 ***"

    @given(st.lists(st.binary(max_size=40), max_size=10))
    def test_any_bytes_are_taken(self, tmp_path_factory, pieces):
        path = tmp_path_factory.mktemp("log") / "log"
        lines: list[str] = []
        with StepLog(path, masker("hunter22"), on_line=lines.append) as log:
            for piece in pieces:
                log.write(piece)
        data = b"".join(pieces)
        assert path.read_bytes() == data
        expected = data.split(b"\n")
        if not expected[-1]:
            expected.pop()
        assert lines == [line.removesuffix(b"\r").decode(errors="replace") for line in expected]
