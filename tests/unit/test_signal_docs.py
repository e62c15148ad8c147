"""Every configuration that the pages about signals show is read, planned, and opened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forge.adapters.notify.registry import open_notifier
from forge.adapters.targets.registry import open_environment
from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import resolve
from forge.core.pipeline.schema_signals import SourceModel

DOCS = Path(__file__).parents[2] / "docs" / "signals"
BLOCKS = [
    pytest.param(page.name, block, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, block in enumerate(
        re.findall(r"```yaml\n(environments:.*?|secrets:.*?)```", page.read_text(), re.DOTALL)
    )
]
JOB = "jobs:\n  build: {steps: [{run: make}]}\n"


async def no_secret(name: str) -> str:
    raise AssertionError(f"{name} is not needed before something is told")


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_the_configuration_of_a_page_is_right(page: str, block: str, tmp_path: Path) -> None:
    plan = resolve(Sources(read(block + JOB, f"docs/signals/{page}")), {})
    for environment in plan.environments:
        opened = open_environment(environment, tmp_path)
        assert opened.signals is not None
        for notifier in environment.notify:
            assert open_notifier(notifier, no_secret) is not None
        parts = (*environment.sources, *environment.notify)
        named = {reference.name for part in parts for reference in part.secrets}
        assert named == {secret.name for secret in plan.secrets}


@pytest.mark.parametrize("kind", [kind for kind in SourceModel.kinds() if kind != "envoy"])
def test_every_kind_has_a_page(kind: str) -> None:
    assert (DOCS / f"{kind}.md").is_file()
