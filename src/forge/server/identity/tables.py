"""What the site's database keeps of people: users, grants, tokens, sessions, links, failed attempts.

Of anything that lets somebody in only a SHA-256 is kept: each is 256 bits of chance, so nothing slower is needed.
"""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, Table, Text

from forge.server.database import metadata

users = Table(
    "users", metadata,
    Column("name", Text, primary_key=True),
    Column("display", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("disabled", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)  # fmt: skip
grants = Table(
    "grants", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Index("grants_subject", "kind", "subject"),
)  # fmt: skip
"""`kind`: `user` or `group`, of the OpenID provider."""
tokens = Table(
    "tokens", metadata,
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("label", Text, nullable=False),
    Column("owner", Text, nullable=False, index=True),
    Column("scopes", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=True),
    Column("used_at", Double, nullable=True),
)  # fmt: skip
sessions = Table(
    "sessions", metadata,
    Column("hash", Text, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False, index=True),
    Column("groups", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)  # fmt: skip
links = Table(
    "links", metadata,
    Column("hash", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
)  # fmt: skip
attempts = Table(
    "attempts", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("who", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index("attempts_who", "who", "at"),
)  # fmt: skip
