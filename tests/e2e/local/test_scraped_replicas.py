"""The file that tells a Prometheus where the replicas of an environment are."""

from __future__ import annotations

import json
import os
import signal


async def test_every_ready_replica_is_listed_with_its_version_and_no_other(world, eventually) -> None:
    await world.up("1.0", replicas=2)
    await world.up("1.1", restart_delay=60)

    def listed():
        found = json.loads((world.folder / "prometheus-targets.json").read_text())
        return {(one["labels"]["version"], one["labels"]["replica"]): one for one in found}

    async def all_three() -> bool:
        return [*listed()] == [("1.0", "1"), ("1.0", "2"), ("1.1", "1")]

    await eventually(all_three, "all are listed")
    one = listed()["1.0", "2"]
    assert one["targets"] == [f"127.0.0.1:{(await world.replica('1.0', 2))['port']}"]
    assert one["labels"]["environment"] == world.plan.name
    os.kill((await world.replica("1.1"))["pid"], signal.SIGKILL)

    async def one_less() -> bool:
        return [*listed()] == [("1.0", "1"), ("1.0", "2")]

    await eventually(one_less, "the dead one is listed no more")
