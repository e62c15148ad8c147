"""Status codes stay 200, and what is wrong stands in the log alone."""

from __future__ import annotations

from world import Behaviour, World, canary

OLD = ("could not reach the cache, going on without", 0.01)
NEW = ("order <*> has no customer", 0.3)
STEPS = (5, 300.0, 50, 300.0)


def released(how: Behaviour, stable: Behaviour | None = None, **options: object) -> World:
    world = World(rps=100)
    world.logs_are_read = True
    world.behaviour["1.3"] = stable or Behaviour(writes=(OLD,))
    world.established()
    world.run(40)
    world.deploy("1.4", canary(*STEPS, **options), behaviour=how)
    return world


def test_a_new_kind_of_error_line_alone_rolls_a_release_back() -> None:
    world = released(Behaviour(writes=(OLD, NEW)))
    release = world.until("rolled_back", "promoted", "paused", limit=1200)
    assert release.status == "rolled_back"
    assert release.failed_requests == 0
    assert "writes error lines that stable never wrote" in release.reason
    assert "order <*> has no customer 42" in release.reason
    assert "bound on false alarms 1 %" in release.reason
    assert not [line for line in world.events("traffic") if "1.4 50%" in line], "it never got to its second step"
    shown = release.verdict.data["templates"][0]
    assert (shown["text"], shown["lines"] > 0) == ("order <*> has no customer", True)


def test_what_both_write_is_no_evidence() -> None:
    how = Behaviour(writes=(OLD, NEW))
    assert released(how, stable=how).until("rolled_back", "promoted", limit=1200).status == "promoted"


def test_a_kind_that_comes_up_on_both_at_once_is_no_evidence() -> None:
    """A dependency begins to fail in the middle of the release: both versions say so."""
    world = released(Behaviour(writes=(OLD,)))
    world.run(60)
    for version in ("1.3", "1.4"):
        world.behaviour[version] = Behaviour(writes=(OLD, NEW))
    assert world.until("rolled_back", "promoted", limit=1200).status == "promoted"


def test_far_more_lines_of_a_known_kind_roll_it_back_too() -> None:
    release = released(Behaviour(writes=((OLD[0], 2.0),))).until("rolled_back", "promoted", "paused", limit=1800)
    assert release.status == "rolled_back"
    assert "writes more error lines than stable" in release.reason


def test_without_the_log_store_a_release_waits_and_neither_passes_nor_fails() -> None:
    world = released(Behaviour(writes=(OLD,)), patience=600.0)
    world.run(60)
    before = world.release().judge_state["written"]
    world.lacks = ("loki: answered 500",)
    world.run(300)
    release = world.release()
    assert release.status == "progressing"
    assert world.asked["1.4"] == 500
    assert "loki: answered 500" in release.waits_for
    assert release.judge_state["written"]["kinds"]["stakes"] == before["kinds"]["stakes"]
    world.lacks = ()
    assert world.until("rolled_back", "promoted", limit=1200).status == "promoted"


def test_a_log_store_that_stays_away_leaves_it_to_a_person() -> None:
    world = released(Behaviour(writes=(OLD,)), patience=60.0)
    world.run(30)
    world.lacks = ("loki: answered 500",)
    release = world.until("paused", "rolled_back", "promoted", limit=1200)
    assert release.status == "paused"
    assert "loki: answered 500" in release.waits_for


def test_errors_still_roll_back_while_the_log_store_is_away() -> None:
    world = released(Behaviour(failure_rate=0.5))
    world.lacks = ("loki: answered 500",)
    assert world.until("rolled_back", "promoted", "paused", limit=600).status == "rolled_back"
