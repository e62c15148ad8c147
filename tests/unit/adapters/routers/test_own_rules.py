"""What is the user's stays the user's: edits in the middle of a release, rules of others, Services of other namespaces."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routed_objects import (
    BACKENDS,
    CLUSTER,
    VERSIONS,
    freed,
    gateway_router,
    http_route,
    ingress,
    istio_router,
    positive,
    tables,
    virtual_service,
    written,
)
from forge.adapters.routers.backends import Backends, check_able, owners, without_marks
from forge.adapters.routers.gateway_api import GatewayApiRouter
from forge.adapters.routers.ingress_nginx import IngressNginxRouter, canary_ingress, weights_of
from forge.adapters.routers.originals import contains
from forge.adapters.routers.replicas import service_address, told_shares
from forge.model.configs import ROUTER_CAPABILITIES, GatewayApiRouterConfig, IngressNginxRouterConfig
from forge.model.errors import UsageError
from forge.model.traffic import Route, TrafficTable

CASES = pytest.mark.parametrize(
    ("router", "item", "key", "refs"),
    [
        (gateway_router(), http_route(), "rules", "backendRefs"),
        (istio_router(), virtual_service(), "http", "route"),
    ],
    ids=["gateway", "istio"],
)
headers = st.sampled_from(["x-preview", "X-Beta"])


@st.composite
def tables_with_routes(draw: st.DrawFn) -> TrafficTable:
    table = draw(tables())
    made = draw(
        st.lists(
            st.one_of(
                st.builds(Route, st.sampled_from(VERSIONS), header=headers, value=st.sampled_from(["", "yes"])),
                st.builds(Route, st.sampled_from(VERSIONS), mirror=st.integers(1, 10_000)),
            ),
            max_size=3,
        )
    )
    return TrafficTable(table.weights, table.generation, tuple(made))


@CASES
@settings(max_examples=40)
@given(first=tables_with_routes(), then=tables_with_routes())
def test_whatever_was_asked_before_the_same_is_written_and_all_is_given_back(
    router: Any, item: Any, key: str, refs: str, first: TrafficTable, then: TrafficTable
) -> None:
    twice = written(router, written(router, item, first), then)
    assert twice["spec"] == written(router, item, then)["spec"]
    assert written(router, twice, then) == twice
    assert router.stands(twice, then, BACKENDS)
    assert router.weights(twice, BACKENDS) == positive(then)
    assert freed(router, twice) == item


@CASES
@settings(max_examples=40)
@given(first=tables_with_routes(), then=tables_with_routes(), at=st.integers(0, 2))
def test_edits_in_the_middle_of_a_release_stay(
    router: Any, item: Any, key: str, refs: str, first: TrafficTable, then: TrafficTable, at: int
) -> None:
    """Another timeout for the environment's own rule, and a rule more for somebody else's Service."""
    split = written(router, item, first)
    edited = copy.deepcopy(split)
    edited["spec"][key][-1]["timeouts" if key == "rules" else "timeout"] = {"request": "1s"} if key == "rules" else "1s"
    other = copy.deepcopy(item["spec"][key][0])
    other["name"] = "theirs"
    edited["spec"][key].insert(min(at, 1), other)
    if not any(route.header for route in first.routes):  # else the rule for the header has to follow
        assert router.stands(edited, first, BACKENDS)
    after = written(router, edited, then)
    wanted = copy.deepcopy(item)
    wanted["spec"][key][-1]["timeouts" if key == "rules" else "timeout"] = {"request": "1s"} if key == "rules" else "1s"
    wanted["spec"][key].insert(min(at, 1), other)
    assert freed(router, after) == wanted
    assert router.weights(after, BACKENDS) == positive(then)


@CASES
@settings(max_examples=40)
@given(first=tables_with_routes(), then=tables())
def test_a_version_whose_service_is_gone_is_still_known_for_one(
    router: Any, item: Any, key: str, refs: str, first: TrafficTable, then: TrafficTable
) -> None:
    from forge.adapters.kubernetes.naming import name_for_version, version_slug

    named = Backends("shop", {version: name_for_version("shop", version_slug(version)) for version in VERSIONS})
    before = written_with(router, item, first, named)
    fewer = Backends("shop", {version: named.services[version] for version in then.weights}, "shop")
    assert written_with(router, before, then, fewer)["spec"] == written_with(router, item, then, fewer)["spec"]


def written_with(router: Any, item: Any, table: TrafficTable, backends: Backends) -> Any:
    from forge.adapters.routers.backends import with_table

    return with_table(router.routed(item, table, backends), table, 1)


@CASES
def test_taking_the_environments_rules_away_does_not_last(router: Any, item: Any, key: str, refs: str) -> None:
    table = TrafficTable({"1.0": 10_000}, 1)
    split = written(router, item, table)
    split["spec"][key] = split["spec"][key][:1]
    assert not router.stands(split, table, BACKENDS)
    assert written(router, split, table)["spec"] == written(router, item, table)["spec"]


@CASES
def test_matches_that_were_edited_stay_with_the_split(router: Any, item: Any, key: str, refs: str) -> None:
    match = {"path": {"type": "PathPrefix", "value": "/v2"}} if key == "rules" else {"uri": {"prefix": "/v2"}}
    field = "matches" if key == "rules" else "match"
    split = written(router, item, TrafficTable({"1.0": 5000, "1.1": 5000}, 1))
    split["spec"][key][1][field] = [match]
    after = written(router, split, TrafficTable({"1.1": 10_000}, 2))
    assert after["spec"][key][1][field] == [match]
    assert router.weights(after, BACKENDS) == {"1.1": 10_000}
    assert freed(router, after)["spec"][key][1][refs] == item["spec"][key][1][refs]


@CASES
def test_somebody_who_sends_the_environment_elsewhere_is_noticed(router: Any, item: Any, key: str, refs: str) -> None:
    table = TrafficTable({"1.0": 10_000}, 1)
    split = written(router, item, table)
    split["spec"][key][1][refs] = copy.deepcopy(item["spec"][key][0][refs])
    assert not router.stands(split, table, BACKENDS)
    assert router.weights(split, BACKENDS) == {}
    assert written(router, split, table)["spec"] == written(router, item, table)["spec"]


@CASES
def test_a_header_rule_that_was_taken_away_is_noticed(router: Any, item: Any, key: str, refs: str) -> None:
    table = TrafficTable({"1.0": 10_000}, 1, (Route("1.1", header="x", value="y"),))
    split = written(router, item, table)
    del split["spec"][key][1]
    assert not router.stands(split, table, BACKENDS)
    assert router.weights(split, BACKENDS) == {"1.0": 10_000}


@CASES
def test_what_the_apiserver_adds_is_no_edit(router: Any, item: Any, key: str, refs: str) -> None:
    table = TrafficTable({"1.0": 9000, "1.1": 1000}, 1)
    split = written(router, item, table)
    for each in split["spec"][key][1][refs]:
        each["added-by-a-webhook"] = True
    assert router.stands(split, table, BACKENDS)


def test_a_service_of_the_same_name_elsewhere_is_not_the_environments() -> None:
    here = Backends(BACKENDS.front, BACKENDS.services, "shop")
    table = TrafficTable({"1.0": 10_000}, 1)
    route = http_route()
    route["spec"]["rules"][1]["backendRefs"][0]["namespace"] = "other"
    with pytest.raises(UsageError, match="no rule of HTTPRoute shop points at the Service shop"):
        gateway_router().routed(route, table, here)
    service = json.loads(json.dumps(virtual_service()).replace("shop.shop.svc", "shop.other.svc"))
    with pytest.raises(UsageError, match="no rule of VirtualService shop points at the Service shop"):
        istio_router().routed(service, table, here)


@pytest.mark.parametrize("host", ["shop", "shop.shop", "shop.shop.svc", "shop.shop.svc.cluster.local"])
def test_every_way_to_write_a_host_is_understood(host: str) -> None:
    here = Backends(BACKENDS.front, BACKENDS.services, "shop")
    item = json.loads(json.dumps(virtual_service()).replace("shop.shop.svc.cluster.local", host))
    fresh = istio_router().routed(item, TrafficTable({"1.1": 10_000}, 1), here)
    assert fresh["spec"]["http"][1]["route"][0]["destination"]["host"] == host.replace("shop", "shop-1-1", 1)


@pytest.mark.parametrize("host", ["shop.example", "shop.shop.example.com", "shopping"])
def test_hosts_outside_the_cluster_are_nobodys_business(host: str) -> None:
    here = Backends(BACKENDS.front, BACKENDS.services, "shop")
    item = json.loads(json.dumps(virtual_service()).replace("shop.shop.svc.cluster.local", host))
    with pytest.raises(UsageError, match="no rule"):
        istio_router().routed(item, TrafficTable({"1.1": 10_000}, 1), here)


def test_a_route_in_another_namespace_keeps_saying_where_the_services_are() -> None:
    here = Backends(BACKENDS.front, BACKENDS.services, "shop")
    item = http_route()
    item["metadata"]["namespace"] = "edge"
    item["spec"]["rules"][1]["backendRefs"][0]["namespace"] = "shop"
    fresh = gateway_router().routed(item, TrafficTable({"1.0": 1, "1.1": 9999}, 1), here)
    assert {ref["namespace"] for ref in fresh["spec"]["rules"][1]["backendRefs"]} == {"shop"}


def test_a_rule_with_a_condition_on_the_same_header_keeps_its_requests() -> None:
    item = http_route()
    match = {"headers": [{"type": "Exact", "name": "X-Preview", "value": "never"}]}
    item["spec"]["rules"][1]["matches"].append(match)
    table = TrafficTable({"1.0": 10_000}, 1, (Route("1.1", header="x-preview", value="yes"),))
    fresh = written(gateway_router(), item, table)
    (narrowed,) = [rule for rule in fresh["spec"]["rules"] if rule["backendRefs"][0]["name"] == "shop-1-1"]
    assert len(narrowed["matches"]) == 1
    assert freed(gateway_router(), fresh) == item


def test_istio_knows_a_header_and_a_cookie_at_once_and_presence() -> None:
    routes = (Route("1.1", header="X-Any"), Route("1.2", header="x", value="y", cookie="c"))
    fresh = written(istio_router(), virtual_service(), TrafficTable({"1.0": 10_000}, 1, routes))
    any_value, both = fresh["spec"]["http"][1:3]
    assert any_value["match"] == [{"headers": {"x-any": {}}}]
    assert both["match"][0]["headers"]["x"] == {"exact": "y"}
    assert both["match"][0]["headers"]["cookie"] == {"regex": "^(.*;[ ]*)?c=y([ ]*;.*)?$"}


def test_istio_copies_beside_those_of_the_user() -> None:
    item = virtual_service()
    own = {"destination": {"host": "audit"}, "percentage": {"value": 100}}
    item["spec"]["http"][1]["mirrors"] = [own]
    table = TrafficTable({"1.0": 10_000}, 1, (Route("1.1", mirror=10), Route("1.2", mirror=20)))
    fresh = written(istio_router(), item, table)
    assert fresh["spec"]["http"][1]["mirrors"][0] == own
    assert [each["percentage"]["value"] for each in fresh["spec"]["http"][1]["mirrors"][1:]] == [0.1, 0.2]
    assert freed(istio_router(), fresh) == item
    item["spec"]["http"][1]["mirror"] = {"host": "audit"}
    with pytest.raises(UsageError, match="mirrors by itself"):
        istio_router().routed(item, table, BACKENDS)


FIELDS = [
    {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-01T10:00:05Z",
     "fieldsV1": {"f:spec": {"f:rules": {}}}},
    {"manager": "kubectl-label", "operation": "Update", "time": "2026-01-01T10:00:09Z",
     "fieldsV1": {"f:metadata": {"f:labels": {}}}},
    {"manager": "forge", "operation": "Update", "time": "2026-01-01T10:00:07Z", "fieldsV1": {"f:spec": {"f:rules": {}}}},
    {"manager": "argocd", "operation": "Apply", "time": "2026-01-01T10:00:01Z", "fieldsV1": {"f:spec": {"f:rules": {}}}},
    {"manager": "gateway", "operation": "Update", "time": "2026-01-01T10:00:10Z", "subresource": "status",
     "fieldsV1": {"f:spec": {"f:rules": {}}}},
]  # fmt: skip


def test_who_owns_the_split_is_who_changed_it() -> None:
    item = {"metadata": {"managedFields": FIELDS}}
    assert owners(item, "spec", "rules") == ["kubectl-edit", "argocd"]
    assert owners(item, "metadata", "labels") == ["kubectl-label"]
    assert owners(item, "spec", "http") == []
    assert owners({}, "spec") == []


def test_nothing_of_forges_is_left_behind() -> None:
    item = http_route()
    item["metadata"]["labels"] |= {"app.kubernetes.io/managed-by": "forge", "forge.dev/environment": "production"}
    split = written(gateway_router(), item, TrafficTable({"1.0": 10_000}, 1))
    assert "forge" not in json.dumps(without_marks(gateway_router().restored(split, BACKENDS)))
    theirs = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    assert without_marks(theirs) == theirs


@pytest.mark.parametrize("router", sorted(set(ROUTER_CAPABILITIES) - {"envoy"}))
def test_what_a_router_cannot_do_is_refused_with_those_that_can(router: str) -> None:
    asked = {
        "header_routes": TrafficTable({"1": 10_000}, 1, (Route("2", header="x"),)),
        "cookie_routes": TrafficTable({"1": 10_000}, 1, (Route("2", cookie="x"),)),
        "mirror": TrafficTable({"1": 10_000}, 1, (Route("2", mirror=5),)),
        "sticky": TrafficTable({"1": 10_000}, 1, sticky=True),
    }
    check_able(TrafficTable({"1": 5000, "2": 5000}, 1), router)
    for capability, table in asked.items():
        if capability in ROUTER_CAPABILITIES[router]:
            check_able(table, router)
            continue
        with pytest.raises(UsageError, match=f"the router `{router}` cannot") as raised:
            check_able(table, router)
        assert (raised.value.hint or "").endswith("can")
        assert router not in (raised.value.hint or "")


def test_what_whole_replicas_cannot_do_is_told() -> None:
    table = TrafficTable({"1.0": 9500, "1.1": 500, "1.2": 0}, 1)
    assert told_shares(table, {"1.0": 4, "1.1": 1}) == (
        "without a router the ready replicas are the split: 1.0 80 % instead of 95 % (4 ready), "
        "1.1 20 % instead of 5 % (1 ready)"
    )
    assert told_shares(table, {"1.0": 19, "1.1": 1, "1.2": 0}) == ""
    assert "1.2 50 % instead of 0 %" in told_shares(TrafficTable({"1.0": 10_000}, 1), {"1.0": 1, "1.2": 1})
    assert told_shares(table, {}) == ""


@pytest.mark.parametrize(
    ("spec", "status", "address"),
    [
        ({"ports": [{"port": 80}]}, {}, "http://shop.prod.svc"),
        ({"ports": [{"port": 8080}, {"port": 80}]}, {}, "http://shop.prod.svc:8080"),
        ({}, {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, "http://192.0.2.1"),
        ({"ports": [{"port": 81}]}, {"loadBalancer": {"ingress": [{"hostname": "lb"}]}}, "http://lb:81"),
    ],
)
def test_where_a_service_is_reached(spec: Any, status: Any, address: str) -> None:
    metadata = {"name": "shop", "namespace": "prod"}
    assert service_address({"metadata": metadata, "spec": spec, "status": status}) == address


@pytest.mark.parametrize(
    ("actual", "wanted", "has"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([{"a": 1, "b": 2}], [{"a": 1}], True),
        ([1, 2], [1], False),
        ("text", {"a": 1}, False),
        (None, [], False),
    ],
)
def test_containing(actual: Any, wanted: Any, has: bool) -> None:
    assert contains(actual, wanted) is has


def test_a_grpc_route_is_split_like_any_other() -> None:
    router = GatewayApiRouter(CLUSTER, "production", GatewayApiRouterConfig("shop", kind="GRPCRoute"))
    method = {"method": {"type": "Exact", "service": "shop.Orders"}}
    item = {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "public"}],
                 "rules": [{"matches": [method], "backendRefs": [{"name": "shop", "port": 50051}]}]},
    }  # fmt: skip
    table = TrafficTable({"1.0": 9000, "1.1": 1000}, 1, (Route("1.1", header="x-preview", value="yes"),))
    fresh = written(router, item, table)
    narrowed, split = fresh["spec"]["rules"]
    header = {"type": "Exact", "name": "x-preview", "value": "yes"}
    assert narrowed["matches"] == [{**method, "headers": [header]}]
    assert {ref["name"]: ref["weight"] for ref in split["backendRefs"]} == {"shop-1-0": 9000, "shop-1-1": 1000}
    assert freed(router, fresh) == item


def ingress_case(**notes: str) -> Any:
    item = ingress()
    item["metadata"]["annotations"] |= {f"nginx.ingress.kubernetes.io/{key.replace('_', '-')}": each
                                        for key, each in notes.items()}  # fmt: skip
    return item


HALF = TrafficTable({"1.0": 5000, "1.1": 5000}, 1)


def canary_notes(item: Any, table: TrafficTable) -> dict[str, str]:
    notes = canary_ingress(item, "c", table, BACKENDS, "production")["metadata"]["annotations"]
    return {key.removeprefix("nginx.ingress.kubernetes.io/"): value for key, value in notes.items()}


def test_the_canary_has_what_the_controller_reads_of_it_and_nothing_else() -> None:
    item = ingress_case(affinity="cookie", session_cookie_name="route", proxy_read_timeout="9", load_balance="ewma")
    item["metadata"]["annotations"]["kubernetes.io/ingress.class"] = "nginx-internal"
    found = canary_notes(item, HALF)
    assert found == {
        "affinity": "cookie", "session-cookie-name": "route", "load-balance": "ewma",
        "kubernetes.io/ingress.class": "nginx-internal",
        "canary": "true", "canary-weight": "5000", "canary-weight-total": "10000",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ((Route("1.0", header="x"),), "to its canary \\(1.1\\) only, not to 1.0"),
        ((Route("1.1", header="x", cookie="c", value="always"),), "by a header or by a cookie, not by both"),
        ((Route("1.1", header="x"), Route("1.1", header="y")), "one header and one cookie"),
        ((Route("1.1", cookie="c"),), "only where its value is `always`"),
    ],
)
def test_what_a_canary_ingress_cannot_do_is_refused(routes: tuple[Route, ...], words: str) -> None:
    table = TrafficTable(HALF.weights, 1, routes)
    main = written(
        IngressNginxRouter(CLUSTER, "p", IngressNginxRouterConfig("shop")), ingress(), TrafficTable({"1.0": 10_000}, 1)
    )
    with pytest.raises(UsageError, match=words):
        canary_ingress(main, "c", table, BACKENDS, "production")


def test_a_header_of_any_value_is_a_pattern() -> None:
    found = canary_notes(ingress(), TrafficTable({"1.0": 10_000}, 1, (Route("1.1", header="x-preview"),)))
    assert (found["canary-by-header"], found["canary-by-header-pattern"]) == ("x-preview", ".*")
    assert found["canary-weight"] == "0"


def test_the_default_backend_is_turned_too() -> None:
    item = ingress()
    item["spec"] = {"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}}
    router = IngressNginxRouter(CLUSTER, "production", IngressNginxRouterConfig("shop"))
    main = written(router, item, HALF)
    assert main["spec"]["defaultBackend"]["service"] == {"name": "shop-1-0", "port": {"number": 80}}
    canary = canary_ingress(main, "c", HALF, BACKENDS, "production")
    assert canary["spec"] == {"defaultBackend": {"service": {"name": "shop-1-1", "port": {"number": 80}}}}
    assert freed(router, main) == item


@given(text=st.text(max_size=8))
def test_a_weight_that_nobody_understands_is_none(text: str) -> None:
    main = written(IngressNginxRouter(CLUSTER, "p", IngressNginxRouterConfig("shop")), ingress(), HALF)
    canary = canary_ingress(main, "c", HALF, BACKENDS, "production")
    canary["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"] = text
    found = weights_of(main, canary, BACKENDS)
    assert sum(found.values()) == 10_000
    assert set(found) <= {"1.0", "1.1"}
