"""The story of a release in words and numbers."""

from __future__ import annotations

import time

from forge.cli.render.paint import Paint
from forge.model.units import format_duration, format_weight
from forge.views.explanation import AskedStep, Explanation, Told, WordOfJudge

FACTS = {"promote": "nothing speaks against it", "hold": "it cannot know yet", "inconclusive": "waiting will not help"}
_SHOWN = {
    "evidence": "evidence",
    "p_value": "p",
    "ratio": "error ratio to stable",
    "ratio_interval": "95 % interval",
    "rate": "rate",
    "errors": "failed",
    "requests": "of",
    "stable_errors": "stable failed",
    "stable_requests": "of",
    "value": "value",
    "above": "limit",
    "limit": "limit",
}


def explanation_lines(story: Explanation, paint: Paint, *, utc: bool = False) -> list[str]:
    """Return the story, line by line. `utc`: times as such instead of the local ones."""

    def clock(at: float | None) -> str:
        if at is None:
            return "not yet"
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at) if utc else time.localtime(at))

    return [
        *_head(story, paint, clock(story.created_at)),
        *_section(paint, "Who asked for what", [_told(told, clock(told.at)) for told in story.told]),
        *_section(paint, "Traffic", [_step(step, clock(step.at)) for step in story.steps]),
        *_section(paint, "Verdicts", [_verdict(word, clock(word.at), paint) for word in story.verdicts]),
        *_section(
            paint,
            "Waited for",
            [f"{format_duration(wait.seconds):>8}  {wait.what}" for wait in story.waits],
        ),
        *_section(paint, "What decided", _decided(story, clock)),
        *_section(paint, "What it cost", _cost(story)),
        "",
        paint.dim(_basis(story)),
    ]


def _head(story: Explanation, paint: Paint, created: str) -> list[str]:
    lasted = ""
    if story.started_at is not None and story.finished_at is not None:
        lasted = f" after {format_duration(story.finished_at - story.started_at)}"
    what = "goes back to" if story.kind == "rollback" else "releases"
    title = f"{paint.bold(story.id)} {what} {paint.bold(story.version)} in {story.environment}"
    lines = [
        f"{paint.icon(story.status)} {title}: {story.status.replace('_', ' ')}{lasted}",
        f"  asked for by {story.actor or 'somebody'} at {created}" + (f" in {story.run}" if story.run else ""),
        f"  {story.strategy}; judge `{story.judge}`; beside {story.previous or 'no earlier version'}",
    ]
    for words, text in (("because", story.reason), ("waits for", story.waits_for), ("note", story.note)):
        if text:
            lines.append(f"  {words}: {text}")
    lines += [f"  grafana: {link}" for link in story.links]
    return lines


def _section(paint: Paint, title: str, lines: list[str]) -> list[str]:
    return ["", paint.bold(title), *(f"  {line}" for line in lines)] if lines else []


def _told(told: Told, at: str) -> str:
    return f"{at}  {told.actor or 'somebody'}: {told.command}" + (f" ({told.comment})" if told.comment else "")


def _step(step: AskedStep, at: str) -> str:
    if step.observed_at is None:
        seen = "the router was never seen to give it"
    else:
        seen = f"seen after {format_duration(step.observed_at - step.at)}"
    return f"{at}  {format_weight(step.weight):>5}  {seen}"


def _verdict(word: WordOfJudge, at: str, paint: Paint) -> str:
    readings = f" ({word.readings} readings)" if word.readings > 1 else ""
    meaning = FACTS.get(word.kind)
    return f"{at}  {paint.state(word.kind)}{readings}" + (f", {meaning}" if meaning else "") + f": {word.why}"


def _decided(story: Explanation, clock: object) -> list[str]:
    word = story.decisive
    if word is None or not callable(clock):
        return []
    lines = [f"{clock(word.at)}  {word.kind}: {word.why}"]
    numbers = [f"{name} {_number(word.data[key])}" for key, name in _SHOWN.items() if word.data.get(key) is not None]
    if numbers:
        lines.append(", ".join(numbers))
    if story.rolled_back_to:
        why = f": {story.rolled_back_why}" if story.rolled_back_why else ""
        lines.append(f"its traffic went to {story.rolled_back_to}{why}")
    return lines


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " to ".join(_number(part) for part in value)
    return "unbounded" if value is None else str(value)


def _cost(story: Explanation) -> list[str]:
    harm = story.harm
    if harm is None:
        return ["nothing: it never had traffic"]
    rate = f" ({harm.failed / harm.requests:.2%})" if harm.requests else ""
    lines = [
        f"{harm.failed:,} of {harm.requests:,} requests failed{rate} in {format_duration(harm.seconds)} with traffic",
        *(harm.words or (f"{harm.excess:,.0f} more than stable would have failed on as many",)),
    ]
    return [*lines, story.counterfactual.words] if story.counterfactual else lines


def _basis(story: Explanation) -> str:
    if not story.decisions:
        return "told from the state alone: no decision about it is on record"
    return f"told from {story.decisions} decisions on record; `forge audit replay` makes them again"
