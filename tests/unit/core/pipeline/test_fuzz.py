"""Whatever is in the file: a plan, or diagnostics. Never another exception, never a place outside of the file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose, resolve
from forge.model.errors import InvalidConfiguration

GOLDEN = Path(__file__).parents[3] / "golden" / "pipeline"
VALID = [(GOLDEN / f"{name}.yaml").read_text() for name in ("seed", "full")]
BROKEN = [path.read_text() for path in sorted((GOLDEN / "diagnostics").glob("*.yaml"))]


def examine(text: str | bytes) -> None:
    try:
        document = read(text, "forge/pipeline.yaml")
    except InvalidConfiguration as wrong:
        told = wrong.diagnostics
        document = None
    if document is None:
        assert told
        return
    found = diagnose(Sources(document))
    for one in found:
        assert one.message
        assert 0 <= one.line <= len(document.lines) + 1
        one.render()
    errors = [one for one in found if one.severity == "error"]
    try:
        assert resolve(Sources(document), {}).digest
    except InvalidConfiguration as wrong:
        # Values that a run must be given are the only thing that lint does not ask for.
        errors += [one for one in wrong.diagnostics if one.code == "parameter"]
        refused = True
    else:
        refused = False
    assert refused == bool(errors)


WORDS = [
    "jobs", "steps", "run", "publish", "download", "artefact", "depends_on", "trigger", "manual", "matrix", "when",
    "deploy", "environment", "strategy", "canary", "checks", "template", "with", "env", "retry", "timeout", "name",
    "parameters", "secrets", "environments", "target", "local", "command", "include", "x-y", "concurrency", "a", "b",
    "${{ params.a }}", "${{ matrix.os }}", "${{", "params.a ==", "5%", "30s", "1.10", "022", "~", "true", "[key]",
    "../x", "", "\0", "FORGE_A", "on_failure", "always", "approve", "verify", "rollback", "cache", "quality",
]  # fmt: skip
scalars = st.one_of(st.sampled_from(WORDS), st.integers(-5, 300), st.floats(allow_nan=False), st.booleans(), st.none())
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=30,
)


@given(trees)
@settings(max_examples=120)
def test_any_tree_of_our_words(tree: Any):
    import json

    examine(json.dumps({"jobs": tree}))
    examine(json.dumps(tree))


@given(st.dictionaries(st.sampled_from(WORDS), trees, max_size=6), st.sampled_from(["a", "b"]))
@settings(max_examples=120)
def test_any_job_and_any_step(tree: dict[str, Any], name: str):
    import json

    examine(json.dumps({"jobs": {name: tree, "other": {"steps": [tree, {"run": "x"}]}}}))
    examine(json.dumps({**tree, "jobs": {name: {"steps": [{"run": "x"}]}}}))


@given(st.sampled_from(VALID), st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=150)
def test_mutated_valid_files(text: str, chance: random.Random, times: int):
    for _ in range(times):
        lines = text.split("\n")
        here = chance.randrange(len(lines))
        kind = chance.randrange(6)
        if kind == 0:
            del lines[here]
        elif kind == 1:
            lines.insert(here, lines[chance.randrange(len(lines))])
        elif kind == 2:
            lines[here] = " " * chance.randrange(8) + lines[here].strip()
        elif kind == 3 and ": " in lines[here]:
            key, _ = lines[here].split(": ", 1)
            lines[here] = f"{key}: {chance.choice(WORDS)}"
        elif kind == 4 and lines[here]:
            cut = chance.randrange(len(lines[here]))
            lines[here] = lines[here][:cut] + chance.choice("{}[]:-'\"#&*!|>%@`,?\t") + lines[here][cut:]
        else:
            lines[here] = lines[here].replace(":", ":" + chance.choice(["", " ~", " []", " {}", " 5"]), 1)
        text = "\n".join(lines)
    examine(text)


@given(st.sampled_from(VALID), st.binary(min_size=1, max_size=4), st.integers(0, 4000))
def test_bytes_put_into_valid_files(text: str, more: bytes, place: int):
    content = text.encode()
    examine(content[:place] + more + content[place:])


@given(st.sampled_from(BROKEN), st.sampled_from(VALID))
def test_two_files_in_one(broken: str, valid: str):
    examine(broken + valid)
    examine(valid + broken)
