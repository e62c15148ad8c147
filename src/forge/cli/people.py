"""`forge user` and `forge token`: who may use a server. For the machine that the server runs on: they work on the
site's own database, whether it serves or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Output
from forge.cli.session import Session, leave, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.server.identity.audit import Audit
    from forge.server.identity.people import People, User
    from forge.server.identity.permissions import Grant
    from forge.server.identity.tokens import Token, Tokens

users = typer.Typer(help="People who may use a server, and their roles.", no_args_is_help=True, rich_markup_mode=None)
tokens = typer.Typer(
    help="What programs show a server instead of logging in.", no_args_is_help=True, rich_markup_mode=None
)

ConfigFile = Annotated[
    str, typer.Option("--config", metavar="FILE", help="Settings; default: forge-server.yaml here.", show_default=False)
]
Name = Annotated[str, typer.Argument(metavar="USER", show_default=False)]
RoleName = Annotated[str, typer.Option("--role", help="viewer, runner, approver or admin.", show_default=False)]
ProjectName = Annotated[str, typer.Option("--in", metavar="PROJECT", help="Only in this project.")]
EnvironmentName = Annotated[str, typer.Option("--env", metavar="ENV", help="Only on this environment.")]
ONE_DAY = 86400.0


class Register:
    """The site's people and tokens, opened for one command."""

    def __init__(self, people: People, tokens: Tokens, audit: Audit) -> None:
        self.people, self.tokens, self.audit = people, tokens, audit


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(users, name="user")
    app.add_typer(tokens, name="token")


@users.command("add")
def add_user(
    context: typer.Context, name: Name, role: RoleName = "viewer", project: ProjectName = "*",
    environment: EnvironmentName = "*", config: ConfigFile = "",
) -> None:  # fmt: skip
    """Add a user with a role, or give one that is there another role."""

    async def work(site: Register) -> None:
        import time

        from forge.server.identity.people import User

        granted = _grant(role, project, environment)
        if await site.people.find(name) is None:
            await site.people.add(User(name, name, created_at=time.time()))
        await site.people.grant("user", name, granted)
        words = f"{name} is {role} of {project}/{environment}"
        await site.audit.note("granted", f"{_me()}: {words}", actor=_me(), subject=name, role=role)
        tell(f"{words}; `forge token add {name}` makes a token to log in with")

    _run(session_of(context), config, work)


@users.command("list")
def list_users(context: typer.Context, output: Output = "table", config: ConfigFile = "") -> None:
    """List users and their roles."""
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)

    async def work(site: Register) -> None:
        from forge.cli.render.tables import Column, listing

        found, held = await site.people.users(), await site.people.grants()
        roles = {
            user.name: ", ".join(
                f"{one.grant.role.value} of {one.grant.project}/{one.grant.environment}"
                for one in held if one.kind == "user" and one.subject == user.name
            ) for user in found
        }  # fmt: skip
        columns: list[Column[User]] = [
            Column("USER", lambda user: user.name),
            Column("STATE", lambda user: "disabled" if user.disabled else "active"),
            Column("ROLES", lambda user: roles[user.name] or "none"),
        ]
        text = listing(found, columns, output, name=lambda user: user.name, empty="no users yet: `forge user add NAME`")
        if text:
            say(text)

    _run(session, config, work)


@users.command("disable")
def disable_user(context: typer.Context, name: Name, config: ConfigFile = "") -> None:
    """Let a user in no more: tokens and sessions end at once. `forge user enable` takes it back."""
    _set_disabled(context, name, config, disabled=True)


@users.command("enable")
def enable_user(context: typer.Context, name: Name, config: ConfigFile = "") -> None:
    """Let a disabled user in again."""
    _set_disabled(context, name, config, disabled=False)


@tokens.command("add")
def add_token(
    context: typer.Context, name: Name,
    label: Annotated[str, typer.Option("--label", help="What it is for.")] = "command line",
    days: Annotated[int, typer.Option("--days", min=1, max=3660, help="How long it is good for.")] = 90,
    role: Annotated[str, typer.Option("--role", help="It may do no more than this role.", show_default=False)] = "",
    config: ConfigFile = "",
) -> None:  # fmt: skip
    """Make a token for a user, and print it: nobody can see it a second time."""

    async def work(site: Register) -> None:
        import time

        await _known(site, name)
        now, scopes = time.time(), (_grant(role, "*", "*"),) if role else ()
        token, secret = await site.tokens.make(name, label, now=now, scopes=scopes, expires_at=now + days * ONE_DAY)
        await site.audit.note(
            "token_made", f"{_me()} made {name}'s token {token.id} ({label})", actor=_me(), token=token.id
        )
        say(secret)
        tell(f"{token.id} of {name}, good for {days} days; `forge login URL` keeps it for a server")

    _run(session_of(context), config, work)


@tokens.command("list")
def list_tokens(context: typer.Context, output: Output = "table", config: ConfigFile = "") -> None:
    """List tokens, without their secrets."""
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)

    async def work(site: Register) -> None:
        from forge.cli.render.tables import Column, listing

        columns: list[Column[Token]] = [
            Column("TOKEN", lambda token: token.id), Column("USER", lambda token: token.owner),
            Column("LABEL", lambda token: token.label), Column("GOOD UNTIL", lambda token: _date(token.expires_at)),
            Column("USED", lambda token: _date(token.used_at) if token.used_at else "never"),
        ]  # fmt: skip
        text = listing(await site.tokens.of(), columns, output, name=lambda token: token.id, empty="no tokens")
        if text:
            say(text)

    _run(session, config, work)


@tokens.command("revoke")
def revoke_token(
    context: typer.Context, token: Annotated[str, typer.Argument(metavar="TOKEN", show_default=False)],
    config: ConfigFile = "",
) -> None:  # fmt: skip
    """End a token, by its id."""

    async def work(site: Register) -> None:
        gone = await site.tokens.revoke(token)
        await site.audit.note(
            "token_revoked", f"{_me()} revoked {gone.owner}'s token {gone.id}", actor=_me(), token=gone.id
        )
        tell(f"{gone.id} of {gone.owner} lets nobody in any more")

    _run(session_of(context), config, work)


def _set_disabled(context: typer.Context, name: str, config: str, *, disabled: bool) -> None:
    async def work(site: Register) -> None:
        import msgspec

        await site.people.add(msgspec.structs.replace(await _known(site, name), disabled=disabled))
        state = "disabled" if disabled else "enabled"
        await site.audit.note("user", f"{_me()}: {name} {state}", actor=_me(), user=name, disabled=disabled)
        tell(f"{name} is {state}")

    _run(session_of(context), config, work)


async def _known(site: Register, name: str) -> User:
    from forge.model.diagnostics import did_you_mean

    user = await site.people.find(name)
    if user is None:
        known = [one.name for one in await site.people.users()]
        raise UsageError(f"there is no user `{name}`", hint=did_you_mean(name, known) or f"`forge user add {name}`")
    return user


def _grant(role: str, project: str, environment: str) -> Grant:
    from forge.model.diagnostics import did_you_mean
    from forge.server.identity.permissions import Grant, Role

    if role not in set(Role):
        raise UsageError(
            f"there is no role `{role}`", hint=did_you_mean(role, list(Role)) or f"known: {', '.join(Role)}"
        )
    return Grant(Role(role), project, environment)


def _run(session: Session, config: str, work: Callable[[Register], Awaitable[None]]) -> None:
    import asyncio
    import os

    async def inside() -> None:
        from forge.server.database import open_database
        from forge.server.identity.audit import open_audit
        from forge.server.identity.people import People
        from forge.server.identity.tokens import Tokens
        from forge.server.settings import read_settings

        named = config or os.environ.get("FORGE_SERVER_CONFIG", "")
        settings = read_settings(Path(named) if named else None, session.directory)
        settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with open_database(settings.site_database) as database, open_audit(settings, database) as audit:
            await work(Register(People(database), Tokens(database), audit))

    asyncio.run(inside())
    leave(ExitCode.SUCCEEDED)


def _me() -> str:
    from forge.server.identity.identity import local_name

    return local_name()


def _date(at: float | None) -> str:
    from datetime import UTC, datetime

    return "for ever" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
