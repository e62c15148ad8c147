"""`forge login`, `logout` and `whoami`: as whom this user asks a server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from forge.cli.session import Session, leave, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

Server = Annotated[str, typer.Argument(metavar="[URL]", help="The server; default: FORGE_SERVER.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("whoami")(whoami)


def login(context: typer.Context, server: Server = "") -> None:
    """Keep a token for a server. Asks for it, or reads it from stdin; it is tried before it is kept."""
    import asyncio

    from forge.cli.servers import keep_login

    session = session_of(context)
    url = _server(session, server)
    token = _read_token(session, url)
    name = asyncio.run(_ask_who(url, token))
    path = keep_login(url, token)
    tell(f"logged in at {url} as {name}; the token is in {path}")
    if session.server != url:
        tell(f"  `export FORGE_SERVER={url}` makes commands ask it")
    leave(ExitCode.SUCCEEDED)


def logout(context: typer.Context, server: Server = "") -> None:
    """Forget the token of a server. It stays valid there until it is revoked."""
    from forge.cli.servers import keep_login, read_logins

    url = _server(session_of(context), server)
    if url not in read_logins().servers:
        raise UsageError(f"no token for {url} is kept here")
    keep_login(url, "")
    tell(f"forgot the token for {url}")
    leave(ExitCode.SUCCEEDED)


def whoami(context: typer.Context) -> None:
    """Print as whom commands act: the token's owner at the server, else the user here."""
    import asyncio

    from forge.cli.session import actor

    session = session_of(context)
    if not session.server:
        say(actor())
        leave(ExitCode.SUCCEEDED)
    from forge.cli.servers import token_for

    url = _server(session, "")
    say(asyncio.run(_ask_who(url, token_for(url))))
    leave(ExitCode.SUCCEEDED)


def _server(session: Session, server: str) -> str:
    from forge.service.remote_http import check_server

    named = server or session.server
    if not named:
        raise UsageError("which server?", hint="`forge login https://forge.example.org`, or set FORGE_SERVER")
    return check_server(named)


def _read_token(session: Session, server: str) -> str:
    """Ask for the token without showing it, else read a line of stdin: in argv everybody could see it."""
    if session.terminal.interactive:
        import getpass

        token = getpass.getpass(f"token for {server} (from its settings page, or `forge token`): ")
    else:
        token = sys.stdin.readline()
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError("that is no token", hint="give it on stdin: `forge login URL < token-file`")
    return token


async def _ask_who(server: str, token: str) -> str:
    import stamina

    from forge.service.remote import open_api, who

    stamina.instrumentation.set_on_retry_hooks([])  # a command's output is its own
    async with open_api(server, token) as api:
        return await who(api)
