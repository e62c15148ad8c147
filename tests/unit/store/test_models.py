"""The store against the simplest thing that could be right, in sequences that nobody thought of."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from forge.model.decision import Action, Outcome
from forge.store.contract import Write
from forge.store.database import open_store

asks = st.tuples(st.just("ask"), st.sampled_from("abcde"), st.integers(1, 3))
frees = st.tuples(st.just("free"), st.sampled_from("abcde"), st.just(0))


@settings(max_examples=40)
@given(st.lists(asks | frees, max_size=25))
def test_places_are_given_in_order_of_arrival_and_never_taken_away(steps):
    asyncio.run(_places(steps))


async def _places(steps: list[tuple[str, str, int]]) -> None:
    held: list[str] = []
    queue: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        async with await open_store(f"sqlite:///{Path(folder) / 'forge.db'}") as store:
            for what, holder, limit in steps:
                if what == "free":
                    await store.slots.free("g", holder)
                    held = [h for h in held if h != holder]
                    queue = [h for h in queue if h != holder]
                    continue
                if holder not in held + queue:
                    queue.append(holder)
                if holder in held:
                    expected = 0
                elif queue[0] == holder and len(held) < limit:
                    held.append(queue.pop(0))
                    expected = 0
                else:
                    expected = queue.index(holder) + 1
                assert await store.slots.ask("g", holder, limit) == expected
                assert sorted(await store.slots.holders("g")) == sorted(held)


keys = st.sampled_from("abcd")
ticks = st.tuples(st.just("tick"), st.lists(keys, max_size=3), st.lists(keys, max_size=3))
finishes = st.tuples(st.just("finish"), st.lists(keys, min_size=1, max_size=3), st.just([]))
starts = st.tuples(st.just("start"), st.lists(keys, min_size=1, max_size=1), st.just([]))


@settings(max_examples=40)
@given(st.lists(ticks | finishes | starts, max_size=20))
def test_an_intent_goes_forward_only_and_its_first_outcome_stands(steps):
    asyncio.run(_intents(steps))


async def _intents(steps: list[tuple[str, list[str], list[str]]]) -> None:
    expected: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with await open_store(f"sqlite:///{Path(folder) / 'forge.db'}") as store:
            machine = await store.machines.create("run", "", "queued", b"", {}, id_prefix="run")
            (claim,) = await store.machines.claim("w", ("run",), 1, 60)
            for number, (what, some, others) in enumerate(steps):
                if what == "tick":
                    write = Write(
                        status="x", head=b"", actions=tuple(Action(key, "x") for key in some), settled=tuple(others)
                    )
                    new = await store.machines.write(claim, write)
                    assert new == tuple(dict.fromkeys(key for key in some if key not in expected))
                    for key in others:
                        if expected.get(key, ("", ""))[0] == "finished":
                            expected[key] = ("settled", "")
                    expected |= dict.fromkeys(new, ("pending", ""))
                elif what == "start":
                    await store.intents.start(claim, some[0])
                    if expected.get(some[0], ("", ""))[0] == "pending":
                        expected[some[0]] = ("started", "")
                else:
                    outcomes = tuple(Outcome(key, f"r{number}", 1.0) for key in some)
                    await store.intents.finish_all(claim, outcomes)
                    for key in some:
                        if expected.get(key, ("", ""))[0] in {"pending", "started"}:
                            expected[key] = ("finished", f"r{number}")
                found = {
                    intent.action.key: (intent.state, intent.outcome.result if intent.outcome else "")
                    for intent in await store.intents.of(machine)
                }
                assert found == {key: value for key, value in expected.items() if value[0] != "settled"}
