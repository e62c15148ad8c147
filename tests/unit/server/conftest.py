"""A site's database of each kind."""

from __future__ import annotations

import itertools
from pathlib import Path

import psycopg
import pytest

_numbers = itertools.count(1)


@pytest.fixture
def postgres_database(postgres_server) -> str:
    """The URL of an empty database: a site makes schemas of its own in it."""
    name = f"site_{next(_numbers)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_server.url(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def site_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_database"))
    return f"sqlite:///{tmp_path / 'server.db'}"
