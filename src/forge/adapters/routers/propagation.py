"""For controllers that never say when a change is in effect: it counts as such some seconds after it was written."""

from __future__ import annotations

from collections.abc import Callable

from forge.adapters.kubernetes.naming import annotation
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import WRITTEN_AT, with_notes


class Propagation:
    """Notes the time of a change on the object itself, so that another worker knows it too."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock

    def begun(self, item: Object) -> Object:
        """Return the object with the time of this change."""
        return with_notes(item, **{WRITTEN_AT: f"{self._clock():.3f}"})

    def over(self, item: Object) -> bool:
        """Whether the last change is long enough ago; a clock that was set back does not wait for ever."""
        try:
            passed = self._clock() - float(annotation(item, WRITTEN_AT) or "0")
        except ValueError:
            return True
        return passed >= self._seconds or passed < -1.0
