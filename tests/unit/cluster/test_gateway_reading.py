"""How the test cluster's gateway reads the cluster's objects, without a cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cluster import gateway_shops as shops
from cluster.gateway import backends_of
from cluster.gateway_envoy import MISSING, routes
from cluster.gateway_ingress import IngressNginx
from cluster.gateway_istio import Istio
from cluster.gateway_model import Backend, Door, World
from cluster.gateway_prometheus import scrape_configs
from cluster.gateway_routes import CONTROLLER, GatewayApi, conditions_of
from cluster.gateway_services import endpoints_of

Object = dict[str, Any]
NAMES = {"Service": "services", "Gateway": "gateways", "GatewayClass": "gateway_classes", "HTTPRoute": "http_routes",
         "VirtualService": "virtual_services", "Ingress": "ingresses"}  # fmt: skip


def world(*objects: Object) -> World:
    """Return a world as the apiserver would tell it, in a namespace called shop."""
    made = World()
    named = {"kind": "GatewayClass", "metadata": {"name": "forge-test"}, "spec": {"controllerName": CONTROLLER}}
    for number, each in enumerate([named, *objects]):
        home = "" if each["kind"] == "GatewayClass" else each["metadata"].get("namespace", "shop")
        told = {
            "creationTimestamp": f"2026-01-01T00:00:{number:02}Z",
            "generation": 3,
            "resourceVersion": "1",
            "namespace": home,
        }
        getattr(made, NAMES[each["kind"]])[home, each["metadata"]["name"]] = {
            **each,
            "metadata": {**told, **each["metadata"]},
        }
    return made


def api() -> GatewayApi:
    return GatewayApi(lambda namespace, name: "127.200.1.1")


def services(*versions: str) -> list[Object]:
    return [shops.service("shop", version) for version in versions]


def rules_of(door: Door, host: str = "*") -> list[Object]:
    hosts = {each["domains"][0]: each["routes"] for each in routes(door)["virtual_hosts"]}
    return hosts[host]


def test_weights_become_weighted_clusters_and_nothing_goes_to_zero() -> None:
    route = shops.http_route("shop", [{"backendRefs": shops.weighted("shop", a=70, b=30, c=0)}])
    (door,) = api().doors(world(shops.gateway(), route, *services("a", "b", "c")))
    (rule,) = rules_of(door)
    told = {each["name"]: each["weight"] for each in rule["route"]["weighted_clusters"]["clusters"]}
    assert told == {"gateway/shop/shop-a/80|80|": 70, "gateway/shop/shop-b/80|80|": 30}
    assert (door.address, door.port) == ("127.200.1.1", 8080)
    assert {each.service for each in backends_of([door])} == {"shop-a", "shop-b", "shop-c"}


def test_a_rule_without_any_weight_answers_500_and_a_missing_backend_is_named_so() -> None:
    rules = [{"matches": [{"path": {"type": "Exact", "value": "/none"}}], "backendRefs": shops.weighted("shop", a=0)},
             {"backendRefs": shops.weighted("shop", gone=1)}]  # fmt: skip
    (door,) = api().doors(world(shops.gateway(), shops.http_route("shop", rules), *services("a")))
    none, gone = rules_of(door)
    assert none["direct_response"]["status"] == 500
    assert gone["route"]["weighted_clusters"]["clusters"][0]["name"] == MISSING
    assert gone["route"]["cluster_not_found_response_code"] == "INTERNAL_SERVER_ERROR"


def test_the_most_precise_match_comes_first() -> None:
    def matched(**match: Any) -> Object:
        return {"matches": [match], "backendRefs": shops.weighted("shop", a=1)}

    told = [
        matched(path={"type": "PathPrefix", "value": "/"}),
        matched(path={"type": "PathPrefix", "value": "/"}, headers=[{"name": "x", "value": "1"}]),
        matched(path={"type": "PathPrefix", "value": "/long/"}),
        matched(path={"type": "Exact", "value": "/l"}),
        matched(path={"type": "PathPrefix", "value": "/"}, method="POST"),
    ]
    (door,) = api().doors(world(shops.gateway(), shops.http_route("shop", told), *services("a")))
    found = [each["match"] for each in rules_of(door)]
    assert found[0]["path"] == "/l"
    assert found[1]["path_separated_prefix"] == "/long"
    assert [each.get("headers", [{}])[0].get("name") for each in found[2:]] == [":method", "x", None]


@pytest.mark.parametrize(
    ("listener", "wanted", "domains"),
    [
        (None, None, ["*"]), ("a.example", None, ["a.example"]), (None, ["b.example"], ["b.example"]),
        ("*.example", ["a.example", "b.other"], ["a.example"]), ("a.example", ["*.example"], ["a.example"]),
        ("a.example", ["b.example"], []),
    ],
)  # fmt: skip
def test_hosts_are_those_of_both_the_listener_and_the_route(
    listener: str, wanted: list[str], domains: list[str]
) -> None:
    gateway, route = shops.gateway(), shops.http_route("shop", [{"backendRefs": shops.weighted("shop", a=1)}])
    if listener:
        gateway["spec"]["listeners"][0]["hostname"] = listener
    if wanted:
        route["spec"]["hostnames"] = wanted
    (door,) = api().doors(world(gateway, route, *services("a")))
    assert [host.domains[0] for host in door.hosts] == domains
    patches = {
        each.path.rpartition("/")[2]: each.status for each in api().statuses(world(gateway, route, *services("a")))
    }
    accepted = patches["shop"]["parents"][0]["conditions"][0]
    assert accepted["status"] == str(bool(domains))
    assert accepted["observedGeneration"] == 3


def test_a_route_of_another_namespace_needs_a_listener_that_allows_it() -> None:
    route = shops.http_route("shop", [{"backendRefs": shops.weighted("shop", a=1)}])
    route["metadata"]["namespace"] = "other"
    route["spec"]["parentRefs"][0]["namespace"] = "shop"
    assert not api().doors(world(shops.gateway(), route))[0].hosts
    open_gateway = shops.gateway()
    open_gateway["spec"]["listeners"][0]["allowedRoutes"] = {"namespaces": {"from": "All"}}
    assert api().doors(world(open_gateway, route))[0].hosts


def test_a_condition_s_time_of_transition_stays_while_it_does() -> None:
    first = conditions_of(1, [("Accepted", True, "Accepted", "")], [])
    first[0]["lastTransitionTime"] = "2000-01-01T00:00:00Z"
    assert conditions_of(2, [("Accepted", True, "Accepted", "")], first)[0]["lastTransitionTime"].startswith("2000")
    assert not conditions_of(2, [("Accepted", False, "Bad", "x")], first)[0]["lastTransitionTime"].startswith("2000")


def test_a_virtual_service_is_read_as_it_is_written() -> None:
    rule = {"match": [{"uri": {"prefix": "/v"}, "headers": {"x": {"regex": "a.*"}, "y": {}}}],
            "route": shops.destinations("shop", a=60, b=40), "mirror": {"host": "shop-b.shop.svc.cluster.local"},
            "mirrorPercentage": {"value": 2.5}}  # fmt: skip
    (door,) = Istio("127.200.0.3").doors(world(shops.virtual_service("shop", [rule]), *services("a", "b")))
    (found,) = rules_of(door, "shop.shop.svc.cluster.local")
    assert found["match"]["prefix"] == "/v"
    assert found["match"]["headers"][1] == {"name": "y", "present_match": True}
    clusters = found["route"]["weighted_clusters"]["clusters"]
    assert [(each["name"], each["weight"]) for each in clusters] == [
        ("istio/shop/shop-a/a|80|", 60),
        ("istio/shop/shop-b/b|80|", 40),
    ]
    (mirror,) = found["route"]["request_mirror_policies"]
    assert mirror["runtime_fraction"]["default_value"] == {"numerator": 25_000, "denominator": "MILLION"}


def test_a_canary_decides_by_header_then_cookie_then_weight() -> None:
    canary = shops.ingress("canary", "shop-b", "h", canary_weight="1", canary_weight_total="1000", canary_by_header="x",
                           canary_by_cookie="c")  # fmt: skip
    found = IngressNginx("127.200.0.4").doors(world(shops.ingress("main", "shop-a", "h"), canary, *services("a", "b")))
    told = rules_of(found[0], "h")
    chosen = [each["route"]["weighted_clusters"]["clusters"] for each in told]
    canary_name = "nginx/shop/main/shop-a/shop-shop-b-80|80|"
    assert [each[0]["name"] == canary_name for each in chosen] == [True, False, True, False, False]
    assert [(each["name"] == canary_name, each["weight"]) for each in chosen[-1]] == [(False, 999), (True, 1)]
    cookie = re.compile(told[2]["match"]["headers"][0]["string_match"]["safe_regex"]["regex"])
    assert cookie.fullmatch("a=b; c=always")
    assert not cookie.fullmatch("xc=always")


def slice_of(*endpoints: tuple[str, bool, bool]) -> Object:
    listed = [{"addresses": [address], "conditions": {"ready": ready, "serving": True, "terminating": leaving}}
              for address, ready, leaving in endpoints]  # fmt: skip
    labels = {"kubernetes.io/service-name": "shop-a"}
    return {"metadata": {"namespace": "shop", "name": "s", "labels": labels}, "endpoints": listed,
            "ports": [{"name": "http", "port": 8080}]}  # fmt: skip


def test_endpoints_that_end_get_nothing_new_unless_none_is_ready() -> None:
    made, backend = world(*services("a")), Backend("gateway/shop/shop-a/80", "shop", "shop-a", 80)
    first = slice_of(("10.90.0.1", True, False), ("10.90.0.2", False, True), ("10.90.0.3", False, False))
    made.take_slice(None, first)
    assert endpoints_of(backend, made) == [("127.90.0.1", 8080, "HEALTHY"), ("127.90.0.2", 8080, "DRAINING")]
    second = slice_of(("10.90.0.2", False, True))
    made.take_slice(first, second)
    assert endpoints_of(backend, made) == [("127.90.0.2", 8080, "HEALTHY")]
    made.take_slice(second, None)
    assert endpoints_of(backend, made) == []


def test_prometheus_turns_milliseconds_into_seconds() -> None:
    rules = {each["job_name"]: each["metric_relabel_configs"] for each in scrape_configs("http://127.0.0.1:1/stats")}
    in_seconds = [each for each in rules["ingress-nginx"] if each.get("target_label") == "le"]

    def relabelled(value: str) -> str:
        for each in in_seconds:
            if found := re.fullmatch(each["regex"], value):
                value = found.expand(each["replacement"].replace("$", "\\"))
        return value

    told = {"0.5": 0.0005, "1": 0.001, "22": 0.022, "450": 0.45, "1500": 1.5, "60000": 60.0, "+Inf": float("inf")}
    assert {value: float(relabelled(value)) for value in told} == told
