"""A run on virtual time: decides, keeps what is under way, and holds every decision to the invariants."""

from __future__ import annotations

import msgspec
import pytest

from forge.core.pipeline.decide import decide, new_run
from forge.core.pipeline.keys import StepKey, parse
from forge.core.pipeline.slots import places_waited_for
from forge.core.pipeline.state import RUN_FINAL, RunState
from forge.model.decision import Command, Outcome
from forge.model.plan import JobPlan, Plan, Source, StepPlan

DONE = {"succeeded", "skipped"}
WAITING = {"pending", "waiting_approval", "queued", "retrying"}


class Groups:
    """Concurrency groups as the store keeps them; several runs may share them."""

    def __init__(self):
        self.held, self.queue = {}, {}

    def ask(self, group, holder, limit):
        held, queue = self.held.setdefault(group, []), self.queue.setdefault(group, [])
        if holder in held:
            return 0
        if holder not in queue:
            queue.append(holder)
        if queue[0] == holder and len(held) < limit:
            held.append(queue.pop(0))
            return 0
        return queue.index(holder) + 1

    def free(self, group, holder):
        for members in (self.held.get(group, []), self.queue.get(group, [])):
            if holder in members:
                members.remove(holder)

    @property
    def empty(self):
        return not any(self.held.values()) and not any(self.queue.values())


class Driver:
    """Drives one run by hand or to its end; `now` is virtual."""

    def __init__(self, plan, *, run="run-1", actor="ana", max_parallel=4, groups=None, state=None, performs_slots=True):
        self.plan, self.max_parallel = plan, max_parallel
        self.groups = groups or Groups()
        self.state = state or new_run(plan, run, actor=actor, at=1000.0)
        self.now = 1000.0
        self.under_way, self.events, self.started, self.keys = {}, [], [], set()
        self.wake_at, self.cancels, self.why = None, (), ""
        self.performs_slots = performs_slots
        self.commands = 0

    def tick(self, *, commands=(), outcomes=()):
        """Decide once, check the decision, and take it over."""
        limits = {job.name: job.concurrency.limit for job in self.plan.jobs if job.concurrency}
        places = {}
        for holder, group in places_waited_for(self.state).items():
            limit = limits[holder.job] if holder.job else self.plan.concurrency.limit
            places[str(holder)] = self.groups.ask(group, str(holder), limit)
        arguments = (self.plan, self.state, tuple(commands), tuple(outcomes), self.now)
        decision = decide(*arguments, max_parallel=self.max_parallel, places=places)
        assert decision == decide(*arguments, max_parallel=self.max_parallel, places=places), "not deterministic"
        before, self.state = self.state, decision.state
        self._check(before, decision, told=bool(commands))
        self.events += decision.events
        self.wake_at, self.cancels, self.why = decision.wake_at, decision.cancel, decision.why
        for outcome in outcomes:
            self.under_way.pop(outcome.key, None)
        for action in decision.actions:
            self.keys.add(action.key)
            self.under_way[action.key] = action
            if action.kind == "step":
                self.started.append(action.key)
        if self.performs_slots:
            self._perform_side_actions()
        return decision

    def _perform_side_actions(self):
        for key, action in list(self.under_way.items()):
            payload = action.payload
            if key not in self.under_way:  # performed by the tick of another one's outcome
                continue
            if action.kind == "slot_ask":
                position = self.groups.ask(payload["group"], payload["holder"], payload["limit"])
                self.tick(outcomes=[Outcome(key, "succeeded", self.now, data={"position": position})])
            elif action.kind == "slot_free":
                self.groups.free(payload["group"], payload["holder"])
                self.tick(outcomes=[Outcome(key, "succeeded", self.now)])
            elif action.kind == "save_caches":
                self.tick(outcomes=[Outcome(key, "succeeded", self.now)])

    def _check(self, before, decision, *, told):
        state = decision.state
        limit = self.plan.max_parallel or self.max_parallel
        running = [job.name for job in state.jobs.values() if job.status == "running"]
        assert len(running) <= limit, f"{running} run at once"
        for action in decision.actions:
            assert action.key not in self.keys, f"{action.key} is begun twice"
            key = parse(action.key)
            assert str(key) == action.key
            if isinstance(key, StepKey):
                needs = self.plan.job(key.job).depends_on
                assert all(state.jobs[name].status in DONE for name in needs), f"{key} began too early"
                assert before.jobs[key.job].status not in {"succeeded", "skipped"} or before.status in RUN_FINAL
        for job in state.jobs.values():
            if job.status in WAITING:
                assert job.waits_for, f"{job} does not say what it waits for"
            if any(step.status == "retrying" for step in job.steps.values()):
                assert job.waits_for
            if not told and job == before.jobs[job.name]:
                assert job is before.jobs[job.name], f"{job.name} was copied without a change"
        if state.status in {"waiting", "queued"}:
            assert state.waits_for
        assert msgspec.json.decode(msgspec.json.encode(state), type=RunState) == state

    def finish(self, key, result="succeeded", message="", **data):
        """Report what became of an action."""
        return self.tick(outcomes=[Outcome(key, result, self.now, message, data)])

    def command(self, kind, actor="ben", *, at=None, **payload):
        """Send a command and decide."""
        self.commands += 1
        return self.tick(commands=[Command(self.commands, kind, actor, self.now if at is None else at, payload)])

    def sleep(self, seconds=None):
        """Let time pass, by default until the run wants to look again."""
        if seconds is None:
            assert self.wake_at is not None, "nothing would ever wake it"
            self.now = max(self.now, self.wake_at)
        else:
            self.now += seconds
        return self.tick()

    def carry_on(self, result=lambda _key: "succeeded"):
        """Finish whatever is under way, with `result(key)`, until only people or time can do something."""
        self.tick()
        while self.under_way:
            key = next(iter(self.under_way))
            if key in self.cancels:
                self.finish(key, "cancelled")
            else:
                self.finish(key, result(key))
        return self.state

    def status(self, job):
        return self.state.jobs[job].status

    def kinds(self):
        return [event.kind for event in self.events]

    def said(self, kind):
        """Return the messages of all events of a kind."""
        return [event.message for event in self.events if event.kind == kind]


class Making:
    """Short spellings for plans."""

    Driver, Groups = Driver, Groups

    @staticmethod
    def step(identifier="1", kind="run", **fields):
        fields.setdefault("config", {"script": "true"} if kind == "run" else {})
        return StepPlan(identifier, kind, fields.pop("name", f"step {identifier}"), **fields)

    @staticmethod
    def gate_step(identifier="1", **approval):
        return StepPlan(identifier, "approve", f"approve {identifier}", {"approval": approval})

    @classmethod
    def job(cls, name, *steps, **fields):
        fields["depends_on"] = tuple(fields.get("depends_on", ()))
        return JobPlan(name, name, steps or (cls.step(),), **fields)

    @staticmethod
    def plan(*jobs, **fields):
        return Plan("test", jobs, Source("0" * 64, "c0ffee", "main"), **fields)

    @classmethod
    def drive(cls, *jobs, **fields):
        names = ("max_parallel", "groups", "actor", "run")
        options = {name: fields.pop(name) for name in names if name in fields}
        return Driver(cls.plan(*jobs, **fields), **options)


@pytest.fixture(scope="session")
def make():
    """Return how to make plans and drive runs."""
    return Making
