"""What two versions wrote to their logs: error lines by their number, and kinds of lines that only one ever wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from forge.core.judge.combine import log_mean
from forge.core.judge.evidence import CountEvidence, Counts
from forge.core.judge.log_errors import LogCounts, fresh_log_errors, log_errors_log_e, log_settings, update_log_errors
from forge.core.judge.templates import (
    MOST,
    TemplateCounts,
    TemplateEvidence,
    fresh_templates,
    newest_kinds,
    templates_log_e,
    update_templates,
)
from forge.model.traffic import LogTemplate, Sample

LINES = log_settings()
KNOWN_KEPT = 200
"""Kinds that stable had written before, as many as are remembered; a reader gives no more of them."""
EXAMPLE = 200


class Written(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole state of an arm's logs, plain JSON. `arm` and `stable`: lines of each kind at the newest pair of
    readings, by the kind's short name; `known`: kinds that stable had written before the release."""

    lines: CountEvidence | None = None
    kinds: TemplateEvidence | None = None
    known: tuple[str, ...] = ()
    arm: dict[str, int] = {}
    stable: dict[str, int] = {}


def begin(sample: Sample, beside: Sample) -> Written | None:
    """Return the state at the first pair of readings; None when nobody reads the logs."""
    if not (_readable(beside) or _readable(sample)):
        return None
    known = tuple(sorted(_by_name(beside.templates)))[:KNOWN_KEPT]
    lines = fresh_log_errors(LINES) if beside.log_errors is not None else None
    return Written(lines, fresh_templates(), known, _by_name(sample.templates), _by_name(beside.templates))


def take(
    state: Written,
    before: tuple[Sample, Sample],
    after: tuple[Sample, Sample],
    requests: tuple[Counts, Counts],
    block: float,
    *,
    moved: bool,
) -> Written:
    """Take in what both versions wrote between two pairs of readings: (arm, stable) each."""
    at = after[0].at
    own, other = _lines(before[0], after[0]), _lines(before[1], after[1])
    if state.lines is not None and own is not None and other is not None:
        counted = LogCounts(requests[0].requests, own), LogCounts(requests[1].requests, other)
        state = replace(state, lines=_counted(state.lines, counted, at, moved=moved))
    if not (_readable(after[0]) and _readable(after[1])):
        return state  # one of both logs cannot be read: what was written meanwhile is told by the next reading
    arm, stable = _by_name(after[0].templates), _by_name(after[1].templates)
    # Of a gap, or while the weights moved, nobody knows which share of its requests the arm had: its lines are no
    # bet then. What stable wrote counts all the same, for it can only end bets.
    unknown = moved or not (_readable(before[0]) and _readable(before[1]))
    kinds = update_templates(
        state.kinds or fresh_templates(),
        TemplateCounts() if unknown else TemplateCounts(requests[0].requests, _grown(state.arm, arm)),
        TemplateCounts(0 if unknown else requests[1].requests, _grown(state.stable, stable)),
        dict.fromkeys(state.known, 1),
        at,
        block=block,
        close_block=moved,
    )
    return replace(state, kinds=kinds, arm=_kept(state.arm, arm), stable=_kept(state.stable, stable))


def compare_anew(state: Written, sample: Sample, beside: Sample) -> Written:
    """Return the state when another version became stable: its lines begin here, and what it wrote is no news."""
    stable = _by_name(beside.templates)
    known = tuple(dict.fromkeys((*sorted(stable), *state.known)))[:KNOWN_KEPT]
    return replace(state, known=known, arm=_kept(state.arm, _by_name(sample.templates)), stable=stable)


def written_log_e(state: Written) -> float:
    """Return the natural logarithm of the evidence of both; one that cannot be read counts as 1."""
    lines = log_errors_log_e(state.lines) if state.lines is not None else 0.0
    kinds = templates_log_e(state.kinds) if state.kinds is not None else 0.0
    return log_mean([(0.5, lines), (0.5, kinds)])


def new_kinds(state: Written, newest: Sample | None) -> list[dict[str, object]]:
    """Return the kinds of lines with most evidence against the arm: text, lines so far, and an example."""
    if state.kinds is None or newest is None:
        return []
    texts = {name_of(template.text): template for template in newest.templates}
    return [
        {"text": texts[name].text, "lines": lines, "example": texts[name].example[:EXAMPLE]}
        for name, lines in newest_kinds(state.kinds)
        if name in texts
    ]


def _counted(lines: CountEvidence, counted: tuple[LogCounts, LogCounts], at: float, *, moved: bool) -> CountEvidence:
    """Add one interval. A change of weight ends the block before it, and the interval in which it fell."""
    if moved and lines.at is not None and lines.at + 0.001 < at:
        lines = update_log_errors(lines, LINES, LogCounts(), LogCounts(), lines.at + 0.001, close_block=True)
    return update_log_errors(lines, LINES, *counted, at, close_block=moved)


def _readable(sample: Sample) -> bool:
    return sample.log_errors is not None or bool(sample.templates)


def name_of(text: str) -> str:
    """Return the short name of a kind of lines, the same in every process."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _by_name(templates: tuple[LogTemplate, ...]) -> dict[str, int]:
    return {name_of(template.text): template.lines for template in templates if template.lines > 0}


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: lines - before.get(name, 0) for name, lines in after.items() if lines > before.get(name, 0)}


def _kept(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return the lines of each kind; one that the reader left out this time is not forgotten at once."""
    merged = {**before, **after}
    return merged if len(merged) <= 4 * MOST else dict(after)


def _lines(before: Sample, after: Sample) -> int | None:
    if before.log_errors is None or after.log_errors is None or after.log_errors < before.log_errors:
        return None
    return after.log_errors - before.log_errors
