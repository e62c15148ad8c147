"""Opening an environment on a cluster, and sources of signals that know versions by what their objects are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge.adapters.kubernetes.naming import version_slug
from forge.adapters.signals.base import Field, QueryResult, Reading, RequestTrace, TracingSource
from forge.adapters.targets import registry
from forge.adapters.targets.kubernetes.sources import named_source
from forge.model.configs import ROUTER_CAPABILITIES, ROUTERS_OF
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan, SourcePlan

CONFIGS: dict[str, dict[str, Any]] = {
    "gateway_api": {"route": "shop"},
    "istio": {"virtual_service": "shop"},
    "ingress_nginx": {"ingress": "shop"},
    "replicas": {},
}
PROMETHEUS = SourcePlan("prometheus", "prometheus", {"http": {"url": "https://prometheus.example"}, "preset": "plain"})
NEW, OLD = "1.4.0", "stable"


def plan(router: str = "replicas", **fields: Any) -> EnvironmentPlan:
    return EnvironmentPlan(
        "production",
        target="kubernetes",
        target_config={"manifests": ["k8s"]},
        router=router,
        signals="kubernetes",
        **{"router_config": CONFIGS.get(router, {}), **fields},
    )


@pytest.mark.parametrize("router", sorted(CONFIGS))
def test_every_router_of_a_cluster_opens_and_can_what_the_table_says(router: str, tmp_path: Path) -> None:
    opened = registry.open_environment(plan(router), tmp_path / "production")
    assert opened.router.capabilities == ROUTER_CAPABILITIES[router]
    assert not (tmp_path / "production").exists()


def test_every_router_that_the_file_may_name_can_be_opened() -> None:
    assert set(CONFIGS) == ROUTERS_OF["kubernetes"]


def test_opening_an_environment_on_this_machine_loads_no_client_of_clusters() -> None:
    script = (
        "import sys; from pathlib import Path; from forge.adapters.targets import registry;"
        "from forge.model.plan import EnvironmentPlan;"
        "registry.open_environment(EnvironmentPlan('a', target_config={'command': ['x']}), Path('/nowhere'));"
        "print([name for name in sys.modules if name.startswith(('lightkube', 'forge.adapters.kubernetes'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("made", "message", "hint"),
    [
        (plan("envoy"), "target `kubernetes` has no router `envoy`", "known: "),
        (plan("gateway"), "target `kubernetes` has no router `gateway`", "did you mean `gateway_api`?"),
        (plan("istio", router_config={}),
         "the configuration of the router istio of production is wrong", ""),
        (msgspec.structs.replace(plan(), signals="envoy"), "target `kubernetes` has no signals `envoy`", "known: `kubernetes`"),
        (msgspec.structs.replace(plan(), target_config={"manifest": ["k8s"]}), "knows no option `manifest`", "did you mean `manifests`?"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_with_a_suggestion(made: EnvironmentPlan, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as wrong:
        registry.open_environment(made, Path("/nowhere"))
    assert message in wrong.value.message
    assert hint in (wrong.value.hint or "")


def test_an_environment_of_this_machine_has_no_router_of_a_cluster() -> None:
    with pytest.raises(UsageError, match="target `local` has no router `istio`"):
        registry.open_environment(EnvironmentPlan("a", router="istio"), Path("/nowhere"))


async def test_without_sources_nothing_is_known_rather_than_zero(tmp_path: Path) -> None:
    signals = registry.open_environment(plan(), tmp_path).signals
    assert await signals.read([NEW, OLD]) == {}
    signals.restore(signals.state())


class Store:
    """A source that knows versions by the names that it was given, and keeps what it was asked."""

    gives: frozenset[Field] = frozenset({"requests"})

    def __init__(self, **known: int) -> None:
        self.known = {name.replace("_", "-"): count for name, count in known.items()}
        self.asked: list[list[str]] = []
        self.restored: dict[str, object] = {}
        self.closed = False

    async def read(self, version_ids: list[str], _now: float) -> dict[str, Reading]:
        self.asked.append(version_ids)
        return {name: Reading(requests=self.known[name]) for name in version_ids if name in self.known}

    async def examine(self, version_ids: list[str], _now: float) -> list[QueryResult]:
        values = {name: float(self.known[name]) if name in self.known else None for name in version_ids}
        return [QueryResult("requests", "rate(x)", values)]

    def state(self) -> dict[str, object]:
        return {"a": 1}

    def restore(self, state: dict[str, object]) -> None:
        self.restored = state

    async def close(self) -> None:
        self.closed = True


class TracingStore(Store):
    async def traces(self, version: str, start: float, end: float) -> list[RequestTrace]:
        shared = RequestTrace("shared", version, end)
        own = RequestTrace(f"of {version}", version, start)
        return [shared, own]


SLUG = version_slug(NEW)


async def test_a_version_is_found_under_its_slug() -> None:
    store = Store(**{SLUG: 7, "stable": 5})
    source = named_source(store)
    assert {name: found.requests for name, found in (await source.read([NEW, OLD], 0.0)).items()} == {NEW: 7, OLD: 5}
    assert store.asked == [[NEW, OLD, SLUG]], "an id that is its own slug is asked for once"


async def test_what_the_application_says_of_itself_goes_first() -> None:
    store = Store(**{SLUG: 7})
    store.known[NEW] = 9
    assert (await named_source(store).read([NEW], 0.0))[NEW].requests == 9


async def test_a_version_that_nobody_knows_is_missing_and_never_zero() -> None:
    source = named_source(Store())
    assert await source.read([NEW], 0.0) == {}
    (result,) = await source.examine([NEW], 0.0)
    assert result.values == {NEW: None}


async def test_queries_answer_by_version() -> None:
    (result,) = await named_source(Store(**{SLUG: 7, "stable": 0})).examine([NEW, OLD], 0.0)
    assert result.values == {NEW: 7.0, OLD: 0.0}


async def test_everything_else_is_the_sources_own() -> None:
    store = Store()
    source = named_source(store)
    assert (source.gives, source.state()) == (frozenset({"requests"}), {"a": 1})
    source.restore({"b": 2})
    await source.close()
    assert (store.restored, store.closed) == ({"b": 2}, True)


async def test_requests_are_found_under_both_names_and_each_once() -> None:
    source = named_source(TracingStore())
    assert isinstance(source, TracingSource)
    found = await source.traces(NEW, 1.0, 2.0)
    assert [(trace.trace, trace.version) for trace in found] == [
        ("shared", NEW),
        (f"of {NEW}", NEW),
        (f"of {SLUG}", NEW),
    ]
    assert not isinstance(named_source(Store()), TracingSource)


async def test_sources_of_a_cluster_are_asked_by_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(registry, "open_source", lambda *_: made.append(Store()) or made[-1])
    opened = registry.open_environment(plan(sources=(PROMETHEUS,)), tmp_path)
    await opened.signals.read([NEW])
    assert [store.asked for store in made] == [[[NEW, SLUG]]]
