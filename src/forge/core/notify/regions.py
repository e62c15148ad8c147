"""What a release's steps look like on a graph: a region for each, folded from the events of its environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from forge.core.release.state import RELEASE_FINAL
from forge.model.units import format_weight


class Happened(msgspec.Struct, frozen=True):
    """An event of an environment's log."""

    seq: int
    at: float
    kind: str
    message: str = ""
    data: dict[str, Any] = {}


class Region(msgspec.Struct, frozen=True):
    """One step of one release, from `began` to `ended` (None: it still lasts); seconds since the epoch."""

    key: str
    """`<release>/<seq of the event that began it>`: the same however often the log is read."""
    release: str
    version: str
    step: str
    """`starting`, `weight 5%`, `paused`, `approval`, `promoting`, `baking`, `rolling back`, or how it ended."""
    text: str
    began: float
    ended: float | None = None


class Course(msgspec.Struct, frozen=True):
    """What is known of a release that is not over."""

    version: str = ""
    open: str = ""
    """Key of the region that lasts."""
    before: str = ""
    """The step that a pause interrupted."""


class Drawing(msgspec.Struct, frozen=True):
    """The fold: everything up to the event `cursor` is in it. Who draws takes closed regions out."""

    cursor: int = 0
    courses: dict[str, Course] = {}
    regions: tuple[Region, ...] = ()


_STEPS = {
    "release_started": "starting",
    "release_paused": "paused",
    "release_waits_for_approval": "approval",
    "release_promoting": "promoting",
    "release_baking": "baking",
    "release_rolling_back": "rolling back",
}
_ENDS = {f"release_{status}": status.replace("_", " ") for status in RELEASE_FINAL}


def drawn(drawing: Drawing, events: Iterable[Happened]) -> Drawing:
    """Take in events in their order; what was taken in already changes nothing."""
    for event in events:
        if event.seq > drawing.cursor:
            drawing = replace(_taken(drawing, event), cursor=event.seq)
    return drawing


def under_way(drawing: Drawing) -> bool:
    """Whether a release is going on, or waits for its turn."""
    return bool(drawing.courses)


def _taken(drawing: Drawing, event: Happened) -> Drawing:
    release = str(event.data.get("release", ""))
    if not release:
        return drawing
    course = drawing.courses.get(release, Course())
    if event.kind in {"release_accepted", "rollback_started", "release_started"}:
        course = replace(course, version=str(event.data.get("version", course.version)))
        drawing = _with(drawing, release, course)
    if event.kind in _ENDS:
        return _ended(drawing, release, course, event)
    step = _step(course, event)
    if not step:
        return drawing
    before = _open(drawing, course)
    return _begun(drawing, release, replace(course, before=before.step if before else ""), step, event)


def _step(course: Course, event: Happened) -> str:
    if event.kind == "release_weight":
        weight = event.data.get("weight")
        return f"weight {format_weight(weight)}" if isinstance(weight, int) else ""
    if event.kind == "command_resume":
        return course.before
    return _STEPS.get(event.kind, "")


def _open(drawing: Drawing, course: Course) -> Region | None:
    return next((region for region in drawing.regions if region.key == course.open), None) if course.open else None


def _begun(drawing: Drawing, release: str, course: Course, step: str, event: Happened) -> Drawing:
    key = f"{release}/{event.seq}"
    drawing = _closed(drawing, course, event.at)
    region = Region(key, release, course.version, step, event.message, event.at)
    return _with(replace(drawing, regions=(*drawing.regions, region)), release, replace(course, open=key))


def _ended(drawing: Drawing, release: str, course: Course, event: Happened) -> Drawing:
    """The last region ends; how it ended is a moment of its own, which begins and ends at once."""
    drawing = _closed(drawing, course, event.at)
    version = course.version or str(event.data.get("version", ""))
    moment = Region(f"{release}/{event.seq}", release, version, _ENDS[event.kind], event.message, event.at, event.at)
    courses = {name: known for name, known in drawing.courses.items() if name != release}
    return replace(drawing, courses=courses, regions=(*drawing.regions, moment))


def _closed(drawing: Drawing, course: Course, at: float) -> Drawing:
    """A clock that was set back makes no region end before it began."""
    regions = tuple(
        replace(region, ended=max(at, region.began)) if region.key == course.open and region.ended is None else region
        for region in drawing.regions
    )
    return replace(drawing, regions=regions)


def _with(drawing: Drawing, release: str, course: Course) -> Drawing:
    return replace(drawing, courses={**drawing.courses, release: course})
