"""Which lines are errors, in every format that services write, with their stack traces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals.log_lines import LONGEST_TRACE, ErrorLine, LineReader


def complete(lines: list[str], reader: LineReader | None = None) -> list[ErrorLine]:
    return [error for error, _ in (reader or LineReader()).errors(lines) if error is not None]


def wholes(text: str) -> list[str]:
    return [error.whole for error in complete(text.strip("\n").split("\n"))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"level":"error","msg":"no route"}', "no route"),
        ('{"severity":"CRITICAL","message":"disk full","time":1}', "disk full"),
        ('{"lvl":"fatal","event":"gone"}', "gone"),
        ('{"log":{"level":"ERROR"},"message":"as ECS writes it"}', "as ECS writes it"),
        ('{"log.level":"error","message":"flat ECS"}', "flat ECS"),
        ('{"level":50,"msg":"pino"}', "pino"),
        ('{"level":60,"msg":"pino, fatal"}', "pino, fatal"),
        ('{"level":3,"short_message":"GELF"}', "GELF"),
        ('{"levelno":40,"msg":"python"}', "python"),
        ('{"level":"error","msg":"failed","error":"connection refused"}', "failed | connection refused"),
        ('{"level":"error","msg":"x","err":{"type":"TypeError","message":"undefined"}}', "x | TypeError: undefined"),
        (
            '{"level":"error","event":"boom","exception":"Traceback (most recent call last):\\n  File\\nKeyError: \'a\'"}',
            "boom | KeyError: 'a'",
        ),
        ('{"level":"error","msg":"cut in the mid', "cut in the mid"),
        ('level=error msg="no route to host" host=db', "no route to host"),
        ("ts=2026-01-01 lvl=FATAL msg=gone", "gone"),
        ('level=error msg="failed" err="EOF"', "failed | EOF"),
        ("2026-01-01 10:00:00,123 ERROR payment: declined", "2026-01-01 10:00:00,123 ERROR payment: declined"),
        ("ERROR:root:something", "ERROR:root:something"),
        ("[error] 12#12: upstream timed out", "[error] 12#12: upstream timed out"),
        ("2026/01/01 10:00:00 error: cannot open", "2026/01/01 10:00:00 error: cannot open"),
        ("E0923 12:34:56.789012   1 server.go:12] lost", "E0923 12:34:56.789012   1 server.go:12] lost"),
        ("\x1b[31mERROR\x1b[0m red", "ERROR red"),
        ("panic: runtime error: index out of range", "panic: runtime error: index out of range"),
        ("thread 'main' panicked at src/main.rs:3:5:", "thread 'main' panicked at src/main.rs:3:5:"),
        ("ValueError: boom", "ValueError: boom"),
        ("java.lang.IllegalStateException: closed", "java.lang.IllegalStateException: closed"),
    ],
)
def test_an_error_is_found_with_its_message(line: str, message: str) -> None:
    assert LineReader().error(line) == message


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "2026-01-01 10:00:00 INFO retried after ERROR from upstream",
        "WARN  error budget is low",
        '{"level":"info","msg":"ERROR is only a word here"}',
        '{"level":30,"msg":"pino, info"}',
        '{"level":40,"msg":"pino, warning"}',
        '{"level":6,"msg":"syslog, info"}',
        '{"status":"error"}',
        '{"level":true,"msg":"odd"}',
        "[]",
        "level=info msg=error",
        "GET /error HTTP/1.1 200",
        "no errors found",
        "I0923 12:34:56.789012   1 server.go:12] ERROR is only a word here",
        "0 errors, 12 warnings",
    ],
)
def test_what_is_no_error(line: str) -> None:
    assert LineReader().error(line) is None


def test_a_python_trace_is_one_error_with_what_was_raised() -> None:
    assert wholes("""
2026-01-01 ERROR handling /pay
Traceback (most recent call last):
  File "app.py", line 3, in pay
    card.charge()
KeyError: 'card'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "app.py", line 5, in pay
    raise PaymentError("declined")
shop.PaymentError: declined
2026-01-01 INFO next
""") == ["2026-01-01 ERROR handling /pay | shop.PaymentError: declined"]


def test_a_trace_alone_is_called_by_what_was_raised() -> None:
    assert wholes("""
Traceback (most recent call last):
  File "app.py", line 3, in <module>
ZeroDivisionError: division by zero
""") == ["ZeroDivisionError: division by zero"]


def test_a_java_trace() -> None:
    assert wholes("""
12:00:01.123 [main] ERROR com.shop.Pay - cannot pay
java.lang.IllegalStateException: no card
\tat com.shop.Pay.pay(Pay.java:10)
\t... 12 more
Caused by: java.io.IOException: reset
\tat com.shop.Net.call(Net.java:3)
12:00:02.000 [main] INFO com.shop.Pay - goes on
12:00:03.000 [main] ERROR com.shop.Pay - again
""") == [
        "12:00:01.123 [main] ERROR com.shop.Pay - cannot pay | java.lang.IllegalStateException: no card",
        "12:00:03.000 [main] ERROR com.shop.Pay - again",
    ]


def test_a_go_panic() -> None:
    assert wholes("""
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1]

goroutine 1 [running]:
main.(*Server).pay(0xc000)
\t/app/main.go:10 +0x1
exit status 2
""") == ["panic: runtime error: invalid memory address or nil pointer dereference"]


def test_a_node_trace() -> None:
    assert wholes("""
TypeError: Cannot read properties of undefined (reading 'id')
    at pay (/app/pay.js:3:9)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)

Node.js v22.1.0
listening on 3000
""") == ["TypeError: Cannot read properties of undefined (reading 'id')"]


def test_two_errors_in_a_row_are_two() -> None:
    assert wholes("ERROR one\nERROR two\nValueError: three\nValueError: four") == [
        "ERROR one",
        "ERROR two | ValueError: three",
        "ValueError: four",
    ]


def test_a_trace_that_never_ends_is_bounded() -> None:
    found = complete(["ERROR x", *["  at y"] * (LONGEST_TRACE * 2), "ERROR z"])
    assert [error.text for error in found] == ["ERROR x", "ERROR z"]


def test_lines_that_are_done_with_add_up() -> None:
    lines = ["INFO a", "ERROR b", "  at c", "INFO d", "ERROR e", "  at f"]
    done = [count for _, count in LineReader().errors(lines)]
    assert sum(done) == 4, "the last error may go on"


def test_a_pattern_of_the_user_replaces_levels() -> None:
    reader = LineReader(errors=r"^!!|declined")
    assert reader.error("!! help") == "!! help"
    assert reader.error("ERROR x") is None
    assert reader.error('{"level":"info","msg":"card declined"}') == "card declined"


def test_what_is_ignored_is_no_error() -> None:
    reader = LineReader(ignore=["favicon", "^ERROR expected"])
    assert reader.error("ERROR no /favicon.ico") is None
    assert reader.error("ERROR expected") is None
    assert reader.error("ERROR other") == "ERROR other"


@pytest.mark.parametrize(
    ("form", "line", "found"),
    [
        ("text", '{"level":"error","msg":"x"}', False),
        ("json", "ERROR x", False),
        ("logfmt", "ERROR x", False),
        ("logfmt", "level=error msg=x", True),
        ("text", "ERROR x", True),
    ],
)
def test_a_format_that_is_named_is_the_only_one(form, line, found) -> None:
    assert (LineReader(form=form).error(line) is not None) is found


@given(
    st.lists(
        st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda data: data.decode("utf-8", "replace")))
    )
)
def test_no_line_breaks_the_reader(lines: list[str]) -> None:
    found = list(LineReader().errors(lines))
    assert sum(count for _, count in found) <= len(lines)
    for error, _ in found:
        assert error is None or len(error.whole) < 5000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("level", "msg", "severity", "log", "error", "exception", "message", "levelno")


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5), st.integers(0, 200))
def test_no_json_breaks_the_reader(fields, cut: int) -> None:
    line = json.dumps(fields)
    LineReader().error(line)
    LineReader().error(line[:cut])


def test_huge_and_nested_lines_are_bounded() -> None:
    for line in (
        "x" * 3_000_000,
        "{" * 100_000,
        '{"a":' * 50_000,
        '"' * 100_000,
        "=" * 100_000,
        "a=" * 100_000,
        "\x1b[" * 50_000,
    ):
        LineReader().error("ERROR " + line)
        LineReader().error(line)
