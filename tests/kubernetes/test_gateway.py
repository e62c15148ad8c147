"""The test cluster's gateway with real pods: what each API says is what clients get, and no request fails meanwhile."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import gateway_shops as shops
from cluster.access import Kubectl, until
from cluster.fixtures import fresh_namespace
from cluster.gateway import FrontDoors
from cluster.gateway_load import Load, ask
from cluster.sharing import Cluster

pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def doors(cluster: Cluster) -> FrontDoors:
    return FrontDoors(lambda path: cluster.api("GET", path))


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Kubectl]:
    """Versions a, b and c of a shop behind a Gateway, for tests that only change what leads to them."""
    with fresh_namespace(cluster, "gateway-shop") as name:
        kubectl = cluster.kubectl(name)
        kubectl.apply(shops.gateway(), *shops.versions("shop", "a", "b", "c", replicas=1))
        for version in "abc":
            kubectl.ok("rollout", "status", f"deployment/shop-{version}", "--timeout=50s")
        yield kubectl


def route_status(kubectl: Kubectl, name: str = "shop") -> dict[str, Any]:
    """Return the conditions of a route's first parent by type, once they are of the route as it is now."""

    def confirmed() -> dict[str, Any] | None:
        route = kubectl.json("get", "httproute", name)
        for parent in route.get("status", {}).get("parents", ()):
            found = {each["type"]: each for each in parent["conditions"]}
            if all(each["observedGeneration"] == route["metadata"]["generation"] for each in found.values()):
                return found
        return None

    return until(confirmed, f"the gateway to confirm {name}", 15)


def set_route(kubectl: Kubectl, *rules: dict[str, Any], name: str = "shop") -> dict[str, Any]:
    kubectl.apply(shops.http_route(name, list(rules)))
    return route_status(kubectl, name)


def share(answers: Counter[str], version: str) -> float:
    return answers[version] / answers.total()


def test_weights_of_a_route_change_under_load_without_a_failed_request(shop: Kubectl, doors: FrontDoors) -> None:
    set_route(shop, {"backendRefs": shops.weighted("shop", a=100, b=0)})
    with Load(doors.gateway(shop.namespace, "edge")) as load:
        assert load.next(100).keys() == {"a"}
        for part in (10, 50, 90, 100, 0):
            conditions = set_route(shop, {"backendRefs": shops.weighted("shop", a=100 - part, b=part)})
            assert conditions["Accepted"]["status"] == conditions["ResolvedRefs"]["status"] == "True"
            load.next(8)  # those that were under way
            got = load.next(200)
            assert abs(share(got, "b") - part / 100) < 0.12, (part, got)
            if part in {0, 100}:
                assert len(got) == 1, "confirmed means that the other one carries nothing"
    assert not load.failures
    assert load.requests > 1000


def test_pods_are_replaced_and_scaled_under_load_without_a_failed_request(kubectl: Kubectl, doors: FrontDoors) -> None:
    kubectl.apply(shops.gateway(), *shops.versions("shop", "a"), shops.http_route("shop", [
        {"backendRefs": shops.weighted("shop", a=1)}]))  # fmt: skip
    kubectl.ok("rollout", "status", "deployment/shop-a", "--timeout=50s")
    before = pod_names(kubectl)
    url = doors.gateway(kubectl.namespace, "edge")
    until(lambda: ask(url)[0] == 200, "the shop to be served", 15)
    with Load(url) as load:
        load.next(50)
        kubectl.ok("rollout", "restart", "deployment/shop-a")
        kubectl.ok("rollout", "status", "deployment/shop-a", "--timeout=50s")
        load.next(50)
        kubectl.ok("scale", "deployment/shop-a", "--replicas=1")
        until(lambda: len(pod_names(kubectl)) == 1, "one pod to be left", 30)
        load.next(50)
    assert not load.failures
    assert not before & pod_names(kubectl)


def pod_names(kubectl: Kubectl) -> set[str]:
    return {pod["metadata"]["name"] for pod in kubectl.json("get", "pods")["items"]}


def test_headers_choose_a_version_and_mirrors_get_copies(shop: Kubectl, doors: FrontDoors) -> None:
    header = {"headers": [{"name": "x-preview", "value": "yes"}]}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shop-c", "port": 80}}}
    marked = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-by", "value": "50%"}]}}
    set_route(
        shop,
        {"matches": [header], "backendRefs": shops.weighted("shop", b=1), "filters": [marked]},
        {"backendRefs": shops.weighted("shop", a=1), "filters": [mirror]},
    )
    url = doors.gateway(shop.namespace, "edge")
    status, body, headers = ask(url, headers={"x-preview": "yes"})
    assert (status, body, headers["x-by"]) == (200, "b", "50%")
    assert {ask(url, headers={"x-seen": f"copy-{number}"})[1] for number in range(5)} == {"a"}
    wanted = {f"seen copy-{number}" for number in range(5)}
    until(lambda: wanted <= set(shop.ok("logs", "deployment/shop-c").splitlines()), "the mirror to have its copies", 10)


def test_a_missing_backend_is_told_and_its_share_fails(shop: Kubectl, doors: FrontDoors) -> None:
    conditions = set_route(shop, {"backendRefs": [*shops.weighted("shop", a=1), {"name": "nobody", "port": 80}]})
    assert conditions["Accepted"]["status"] == "True"
    assert conditions["ResolvedRefs"]["status"] == "False"
    assert conditions["ResolvedRefs"]["reason"] == "BackendNotFound"
    assert "nobody" in conditions["ResolvedRefs"]["message"]
    with Load(doors.gateway(shop.namespace, "edge")) as load:
        load.next(60)
    assert {words[:3] for words in load.failures} == {"500"}
    set_route(shop, {"backendRefs": shops.weighted("shop", a=1)})


def test_a_route_is_refused_in_the_words_of_the_api(shop: Kubectl, doors: FrontDoors) -> None:
    rules = [{"backendRefs": shops.weighted("shop", a=1)}]
    route = shops.http_route("elsewhere", rules)
    route["spec"]["parentRefs"] = [{"name": "edge", "sectionName": "nowhere"}]
    shop.apply(route)
    assert route_status(shop, "elsewhere")["Accepted"]["reason"] == "NoMatchingParent"
    shop.ok("delete", "httproute", "elsewhere")
    bad = shops.http_route("bad", [{"backendRefs": [{"name": "shop-a", "port": 80, "weight": -1}]}])
    refused = shop("apply", "-f", "-", stdin=bad)
    assert refused.returncode == 1
    assert "weight" in refused.stderr


def test_a_controller_that_is_stuck_confirms_nothing_and_serves_what_it_had(shop: Kubectl, doors: FrontDoors) -> None:
    set_route(shop, {"backendRefs": shops.weighted("shop", a=1)})
    shop.ok("annotate", "gateway", "edge", "forge.test/frozen=true")
    shop.apply(shops.http_route("shop", [{"backendRefs": shops.weighted("shop", b=1)}]))
    with Load(doors.gateway(shop.namespace, "edge"), clients=2) as load:
        assert set(load.next(200)) == {"a"}
    route = shop.json("get", "httproute", "shop")
    seen = {each["observedGeneration"] for each in route["status"]["parents"][0]["conditions"]}
    assert seen == {route["metadata"]["generation"] - 1}
    shop.ok("annotate", "gateway", "edge", "forge.test/frozen-")
    assert route_status(shop)["Accepted"]["status"] == "True"
    assert ask(doors.gateway(shop.namespace, "edge"))[1] == "b"


def test_a_virtual_service_splits_by_weight_header_and_subset(shop: Kubectl, doors: FrontDoors) -> None:
    host = f"shop.{shop.namespace}.svc.cluster.local"
    subset = {"host": "all", "subset": "third", "port": {"number": 80}}
    shop.apply(
        {**shops.service("shop"), "metadata": {"name": "all"}},
        {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "all"},
         "spec": {"host": "all", "subsets": [{"name": "third", "labels": {"version": "c"}}]}},
        shops.virtual_service("shop", [
            {"match": [{"headers": {"x-preview": {"exact": "yes"}}}], "route": [{"destination": subset}]},
            {"route": shops.destinations("shop", a=100, b=0)},
        ]),
    )  # fmt: skip
    until(lambda: ask(doors.istio, host=host)[0] == 200, "the mesh to have it", 15)
    assert {ask(doors.istio, host=host, headers={"x-preview": "yes"})[1] for _ in range(10)} == {"c"}
    with Load(doors.istio, host=host) as load:
        for part in (25, 100):
            rules = [{"route": shops.destinations("shop", a=100 - part, b=part)}]
            shop.apply(shops.virtual_service("shop", rules))
            until(lambda part=part: abs(share(load.next(150), "b") - part / 100) < 0.12, f"{part} %", 15)
    assert not load.failures


def test_a_virtual_service_mirrors(shop: Kubectl, doors: FrontDoors) -> None:
    rule = {
        "route": shops.destinations("shop", a=100),
        "mirror": {"host": "shop-b"},
        "mirrorPercentage": {"value": 100},
    }
    service = shops.virtual_service("mirrored", [rule])
    shop.apply(service)
    host = f"mirrored.{shop.namespace}"
    until(lambda: ask(doors.istio, host=host)[0] == 200, "the mesh to have it", 15)
    assert ask(doors.istio, host=host, headers={"x-seen": "through-the-mesh"})[1] == "a"
    until(lambda: "seen through-the-mesh" in shop.ok("logs", "deployment/shop-b"), "the copy", 10)


def test_a_canary_ingress_takes_by_header_then_cookie_then_weight(shop: Kubectl, doors: FrontDoors) -> None:
    host = f"shop.{shop.namespace}.example"
    main = shops.ingress("shop", "shop-a", host)
    shop.apply(main)
    until(lambda: ask(doors.ingress, host=host)[:2] == (200, "a"), "the ingress", 15)
    told = until(
        lambda: shop.json("get", "ingress", "shop")["status"]["loadBalancer"].get("ingress"), "its address", 10
    )
    assert told[0]["ip"] in doors.ingress
    with Load(doors.ingress, host=host) as load:
        decided = {"canary_by_header": "x-canary", "canary_by_cookie": "canary"}
        shop.apply(shops.ingress("shop-canary", "shop-b", host, canary_weight="30", **decided))
        until(lambda: abs(share(load.next(150), "b") - 0.3) < 0.12, "30 %", 15)
        for headers, wanted in (
            ({"x-canary": "always"}, {"b"}), ({"x-canary": "never"}, {"a"}), ({"cookie": "q=1; canary=always"}, {"b"}),
            ({"cookie": "canary=never"}, {"a"}), ({"x-canary": "never", "cookie": "canary=always"}, {"a"}),
            ({"x-canary": "maybe"}, {"a", "b"}),
        ):  # fmt: skip
            assert {ask(doors.ingress, host=host, headers=headers)[1] for _ in range(30)} == wanted, headers
        shop.apply(shops.ingress("shop-canary-2", "shop-c", host, canary_weight="50"))
        assert "c" not in load.next(150), "a path has one canary"
        shop.ok("delete", "ingress", "shop-canary", "shop-canary-2")
        until(lambda: set(load.next(60)) == {"a"}, "the canary to be gone", 15)
    assert not load.failures


def test_a_plain_service_spreads_connections_over_ready_pods(shop: Kubectl, doors: FrontDoors) -> None:
    shop.apply(shops.service("shop"))
    url = doors.service(shop.namespace, "shop", 80)

    def versions() -> set[str]:
        try:
            return {ask(url)[1] for _ in range(60)}
        except (OSError, http.client.HTTPException):
            return set()

    until(lambda: versions() == {"a", "b", "c"}, "all versions to be reached", 15)
    never_ready = shops.workload("shop", "d", 1)
    never_ready["spec"]["template"]["metadata"]["annotations"] = {"forge.test/fail": "never-ready"}
    shop.apply(never_ready)
    ready = "jsonpath={.items[*].status.containerStatuses[*].state.running.startedAt}"
    until(lambda: shop.ok("get", "pods", "-l", "version=d", "-o", ready), "d to run", 20)
    assert versions() == {"a", "b", "c"}
    shop.ok("delete", "deployment", "shop-d")


def test_the_gateway_tells_its_own_state(shop: Kubectl, doors: FrontDoors) -> None:
    set_route(shop, {"backendRefs": shops.weighted("shop", a=1)})
    edge = until(lambda: shop.json("get", "gateway", "edge").get("status"), "a status", 10)
    assert {each["type"]: each["status"] for each in edge["conditions"]} == {"Accepted": "True", "Programmed": "True"}
    until(lambda: shop.json("get", "gateway", "edge")["status"]["listeners"][0]["attachedRoutes"] == 1, "the route", 10)
    classes = json.loads(shop.ok("get", "gatewayclass", "forge-test", "-o", "json"))
    assert classes["status"]["conditions"][0]["status"] == "True"
