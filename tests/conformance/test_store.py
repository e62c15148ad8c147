"""What every database must do, in the words of `forge/store/contract.py`."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from forge.model.decision import Action, Command, Event, Outcome, canonical_json
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.store.contract import Claim, Write
from forge.store.database import DatabaseStore, open_store
from forge.store.log import link

RUN = ("run",)


async def create(store: DatabaseStore, key: str = "", kind: str = "run", **parts: bytes) -> str:
    return await store.machines.create(kind, key, "queued", b'{"n":0}', parts, id_prefix=kind)


async def claim_one(store: DatabaseStore, worker: str = "w1", seconds: float = 30.0) -> Claim:
    (claim,) = await store.machines.claim(worker, RUN, 10, seconds)
    return claim


def tick(**fields: object) -> Write:
    return msgspec.structs.replace(Write(status="running", head=b'{"n":1}'), **fields)


class TestMachines:
    async def test_ids_count_up_for_each_prefix(self, store):
        assert [await create(store), await create(store), await create(store, kind="env")] == [
            "run-1",
            "run-2",
            "env-1",
        ]

    async def test_a_machine_comes_back_as_it_was_created(self, store):
        before = await store.now()
        machine = await store.machines.create(
            "run", "k", "queued", b"\x00head", {"a": b"1", "b": b"\xff"}, id_prefix="run"
        )
        record = await store.machines.load(machine)
        assert (record.id, record.kind, record.key, record.status) == ("run-1", "run", "k", "queued")
        assert (record.head, record.parts) == (b"\x00head", {"a": b"1", "b": b"\xff"})
        assert before - 1 <= record.created_at <= await store.now() + 1

    async def test_an_unknown_machine_is_none(self, store):
        assert await store.machines.load("run-9") is None
        assert await store.machines.find("run", "nobody") is None

    async def test_creating_the_same_key_again_returns_the_first(self, store):
        first = await create(store, "production", kind="env")
        again = await store.machines.create("env", "production", "other", b"{}", {}, id_prefix="env")
        assert first == again == await store.machines.find("env", "production")
        assert (await store.machines.load(first)).status == "queued"
        assert await create(store, "staging", kind="env") == "env-2"

    async def test_many_creators_of_one_key_make_one_machine(self, store):
        made = await asyncio.gather(*(create(store, "production", kind="env") for _ in range(10)))
        assert set(made) == {"env-1"}

    async def test_the_same_key_of_another_kind_is_another_machine(self, store):
        assert await create(store, "x", kind="env") != await create(store, "x", kind="run")

    async def test_counting_tells_states_and_what_waits_for_a_worker(self, store):
        for _ in range(3):
            await create(store)
        await create(store, kind="env")
        counts = await store.machines.count()
        assert counts.by_status == {("run", "queued"): 3, ("env", "queued"): 1}
        assert counts.waiting == 4
        for claim in await store.machines.claim("w", RUN, 10, 30):
            await store.machines.write(claim, tick(status="running", wake_at=await store.now() + 60))
            await store.machines.let_go(claim)
        counts = await store.machines.count()
        assert counts.by_status == {("run", "running"): 3, ("env", "queued"): 1}
        assert counts.waiting == 1  # the others sleep
        await store.inbox.send("run-1", "poke", "ann", {})
        await asyncio.sleep(0.2)
        counts = await store.machines.count()
        assert counts.waiting == 2
        assert 0.1 < counts.oldest_due < 30

    async def test_newest_first_by_kind_status_and_position(self, store):
        ids = [await create(store, part=b"1") for _ in range(5)]
        await create(store, kind="env")
        claims = await store.machines.claim("w", RUN, 2, 30)
        for claim in claims:
            await store.machines.write(claim, tick(status="failed"))
        everything = await store.machines.newest("run")
        assert [record.id for record in everything] == ids[::-1]
        assert all(record.parts == {} for record in everything)
        failed = await store.machines.newest("run", statuses=("failed", "error"))
        assert {record.id for record in failed} == {claim.machine for claim in claims}
        assert [r.id for r in await store.machines.newest("run", limit=2, before="run-4")] == ["run-3", "run-2"]


class TestClaims:
    async def test_a_new_machine_is_due_and_claimed_once(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        assert (claim.machine, claim.kind, claim.worker, claim.token) == (machine, "run", "w1", 1)
        assert await store.machines.claim("w2", RUN, 10, 30) == []
        assert await store.machines.claim("w1", RUN, 10, 30) == []

    async def test_only_the_kinds_and_machines_asked_for(self, store):
        await create(store, kind="env")
        one, two = await create(store), await create(store)
        assert [c.machine for c in await store.machines.claim("w", RUN, 10, 30, only=(two,))] == [two]
        assert [c.machine for c in await store.machines.claim("w", RUN, 10, 30)] == [one]
        assert [c.kind for c in await store.machines.claim("w", ("run", "env"), 10, 30)] == ["env"]
        assert await store.machines.claim("w", (), 10, 30) == []

    async def test_no_more_than_the_limit(self, store):
        for _ in range(5):
            await create(store)
        assert len(await store.machines.claim("w", RUN, 3, 30)) == 3
        assert len(await store.machines.claim("w", RUN, 3, 30)) == 2

    async def test_tokens_grow_with_every_claim(self, store):
        await create(store)
        tokens = []
        for worker in ("a", "b", "a"):
            claim = await claim_one(store, worker)
            tokens.append(claim.token)
            await store.inbox.send(claim.machine, "poke", "me", {})
            await store.machines.let_go(claim)
        assert tokens == sorted(set(tokens))

    async def test_a_machine_without_anything_to_do_is_not_due(self, store):
        await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(wake_at=None))
        await store.machines.let_go(claim)
        assert await store.machines.claim("w2", RUN, 10, 30) == []
        assert await store.machines.next_due("w2", RUN) is None

    async def test_wake_at_makes_it_due(self, store):
        await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(wake_at=await store.now() + 0.2))
        await store.machines.let_go(claim)
        assert await store.machines.claim("w2", RUN, 10, 30) == []
        assert 0 < await store.machines.next_due("w2", RUN) <= 0.21
        await asyncio.sleep(0.25)
        assert (await claim_one(store, "w2")).token == 2

    async def test_a_command_makes_it_due(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick())
        await store.machines.let_go(claim)
        await store.inbox.send(machine, "approve", "ada", {})
        assert await claim_one(store, "w2")

    async def test_a_command_that_came_while_it_was_held_makes_it_due_afterwards(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.inbox.send(machine, "approve", "ada", {})
        await store.machines.write(claim, tick())
        await store.machines.let_go(claim)
        assert await claim_one(store, "w2")

    async def test_an_outcome_makes_it_due_afterwards(self, store):
        await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(actions=(Action("a", "step"),)))
        await store.intents.finish(claim, Outcome("a", "succeeded", 1.0))
        await store.machines.let_go(claim)
        claim = await claim_one(store, "w2")
        await store.machines.write(claim, tick(settled=("a",)))
        await store.machines.let_go(claim)
        assert await store.machines.claim("w3", RUN, 10, 30) == []

    async def test_an_expired_lease_goes_to_the_next_worker_though_nothing_is_due(self, store):
        await create(store)
        old = await claim_one(store, "dead", 0.3)
        await store.machines.write(old, tick(wake_at=None))
        assert await store.machines.claim("next", RUN, 10, 30) == []
        assert 0 < await store.machines.next_due("next", RUN) <= 0.3
        await asyncio.sleep(0.35)
        new = await claim_one(store, "next")
        assert new.token > old.token

    async def test_a_heartbeat_keeps_every_lease(self, store):
        machines = {await create(store), await create(store)}
        await store.machines.claim("w1", RUN, 10, 0.4)
        for _ in range(4):
            await asyncio.sleep(0.15)
            assert await store.machines.renew("w1", 0.4) == machines
            assert await store.machines.claim("w2", RUN, 10, 30) == []

    async def test_a_late_heartbeat_tells_what_was_lost(self, store):
        await create(store)
        await claim_one(store, "slow", 0.1)
        await asyncio.sleep(0.15)
        await claim_one(store, "quick")
        assert await store.machines.renew("slow", 0.1) == set()
        assert len(await store.machines.renew("quick", 30)) == 1

    async def test_a_late_heartbeat_before_anyone_took_over_keeps_the_lease(self, store):
        machine = await create(store)
        claim = await claim_one(store, "slow", 0.1)
        await asyncio.sleep(0.15)
        assert await store.machines.renew("slow", 30) == {machine}
        assert await store.machines.claim("quick", RUN, 10, 30) == []
        await store.machines.write(claim, tick())

    async def test_letting_go_of_what_was_lost_changes_nothing(self, store):
        await create(store)
        old = await claim_one(store, "slow", 0.05)
        await asyncio.sleep(0.1)
        new = await claim_one(store, "quick")
        await store.machines.let_go(old)
        await store.machines.write(new, tick())

    async def test_letting_go_of_all_but_some(self, store):
        one, two = await create(store), await create(store)
        await store.machines.claim("w", RUN, 10, 30)
        await store.machines.let_go_all("w", keep=(two,))
        assert await store.machines.renew("w", 30) == {two}
        await store.machines.let_go_all("w")
        assert await store.machines.renew("w", 30) == set()
        assert (await store.machines.load(one)).status == "queued"

    async def test_what_is_unfinished_is_due_at_once_after_letting_go_of_all(self, store):
        await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(actions=(Action("a", "step"),), wake_at=None))
        await store.machines.let_go_all("w1")
        assert await claim_one(store, "w2")

    async def test_told_names_each_news_once(self, store):
        one, two = await create(store), await create(store)
        await store.machines.claim("w", RUN, 10, 30)
        assert await store.machines.told("w") == set()
        await store.inbox.send(two, "approve", "ada", {})
        assert await store.machines.told("other") == set()
        assert await store.machines.told("w") == {two}
        assert await store.machines.told("w") == set()
        await store.inbox.send(one, "approve", "ada", {})
        assert await store.machines.told("w") == {one}

    async def test_concurrent_claims_never_share_a_machine(self, store, store_url):
        for _ in range(30):
            await create(store)
        async with await open_store(store_url) as second:
            found = await asyncio.gather(
                *(each.machines.claim(f"w{n}", RUN, 4, 30) for n in range(6) for each in (store, second))
            )
        machines = [claim.machine for claims in found for claim in claims]
        assert len(machines) == len(set(machines))
        rest = await store.machines.claim("last", RUN, 100, 30)
        assert len(machines) + len(rest) == 30


class TestWrites:
    async def test_a_tick_changes_everything_it_names_at_once(self, store):
        machine = await create(store, a=b"1", b=b"1")
        number = await store.inbox.send(machine, "approve", "ada", {"job": "x"})
        claim = await claim_one(store)
        wake = await store.now() + 60
        new = await store.machines.write(
            claim,
            tick(
                parts={"b": b"2", "c": b"3"},
                actions=(Action("k", "step", {"n": 1}, rerun=False),),
                events=(Event("started", "it began", {"x": [1]}),),
                consumed=(number,),
                wake_at=wake,
            ),
        )
        record = await store.machines.load(machine)
        assert (record.status, record.head) == ("running", b'{"n":1}')
        assert record.parts == {"a": b"1", "b": b"2", "c": b"3"}
        assert record.wake_at == pytest.approx(wake)
        assert new == ("k",)
        assert await store.inbox.of(machine) == []
        (intent,) = await store.intents.of(machine)
        assert (intent.action, intent.state) == (Action("k", "step", {"n": 1}, rerun=False), "pending")
        (event,) = await store.log.read(machine)
        assert event.event == Event("started", "it began", {"x": [1]})

    async def test_a_key_that_exists_is_not_written_again_even_when_settled(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        assert await store.machines.write(claim, tick(actions=(Action("a", "x"), Action("b", "x")))) == ("a", "b")
        assert await store.machines.write(claim, tick(actions=(Action("a", "other"), Action("c", "x")))) == ("c",)
        await store.intents.finish(claim, Outcome("a", "succeeded", 1.0))
        await store.machines.write(claim, tick(settled=("a",)))
        assert await store.machines.write(claim, tick(actions=(Action("a", "x"),))) == ()
        assert [intent.action.key for intent in await store.intents.of(machine)] == ["b", "c"]
        assert [intent.action.kind for intent in await store.intents.of(machine)] == ["x", "x"]

    async def test_the_same_key_in_another_machine_is_another_intent(self, store):
        await create(store)
        await create(store)
        for claim in await store.machines.claim("w", RUN, 10, 30):
            assert await store.machines.write(claim, tick(actions=(Action("a", "x"),))) == ("a",)

    async def test_a_lost_token_writes_nothing_at_all(self, store):
        machine = await create(store, a=b"1")
        number = await store.inbox.send(machine, "approve", "ada", {})
        old = await claim_one(store, "old", 0.05)
        await asyncio.sleep(0.1)
        new = await claim_one(store, "new")
        await store.machines.write(new, tick(actions=(Action("k", "x"),)))
        stale = tick(
            status="stale",
            parts={"a": b"2"},
            actions=(Action("s", "x"),),
            events=(Event("stale", "never"),),
            consumed=(number,),
            cancel=("k",),
            outcomes=(Outcome("k", "failed", 1.0),),
        )
        for attempt in (
            store.machines.write(old, stale),
            store.intents.start(old, "k"),
            store.intents.finish(old, Outcome("k", "failed", 1.0)),
            store.intents.finish_all(old, (Outcome("k", "failed", 1.0),)),
        ):
            with pytest.raises(StaleLease):
                await attempt
        record = await store.machines.load(machine)
        assert (record.status, record.parts) == ("running", {"a": b"1"})
        (intent,) = await store.intents.of(machine)
        assert (intent.state, intent.outcome, intent.cancel) == ("pending", None, False)
        assert len(await store.inbox.of(machine)) == 1
        assert await store.log.read() == []

    async def test_the_same_worker_with_an_older_token_is_stale_too(self, store):
        machine = await create(store)
        old = await claim_one(store, "w")
        await store.machines.let_go(old)
        await store.inbox.send(machine, "x", "me", {})
        new = await claim_one(store, "w")
        with pytest.raises(StaleLease):
            await store.machines.write(old, tick())
        await store.machines.write(new, tick())

    async def test_a_claim_that_was_let_go_may_not_write(self, store):
        await create(store)
        claim = await claim_one(store)
        await store.machines.let_go(claim)
        with pytest.raises(StaleLease):
            await store.machines.write(claim, tick())

    async def test_a_failure_in_the_middle_leaves_nothing_behind(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        with pytest.raises((TypeError, DependencyFailed)):
            await store.machines.write(claim, tick(parts={"a": b"1"}, actions=(Action("k", None),)))  # type: ignore[arg-type]
        assert (await store.machines.load(machine)).parts == {}
        await store.machines.write(claim, tick(parts={"a": b"2"}))
        assert (await store.machines.load(machine)).parts == {"a": b"2"}


class TestIntents:
    async def test_from_pending_to_settled(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(actions=(Action("b", "x"), Action("a", "x"))))
        assert [i.action.key for i in await store.intents.of(machine)] == ["b", "a"]
        await store.intents.start(claim, "b")
        (b, a) = await store.intents.of(machine)
        assert (b.state, b.worker, b.token, a.state) == ("started", "w1", claim.token, "pending")
        outcome = Outcome("b", "failed", 12.5, "it broke", {"exit": 3})
        await store.intents.finish(claim, outcome)
        (b, a) = await store.intents.of(machine)
        assert (b.state, b.outcome) == ("finished", outcome)
        await store.machines.write(claim, tick(settled=("b",)))
        assert [i.action.key for i in await store.intents.of(machine)] == ["a"]

    async def test_the_first_outcome_stands(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(actions=(Action("a", "x"),)))
        await store.intents.finish(claim, Outcome("a", "succeeded", 1.0))
        await store.intents.finish(claim, Outcome("a", "failed", 2.0))
        await store.intents.start(claim, "a")
        (intent,) = await store.intents.of(machine)
        assert (intent.state, intent.outcome.result) == ("finished", "succeeded")

    async def test_outcomes_recorded_by_the_tick_itself_are_settled(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(actions=(Action("a", "x"), Action("b", "x")), start=True))
        assert {i.state for i in await store.intents.of(machine)} == {"started"}
        await store.machines.write(claim, tick(outcomes=(Outcome("a", "succeeded", 1.0),), cancel=("b",)))
        (b,) = await store.intents.of(machine)
        assert (b.action.key, b.cancel) == ("b", True)

    async def test_settling_what_has_no_outcome_keeps_it(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.machines.write(claim, tick(actions=(Action("a", "x"),)))
        await store.machines.write(claim, tick(settled=("a", "unknown")))
        assert [i.action.key for i in await store.intents.of(machine)] == ["a"]


class TestInbox:
    async def test_commands_come_in_order_with_who_and_when(self, store):
        machine = await create(store)
        first = await store.inbox.send(machine, "approve", "ada", {"job": "x", "inputs": {"n": [1, 2.5, None]}})
        second = await store.inbox.send(machine, "cancel", "bob", {})
        one, two = await store.inbox.of(machine)
        assert one == Command(first, "approve", "ada", one.at, {"job": "x", "inputs": {"n": [1, 2.5, None]}})
        assert (two.id, two.actor) == (second, "bob")
        assert abs(one.at - await store.now()) < 2
        assert first < second

    async def test_the_same_key_is_accepted_once(self, store):
        machine, other = await create(store), await create(store)
        assert await store.inbox.sent(machine, "click") is None
        first = await store.inbox.send(machine, "approve", "ada", {"n": 1}, key="click")
        assert await store.inbox.sent(machine, "click") == first
        assert await store.inbox.sent(other, "click") is None
        assert await store.inbox.sent(machine, "") is None
        assert await store.inbox.send(machine, "approve", "ada", {"n": 2}, key="click") == first
        assert await store.inbox.send(other, "approve", "ada", {"n": 1}, key="click") != first
        assert [c.payload for c in await store.inbox.of(machine)] == [{"n": 1}]
        claim = (await store.machines.claim("w", RUN, 10, 30, only=(machine,)))[0]
        await store.machines.write(claim, tick(consumed=(first,)))
        assert await store.inbox.send(machine, "approve", "ada", {"n": 1}, key="click") == first
        assert await store.inbox.of(machine) == []

    async def test_without_a_key_every_command_counts(self, store):
        machine = await create(store)
        await store.inbox.send(machine, "promote", "ada", {})
        await store.inbox.send(machine, "promote", "ada", {})
        assert len(await store.inbox.of(machine)) == 2

    async def test_a_machine_that_does_not_exist_is_said_so(self, store):
        with pytest.raises(UsageError, match="run-77"):
            await store.inbox.send("run-77", "approve", "ada", {})

    async def test_another_machines_command_cannot_be_consumed(self, store):
        machine, other = await create(store), await create(store)
        number = await store.inbox.send(other, "approve", "ada", {})
        claim = (await store.machines.claim("w", RUN, 10, 30, only=(machine,)))[0]
        await store.machines.write(claim, tick(consumed=(number,)))
        assert len(await store.inbox.of(other)) == 1


class TestLog:
    async def test_the_newest_event_of_a_machine(self, store):
        first, second = await create(store), await create(store)
        for claim in sorted(await store.machines.claim("w", RUN, 10, 30), key=lambda one: one.machine):
            await store.machines.write(claim, tick(events=(Event("a", "1"), Event("a", "2"))))
        assert [await store.log.last(machine) for machine in (first, second, "run-99")] == [2, 4, 0]

    async def test_events_are_numbered_and_chained(self, store):
        await store.machines.create("run", "", "q", b"", {}, events=(Event("a", "1"), Event("b", "2")), id_prefix="run")
        await store.machines.create("run", "", "q", b"", {}, events=(Event("c", "3"),), id_prefix="run")
        events = await store.log.read()
        assert [(e.seq, e.machine, e.event.kind) for e in events] == [
            (1, "run-1", "a"),
            (2, "run-1", "b"),
            (3, "run-2", "c"),
        ]
        previous = ""
        for event in events:
            assert event.previous == previous
            assert event.hash == link(previous, event.seq, event.machine, event.at, canonical_json(event.event))
            previous = event.hash
        assert await store.log.verify() is None

    async def test_reading_on_by_machine_and_position(self, store):
        for _ in range(3):
            await store.machines.create(
                "run", "", "q", b"", {}, events=(Event("a", ""), Event("b", "")), id_prefix="run"
            )
        assert [e.seq for e in await store.log.read("run-2")] == [3, 4]
        assert [e.seq for e in await store.log.read("run-2", after=3)] == [4]
        assert [e.seq for e in await store.log.read(after=2, limit=3)] == [3, 4, 5]

    async def test_an_empty_log_is_whole(self, store):
        assert await store.log.verify() is None
        assert await store.log.read() == []

    async def test_concurrent_writers_make_one_chain(self, store, store_url):
        for _ in range(8):
            await create(store)
        claims = await store.machines.claim("w", RUN, 10, 30)
        async with await open_store(store_url) as second:

            async def write_often(each: DatabaseStore, claim: Claim) -> None:
                for number in range(15):
                    await each.machines.write(claim, tick(events=(Event("e", str(number)), Event("f", str(number)))))

            await asyncio.gather(*(write_often((store, second)[n % 2], c) for n, c in enumerate(claims)))
        events = await store.log.read(limit=10_000)
        assert [event.seq for event in events] == list(range(1, 241))
        assert await store.log.verify() is None
        for claim in claims:
            told = [event.event.message for event in events if event.machine == claim.machine]
            assert told == [str(number) for number in range(15) for _ in range(2)]


class TestDocuments:
    async def test_put_once_and_get(self, store):
        assert await store.documents.put("plans", "abc", b"\x00\x01")
        assert not await store.documents.put("plans", "abc", b"other")
        assert await store.documents.get("plans", "abc") == b"\x00\x01"
        assert await store.documents.get("plans", "nope") is None
        assert await store.documents.get("other", "abc") is None

    async def test_replace(self, store):
        assert await store.documents.put("facts", "a", b"1", replace=True)
        assert await store.documents.put("facts", "a", b"2", replace=True)
        assert await store.documents.get("facts", "a") == b"2"

    async def test_all_by_prefix_takes_the_prefix_literally(self, store):
        for key in ("run-1/a", "run-1/b", "run-10/a", "run_1/a", "RUN-1/a", "%"):
            await store.documents.put("artifacts", key, key.encode())
        assert set(await store.documents.all("artifacts", "run-1/")) == {"run-1/a", "run-1/b"}
        assert set(await store.documents.all("artifacts", "%")) == {"%"}
        assert len(await store.documents.all("artifacts")) == 6
        assert await store.documents.all("nothing") == {}

    async def test_only_one_of_many_writers_is_first(self, store):
        made = await asyncio.gather(*(store.documents.put("c", "k", b"%d" % n) for n in range(10)))
        assert sum(made) == 1


class TestSlots:
    async def test_places_then_a_queue_in_order_of_arrival(self, store):
        assert [await store.slots.ask("g", f"run-{n}/j", 2) for n in range(1, 5)] == [0, 0, 1, 2]
        assert await store.slots.holders("g") == ["run-1/j", "run-2/j"]
        assert await store.slots.queue("g") == ["run-3/j", "run-4/j"]
        assert await store.slots.queue("another") == []
        assert await store.slots.ask("g", "run-4/j", 2) == 2
        await store.slots.free("g", "run-1/j")
        assert await store.slots.ask("g", "run-4/j", 2) == 2
        assert await store.slots.ask("g", "run-3/j", 2) == 0
        assert await store.slots.ask("g", "run-4/j", 2) == 1
        assert await store.slots.holders("g") == ["run-2/j", "run-3/j"]

    async def test_asking_again_keeps_the_place(self, store):
        assert await store.slots.ask("g", "a/1", 1) == 0
        assert await store.slots.ask("g", "a/1", 1) == 0
        assert await store.slots.ask("g", "b/1", 1) == 1
        assert await store.slots.ask("g", "b/1", 1) == 1

    async def test_groups_do_not_mind_each_other(self, store):
        assert await store.slots.ask("g", "a/1", 1) == 0
        assert await store.slots.ask("h", "a/1", 1) == 0

    async def test_giving_a_place_in_the_queue_back(self, store):
        for holder in ("a/1", "b/1", "c/1"):
            await store.slots.ask("g", holder, 1)
        await store.slots.free("g", "b/1")
        assert await store.slots.ask("g", "c/1", 1) == 1
        await store.slots.free("g", "nobody/1")
        await store.slots.free("unknown", "a/1")
        assert await store.slots.holders("g") == ["a/1"]

    async def test_a_smaller_limit_takes_no_place_away(self, store):
        assert [await store.slots.ask("g", f"{h}/1", 2) for h in "ab"] == [0, 0]
        assert await store.slots.ask("g", "b/1", 1) == 0
        await store.slots.free("g", "a/1")
        assert await store.slots.ask("g", "c/1", 1) == 1

    async def test_a_free_place_makes_the_next_holders_machine_due(self, store):
        first, second = await create(store), await create(store)
        for claim in await store.machines.claim("w", RUN, 10, 30):
            await store.machines.write(claim, tick())
            await store.machines.let_go(claim)
        await store.slots.ask("g", f"{first}/a", 1)
        await store.slots.ask("g", f"{second}/a/with/slashes", 1)
        assert await store.machines.claim("w", RUN, 10, 30) == []
        await store.slots.free("g", f"{first}/a")
        assert (await claim_one(store)).machine == second

    async def test_a_bigger_limit_calls_the_whole_queue(self, store):
        machines = [await create(store) for _ in range(4)]
        await store.machines.claim("w", RUN, 10, 30)
        for machine in machines:
            await store.slots.ask("g", f"{machine}/a", 1)
        await store.slots.free("g", f"{machines[0]}/a")
        called = set()
        while told := await store.machines.told("w"):
            called |= told
            for machine in told:
                assert await store.slots.ask("g", f"{machine}/a", 3) == 0
        assert called == set(machines[1:])

    async def test_one_place_never_has_two_holders(self, store, store_url):
        async with await open_store(store_url) as second:
            answers = await asyncio.gather(*((store, second)[n % 2].slots.ask("g", f"run-{n}/j", 1) for n in range(20)))
        assert sorted(answers) == list(range(20))
        assert len(await store.slots.holders("g")) == 1


class TestWaiting:
    async def test_waiting_ends_after_the_timeout(self, store):
        await store.wait(0.05)  # the first one may learn of what came before
        begin = time.monotonic()
        await store.wait(0.15)
        assert 0.1 < time.monotonic() - begin < 2

    @pytest.mark.parametrize("own", [True, False], ids=["this process's", "another's"])
    async def test_a_command_ends_the_wait_at_once(self, store, store_url, own):
        machine = await create(store)
        await store.wait(0.3)
        async with await open_store(store_url) as other:
            waiting = asyncio.create_task(store.wait(10))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            begin = time.monotonic()
            await (store if own else other).inbox.send(machine, "approve", "ada", {})
            await waiting
            # 60 ms between looks; the rest is for a busy machine
            assert time.monotonic() - begin < 1

    async def test_nothing_is_missed_between_looking_and_waiting(self, store):
        machine = await create(store)
        mark = store.mark()
        await store.inbox.send(machine, "approve", "ada", {})
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await store.wait(10, since=mark)
        assert time.monotonic() - begin < 5

    async def test_a_free_place_and_a_new_machine_and_a_given_back_one_wake(self, store):
        machine = await create(store)
        claim = await claim_one(store)
        await store.slots.ask("g", "other/a", 1)
        await store.slots.ask("g", f"{machine}/a", 1)
        for act in (
            lambda: store.slots.free("g", "other/a"),
            lambda: create(store),
            lambda: store.machines.let_go(claim),
        ):
            mark = store.mark()
            await act()
            await asyncio.sleep(0.02)
            begin = time.monotonic()
            await store.wait(10, since=mark)
            assert time.monotonic() - begin < 5

    async def test_events_end_the_wait_of_a_follower(self, store, store_url):
        async with await open_store(store_url) as other:
            await create(store)
            claim = await claim_one(store)
            await other.wait_for_events(0.5)
            following = asyncio.create_task(other.wait_for_events(10))
            await asyncio.sleep(0.1)
            begin = time.monotonic()
            await store.machines.write(claim, tick(events=(Event("a", "b"),)))
            await following
            assert time.monotonic() - begin < 5

    async def test_no_event_is_missed_between_reading_and_waiting(self, store):
        await create(store)
        claim = await claim_one(store)
        mark = store.mark_events()
        await store.machines.write(claim, tick(events=(Event("a", "b"),)))
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await store.wait_for_events(10, since=mark)
        assert time.monotonic() - begin < 5


class TestParts:
    async def test_an_empty_part_is_deleted_and_may_come_again(self, store):
        machine = await create(store, a=b"1", b=b"2")
        claim = await claim_one(store)
        await store.machines.write(claim, tick(parts={"a": b"", "never": b""}))
        assert (await store.machines.load(machine)).parts == {"b": b"2"}
        await store.machines.write(claim, tick(parts={"a": b"3"}))
        assert (await store.machines.load(machine)).parts == {"a": b"3", "b": b"2"}


class TestOpening:
    async def test_what_was_written_is_there_after_closing(self, store, store_url):
        machine = await create(store, a=b"1")
        await store.close()
        async with await open_store(store_url) as again:
            assert (await again.machines.load(machine)).parts == {"a": b"1"}
            assert await again.machines.claim("w", RUN, 1, 30)

    async def test_many_may_open_a_new_database_at_once(self, store_url):
        stores = await asyncio.gather(*(open_store(store_url) for _ in range(5)))
        assert {await create(store) for store in stores} == {f"run-{n}" for n in range(1, 6)}
        for store in stores:
            await store.close()

    async def test_a_closed_store_says_so(self, store):
        await store.close()
        await store.close()
        with pytest.raises(DependencyFailed, match="closed"):
            await store.machines.load("run-1")

    @pytest.mark.parametrize("url", ["mysql://x", "forge.db", "sqlite://", "sqlite:///", ""])
    async def test_other_urls_are_usage_errors(self, url):
        with pytest.raises(UsageError):
            await open_store(url)

    async def test_time_is_the_databases_and_moves_on(self, store):
        first = await store.now()
        await asyncio.sleep(0.05)
        assert 0.03 < await store.now() - first < 2
        assert abs(first - time.time()) < 60

    async def test_a_cancelled_caller_leaves_the_store_usable(self, store):
        tasks = [asyncio.create_task(create(store)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        made = len(await store.machines.newest("run", limit=100))
        assert 10 <= made <= 20
        assert await create(store) == f"run-{made + 1}"
