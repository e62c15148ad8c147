from __future__ import annotations

import io
import json

import msgspec
import pytest

from forge.cli.render.live import LiveTree
from forge.cli.render.paint import Paint, strip_ansi
from forge.cli.render.progress import Changes, Happening, JsonLines, LogLine, Plain, Quiet, log_line, progress_for
from forge.cli.terminal import Terminal
from forge.views.environment import ArmView, EnvironmentView, ReplicasView
from forge.views.release import ReleaseView
from forge.views.run import JobView, RunView, StepView

PLAIN = Paint(colour=False)


def view(*jobs: JobView, state: str = "running", id_: str = "run-1", **fields) -> RunView:
    return RunView(id_, state, "shop", jobs, **fields)


def job(name: str, state: str, **fields) -> JobView:
    return JobView(name, state, attempt=1, started_at=1.0, duration=2.0, **fields)


def release(state: str = "progressing", **fields) -> ReleaseView:
    return ReleaseView("p-2", "production", "1.4", state, "canary", 1, (), 500, 400, **fields)


def environment(*releases: ReleaseView) -> EnvironmentView:
    arm = ArmView("1.3", "stable", 9500, 9600, ReplicasView(2, 2, 2), "ready")
    return EnvironmentView("production", "progressing", "1.3", (arm,), releases)


def plain(*changes: Changes) -> str:
    stream = io.StringIO()
    renderer = Plain(stream, PLAIN)
    for change in changes:
        renderer.show(change)
    return stream.getvalue()


def test_a_job_begins_before_its_lines_and_ends_after_them():
    text = plain(
        Changes((view(job("build", "pending")),)),
        Changes((view(job("build", "succeeded"), job("test", "running")),),
                lines=(LogLine("run-1", "test", "1", "t"), LogLine("run-1", "build", "1", "b"))),
    )  # fmt: skip
    assert text.splitlines() == ["[build/1] b", "[build] ✔ succeeded  2.0s", "[test] ◌ running", "[test/1] t"]


def test_nothing_is_told_twice_and_time_is_no_news():
    running = view(job("build", "running"))
    later = msgspec.structs.replace(running, duration=99.0)
    assert plain(Changes((running,)), Changes((later,)), Changes()).count("running") == 1


def test_jobs_that_were_over_before_are_not_told_again():
    before = view(job("build", "succeeded"), job("release", "waiting_approval"), state="waiting")
    after = view(job("build", "succeeded"), job("release", "running"))
    text = plain(Changes((before,)), Changes((after,)))
    assert "build" not in text
    assert text.splitlines() == ["[release] ॥ waiting approval  2.0s", "run-1 ◷ waiting", "[release] ◌ running"]


def test_the_end_of_a_run_is_told_with_its_message():
    assert "run-1 ✖ failed: build failed" in plain(Changes((view(state="failed", message="build failed"),)))


def test_several_runs_are_told_apart():
    text = plain(Changes((view(job("a", "running")), view(job("a", "running"), id_="run-2"))))
    assert text.splitlines() == ["[run-1/a] ◌ running", "[run-2/a] ◌ running"]


def test_a_release_is_a_line_for_each_change():
    text = plain(
        Changes((environment(release(requests=5)),)),
        Changes((environment(release(requests=9)),)),
        Changes((environment(release("rolled_back", reason="too many errors", requests=40, failed_requests=7)),)),
    )
    assert text.splitlines() == [
        "p-2 ◌ progressing  1.4  weight 5%",
        "p-2 ✖ rolled_back  1.4  40 requests, 7 failed  too many errors",
    ]


@pytest.mark.parametrize("kind", ["engine_error", "command_refused", "command_without_effect"])
def test_what_a_person_must_see_is_shown(kind):
    event = Happening("env-1", 1.0, kind, "Forge could not decide")
    assert plain(Changes(events=(event,))) == "⚠ env-1: Forge could not decide\n"
    assert plain(Changes(events=(msgspec.structs.replace(event, kind="step_started"),))) == ""


def test_log_lines_keep_colours_only_where_they_are_wanted():
    line = LogLine("run-1", "build", "2", "10%\r\x1b[31mred\x1b[0m\x1b[2J")
    assert log_line(line, PLAIN) == "[build/2] red"
    assert "\x1b[31mred" in log_line(line, Paint(colour=True))
    assert "\x1b[2J" not in log_line(line, Paint(colour=True))
    assert log_line(line, PLAIN, many=True) == "[run-1/build/2] red"


def test_json_lines_can_each_be_read_and_repeat_nothing():
    stream = io.StringIO()
    renderer = JsonLines(stream)
    first = view(job("build", "running"))
    renderer.show(Changes((first,), (Happening("run-1", 1.0, "job_started", "x", {"job": "build"}),)))
    renderer.show(
        Changes((msgspec.structs.replace(first, duration=9.0),), lines=(LogLine("run-1", "build", "1", "é"),))
    )
    renderer.show(Changes((view(job("build", "succeeded")),), beside=(environment(release()),)))
    renderer.note("stopped")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["event", "run", "log", "run", "environment", "note"]
    assert lines[0]["data"] == {"job": "build"}
    assert lines[2]["text"] == "é"


def test_quiet_is_quiet(capsys):
    renderer = Quiet()
    renderer.show(Changes((view(job("build", "failed")),), lines=(LogLine("run-1", "build", "1", "x"),)))
    renderer.note("x")
    with renderer.aside():
        pass
    renderer.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("mode", "kind"), [("quiet", Quiet), ("json", JsonLines), ("plain", Plain), ("tty", LiveTree)])
def test_the_mode_chooses_the_renderer(mode, kind):
    assert type(progress_for(Terminal(progress=mode), io.StringIO())) is kind


def tree(*changes: Changes, width: int = 100, height: int = 40) -> LiveTree:
    live = LiveTree(io.StringIO(), PLAIN)
    live.console.width, live.console.height = width, height
    for change in changes:
        live.show(change)
    live.close()
    return live


def test_the_live_tree_shows_step_and_last_line():
    step = StepView("2", "make build", "run", "running", duration=3.0)
    changes = Changes(
        (view(job("build", "running", steps=(step,)), job("test", "pending")),),
        lines=(LogLine("run-1", "build", "2", "cc"),),
    )
    picture = tree(changes).picture().plain.splitlines()
    assert picture[0] == "◌ run-1  shop  running"
    assert [line.strip("│├└─ ") for line in picture[1:]] == [
        "◌ build           running  2.0s", "◌ make build  3.0s", "cc", "• test            pending  2.0s",
    ]  # fmt: skip


def test_a_thousand_jobs_fit_on_the_screen():
    jobs = [job(f"job-{number}", "succeeded") for number in range(990)] + [
        job(f"job-{n}", "running") for n in range(990, 1000)
    ]
    picture = tree(Changes((view(*jobs),)), height=24).picture().plain.splitlines()
    assert len(picture) <= 22
    assert any("990 succeeded" in line for line in picture)
    assert any("job-999" in line for line in picture)


def test_releases_under_way_stand_below_the_run():
    under_way = release(requests=12, failed_requests=3, waits_for="the pause of 10m")
    picture = tree(Changes((view(job("deploy", "running")),), beside=(environment(under_way),))).picture().plain
    assert "12 requests, 3 failed" in picture
    assert "waits for the pause of 10m" in picture
    assert "95% (actual 96%)" in picture
    over = tree(Changes((view(job("deploy", "running")),), beside=(environment(release("promoted")),))).picture().plain
    assert "requests" not in over


def test_the_tree_is_redrawn_at_most_five_times_a_second():
    live = LiveTree(io.StringIO(), PLAIN)
    draws = []
    original = live.picture
    live.picture = lambda: draws.append(1) or original()  # type: ignore[method-assign]
    for number in range(200):
        live.show(Changes((view(job("build", "running"), duration=float(number)),)))
    live.close()
    assert len(draws) <= 4


def test_colours_never_reach_a_terminal_without_them():
    stream = io.StringIO()
    live = LiveTree(stream, PLAIN)
    live.show(Changes((view(job("build", "failed")),), lines=(LogLine("run-1", "build", "1", "\x1b[31mred"),)))
    live.close()
    assert "\x1b[31m" not in stream.getvalue()
    assert "red" in strip_ansi(stream.getvalue())
