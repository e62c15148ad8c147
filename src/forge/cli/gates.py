"""What a foreground run does at a gate: open it (`--yes`), ask the person at the terminal, or leave it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from forge.cli.render.paint import Paint
from forge.model.errors import ForgeError, UsageError
from forge.service.gates import check_field
from forge.views.run import GateView, InputView, JobView, RunView

if TYPE_CHECKING:
    from forge.cli.render.progress import Progress
    from forge.service.base import Service


class Gatekeeper:
    """Attends to each gate once; a gate that stays closed afterwards waits for somebody else."""

    def __init__(self, service: Service, *, actor: str, yes: bool, ask: bool, paint: Paint) -> None:
        self.service = service
        self.actor = actor
        self.yes = yes
        self.ask = ask
        self.paint = paint
        self._attended: set[tuple[str, int, str, float | None]] = set()

    async def attend(self, view: RunView, progress: Progress) -> bool:
        """Do what is to be done at the gates of a run; return whether anything was."""
        acted = False
        for job in view.waiting_jobs():
            key = (view.id, view.attempt, job.name, job.waiting_since)
            if key in self._attended or not (self.yes or self.ask):
                continue
            self._attended.add(key)
            acted |= await (self._open(view, job, progress) if self.yes else self._ask(view, job, progress))
        return acted

    async def _open(self, view: RunView, job: JobView, progress: Progress) -> bool:
        fields = job.gate.inputs if job.gate else ()
        missing = [field.name for field in fields if field.required and field.default is None]
        if missing:
            given = " ".join(f"-i {name}=…" for name in missing)
            progress.note(
                f"[{job.name}] --yes cannot fill in {', '.join(missing)}: `forge approve {view.id} {job.name} {given}`"
            )
            return False
        inputs = {field.name: field.default for field in fields if field.default is not None}
        return await self._send(view, job, progress, approve=True, comment="--yes", inputs=inputs)

    async def _ask(self, view: RunView, job: JobView, progress: Progress) -> bool:
        gate = job.gate or GateView("", 1, ())
        with progress.aside():
            message = f": {gate.message}" if gate.message else ""
            answer = await question(
                f"{self.paint.yellow('॥')} {self.paint.bold(job.name)} waits for approval{message}\n  approve? [y]es, [n]o, [l]ater: "
            )
            if answer.lower() not in {"y", "yes", "n", "no"}:
                return False
            if answer.lower() in {"n", "no"}:
                comment = await question("  why not? ")
                return await self._send(view, job, progress, approve=False, comment=comment, inputs={})
            inputs = {}
            for field in gate.inputs:
                value = await ask_field(field)
                if value is not None:
                    inputs[field.name] = value
        return await self._send(view, job, progress, approve=True, comment="", inputs=inputs)

    async def _send(
        self,
        view: RunView,
        job: JobView,
        progress: Progress,
        *,
        approve: bool,
        comment: str,
        inputs: Mapping[str, object],
    ) -> bool:
        try:
            payload = {"job": job.name, "comment": comment, **({"inputs": dict(inputs)} if approve else {})}
            await self.service.runs.command(view.id, "approve" if approve else "reject", payload, actor=self.actor)
        except ForgeError as error:  # not allowed to approve one's own run, for example: somebody else has to
            progress.note(f"[{job.name}] {error.message}")
            return False
        progress.note(f"[{job.name}] {'approved' if approve else 'rejected'} by {self.actor}")
        return True


async def ask_field(field: InputView) -> str | None:
    """Ask for a field until the answer fits; an empty answer takes the default."""
    hint = f" [{'|'.join(field.options)}]" if field.options else f" ({field.type})" if field.type != "string" else ""
    default = f" (default {field.default})" if field.default is not None else ""
    while True:
        answer = await question(f"  {field.description or field.name}{hint}{default}: ")
        if not answer:
            if field.default is not None:
                return str(field.default)
            if not field.required:
                return None
            continue
        try:
            return check_field(field, answer)
        except UsageError as error:
            sys.stderr.write(f"  {error.message}" + (f"; {error.hint}\n" if error.hint else "\n"))


async def question(text: str) -> str:
    """Ask on stderr and return the line typed on stdin, without blocking the work. End of input: an empty line."""
    sys.stderr.write(text)
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[str] = loop.create_future()
    typed = bytearray()

    def readable() -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        typed.extend(data)
        if (not data or b"\n" in typed) and not answered.done():
            answered.set_result(bytes(typed).split(b"\n", 1)[0].decode("utf-8", "replace").strip())

    loop.add_reader(sys.stdin.fileno(), readable)
    try:
        return await answered
    finally:
        loop.remove_reader(sys.stdin.fileno())
