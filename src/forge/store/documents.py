"""Small JSON documents by collection and key."""

from __future__ import annotations

from sqlalchemy import Integer, bindparam, func, select

from forge.store import tables as t
from forge.store.statements import Database, Statement, Transaction, add_new, upsert

_PUT = add_new(t.documents, returning=t.documents.c.key)
_REPLACE = upsert(t.documents, ("collection", "key"), ("value",))
_GET = Statement(
    select(t.documents.c.value).where(
        t.documents.c.collection == bindparam("collection"), t.documents.c.key == bindparam("key")
    )
)
_ALL = Statement(
    select(t.documents.c.key, t.documents.c.value)
    .where(
        t.documents.c.collection == bindparam("collection"),
        # Not LIKE: a prefix may hold % and _, and SQLite's LIKE ignores case.
        func.substr(t.documents.c.key, 1, bindparam("length", type_=Integer())) == bindparam("prefix"),
    )
    .order_by(t.documents.c.key)
)


class DatabaseDocuments:
    """`forge.store.contract.Documents` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, collection: str, key: str, value: bytes, *, replace: bool = False) -> bool:
        """Store; return False and change nothing if the key exists (and not `replace`)."""

        def work(transaction: Transaction) -> bool:
            if replace:
                transaction.change(_REPLACE, collection=collection, key=key, value=value)
                return True
            return bool(transaction.run(_PUT, collection=collection, key=key, value=value))

        return bool(await self._database.write(work))

    async def get(self, collection: str, key: str) -> bytes | None:
        """Return a document, or None."""
        rows = await self._database.read(lambda transaction: transaction.run(_GET, collection=collection, key=key))
        return bytes(rows[0][0]) if rows else None

    async def all(self, collection: str, prefix: str = "") -> dict[str, bytes]:
        """Return all documents whose key begins with `prefix`."""
        rows = await self._database.read(
            lambda transaction: transaction.run(_ALL, collection=collection, prefix=prefix, length=len(prefix))
        )
        return {key: bytes(value) for key, value in rows}
