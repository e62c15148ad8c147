"""`quality:` lets nothing through that was not shown to be good."""

from __future__ import annotations

import pytest

GOOD = '<testsuite><testcase name="a"/><testcase name="b"/><testcase name="c"><skipped/></testcase></testsuite>'
BAD = '<testsuite><testcase classname="T" name="a"/><testcase classname="T" name="b"><failure/></testcase></testsuite>'


def cobertura(covered: int, lines: int = 100, taken: int = 1, branches: int = 2) -> str:
    return (
        f'<coverage lines-valid="{lines}" lines-covered="{covered}" '
        f'branches-valid="{branches}" branches-covered="{taken}"/>'
    )


async def test_good_reports_open_the_gate_and_are_shown(job):
    job.write("reports/a.xml", GOOD)
    job.write("reports/b.xml", GOOD)
    job.write("coverage.xml", cobertura(85))
    result = await job.step(
        "quality", junit=["reports/*.xml"], coverage=["coverage.xml"], min_tests=4, min_line_coverage=0.8
    )
    assert (result.outcome, result.message) == ("succeeded", "")
    assert result.outputs == {"tests": 6, "failures": 0, "skipped": 2, "line_coverage": 0.85, "branch_coverage": 0.5}
    assert job.said == (
        "✔ tests that ran        4  at least 4\n"
        "✔ failed                0  at most 0\n"
        "  skipped               2\n"
        "✔ line coverage    85.00%  at least 80.0%\n"
        "  branch coverage  50.00%\n"
    )


async def test_failed_tests_shut_it_and_are_named(job):
    job.write("junit.xml", BAD)
    result = await job.step("quality", junit=["junit.xml"])
    assert (result.outcome, result.message) == ("failed", "1 tests failed, more than 0")
    assert "✖ failed          1  at most 0" in job.said
    assert job.said.endswith("failed tests: T.b\n")
    assert result.outputs["failures"] == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"min_tests": 3}, "2 tests ran, fewer than 3"),
        ({"max_skipped": 0}, "1 tests were skipped, more than 0"),
        ({"min_line_coverage": 0.851}, "line coverage is 85.00%, below 85.1%"),
        ({"min_branch_coverage": 0.6}, "branch coverage is 50.00%, below 60.0%"),
        (
            {"min_tests": 9, "min_line_coverage": 0.9},
            "2 tests ran, fewer than 9; line coverage is 85.00%, below 90.0%",
        ),
    ],
)
async def test_each_threshold_shuts_it(job, config, message):
    job.write("junit.xml", GOOD)
    job.write("coverage.xml", cobertura(85))
    result = await job.step("quality", junit=["junit.xml"], coverage=["coverage.xml"], **config)
    assert (result.outcome, result.message) == ("failed", message)


@pytest.mark.parametrize(
    "config",
    [
        {"min_tests": 2, "max_failures": 0, "max_skipped": 1},
        {"min_line_coverage": 0.85, "min_branch_coverage": 0.5},
    ],
)
async def test_exactly_at_the_threshold_is_good_enough(job, config):
    job.write("junit.xml", GOOD)
    job.write("coverage.xml", cobertura(85))
    result = await job.step("quality", junit=["junit.xml"], coverage=["coverage.xml"], **config)
    assert result.outcome == "succeeded"


async def test_failures_may_be_allowed(job):
    job.write("junit.xml", BAD)
    assert (await job.step("quality", junit=["junit.xml"], max_failures=1)).outcome == "succeeded"


async def test_no_report_is_no_pass(job):
    result = await job.step("quality", junit=["reports/*.xml"])
    assert (result.outcome, result.message) == ("failed", "no report matches `reports/*.xml`")
    job.write("build/junit.xml", GOOD)
    result = await job.step("quality", junit=["junit.xml"])
    assert result.message == "no report matches `junit.xml`; there is `build/junit.xml`"
    assert (await job.step("quality")).outcome == "failed"


async def test_one_missing_report_of_several_is_no_pass(job):
    job.write("a.xml", GOOD)
    assert (await job.step("quality", junit=["a.xml", "b.xml"])).outcome == "failed"


async def test_a_broken_report_is_no_pass(job):
    job.write("a.xml", GOOD)
    job.write("b.xml", GOOD[:40])
    result = await job.step("quality", junit=["*.xml"])
    assert result.outcome == "failed"
    assert result.message.startswith("the report `b.xml` cannot be used: it is not well-formed XML")


async def test_no_tests_at_all_is_no_pass(job):
    job.write("a.xml", "<testsuites/>")
    result = await job.step("quality", junit=["a.xml"])
    assert result.message == "0 tests ran, fewer than 1"


async def test_skipping_everything_is_no_pass(job):
    job.write("a.xml", '<testsuite><testcase name="a"><skipped/></testcase></testsuite>')
    assert (await job.step("quality", junit=["a.xml"])).message == "0 tests ran, fewer than 1"


async def test_a_threshold_without_its_measurement_is_no_pass(job):
    job.write("junit.xml", GOOD)
    result = await job.step("quality", junit=["junit.xml"], min_line_coverage=0.8)
    assert result.message == "line coverage was not measured, but 80.0% is asked for"
    job.write("coverage.xml", cobertura(85, branches=0, taken=0))
    result = await job.step("quality", coverage=["coverage.xml"], min_branch_coverage=0.1)
    assert result.message == "branch coverage was not measured, but 10.0% is asked for"


async def test_coverage_reports_add_up(job):
    job.write("a.xml", cobertura(90))
    job.write("b.xml", cobertura(0, lines=100))
    result = await job.step("quality", coverage=["*.xml"], min_line_coverage=0.5)
    assert result.message == "line coverage is 45.00%, below 50.0%"


async def test_overlapping_patterns_read_a_report_once(job):
    job.write("a.xml", GOOD)
    assert (await job.step("quality", junit=["a.xml", "*.xml"])).outputs["tests"] == 3


async def test_reports_are_relative_to_the_working_directory(job):
    job.write("sub/a.xml", GOOD)
    assert (await job.step("quality", junit=["a.xml"], cwd="sub")).outcome == "succeeded"


@pytest.mark.parametrize("pattern", ["../*.xml", "/etc/*", "link/*.xml"])
async def test_reports_from_outside_do_not_count(job, pattern):
    (job.workspace.parent / "outside").mkdir()
    (job.workspace.parent / "outside" / "a.xml").write_text(GOOD)
    (job.workspace.parent / "a.xml").write_text(GOOD)
    (job.workspace / "link").symlink_to(job.workspace.parent / "outside")
    result = await job.step("quality", junit=[pattern])
    assert result.outcome == "failed"
    assert "leads out of the workspace" in result.message
