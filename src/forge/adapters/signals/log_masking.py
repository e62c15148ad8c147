"""What is hidden in log lines before they are kept: what looks like a secret, and what differs from line to line."""

from __future__ import annotations

import re

from forge.adapters.masking import MASK

LONGEST_EXAMPLE = 300
"""Characters of a line that is kept as an example."""
LONGEST_READ = 2000
"""Characters of a line that are looked at."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")

_HIDDEN = MASK.decode()
_NAMES = (
    r"pass(?:word|wd|phrase|code)|\bpass\b|pwd|secret|token|(?:api|access|private|signing|encryption)[_-]?key"
    r"|credential|session|cookie|authorization"
)
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]{0,30}KEY-----.*", re.DOTALL), _HIDDEN),
    (re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://[^\s:/@]{0,100}):[^\s/@]{1,300}@", re.IGNORECASE), rf"\1:{_HIDDEN}@"),
    (re.compile(r"\b(bearer|basic|digest|negotiate)\s+[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    (
        re.compile(
            rf"((?:{_NAMES})[\w-]{{0,20}}[\"']?\s{{0,3}}[=:]\s{{0,3}})"
            r"(?!(?:bearer|basic|digest|negotiate) )(?:\"(?:[^\"\\]|\\.){0,500}\"?|'[^']{0,500}'?|[^\s,;&}\])]+)",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?"), _HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), _HIDDEN),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|sk[-_]|pk[-_]|rk[-_])[A-Za-z0-9_-]{10,}"), _HIDDEN),
    (re.compile(r"(?<![\w/+-])(?=[\w/+-]*[0-9])(?=[\w/+-]*[A-Z])(?=[\w/+-]*[a-z])[\w+-][\w/+-]{31,}={0,2}"), _HIDDEN),
)
"""Whatever follows a name that says so, tokens of well-known shapes, and long words that only a machine writes."""

_VARIABLES = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (
        re.compile(
            r"\b\d{4}[-/]\d{2}[-/]\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)?(?:Z|\s?[+-]\d{2}:?\d{2})?"
            r"|\b(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]?\d \d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?: \d{4})?"
            r"|\b\d{1,2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2}(?: [+-]\d{4})?"
            r"|\b\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?Z?"
        ),
        "<time>",
    ),
    (re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b"), "<email>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>)\]]+", re.IGNORECASE), "<url>"),
    (re.compile(r"\"(?:[^\"\\]|\\.)*\"|(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|`[^`]*`"), "<text>"),
    (
        re.compile(r"\[[0-9a-f:]*:[0-9a-f:.]*\](?::\d+)?|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?\b", re.IGNORECASE),
        "<ip>",
    ),
    (re.compile(r"\b(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}\b|(?<![\w:])::[0-9a-f]{1,4}\b", re.IGNORECASE), "<ip>"),
    (re.compile(r"(?<![\w<])(?:[A-Za-z]:\\|~?/|\.{1,2}/)[\w.@%+=~-][\w.@%+=~/\\-]*(?::\d+)*"), "<path>"),
    (re.compile(r"\b0x[0-9a-f]+\b|\b(?=[a-f]*[0-9])[0-9a-f]{8,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"(?<!\w)[-+]?\d+(?:[.,]\d+)*|\d+"), "<num>"),
)
"""In this order: a time is not to be taken apart as numbers."""


def plain(line: str) -> str:
    """Return a line without colours and control characters, at most `LONGEST_READ` long."""
    return _CONTROL.sub(" ", _ANSI.sub("", line[: LONGEST_READ * 2])).strip()[:LONGEST_READ]


def without_secrets(line: str) -> str:
    """Return a line in which `***` stands for what looks like a secret."""
    for pattern, shown in _SECRETS:
        line = pattern.sub(shown, line)
    return line


def example(line: str) -> str:
    """Return what may be kept of a line and shown to people."""
    shown = without_secrets(plain(line))
    return shown if len(shown) <= LONGEST_EXAMPLE else shown[: LONGEST_EXAMPLE - 1] + "…"


def words(line: str, most: int = 30) -> list[str]:
    """Return the words that tell what kind of line it is: numbers, times, names of files and such are left open."""
    text = without_secrets(plain(line))[: LONGEST_READ // 2]
    for pattern, shown in _VARIABLES:
        text = pattern.sub(shown, text)
    found, length = [], 0
    for word in text.split()[:most]:
        length += len(word) + 1
        if length > LONGEST_EXAMPLE:
            break
        found.append(word)
    return found or [text[: LONGEST_EXAMPLE - 1] or "<empty>"]
