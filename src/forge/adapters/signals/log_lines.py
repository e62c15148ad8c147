"""Reading log lines: JSON, logfmt and plain text, with their levels; stack traces become part of their first line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from forge.adapters.signals.log_masking import plain

Format = Literal["auto", "json", "logfmt", "text"]

LONGEST_TRACE = 300
"""Lines after which a stack trace is taken to be over."""
_SHOWN = 600
"""Characters of a field that are used."""

_WORDS = {
    **dict.fromkeys(("error", "err", "fatal", "critical", "crit", "panic", "dpanic", "emergency", "emerg"), True),
    **dict.fromkeys(("alert", "severe", "ftl", "eror", "failure", "exception"), True),
    **dict.fromkeys(("warning", "warn", "wrn", "notice", "info", "information", "inf", "debug", "dbg"), False),
    **dict.fromkeys(("trace", "trc", "verbose", "config", "fine", "finer", "finest", "default", "log"), False),
}
"""Level -> whether it is an error or worse."""
_LEVEL_KEYS = ("level", "severity", "lvl", "loglevel", "log_level", "log.level", "levelname", "severity_text", "@l")
_MESSAGE_KEYS = ("msg", "message", "event", "short_message", "@m", "@mt", "text", "body")
_CAUSE_KEYS = ("error", "err", "exception", "exc_info", "error.message", "error.type", "cause", "@x")
_INNER_KEYS = ("type", "name", "class", "code", "message", "msg")

_PAIR = re.compile(r'(?:^|\s)([A-Za-z_@][\w.@-]{0,60})=("(?:[^"\\]|\\.)*"?|[^\s"]*)')
_UPPER = re.compile(
    r"(?<![\w-])(ERROR|ERR|EROR|FATAL|FTL|CRITICAL|CRIT|PANIC|DPANIC|EMERGENCY|EMERG|ALERT|SEVERE"
    r"|WARNING|WARN|WRN|NOTICE|INFO|INF|DEBUG|DBG|TRACE|TRC|VERBOSE)(?![\w-])"
)
_PLACED = re.compile(
    r"(?:[\[<(|]\s{0,4}|^(?:[\d\sTZ:.,/+-]{0,40}\s)?)"
    r"(error|err|fatal|critical|crit|panic|emerg|emergency|alert|severe|warning|warn|notice|info|debug|trace)"
    r"(?:\s{0,4}[\]>)|]|:)",
    re.IGNORECASE,
)
"""A level word in small letters is one only where levels stand: in brackets, or at the beginning before a colon."""
_KLOG = re.compile(r"([EFWID])\d{4} \d{2}:\d{2}:\d{2}\.\d+\s")
_HEAD = 160
"""Characters in which a level is looked for."""

_THROWN = re.compile(
    r"(?:Uncaught |Unhandled |Caused by: |Exception in thread \S{1,80} )?"
    r"(?:[A-Za-z_$][\w$]{0,80}[./\\:]{1,2}){0,12}[A-Za-z_$]?[\w$]{0,80}(?:Error|Exception|Exit|Interrupt|Warning)"
    r"(?::\s.*|\s\[.*|)$"
)
_BEGINS = re.compile(
    r"Traceback \(most recent call last\):|panic: |fatal error: |Exception in thread |Unhandled (?:exception|rejection)"
    r"|Uncaught \w|thread '.{0,80}' panicked at |(?:Segmentation fault|Aborted)\b",
    re.IGNORECASE,
)
_CONTINUES = re.compile(
    r"\s|$|at\s+\S+[(:]|\.\.\. \d+ (?:more|common frames)|Caused by:|Suppressed:|Traceback \(|During handling of |"
    r"The above exception|goroutine \d+ \[|\[signal |created by |exit status \d|[\w./*()-]+\(.*\)$|Node\.js v\d|"
    r"note: run with|stack backtrace:|\[?(?:recovered|originating from)"
)
_PYTHON = "Traceback (most recent call last):"


class ErrorLine(msgspec.Struct):
    """One error: its line, and what was thrown below it. `lines` of the file belong to it."""

    text: str
    thrown: str = ""
    lines: int = 1
    python: bool = False

    @property
    def whole(self) -> str:
        """What tells the kind of error."""
        if not self.thrown or self.thrown in self.text:
            return self.text
        return self.thrown if self.text == _PYTHON else f"{self.text} | {self.thrown}"


class LineReader:
    """Says which lines are errors. `errors` replaces the search for levels; what `ignore` finds is no error."""

    def __init__(self, errors: str = "", ignore: Iterable[str] = (), form: Format = "auto") -> None:
        self._errors = re.compile(errors) if errors else None
        self._ignore = [re.compile(pattern) for pattern in ignore]
        self._form = form

    def error(self, line: str) -> str | None:
        """Return the message of a line that is an error, else None."""
        text = plain(line)
        message = self._message(text) if text else None
        if message is None or any(pattern.search(text) for pattern in self._ignore):
            return None
        return message

    def _message(self, text: str) -> str | None:
        if self._errors is not None:
            if not self._errors.search(text):
                return None
            fields = self._fields(text)
            return (_said(fields) if fields else "") or text
        fields = self._fields(text)
        if fields:
            level = _level(fields)
            if level is None and self._form == "auto":
                return text if _BEGINS.match(text) else None
            return (_said(fields) or text) if level else None
        return text if self._form in ("auto", "text") and _is_error(text) else None

    def _fields(self, text: str) -> Mapping[str, Any] | None:
        if self._form in ("auto", "json") and text.startswith("{"):
            try:
                found = msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError):
                found = _cut_json(text)
            return found if isinstance(found, dict) and found else None
        if self._form in ("auto", "logfmt"):
            pairs = {key: _unquoted(value) for key, value in _PAIR.findall(text)}
            if self._form == "logfmt" or any(key.lower() in _LEVEL_KEYS for key in pairs):
                return pairs
        return None

    def errors(self, lines: Iterable[str]) -> Iterator[tuple[ErrorLine | None, int]]:
        """Yield (an error that is complete or None, how many lines are done with), in order.

        At the end, lines of an error whose trace may go on are not done with: they come again, or `last` is asked.
        """
        opened: ErrorLine | None = None
        for line in lines:
            text = plain(line)
            if opened is not None and self._belongs(opened, line, text):
                opened.lines += 1
                continue
            if opened is not None:
                yield opened, opened.lines
                opened = None
            message = self.error(line)
            if message is None:
                yield None, 1
            else:
                opened = ErrorLine(message, python=message.endswith(_PYTHON))
        if opened is not None:
            yield opened, 0

    def _belongs(self, opened: ErrorLine, raw: str, text: str) -> bool:
        """Tell whether a line goes on with an error; remembers what was thrown."""
        if opened.lines >= LONGEST_TRACE or text.startswith("{"):
            return False
        if text == _PYTHON:
            opened.python = True
            return True
        if _CONTINUES.match(raw.rstrip("\r")) or not text:
            return True
        if not _THROWN.match(text) or not (opened.python or (not opened.thrown and opened.lines == 1)):
            return False
        if opened.python or not _THROWN.match(opened.text):
            opened.thrown = text[:_SHOWN]
            opened.python = False
            return True
        return False


def _is_error(text: str) -> bool:
    head = text[:_HEAD]
    klog = _KLOG.match(head)
    if klog:
        return klog[1] in "EF"
    found = [one for one in (_UPPER.search(head), _PLACED.search(head)) if one]
    if found:
        return _WORDS[min(found, key=lambda one: one.start(1))[1].lower()]
    return bool(_BEGINS.match(text) or _THROWN.match(text))


def _level(fields: Mapping[str, Any]) -> bool | None:
    """Return whether the level is an error; None: there is none."""
    small = {str(key).lower(): value for key, value in fields.items()}
    inner = small.get("log")
    if isinstance(inner, dict):
        small.setdefault("log.level", inner.get("level"))
    for key in _LEVEL_KEYS:
        value = small.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if isinstance(value, str) and value.strip().lower() in _WORDS:
            return _WORDS[value.strip().lower()]
        number = _number(value)
        if number is not None:
            # Syslog counts from 0 (worst) to 7; pino and bunyan from 10 to 60 (worst).
            return number <= 3 if number <= 7 else number >= 50
    number = _number(small.get("levelno"))
    return number >= 40 if number is not None else None


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return float(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4 else None


def _said(fields: Mapping[str, Any]) -> str:
    """Return the message, and what it says was the cause."""
    small = {str(key).lower(): value for key, value in fields.items()}
    message = next((small[key] for key in _MESSAGE_KEYS if isinstance(small.get(key), str) and small[key]), "")
    causes = [_cause(small[key]) for key in _CAUSE_KEYS if small.get(key)]
    cause = next((one for one in causes if one and one not in message), "")
    return plain(" | ".join(part[:_SHOWN] for part in (message, cause) if part))


def _cause(value: Any) -> str:
    if isinstance(value, dict):
        return ": ".join(str(value[key])[:_SHOWN] for key in _INNER_KEYS if isinstance(value.get(key), (str, int)))
    if not isinstance(value, str):
        return ""
    lines = value.strip().splitlines()
    if not lines:
        return ""
    return lines[-1].strip() if lines[0].strip() == _PYTHON else lines[0].strip()


_CUT_FIELD = re.compile(r'"([\w.@]{1,60})"\s*:\s*("(?:[^"\\]|\\.)*"?|[\d.]+)')


def _cut_json(text: str) -> dict[str, Any]:
    """Return what can be read of JSON that is cut or broken."""
    return {key: _unquoted(value) for key, value in _CUT_FIELD.findall(text)}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        found: str = msgspec.json.decode(value, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value.strip('"')
    return found
