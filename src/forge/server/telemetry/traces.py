"""OpenTelemetry: a trace of each run, its jobs and steps, with the releases that it made; and spans of requests.

A trace is sent when its run is over, by whichever process works on the project. Its ids are made from the run's
name, so that a release joins the trace of its run whoever sends it, and a run that is sent twice is one trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AnyValue

from forge import __version__
from forge.core.release.state import RELEASE_FINAL
from forge.model.errors import ForgeError, UsageError
from forge.server.streaming import RETRY_SECONDS
from forge.store.contract import StoredEvent
from forge.views.explanation import Explanation
from forge.views.run import JobView, RunView

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from forge.server.site import Site

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
COLLECTION = "traced"
_ENDS = frozenset({"run_finished", *(f"release_{status}" for status in RELEASE_FINAL)})
_SUCCESS = frozenset({"succeeded", "promoted", "skipped", "superseded"})
_chosen: ContextVar[tuple[int, int] | None] = ContextVar("forge_span_ids", default=None)
_log = structlog.get_logger("forge.server")


def provider_from(environ: Mapping[str, str] = os.environ) -> TracerProvider | None:
    """Return what sends traces to the endpoint of OTEL_EXPORTER_OTLP_ENDPOINT; None where there is none.

    Raises UsageError when the endpoint is set and the libraries are not installed.
    """
    if not any(environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise UsageError(
            f"{ENDPOINTS[0]} is set, and the libraries that send traces are not installed",
            hint="install forge-release[telemetry], or unset it",
        ) from None
    return provider_to(OTLPSpanExporter())


def provider_to(exporter: SpanExporter) -> TracerProvider:
    """Return what sends traces by an exporter, in the background."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class ChosenIds(RandomIdGenerator):
        """Takes the ids that `_with_ids` chose, else random ones."""

        def generate_trace_id(self) -> int:
            chosen = _chosen.get()
            return chosen[0] if chosen else super().generate_trace_id()

        def generate_span_id(self) -> int:
            chosen = _chosen.get()
            return chosen[1] if chosen else super().generate_span_id()

    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "forge")})
    provider = TracerProvider(resource=resource, id_generator=ChosenIds())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing:
    """Sends traces of what ends in the projects of a site."""

    def __init__(self, site: Site, tracer: Tracer) -> None:
        self._site = site
        self._tracer = tracer
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch all projects."""
        self._tasks = [
            asyncio.create_task(self._watch(name), name=f"forge-traces {name}") for name in self._site.projects
        ]

    async def stop(self) -> None:
        """Stop to watch."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, project: str) -> None:
        after: int | None = None
        while True:
            try:
                async for stored in self._site.live(project).events(after=after):
                    after = stored.seq
                    if stored.event.kind in _ENDS:
                        await self._send(project, stored)
            except ForgeError as error:
                _log.warning("a trace could not be sent", project=project, error=error.message)
            await asyncio.sleep(RETRY_SECONDS)

    async def _send(self, project: str, stored: StoredEvent) -> None:
        """Send what ended, unless another process of the site does."""
        service = self._site.project(project)
        release = str(stored.event.data.get("release", ""))
        name = release or f"{stored.machine}#{stored.seq}"
        if not await self._site.engine(project).store.documents.put(COLLECTION, name, b"1"):
            return
        if release:
            trace_release(self._tracer, project, await service.environments.explanation(release))
        else:
            trace_run(self._tracer, project, await service.runs.get(stored.machine))


def trace_run(tracer: Tracer, project: str, run: RunView) -> None:
    """Send the spans of a run: itself, its jobs, their steps."""
    attributes = {
        "forge.project": project,
        "forge.run": run.id,
        "forge.state": run.state,
        "forge.pipeline": run.pipeline,
        "forge.actor": run.actor,
        "vcs.ref.head.revision": run.commit,
    }
    with _with_ids(project, run.id, str(run.attempt) if run.attempt > 1 else ""):
        span = tracer.start_span(
            f"run {run.pipeline or run.id}", start_time=_nanos(run.created_at), attributes=attributes
        )
    _end(span, run.state, run.message, run.finished_at)
    under = trace.set_span_in_context(span)
    for job in run.jobs:
        if job.started_at is not None:
            _trace_job(tracer, under, job)


def _trace_job(tracer: Tracer, under: Any, job: JobView) -> None:
    attributes: dict[str, AnyValue] = {"forge.job": job.name, "forge.state": job.state, "forge.attempt": job.attempt}
    span = tracer.start_span(f"job {job.name}", context=under, start_time=_nanos(job.started_at), attributes=attributes)
    inside = trace.set_span_in_context(span)
    for step in job.steps:
        if step.started_at is None:
            continue
        own: dict[str, AnyValue] = {
            "forge.step": step.id,
            "forge.kind": step.kind,
            "forge.state": step.state,
            "forge.attempt": step.attempt,
        }
        if step.exit_code is not None:
            own["process.exit.code"] = step.exit_code
        one = tracer.start_span(
            f"{step.kind} {step.name or step.id}", context=inside, start_time=_nanos(step.started_at), attributes=own
        )
        _end(one, step.state, step.message, step.finished_at)
    _end(span, job.state, job.message, job.finished_at)


def trace_release(tracer: Tracer, project: str, release: Explanation) -> None:
    """Send the span of a release, in the trace of its run; what was asked for and said are its events."""
    context = None
    if release.run:
        trace_id, span_id = _ids(project, release.run)
        known = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        context = trace.set_span_in_context(NonRecordingSpan(known))
    attributes = {
        "forge.project": project,
        "forge.release": release.id,
        "forge.environment": release.environment,
        "forge.state": release.status,
        "forge.actor": release.actor,
        "forge.strategy": release.strategy,
        "service.version": release.version,
        "deployment.environment.name": release.environment,
    }
    span = tracer.start_span(
        f"release {release.environment}", context=context, start_time=_nanos(release.created_at), attributes=attributes
    )
    for step in release.steps:
        span.add_event("traffic asked", {"forge.weight_basis_points": step.weight}, _nanos(step.at))
    for word in release.verdicts:
        span.add_event(f"judge: {word.kind}", {"forge.why": word.why}, _nanos(word.at))
    for told in release.told:
        span.add_event(f"told: {told.command}", {"forge.actor": told.actor}, _nanos(told.at))
    _end(span, release.status, release.reason, release.finished_at)


def _end(span: trace.Span, state: str, message: str, at: float | None) -> None:
    span.set_status(Status(StatusCode.OK) if state in _SUCCESS else Status(StatusCode.ERROR, message or state))
    span.end(None if at is None else _nanos(at))


def _nanos(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)


def _ids(*names: str) -> tuple[int, int]:
    """Return the ids of a trace and of its first span; never 0, which stands for none."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1


@contextlib.contextmanager
def _with_ids(project: str, run: str, attempt: str) -> Iterator[None]:
    """Give the next span the ids of a run."""
    token = _chosen.set(_ids(project, run, attempt) if attempt else _ids(project, run))
    try:
        yield
    finally:
        _chosen.reset(token)


def tracer_of(provider: TracerProvider | None) -> Tracer:
    """Return what makes spans."""
    return trace.get_tracer("forge", __version__, tracer_provider=provider)
