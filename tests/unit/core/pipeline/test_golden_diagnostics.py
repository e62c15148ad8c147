"""Every kind of diagnostic, as people read it. `FORGE_UPDATE_GOLDEN=1` writes the texts anew for review."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose
from forge.model.diagnostics import Diagnostic
from forge.model.errors import InvalidConfiguration

GOLDEN = Path(__file__).parents[3] / "golden" / "pipeline" / "diagnostics"
CASES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))


def diagnostics(text: bytes) -> list[Diagnostic]:
    try:
        document = read(text, "forge/pipeline.yaml")
    except InvalidConfiguration as wrong:
        return list(wrong.diagnostics)
    return diagnose(Sources(document))


@pytest.mark.parametrize("case", CASES)
def test_diagnostics_read_as_recorded(case: str):
    found = diagnostics((GOLDEN / f"{case}.yaml").read_bytes())
    text = "\n\n".join(one.render() for one in found) + "\n"
    recorded = GOLDEN / f"{case}.txt"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        recorded.write_text(text)
    assert text == recorded.read_text()


@pytest.mark.parametrize("case", CASES)
def test_every_diagnostic_points_into_the_file(case: str):
    content = (GOLDEN / f"{case}.yaml").read_text()
    lines = content.splitlines()
    for one in diagnostics(content.encode()):
        if one.line:
            assert 1 <= one.line <= len(lines)
            assert 1 <= one.column <= len(lines[one.line - 1]) + 1
            assert one.length >= 1


@pytest.mark.parametrize("case", CASES)
def test_no_diagnostic_speaks_the_jargon_of_a_library(case: str):
    text = (GOLDEN / f"{case}.txt").read_text().lower()
    for word in ("input should be", "pydantic", "valid dictionary", "extra_forbidden", "traceback", "libyaml"):
        assert word not in text


def test_every_code_has_a_recorded_text():
    recorded = "".join((GOLDEN / f"{case}.txt").read_text() for case in CASES)
    told = {
        line.split("[", 1)[1].split("]", 1)[0]
        for line in recorded.splitlines()
        if line.startswith(("error[", "warning["))
    }
    assert told >= {
        "syntax", "empty", "scalar", "duplicate-key", "key", "too-large", "unknown-key", "missing-key", "type", "value",
        "step-kind", "no-steps", "no-jobs", "name", "duplicate-name", "cycle", "unknown-job", "unknown-artifact",
        "artifact-order", "artifact-twice", "unknown-environment", "unknown-template", "template-parameter",
        "unused-template", "expression", "unknown-name", "script-injection", "matrix", "gate-never-opens", "capacity",
        "no-checks", "weights", "retry", "timeout",
    }  # fmt: skip
