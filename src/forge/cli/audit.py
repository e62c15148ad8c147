"""`forge audit`: is the log whole, and do the decisions on record come out the same again?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge.cli.options import Output
from forge.cli.session import Session, say, session_of
from forge.model.errors import CorruptData, ExitCode

if TYPE_CHECKING:
    from forge.core.release.replay import Replayed
    from forge.engine.engine import Engine
    from forge.service.base import Records, Service
    from forge.store.contract import StoredDecision, StoredEvent

app = typer.Typer(help="Check the log and make its decisions again.", no_args_is_help=True, rich_markup_mode=None)


def register(root: typer.Typer) -> None:
    """Add these commands."""
    root.add_typer(app, name="audit")


@app.command("verify")
def verify(context: typer.Context, output: Output = "table") -> None:
    """Check the hash chains of events and decisions; exits 1 at the first record that does not fit."""
    from forge.cli.render.tables import check_output, document

    check_output(output)
    session = session_of(context)

    async def work(service: Service) -> int:
        found = await service.records.verify()
        whole = all(chain["first_wrong"] is None for chain in found.values())
        if output in {"json", "yaml"}:
            say(document({"whole": whole, **found}, output))
        else:
            for name, chain in found.items():
                say(_chain_line(session, name, chain))
        return ExitCode.SUCCEEDED if whole else ExitCode.DID_NOT_SUCCEED

    session.run(work)


@app.command("replay")
def replay(
    context: typer.Context,
    environment: Annotated[
        str, typer.Argument(metavar="[ENV]", show_default=False, help="Only this environment.")
    ] = "",
    output: Output = "table",
) -> None:
    """Make all decisions on record again; exits 1 at the first that comes out differently."""
    from forge.cli.render.tables import check_output, document

    check_output(output)
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.engine.records import replay_all
        from forge.service.locating import find_environment

        machine = await find_environment(engine, environment) if environment else None
        try:
            found = await replay_all(engine.store, machine)
        except CorruptData as error:
            say(f"{error.message}; {error.hint}")
            return ExitCode.DID_NOT_SUCCEED
        if output in {"json", "yaml"}:
            say(document(found, output))
        else:
            say("\n".join(replayed_lines(found)))
        return ExitCode.SUCCEEDED if found.difference is None else ExitCode.DID_NOT_SUCCEED

    session.run_here(work)


@app.command("log")
def log(
    context: typer.Context,
    machine: Annotated[
        str, typer.Argument(metavar="[MACHINE]", show_default=False, help="Only this run or environment.")
    ] = "",
    decisions: Annotated[bool, typer.Option("--decisions", help="The decisions with their inputs instead.")] = False,
    output: Output = "table",
) -> None:
    """Print the log, oldest first; `-o json` prints every field, hashes too."""
    from forge.cli.render.tables import Column, check_output, listing

    check_output(output)
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.cli.options import run_id

        which = run_id(machine)
        rows: list[Any] = await (_decisions if decisions else _events)(service.records, which)
        columns: list[Column[Any]] = [
            Column("SEQ", lambda row: str(row["seq"]), right=True),
            Column("TIME", lambda row: time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))),
            Column("MACHINE", lambda row: row["machine"]),
            Column("WHAT", lambda row: row["event"]["kind"] if "event" in row else "decisions"),
            Column("MESSAGE", lambda row: row["event"]["message"] if "event" in row else _summary(row["record"])),
            Column("HASH", lambda row: row["hash"][:16], wide=True),
        ]
        text = listing(rows, columns, output, name=lambda row: str(row["seq"]), empty="nothing is on record yet")
        if text:
            say(text)
        return ExitCode.SUCCEEDED

    session.run(work)


def replayed_lines(found: Replayed) -> list[str]:
    """Return in words what came of making the decisions again."""
    counted = f"{found.decisions} decisions replayed"
    lines = [f"{counted}, all the same"]
    if found.difference is not None:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.difference.now)) if found.difference.now else ""
        where = f"record {found.difference.segment}" + (f", {at}" if at else "")
        lines = [f"{counted}; the last one differs ({where}):", *(f"  {words}" for words in found.difference.words)]
    if found.other_rules:
        lines.append(
            f"{found.other_rules} of them were made by other rules than this Forge's: "
            "what they did was compared, the bytes of their states were not"
        )
    if found.passed:
        lines.append(f"{found.passed} looks from which nothing followed were not kept")
    return lines


def _chain_line(session: Session, name: str, chain: dict[str, int | None]) -> str:
    if chain["first_wrong"] is None:
        return f"{session.out.icon('ok')} {name:<9} {chain['records']} records, every one fits the chain"
    return (
        f"{session.out.icon('fail')} {name:<9} record {chain['first_wrong']} is the first that does not fit the chain"
    )


async def _events(records: Records, machine: str) -> list[dict[str, Any]]:
    import msgspec

    events: list[StoredEvent] = []
    while page := await records.events(machine, after=events[-1].seq if events else 0):
        events += page
    return [msgspec.to_builtins(event) for event in events]


async def _decisions(records: Records, machine: str) -> list[dict[str, Any]]:
    import msgspec

    from forge.engine.recording import read

    found: list[StoredDecision] = []
    while page := await records.decisions(machine, after=found[-1].seq if found else 0):
        found += page
    return [
        {
            "seq": stored.seq, "machine": stored.machine, "at": stored.at,
            "record": msgspec.to_builtins(read(stored.body, stored.seq)),
            "previous": stored.previous, "hash": stored.hash,
        }
        for stored in found
    ]  # fmt: skip


def _summary(record: dict[str, Any]) -> str:
    ticks = record["ticks"]
    return f"{len(ticks)} of {record['environment']}: {ticks[-1].get('why', '')}"
