"""What operators see: metrics, readiness, logs, traces."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from forge.model.errors import DependencyFailed, UsageError
from forge.server.telemetry.logs import configure_logs
from forge.server.telemetry.traces import Tracing, provider_from, provider_to, trace_release, trace_run, tracer_of
from forge.server.workers import LATE_SECONDS
from forge.views.explanation import AskedStep, Explanation, Told, WordOfJudge
from forge.views.run import JobView, RunView, StepView
from serving.inside import asked
from serving.running import make_project


@pytest.fixture
async def site(tmp_path):
    async with asked(make_project(tmp_path / "shop")) as opened:
        yield opened


async def metrics(site) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await site.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def finished(site, run: str) -> None:
    deadline = time.monotonic() + 30
    while (await site.get(f"/runs/{run}")).json()["state"] not in {"waiting", "succeeded", "failed"}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


class TestMetrics:
    async def test_runs_by_state_and_what_waits_for_a_worker(self, site):
        for _ in range(3):
            await site.post("/runs", {})
        found = await metrics(site)
        assert found["forge_runs", (("project", "shop"), ("state", "queued"))] == 3
        assert found["forge_runs", (("project", "shop"), ("state", "failed"))] == 0
        assert found["forge_queue_depth", (("project", "shop"),)] == 3
        assert found["forge_events_total", (("project", "shop"),)] == 3
        assert found["forge_database_up", ()] == 1
        assert found["forge_workers", ()] == 0

    async def test_a_worker_and_its_ticks(self, site):
        await site.site.workers.start()
        await site.post("/runs", {})
        await finished(site, "run-1")
        found = await metrics(site)
        assert found["forge_workers", ()] == 1
        assert found["forge_worker_heartbeat_age_seconds", ()] < 10
        assert found["forge_tick_seconds_count", (("kind", "run"), ("part", "decide"))] >= 2
        assert found["forge_tick_seconds_count", (("kind", "run"), ("part", "observe"))] >= 2

    async def test_requests_are_counted_by_template_never_by_what_was_asked_for(self, site):
        for number in range(5):
            await site.get(f"/runs/run-{number}")
            await site.client.get(f"/nowhere/{number}")
        await site.client.request("BREW", "/runs")
        found = await metrics(site)
        route = "/api/v1/projects/{project}/runs/{run}"
        assert found["forge_http_requests_total", (("method", "GET"), ("route", route), ("status", "404"))] == 5
        assert found["forge_http_requests_total", (("method", "GET"), ("route", "other"), ("status", "404"))] == 5
        assert found["forge_http_request_seconds_count", (("method", "GET"), ("route", route))] == 5
        routes = {dict(labels)["route"] for name, labels in found if name == "forge_http_requests_total"}
        methods = {dict(labels)["method"] for name, labels in found if name == "forge_http_requests_total"}
        assert len(routes) <= 3
        assert methods == {"GET", "other"}

    async def test_they_are_counted_in_the_database_at_most_every_few_seconds(self, site):
        counted = []
        count = site.site.engine("shop").store.machines.count

        async def counting():
            counted.append(1)
            return await count()

        site.site.engine("shop").store.machines.count = counting
        await asyncio.gather(*(site.client.get("/metrics") for _ in range(5)))
        assert counted == [1]

    async def test_a_project_whose_database_is_away_does_not_hide_the_others(self, site):
        async def away():
            raise DependencyFailed("away")

        site.site.engine("shop").store.machines.count = away
        found = await metrics(site)
        assert found["forge_database_up", ()] == 0
        assert found["forge_workers", ()] == 0


class TestReadiness:
    async def test_without_a_worker_it_is_not_ready(self, site):
        answer = await site.client.get("/readyz")
        assert answer.status_code == 503
        await site.site.workers.start()
        ready = await site.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["project shop"]) == (200, "ok")

    async def test_a_worker_that_is_silent_for_long_does_not_count(self, site):
        await site.site.workers.start()
        now = time.time()
        site.site.clock = lambda: now + LATE_SECONDS + 1
        assert (await site.client.get("/readyz")).status_code == 503

    async def test_a_server_that_ends_is_not_ready_and_healthy(self, site):
        await site.site.workers.start()
        site.site.closing.set()
        assert (await site.client.get("/readyz")).status_code == 503
        assert (await site.client.get("/healthz")).status_code == 200

    async def test_a_database_that_is_away_is_named(self, site):
        async def away():
            raise DependencyFailed("the database cannot be reached")

        site.site.engine("shop").store.log.count = away
        answer = await site.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["project shop"] == "the database cannot be reached"


class TestLogs:
    @pytest.fixture
    def stream(self):
        root, kept = logging.getLogger(), (logging.getLogger().handlers[:], logging.getLogger().level)
        written = io.StringIO()
        configure_logs(written)
        yield written
        root.handlers[:], level = kept
        root.setLevel(level)
        structlog.reset_defaults()

    async def test_a_request_is_a_line_of_json_with_its_id(self, tmp_path, stream):
        async with asked(make_project(tmp_path / "shop")) as site:
            answer = await site.get("/runs", headers={"authorization": "Bearer forge_secret-token"})
            await site.client.get("/healthz")
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        (line,) = [line for line in lines if line["event"] == "request"]
        assert (line["path"], line["status"], line["level"]) == ("/api/v1/projects/shop/runs", 200, "info")
        assert line["request_id"] == answer.headers["x-request-id"]
        assert line["principal"] == "ann"
        assert "secret-token" not in stream.getvalue()

    async def test_an_error_that_nobody_expected_is_told_there_and_not_to_the_client(self, tmp_path, stream):
        async with asked(make_project(tmp_path / "shop")) as site:

            async def broken(*_words, **_more):
                raise ZeroDivisionError("the inside of the server")

            site.site.engine("shop").store.machines.newest = broken
            with pytest.raises(ZeroDivisionError):  # which uvicorn would log, and the client has its answer
                await site.get("/runs")
        assert "the inside of the server" in stream.getvalue()

    def test_warnings_of_libraries_are_lines_too(self, stream):
        logging.getLogger("somebody.else").warning("look %s", "here")
        line = json.loads(stream.getvalue())
        assert (line["event"], line["logger"], line["level"]) == ("look here", "somebody.else", "warning")


def exporting():
    exporter = InMemorySpanExporter()
    provider = provider_to(exporter)
    provider._active_span_processor._span_processors = (SimpleSpanProcessor(exporter),)
    return exporter, provider


RUN = RunView(
    "run-7", "failed", "shop",
    (
        JobView("build", "succeeded", 1, started_at=10.0, finished_at=12.0, steps=(
            StepView("make", "make it", "run", "succeeded", attempt=1, started_at=10.0, finished_at=12.0, exit_code=0),
        )),
        JobView("check", "failed", 1, started_at=12.0, finished_at=13.0, message="exit code 3", steps=(
            StepView("look", "look", "run", "failed", attempt=1, started_at=12.0, finished_at=13.0, exit_code=3),
            StepView("tell", "tell", "run", "skipped"),
        )),
        JobView("ship", "skipped"),
    ),
    actor="ann", created_at=9.0, started_at=10.0, finished_at=13.0, message="check failed",
)  # fmt: skip
RELEASE = Explanation(
    "production-3", "production", "1.4", "rolled_back", "too many errors", "ann", "run-7", "canary", "1.3",
    11.0, 11.0, 12.5,
    told=(Told(11.5, "bea", "pause"),), steps=(AskedStep(11.0, 500),), verdicts=(WordOfJudge(12.0, "rollback", "5% errors"),),
)  # fmt: skip


class TestTraces:
    def test_a_run_is_a_tree_with_its_times_and_what_failed(self):
        exporter, provider = exporting()
        trace_run(tracer_of(provider), "shop", RUN)
        spans = {span.name: span for span in exporter.get_finished_spans()}
        assert set(spans) == {"run shop", "job build", "job check", "run make it", "run look"}
        root = spans["run shop"]
        assert root.parent is None
        assert spans["job check"].parent.span_id == root.context.span_id
        assert spans["run look"].parent.span_id == spans["job check"].context.span_id
        assert (root.start_time, root.end_time) == (9_000_000_000, 13_000_000_000)
        assert root.attributes["forge.run"] == "run-7"
        assert not root.status.is_ok
        assert spans["job build"].status.is_ok
        assert spans["run look"].attributes["process.exit.code"] == 3

    def test_a_release_is_in_the_trace_of_its_run_whoever_sends_it(self):
        exporter, provider = exporting()
        trace_run(tracer_of(provider), "shop", RUN)
        elsewhere, other = exporting()
        trace_release(tracer_of(other), "shop", RELEASE)
        root = next(span for span in exporter.get_finished_spans() if span.parent is None)
        (release,) = elsewhere.get_finished_spans()
        assert release.context.trace_id == root.context.trace_id
        assert release.parent.span_id == root.context.span_id
        assert [event.name for event in release.events] == ["traffic asked", "judge: rollback", "told: pause"]
        assert release.attributes["deployment.environment.name"] == "production"
        assert not release.status.is_ok

    def test_runs_of_the_same_name_in_other_projects_are_other_traces(self):
        exporter, provider = exporting()
        for project in ("shop", "till"):
            trace_run(tracer_of(provider), project, RUN)
        roots = [span for span in exporter.get_finished_spans() if span.parent is None]
        assert len({span.context.trace_id for span in roots}) == 2

    async def test_what_ends_is_sent_once_however_many_watch(self, site):
        exporter, provider = exporting()
        watchers = [Tracing(site.site, tracer_of(provider)) for _ in range(3)]
        for watcher in watchers:
            watcher.start()
        await asyncio.sleep(0.1)
        await site.site.workers.start()
        await site.post("/runs", {})
        await finished(site, "run-1")
        await site.post("/runs/run-1/cancel")
        deadline = time.monotonic() + 20
        while not exporter.get_finished_spans():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.3)
        for watcher in watchers:
            await watcher.stop()
        names = [span.name for span in exporter.get_finished_spans()]
        assert names.count("run shop") == 1
        assert "job build" in names

    def test_nothing_is_sent_unless_somebody_says_where(self):
        assert provider_from({}) is None
        provider = provider_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
        assert provider is not None
        provider.shutdown()

    def test_without_the_libraries_it_is_told_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
        with pytest.raises(UsageError) as caught:
            provider_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
        assert "forge-release[telemetry]" in caught.value.hint


class TestSpansOfRequests:
    async def test_a_request_is_a_span_named_by_its_route(self, tmp_path):
        exporter, provider = exporting()
        async with asked(make_project(tmp_path / "shop"), tracer_provider=provider) as site:
            await site.get("/runs/run-9")
        (span,) = [one for one in exporter.get_finished_spans() if "GET" in one.name]
        assert span.name == "GET /api/v1/projects/{project}/runs/{run}"
        assert span.attributes["http.response.status_code"] == 404
