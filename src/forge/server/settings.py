"""What a server is told at its start: `forge-server.yaml`, and `FORGE_SERVER_*` above it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from forge.core.pipeline.document import Document
from forge.core.pipeline.document import read as read_document
from forge.engine.project import PIPELINE, Project
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.errors import InvalidConfiguration, UsageError

FILE = "forge-server.yaml"
PREFIX = "FORGE_SERVER_"
PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Section(BaseModel):
    """A mapping of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProjectSettings(Section):
    """A project that is a folder of this machine. `database` and `artifacts` (URLs) override where its state is."""

    path: str
    database: str = ""
    artifacts: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """`shop: ../shop` is `shop: {path: ../shop}`."""
        return {"path": value} if isinstance(value, str) else value


class OidcSettings(Section):
    """Login by an OpenID provider. The client's secret is never in the file: `client_secret_file` names one, or
    FORGE_SERVER_OIDC_CLIENT_SECRET is set."""

    issuer: str
    client_id: str
    client_secret_file: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    title: str = "single sign-on"
    """What the login page calls it."""


class Settings(Section):
    """Everything that a server or a worker is told. Paths are absolute once `read_settings` made them."""

    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    """0: any that is free."""
    state: Path = Path(".forge-server")
    """The folder of the site's own database, of checkouts and of keys; shared by all hosts of one site."""
    database: str = ""
    """The site's database; empty: `server.db` in the state folder. With PostgreSQL each project without a database
    of its own gets a schema in it."""
    public_url: str = ""
    """How people reach the server, when that is not http://HOST:PORT."""
    projects: dict[str, ProjectSettings] = {}
    oidc: OidcSettings | None = None
    work: bool = True
    """Whether this server is a worker too."""
    max_parallel: int = Field(default=4, ge=1, le=1000)
    """How many jobs of a run go on at once."""
    lease_seconds: float = Field(default=10.0, ge=1, le=600)
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    """Larger requests are refused."""
    keep_alive_seconds: float = Field(default=15.0, gt=0)
    """How often a silent stream of events says that it is still there."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    @field_validator("projects")
    @classmethod
    def _names(cls, projects: dict[str, ProjectSettings]) -> dict[str, ProjectSettings]:
        for name in projects:
            if not PROJECT_NAME.fullmatch(name):
                msg = f"`{name}` is no name for a project: letters, digits, `.`, `_` and `-`, at most 63"
                raise ValueError(msg)
        return projects

    @field_validator("database")
    @classmethod
    def _kind_of_database(cls, url: str) -> str:
        if url and url.partition("://")[0] not in {"sqlite", "postgresql", "postgres"}:
            msg = "a database is sqlite:///path/to/server.db or postgresql://user@host/name"
            raise ValueError(msg)
        return url

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", url):
            msg = "an address is https://forge.example.com"
            raise ValueError(msg)
        return url.rstrip("/")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in _LOOPBACK or self.host.startswith("127.")

    @property
    def site_database(self) -> str:
        """The URL of the site's own database."""
        return self.database or f"sqlite:///{self.state / 'server.db'}"

    @property
    def shared(self) -> bool:
        """Whether several servers and workers can share the site: its database is a server's."""
        return self.database.startswith("postgres")

    def project(self, name: str) -> Project:
        """Return where a configured project's files and database are. Raises UsageError for an unknown name."""
        one = self.projects.get(name)
        if one is None:
            raise UsageError(f"there is no project `{name}`", hint=did_you_mean(name, tuple(self.projects)))
        return Project(Path(one.path), database=one.database or self.project_database(name), artifacts=one.artifacts)

    def project_database(self, name: str) -> str:
        """Return the URL of a project's schema in the site's PostgreSQL, empty when the site has none."""
        return in_schema(self.database, f"forge_{name}") if self.shared else ""


def in_schema(url: str, schema: str) -> str:
    """Return a PostgreSQL URL whose tables are those of one schema; other options of the URL stay."""
    address, _, query = url.partition("?")
    fields = [one for one in query.split("&") if one]
    given = "".join(one.removeprefix("options=") + "%20" for one in fields if one.startswith("options="))
    options = f"options={given}-csearch_path%3D%22{quote(schema)}%22"
    return f"{address}?{'&'.join([*(one for one in fields if not one.startswith('options=')), options])}"


def read_settings(
    file: Path | None,
    folder: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    **given: Any,
) -> Settings:
    """Return the settings: `file` (None: `forge-server.yaml` in `folder`, if there), environment, then `given`.

    Without any project in them, the project of `folder` is served. Raises InvalidConfiguration with every place that
    is wrong, UsageError for a file or a project that is not there.
    """
    path = file or folder / FILE
    if file is not None and not file.is_file():
        raise UsageError(f"there is no file {file}", hint=f"without --config, {FILE} is read where there is one")
    document = _read(path) if path.is_file() else None
    data = _mapping(document)
    base = path.resolve().parent if document else folder.resolve()
    for name, value in _from_environment(environ).items():
        data[name] = value
    data.update({name: value for name, value in given.items() if value is not None})
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise InvalidConfiguration(_diagnostics(error, document, path, environ)) from None
    return _settled(settings, base, folder, named="state" in data)


def _read(path: Path) -> Document:
    try:
        return read_document(path.read_bytes(), path.name)
    except OSError as wrong:
        raise UsageError(f"{path} cannot be read: {wrong.strerror}") from None


def _mapping(document: Document | None) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document.data, dict):
        problem = document.problem("value", "this must be a mapping of settings", (), hint="for example `port: 8700`")
        raise InvalidConfiguration((problem,))
    return dict(document.data)


_IN_ENVIRONMENT = (
    *("host", "port", "state", "database", "public_url", "secrets_key_file", "work", "max_parallel"),
    *("lease_seconds", "max_body_bytes", "keep_alive_seconds"),
)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {name: environ[PREFIX + name.upper()] for name in _IN_ENVIRONMENT if environ.get(PREFIX + name.upper())}


def _diagnostics(
    error: ValidationError, document: Document | None, path: Path, environ: Mapping[str, str]
) -> tuple[Diagnostic, ...]:
    found = []
    for one in error.errors():
        place = tuple(part for part in one["loc"] if isinstance(part, str | int))
        name = ".".join(map(str, place)) or "the settings"
        message = str(one["msg"]).removeprefix("Value error, ")
        words, hint, key = f"{name}: {message}", "", False
        if one["type"] == "extra_forbidden":
            words, key = f"there is no setting `{name}`", True
            hint = did_you_mean(str(place[-1]), tuple(Settings.model_fields)) if len(place) == 1 else ""
        if len(place) == 1 and environ.get(PREFIX + str(place[0]).upper()):
            found.append(Diagnostic("value", f"{PREFIX}{str(place[0]).upper()}: {message}", hint=hint))
        elif document is not None:
            known = tuple(str(part) for part in place if isinstance(part, str)) if key else place
            found.append(document.problem("value", words, known, hint=hint, key=key))
        else:
            found.append(Diagnostic("value", words, file=path.name if document else "", hint=hint))
    return tuple(found)


def _settled(settings: Settings, base: Path, folder: Path, *, named: bool) -> Settings:
    """Return settings whose paths are absolute, and that have the project of `folder` when they have none."""
    projects = {
        name: one.model_copy(update={"path": str(_folder(base / Path(one.path).expanduser(), name))})
        for name, one in settings.projects.items()
    }
    state = (base / settings.state.expanduser()).resolve()
    if not projects and (own := _own_project(folder)) is not None:
        projects[_name_of(own)] = ProjectSettings(path=str(own.root))
        state = state if named else own.state / "server"
    return settings.model_copy(update={"projects": projects, "state": state})


def _folder(path: Path, name: str) -> Path:
    if not (path / PIPELINE).is_file():
        raise UsageError(f"the project {name} has no {PIPELINE} in {path}", hint="correct its path, or `forge init` it")
    return path.resolve()


def _own_project(folder: Path) -> Project | None:
    try:
        return Project.find(folder)
    except UsageError:
        return None


def _name_of(project: Project) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", project.root.name).strip("-._")[:63]
    return name or "project"
