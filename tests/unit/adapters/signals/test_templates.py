"""Kinds of error lines: what is one kind, what is hidden, and that nothing falls or grows without end."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals.log_masking import LONGEST_EXAMPLE, example, words
from forge.adapters.signals.templates import KINDS, SHOWN, VERSIONS, LogKinds


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("took 12.5 ms for 3 items", "took <num> ms for <num> items"),
        ("2026-01-01T10:00:00.123Z ERROR x", "<time> ERROR x"),
        ("2026-01-01 10:00:00,123 ERROR x", "<time> ERROR x"),
        ("user 6f1c2d34-aaaa-bbbb-cccc-0123456789ab is gone", "user <uuid> is gone"),
        ("no route to 10.0.0.1:8080", "no route to <ip>"),
        ("no route to [::1]:8080", "no route to <ip>"),
        ("no route to fe80:0:0:0:1:2:3:4", "no route to <ip>"),
        ("commit deadbeef01 at 0xFF", "commit <hex> at <hex>"),
        ('cannot open "my file" now', "cannot open <text> now"),
        ("cannot open 'my file' now", "cannot open <text> now"),
        ("don't open what isn't there", "don't open what isn't there"),
        ("cannot open /var/lib/x.db: full", "cannot open <path>: full"),
        ("GET https://example.com/a?b=1 failed", "GET <url> failed"),
        ("mail to anna@example.com bounced", "mail to <email> bounced"),
        ("worker3 of pod-7f-12", "worker<num> of pod-<num>f-<num>"),
    ],
)
def test_what_varies_is_left_open(line: str, kind: str) -> None:
    assert " ".join(words(line)) == kind


SECRETS = [
    ("password=hunter2hunter", "hunter2hunter"),
    ('{"password": "hunter2 hunter"}', "hunter2"),
    ("db_password: 'hunter2'", "hunter2"),
    ("Authorization: Bearer abcdef123456", "abcdef123456"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghi", "eyJhbGci"),
    ("postgres://shop:hunter2@db/shop", "hunter2"),
    ("key AKIAIOSFODNN7EXAMPLE is wrong", "AKIAIOSFODNN7EXAMPLE"),
    ("pushed with ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F292c"),
    ("API_KEY=abc123", "abc123"),
    ("x-api-key: abc123", "abc123"),
    ("secret wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY here", "wJalrXUtnFEMI"),
    ("-----BEGIN RSA PRIVATE KEY-----MIIEow", "MIIEow"),
]


@pytest.mark.parametrize(("line", "secret"), SECRETS)
def test_what_looks_like_a_secret_is_not_kept(line: str, secret: str) -> None:
    kinds = LogKinds()
    kinds.add("v1", f"ERROR {line}")
    assert secret not in repr(kinds.told("v1"))
    assert secret not in repr(kinds.state())
    assert "***" in kinds.told("v1")[0].example


def test_an_example_is_short_and_plain() -> None:
    assert len(example("x" * 10_000)) == LONGEST_EXAMPLE
    assert example("\x1b[31mred\x1b[0m \x07bell\x00") == "red  bell"


def test_lines_of_one_kind_are_counted_together_and_the_newest_is_shown() -> None:
    kinds = LogKinds()
    for number in range(5):
        kinds.add("v1", f"ERROR card {number} was declined after {number} ms")
    (one,) = kinds.told("v1")
    assert (one.text, one.lines) == ("ERROR card <num> was declined after <num> ms", 5)
    assert one.example == "ERROR card 4 was declined after 4 ms"
    assert kinds.total("v1") == 5


def test_a_kind_keeps_its_text_when_it_becomes_more_general() -> None:
    kinds = LogKinds()
    first = kinds.add("v1", "cannot reach host alpha in time")
    assert kinds.add("v1", "cannot reach host beta in time") == first
    assert kinds.add("v2", "cannot reach host gamma in time") == first
    assert [(one.text, one.lines) for one in kinds.told("v1")] == [(first, 2)]


def test_versions_share_kinds_and_have_their_own_counts() -> None:
    kinds = LogKinds()
    kinds.add("v1", "ERROR a b c")
    kinds.add("v2", "ERROR a b c")
    kinds.add("v2", "ERROR quite another thing")
    assert {one.text: one.lines for one in kinds.told("v1")} == {"ERROR a b c": 1}
    assert {one.text: one.lines for one in kinds.told("v2")} == {"ERROR a b c": 1, "ERROR quite another thing": 1}
    assert kinds.told("v3") == ()


def test_different_words_are_different_kinds() -> None:
    kinds = LogKinds()
    assert kinds.add("v1", "failed to open socket") != kinds.add("v1", "failed to parse configuration")


def letters(number: int) -> str:
    return "".join(chr(97 + (number // 26**place) % 26) for place in range(4))


def test_what_one_version_shows_another_shows_too_if_it_ever_wrote_it() -> None:
    kinds = LogKinds()
    for number in range(KINDS // 2):
        kinds.add("stable", f"{letters(number)} broke")
    kinds.add("canary", f"{letters(0)} broke")
    shown = {one.text for one in kinds.told("canary")}
    assert shown == {"aaaa broke"}
    assert shown <= {one.text for one in kinds.told("stable")}
    assert len(kinds.told("stable")) == SHOWN


def test_kinds_and_versions_are_bounded() -> None:
    kinds = LogKinds()
    for number in range(KINDS * 3):
        kinds.add(f"v{number % (VERSIONS * 2)}", f"{letters(number)} {letters(number * 7)} broke")
    state = kinds.state()
    assert len(state["patterns"]) <= KINDS
    assert len(state["lines"]) <= VERSIONS
    assert len(json.dumps(state)) < 100_000


def test_lines_whose_kind_is_not_asked_for_are_counted() -> None:
    kinds = LogKinds()
    kinds.add("v1", "ERROR a")
    kinds.count("v1", 41)
    assert kinds.total("v1") == 42
    assert kinds.told("v1")[0].lines == 1


def test_a_kind_that_is_seen_often_is_not_forgotten() -> None:
    kinds = LogKinds()
    for number in range(KINDS * 3):
        kinds.add("v1", "ERROR the usual")
        kinds.add("v1", f"{letters(number)} {letters(number * 7)} broke")
    assert {one.text: one.lines for one in kinds.told("v1")}["ERROR the usual"] == KINDS * 3


def test_another_one_goes_on_from_the_saved_state() -> None:
    kinds = LogKinds()
    for host in ("alpha", "beta"):
        kinds.add("v1", f"cannot reach host {host} in time")
    again = LogKinds()
    again.restore(json.loads(json.dumps(kinds.state())))
    assert again.told("v1") == kinds.told("v1")
    again.add("v1", "cannot reach host gamma in time")
    (one,) = again.told("v1")
    assert (one.text, one.lines) == ("cannot reach host alpha in time", 3)


@pytest.mark.parametrize(
    "state", [{"patterns": 3}, {"patterns": [[7, ""]]}, {"lines": {"v": [[3, 1]]}}, {"py/object": "os.system"}, {}]
)
def test_a_state_that_does_not_fit_is_ignored(state) -> None:
    kinds = LogKinds()
    kinds.restore(state)
    kinds.add("v1", "ERROR x")
    assert kinds.total("v1") == 1


def test_a_state_builds_no_objects_of_its_own() -> None:
    kinds = LogKinds()
    kinds.restore({"texts": ["x"], "patterns": [[0, '{"py/object": "os.system"}']]})
    assert kinds.told("v1") == ()
    assert kinds.add("v1", "ERROR x y z") == "ERROR x y z"


@given(st.lists(st.tuples(st.sampled_from(["v1", "v2"]), st.text(max_size=60)), max_size=60))
def test_no_count_falls_and_kinds_add_up(lines) -> None:
    kinds = LogKinds()
    before: dict[tuple[str, str], int] = {}
    for version, line in lines:
        text = kinds.add(version, line)
        assert 0 < len(text) <= LONGEST_EXAMPLE
        now = {(name, one.text): one.lines for name in ("v1", "v2") for one in kinds.told(name)}
        assert all(now.get(key, 0) >= count for key, count in before.items() if key in now)
        before = now
    for name in ("v1", "v2"):
        told = kinds.told(name)
        assert sum(one.lines for one in told) == kinds.total(name) or len(told) == SHOWN


@given(st.binary(max_size=400))
def test_any_bytes_can_be_a_line(data: bytes) -> None:
    line = data.decode("utf-8", "replace")
    json.dumps([words(line), example(line)]).encode()
    example(line).encode()


def test_long_and_nasty_lines_take_no_long_time() -> None:
    begun = time.process_time()
    for line in (
        "a" * 10**6,
        "1." * 10**5,
        "/" * 10**5,
        '"' * 10**5,
        "password" * 10**4,
        "a:b@" * 10**4,
        "aA1/" * 10**4,
        "eyJ" * 10**4,
    ):
        words(line)
        example(line)
    assert time.process_time() - begun < 3
