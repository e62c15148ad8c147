"""A project whose database is at hand. See `forge.service.base.Service`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.service.local_environments import LocalEnvironments
from forge.service.local_records import LocalRecords
from forge.service.local_runs import LocalRuns

if TYPE_CHECKING:
    from forge.engine.engine import Engine


class LocalService:
    """See `forge.service.base.Service`. `engine` is whoever opened it's to close."""

    def __init__(self, engine: Engine, name: str = "") -> None:
        self.engine = engine
        self.name = name or engine.project.root.name
        self.runs = LocalRuns(engine)
        self.environments = LocalEnvironments(engine)
        self.records = LocalRecords(engine)
