"""What an environment keeps in the database as its releases come and go."""

from __future__ import annotations

from forge.adapters.artifacts.memory import MemoryArtifacts
from forge.core.release.state import EnvironmentState, ReleaseState
from forge.engine.environments import KIND, EnvironmentMachine
from forge.engine.project import Project
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.store.contract import Write


def state(*releases: str) -> EnvironmentState:
    kept = {name: ReleaseState(name, "1.0", Strategy("rolling"), status="promoted") for name in releases}
    return EnvironmentState("production", EnvironmentPlan("production"), releases=kept)


async def test_a_release_that_was_forgotten_leaves_nothing_behind(store, tmp_path):
    machine = EnvironmentMachine(Project(tmp_path), MemoryArtifacts())
    status, head, parts = machine.dump(state("p-1", "p-2"))
    name = await store.machines.create(KIND, "production", status, head, parts, id_prefix="env")
    (claim,) = await store.machines.claim("w", (KIND,), 1, 30)
    for number in range(3, 30):
        status, head, parts = machine.dump(state(f"p-{number - 1}", f"p-{number}"))
        await store.machines.write(claim, Write(status=status, head=head, parts=parts))
    record = await store.machines.load(name)
    assert {part for part in record.parts if part.startswith("release:")} == {"release:p-28", "release:p-29"}
    assert EnvironmentMachine.load(record).releases == state("p-28", "p-29").releases
