"""Reading test and coverage reports."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters import reports
from forge.adapters.reports import BadReport, Coverage, Tests, read_cobertura, read_junit


@pytest.fixture
def report(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "report.xml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_cases_are_counted_whatever_the_suites_claim(report):
    path = report("""<?xml version="1.0" encoding="utf-8"?>
        <testsuites tests="999" failures="0">
          <testsuite name="a" tests="5" failures="0" errors="0" skipped="0">
            <properties><property name="x" value="y"/></properties>
            <testcase classname="pkg.A" name="passes" time="0.5"/>
            <testcase classname="pkg.A" name="fails" time="1,000.25"><failure message="no">trace</failure></testcase>
            <testsuite name="nested">
              <testcase name="breaks" time="nonsense"><error/></testcase>
              <testcase name="waits"><skipped/></testcase>
            </testsuite>
            <system-out>lots</system-out>
          </testsuite>
        </testsuites>""")
    assert read_junit(path) == Tests(4, 1, 1, 1, 1000.75, ("pkg.A.fails", "breaks"))


def test_a_single_suite_and_a_namespace_are_fine(report):
    path = report('<testsuite xmlns="urn:junit"><testcase name="a"><failure/><error/></testcase></testsuite>')
    assert read_junit(path) == Tests(tests=1, errors=1, failed=("a",))


def test_failed_tests_are_named_but_not_all_of_a_thousand(report):
    cases = "".join(f'<testcase name="t{n}"><failure/></testcase>' for n in range(1000))
    found = read_junit(report(f"<testsuite>{cases}</testsuite>"))
    assert found.failures == 1000
    assert found.failed == tuple(f"t{n}" for n in range(10))


def test_an_empty_suite_has_no_tests(report):
    assert read_junit(report("<testsuites/>")) == Tests()


COBERTURA = """<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">
<coverage version="7" lines-valid="100" lines-covered="100" branches-valid="0" branches-covered="0">
  <sources><source>/src</source></sources>
  <packages><package name="."><classes>
    <class name="a.py" filename="a.py">
      <methods><method name="m"><lines><line number="1" hits="9"/></lines></method></methods>
      <lines>
        <line number="1" hits="1"/>
        <line number="2" hits="0"/>
        <line number="3" hits="2" branch="true" condition-coverage="50% (1/2)" missing-branches="4"/>
      </lines>
    </class>
    <class name="a.py$inner" filename="a.py"><methods/><lines>
        <line number="2" hits="1"/>
        <line number="9" hits="0" branch="true" condition-coverage="0% (0/2)"/>
    </lines></class>
  </classes></package></packages>
</coverage>"""


def test_lines_are_counted_once_a_file_whatever_the_totals_claim(report):
    assert read_cobertura(report(COBERTURA)) == Coverage(3, 4, 1, 4)


def test_totals_are_taken_where_there_are_no_lines(report):
    path = report('<coverage lines-valid="10" lines-covered="7" branches-valid="4" branches-covered="1"/>')
    found = read_cobertura(path)
    assert (found.line_coverage, found.branch_coverage) == (0.7, 0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("not xml", "it is not well-formed XML"),
        ("<testsuite><testcase name='a'/>", "it is not well-formed XML"),
        ("<html/>", "it begins with <html>, not with <testsuites> or <testsuite>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><testsuite>&b;</testsuite>', "it uses XML that is refused: EntitiesForbidden"),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><testsuite>&b;</testsuite>',
            "it uses XML that is refused",
        ),
        ("<testsuite>" * 150 + "</testsuite>" * 150, "nested more than 100 deep"),
        (b'<?xml version="1.0" encoding="no-such"?><testsuite/>', "it (cannot be read|is not well-formed)"),
        (b"\xff\xfe\x00<testsuite/>", "it (cannot be read|is not well-formed)"),
    ],
)
def test_bad_junit_reports_are_told_apart(report, text, words):
    with pytest.raises(BadReport, match=words):
        read_junit(report(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<coverage/>", "it has no lines"),
        ('<coverage lines-valid="0" lines-covered="0"/>', "it has no lines"),
        ('<coverage lines-valid="1" lines-covered="2"/>', "more is covered than there is"),
        ('<coverage lines-valid="-1" lines-covered="0"/>', '<coverage lines-valid="-1"> is not a count'),
        ('<coverage lines-valid="x" lines-covered="0"/>', "is not a count"),
        ("<coverage><class><lines><line number='1'/></lines></class></coverage>", '<line hits=""> is not a count'),
        (
            "<coverage><class><lines><line number='1' hits='1' condition-coverage='(3/2)'/></lines></class></coverage>",
            "is not a condition coverage",
        ),
        ("<testsuite/>", "it begins with <testsuite>, not with <coverage>"),
    ],
)
def test_bad_cobertura_reports_are_told_apart(report, text, words):
    with pytest.raises(BadReport, match=words):
        read_cobertura(report(text))


def test_a_missing_report_cannot_be_read(tmp_path):
    with pytest.raises(BadReport, match="it cannot be read"):
        read_junit(tmp_path / "nothing.xml")


def test_a_report_that_is_too_large_is_not_read(report, monkeypatch):
    monkeypatch.setattr(reports, "LARGEST", 10)
    with pytest.raises(BadReport, match="it is larger than"):
        read_junit(report("<testsuite></testsuite>"))


def test_twenty_thousand_cases_take_little_memory(report):
    path = report(
        "<testsuite>"
        + "<testcase name='a' time='1'><system-out>words</system-out></testcase>" * 20_000
        + "</testsuite>"
    )
    tracemalloc.start()
    try:
        assert read_junit(path).tests == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000  # all of it at once would be more than 20 MB


outcomes = st.sampled_from(["", "<failure/>", "<error/>", "<skipped/>"])


@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"])), outcomes), max_size=20)
)
def test_what_was_written_is_counted(tmp_path_factory, cases):
    path = tmp_path_factory.mktemp("reports") / "junit.xml"
    body = "".join(f"<testcase name={quoteattr(name)}>{inner}</testcase>" for name, inner in cases)
    path.write_text(f"<testsuite>{body}</testsuite>", encoding="utf-8")
    found = read_junit(path)
    kinds = [inner for _, inner in cases]
    assert (found.tests, found.failures, found.errors, found.skipped) == (
        len(cases),
        kinds.count("<failure/>"),
        kinds.count("<error/>"),
        kinds.count("<skipped/>"),
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_a_bad_report(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("reports") / "any.xml"
    path.write_bytes(data)
    for read in (read_junit, read_cobertura):
        with pytest.raises(BadReport):
            read(path)


def test_reports_add_up():
    one, two = Tests(3, 1, 0, 1, 1.5, ("a",)), Tests(2, 0, 1, 0, 0.5, ("b",))
    assert one.plus(two) == Tests(5, 1, 1, 1, 2.0, ("a", "b"))
    assert Coverage(1, 2, 3, 4).plus(Coverage(1, 2, 0, 0)) == Coverage(2, 4, 3, 4)
    assert Coverage().line_coverage is None
    assert Coverage().branch_coverage is None
