"""What one call of `decide` gathers: mutable inside of it, gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from forge.core.pipeline.plan_index import PlanIndex, index_of
from forge.core.pipeline.state import JobState, RunState
from forge.model.decision import Action, Event
from forge.model.plan import Plan

Evaluate = Callable[[str, Mapping[str, Any]], Any]
"""Evaluates an expression; raises ValueError (ExpressionError) for one that is wrong."""


class Tick:
    """The run as it becomes, with the actions and events of the way there.

    `jobs` is copied on the first change, and a job that did not change stays the identical object: the
    engine writes only what is another object than before.
    """

    __slots__ = (
        "_copied", "actions", "cancels", "evaluate", "events", "index", "jobs", "limit", "now", "places", "plan",
        "run", "running", "wake_at",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        run: RunState,
        now: float,
        *,
        limit: int,
        evaluate: Evaluate,
        places: Mapping[str, int],
    ) -> None:
        self.plan = plan
        self.index: PlanIndex = index_of(plan)
        self.run = run
        self.jobs = run.jobs
        self.now = now
        self.limit = limit
        self.evaluate = evaluate
        self.places = places
        self.running = 0
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.cancels: dict[str, None] = {}
        self.wake_at: float | None = None
        self._copied = False

    def put(self, job: JobState) -> JobState:
        """Make `job` the state of the job of its name."""
        if not self._copied:
            self.jobs = dict(self.jobs)
            self._copied = True
        self.jobs[job.name] = job
        return job

    def change(self, job: JobState, **fields: Any) -> JobState:
        """Change fields of a job and return its new state."""
        return self.put(replace(job, **fields))

    def change_run(self, **fields: Any) -> None:
        """Change fields of the run's header."""
        self.run = replace(self.run, **fields)

    def act(self, key: object, kind: str, payload: dict[str, Any], *, rerun: bool = True) -> None:
        """Have something done."""
        self.actions.append(Action(str(key), kind, payload, rerun))

    def tell(self, event: str, message: str, **data: Any) -> None:
        """Write an event."""
        self.events.append(Event(event, message, data))

    def stop(self, key: object) -> None:
        """Have an action that is under way stopped."""
        self.cancels[str(key)] = None

    def wake(self, at: float) -> None:
        """Look again at `at`, or earlier."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at
