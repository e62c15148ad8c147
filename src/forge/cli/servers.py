"""The server that commands ask: whose token, which project. `forge login` keeps tokens in a file of the user's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from forge.model.errors import NotAllowed, UsageError

if TYPE_CHECKING:
    from forge.service.remote import RemoteService


class Login(msgspec.Struct, frozen=True):
    """How to log in at one server."""

    token: str


class Logins(msgspec.Struct, frozen=True):
    """The file: logins by URL of the server."""

    servers: dict[str, Login] = {}


def logins_file() -> Path:
    """Return where tokens are kept: `forge/servers.json` in XDG_CONFIG_HOME, else in `~/.config`."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(configured) if configured.startswith("/") else Path.home() / ".config"
    return folder / "forge" / "servers.json"


def read_logins() -> Logins:
    """Return the tokens that are kept. Raises UsageError for a file that others may read, or that is none of ours."""
    path = logins_file()
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UsageError(f"others may read {path}, which holds tokens", hint=f"`chmod 600 {path}`")
            return msgspec.json.decode(file.read(), type=Logins)
    except FileNotFoundError:
        return Logins()
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="remove it, then `forge login`") from None


def keep_login(server: str, token: str) -> Path:
    """Keep a server's token (empty: forget it) in a file that nobody else may read; return its path."""
    path = logins_file()
    servers = {name: login for name, login in read_logins().servers.items() if name != server}
    if token:
        servers[server] = Login(token)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(Logins(servers))) + b"\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def token_for(server: str) -> str:
    """Return the token for a server: FORGE_TOKEN, else the one that `forge login` kept. Raises NotAllowed."""
    token = os.environ.get("FORGE_TOKEN", "").strip()
    if token:
        return token
    login = read_logins().servers.get(server)
    if login is None:
        raise NotAllowed(f"not logged in at {server}", hint="`forge login` keeps a token, or set FORGE_TOKEN")
    return login.token


@asynccontextmanager
async def open_remote(server: str, project: str) -> AsyncIterator[RemoteService]:
    """Open a project on a server: the one that is named, or the only one. Raises UsageError, NotAllowed."""
    import stamina

    from forge.service.remote import RemoteService, choose_project, open_api
    from forge.service.remote_http import check_server

    stamina.instrumentation.set_on_retry_hooks([])  # a command's output is its own
    known = check_server(server)
    async with open_api(known, token_for(known)) as api:
        yield RemoteService(api, await choose_project(api, project))
