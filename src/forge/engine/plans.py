"""Plans in the database, by their digest: pinned when a run starts, never changed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import msgspec

from forge.model.decision import canonical_json
from forge.model.errors import CorruptData
from forge.model.plan import Plan
from forge.store.contract import Documents

COLLECTION = "plans"
_KEPT = 32


class Plans:
    """Stores plans and remembers the ones in use, so that one digest is one object in this process."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._known: OrderedDict[str, Plan] = OrderedDict()

    async def pin(self, plan: Plan) -> str:
        """Store a plan; return its digest."""
        digest = plan.digest
        await self._documents.put(COLLECTION, digest, canonical_json(plan))
        self._remember(digest, plan)
        return digest

    async def get(self, digest: str) -> Plan:
        """Return the plan. Raises CorruptData if it is gone or is not what was pinned."""
        plan = self._known.get(digest)
        if plan is not None:
            return plan
        stored = await self._documents.get(COLLECTION, digest)
        if stored is None:
            raise CorruptData(f"the plan {digest[:12]} is not in the database")
        try:
            plan = msgspec.json.decode(stored, type=Plan)
        except msgspec.MsgspecError as error:
            raise CorruptData(f"the plan {digest[:12]} cannot be read: {error}") from error
        if hashlib.sha256(stored).hexdigest() != digest:  # of what was pinned: a newer Forge's plans have more fields
            raise CorruptData(f"the plan {digest[:12]} is not the one that was pinned")
        self._remember(digest, plan)
        return plan

    def _remember(self, digest: str, plan: Plan) -> None:
        self._known[digest] = plan
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
