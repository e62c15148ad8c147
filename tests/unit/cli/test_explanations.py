"""The story of a release on the screen, letter by letter, and what an audit says."""

from __future__ import annotations

from forge.cli.audit import replayed_lines
from forge.cli.render.explanation import explanation_lines
from forge.cli.render.paint import Paint
from forge.core.release.replay import Difference, Replayed
from forge.views.explanation import AskedStep, Counterfactual, Explanation, Harm, Told, Waited, WordOfJudge

AT = 1_780_000_000.0
WHY = "1.4.0 fails 6.1x as often as stable (95 % anytime interval 3.2-11), evidence 131:1, 61 failed requests so far"
STORY = Explanation(
    id="production-7", environment="production", version="1.4.0", status="rolled_back", reason=WHY, actor="ann",
    run="run-12", strategy="canary: weight 5% → pause 10m 0s → weight 25%", previous="1.3.9", created_at=AT,
    started_at=AT + 2, finished_at=AT + 182, judge="sequential", note="",
    told=(Told(AT, "ann", "deploy"), Told(AT + 60, "bob", "pause", "is that us?"), Told(AT + 90, "bob", "resume")),
    steps=(AskedStep(AT + 5, 500, AT + 6), AskedStep(AT + 180, 0, AT + 182)),
    verdicts=(
        WordOfJudge(AT + 7, "hold", "1.4.0: 0 of 12 requests failed (0 %)", {}, 3),
        WordOfJudge(AT + 10, "promote", "1.4.0: 1 of 300 requests failed (0.333 %)", {}, 160),
        WordOfJudge(AT + 180, "rollback", WHY),
    ),
    waits=(Waited(AT + 2, "0 of 2 replicas of 1.4.0 ready", 3.0), Waited(AT + 7, "10m 0s at 5%", 143.0)),
    decisive=WordOfJudge(
        AT + 180, "rollback", WHY,
        {"evidence": 131.4, "p_value": 0.0076, "ratio_interval": [3.2, None], "errors": 61, "requests": 2412},
    ),
    rolled_back_to="1.3.9", rolled_back_why="1.3.9 is stable beside it and still serves with 3 of 3 replicas ready",
    harm=Harm(2412, 61, 50.9, 177.0),
    counterfactual=Counterfactual(2500, 600.0, 0.0211, 40880, 863, "at the next step, 25% for 10m 0s, about 863 more"),
    decisions=183,
)  # fmt: skip


def test_a_story(golden):
    golden("explain", "\n".join(explanation_lines(STORY, Paint(), utc=True)))


def test_a_story_of_which_little_is_known(golden):
    story = Explanation(
        id="staging-1", environment="staging", version="0.1", status="starting", reason="", actor="", run="",
        strategy="rolling", previous="", created_at=AT, started_at=None, finished_at=None, judge="none",
        waits_for="0 of 1 replicas of 0.1 ready",
    )  # fmt: skip
    golden("explain-little", "\n".join(explanation_lines(story, Paint(), utc=True)))


def test_a_rollback_is_told_as_one():
    story = Explanation(
        "production-8", "production", "1.3.9", "promoted", "", "bob", "", "rolling", "1.4.0", AT, AT, AT + 1, "rollback"
    )
    assert "production-8 goes back to 1.3.9 in production: promoted after 1.0s" in explanation_lines(story, Paint())[0]


def test_colours_change_no_word():
    plain = explanation_lines(STORY, Paint(), utc=True)
    painted = explanation_lines(STORY, Paint(True), utc=True)
    from forge.cli.render.paint import strip_ansi

    assert [strip_ansi(line) for line in painted] == plain
    assert painted != plain


def test_what_a_replay_says():
    assert replayed_lines(Replayed(183, 12)) == ["183 decisions replayed, all the same"]
    assert replayed_lines(Replayed()) == ["0 decisions replayed, all the same"]
    many = replayed_lines(Replayed(183, 12, passed=900, other_rules=20))
    assert many[1].startswith("20 of them were made by other rules than this Forge's")
    assert many[2] == "900 looks from which nothing followed were not kept"


def test_the_first_difference_is_told_in_words():
    lines = replayed_lines(Replayed(7, 2, difference=Difference(5, 0.0, ("why: on record `a`, now `b`",))))
    assert lines == ["7 decisions replayed; the last one differs (record 5):", "  why: on record `a`, now `b`"]
