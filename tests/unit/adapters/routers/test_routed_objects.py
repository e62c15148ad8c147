"""What routers write into a cluster's objects: pure functions of the object that is there and the table."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
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
from forge.adapters.routers.ingress_nginx import (
    IngressNginxRouter,
    canary_ingress,
    main_version,
    stable_and_arm,
    weights_of,
)
from forge.adapters.routers.propagation import Propagation
from forge.adapters.routers.routed import shares
from forge.model.configs import (
    IngressNginxRouterConfig,
)
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import Route, TrafficTable

CASES = pytest.mark.parametrize(
    ("router", "item"),
    [(gateway_router(), http_route()), (istio_router(), virtual_service())],
    ids=["gateway", "istio"],
)


class TestEveryRoute:
    @CASES
    @given(table=tables())
    def test_the_split_that_is_written_is_the_one_that_is_read(self, router, item, table) -> None:
        found = router.weights(router.routed(item, table, BACKENDS), BACKENDS)
        assert found == positive(table)

    @CASES
    @given(first=tables(), then=tables())
    def test_what_was_there_before_plays_no_part_and_handing_back_is_exact(self, router, item, first, then) -> None:
        twice = router.routed(router.routed(item, first, BACKENDS), then, BACKENDS)
        assert twice["spec"] == router.routed(item, then, BACKENDS)["spec"]
        assert freed(router, twice) == item

    @CASES
    @given(table=tables())
    def test_foreign_fields_stay(self, router, item, table) -> None:
        fresh = router.routed(item, table, BACKENDS)
        assert {k: v for k, v in fresh["spec"].items() if k not in {"rules", "http"}} == {
            k: v for k, v in item["spec"].items() if k not in {"rules", "http"}
        }
        rules, own = (
            (fresh["spec"].get("rules") or fresh["spec"]["http"]),
            (item["spec"].get("rules") or item["spec"]["http"]),
        )
        assert rules[0] == own[0]
        assert {k: v for k, v in rules[1].items() if k not in {"backendRefs", "route"}} == {
            k: v for k, v in own[1].items() if k not in {"backendRefs", "route"}
        }
        assert fresh["metadata"]["labels" if "labels" in item["metadata"] else "name"]

    @CASES
    def test_a_manifest_that_was_applied_again_is_split_as_it_is_now(self, router, item) -> None:
        split = written(router, item, TrafficTable({"1.0": 9000, "1.1": 1000}, 1))
        again = copy.deepcopy(split)
        key = "rules" if "rules" in item["spec"] else "http"
        again["spec"][key] = [{**copy.deepcopy(item["spec"][key][1]), "name": "new"}]  # the user's new rules
        fresh = router.routed(again, TrafficTable({"1.1": 10_000}, 2), BACKENDS)
        assert len(fresh["spec"][key]) == 1
        assert freed(router, fresh)["spec"][key] == again["spec"][key]

    @CASES
    def test_a_route_that_never_named_the_service_is_refused_in_words(self, router, item) -> None:
        other = json.loads(
            json.dumps(item)
            .replace('"shop.shop.svc', '"cart.shop.svc')
            .replace('"name": "shop", "kind"', '"name": "cart", "kind"')
        )
        with pytest.raises(UsageError, match="points at the Service shop"):
            router.routed(other, TrafficTable({"1.0": 10_000}, 1), BACKENDS)

    @CASES
    def test_a_rule_that_splits_by_itself_is_refused(self, router, item) -> None:
        other = copy.deepcopy(item)
        rule = (other["spec"].get("rules") or other["spec"]["http"])[1]
        refs = rule.get("backendRefs") or rule["route"]
        refs.append(
            json.loads(
                json.dumps(refs[0]).replace("shop.shop", "cart.shop").replace('"name": "shop"', '"name": "cart"')
            )
        )
        with pytest.raises(UsageError, match="by itself"):
            router.routed(other, TrafficTable({"1.0": 10_000}, 1), BACKENDS)

    @CASES
    def test_a_version_without_a_service_gets_no_traffic(self, router, item) -> None:
        with pytest.raises(DependencyFailed, match=r"9\.9 has no Service"):
            router.routed(item, TrafficTable({"9.9": 10_000}, 1), BACKENDS)

    @CASES
    def test_a_split_by_hand_is_seen(self, router, item) -> None:
        fresh = router.routed(item, TrafficTable({"1.0": 9000, "1.1": 1000}, 1), BACKENDS)
        key = "rules" if "rules" in item["spec"] else "http"
        refs = fresh["spec"][key][1].get("backendRefs") or fresh["spec"][key][1]["route"]
        refs[0]["weight"], refs[1]["weight"] = 1, 1
        assert router.weights(fresh, BACKENDS) == {"1.0": 5000, "1.1": 5000}


class TestGatewayApi:
    def test_a_header_goes_to_its_version_before_the_split(self) -> None:
        routes = (Route("1.1", header="x-preview", value="yes"),)
        fresh = written(gateway_router(), http_route(), TrafficTable({"1.0": 10_000}, 1, routes))
        preview, split = fresh["spec"]["rules"][1:]
        assert preview["matches"] == [
            {
                "path": {"type": "PathPrefix", "value": "/"},
                "headers": [{"type": "Exact", "name": "x-preview", "value": "yes"}],
            }
        ]
        assert [ref["name"] for ref in preview["backendRefs"]] == ["shop-1-1"]
        assert [(ref["name"], ref["weight"]) for ref in split["backendRefs"]] == [("shop-1-0", 10_000)]
        assert gateway_router().weights(fresh, BACKENDS) == {"1.0": 10_000}

    def test_a_copy_of_some_requests(self) -> None:
        routes = (Route("1.1", mirror=1000), Route("1.2", mirror=10_000))
        fresh = gateway_router().routed(http_route(), TrafficTable({"1.0": 10_000}, 1, routes), BACKENDS)
        some, every = fresh["spec"]["rules"][1]["filters"][1:]
        assert some["requestMirror"]["fraction"] == {"numerator": 1000, "denominator": 10_000}
        assert some["requestMirror"]["backendRef"] == {"name": "shop-1-1", "kind": "Service", "group": "", "port": 80}
        assert "fraction" not in every["requestMirror"]

    @pytest.mark.parametrize(
        ("conditions", "confirmed"),
        [
            ([], False),
            ([("Accepted", "True", 3), ("ResolvedRefs", "True", 3)], True),
            ([("Accepted", "True", 2), ("ResolvedRefs", "True", 3)], False),
            ([("Accepted", "True", 3), ("ResolvedRefs", "False", 3)], False),
        ],
    )
    def test_only_the_gateways_own_word_counts(self, conditions, confirmed) -> None:
        told = [{"type": kind, "status": status, "observedGeneration": at} for kind, status, at in conditions]
        item = {**http_route(), "status": {"parents": [{"parentRef": {"name": "public"}, "conditions": told}]}}
        assert gateway_router().confirmed(item) is confirmed
        item["spec"]["parentRefs"].append({"name": "inside"})
        assert not gateway_router().confirmed(item)


class TestIstio:
    def test_whole_percents_stay_percents(self) -> None:
        fresh = istio_router().routed(virtual_service(), TrafficTable({"1.0": 9500, "1.1": 500}, 1), BACKENDS)
        found = [(each["destination"]["host"], each["weight"]) for each in fresh["spec"]["http"][1]["route"]]
        assert found == [("shop-1-0.shop.svc.cluster.local", 95), ("shop-1-1.shop.svc.cluster.local", 5)]
        assert "subset" not in fresh["spec"]["http"][1]["route"][0]["destination"]

    def test_headers_cookies_and_copies(self) -> None:
        routes = (
            Route("1.1", header="X-Preview", value="yes"),
            Route("1.2", cookie="beta", value="a.b"),
            Route("1.2", mirror=500),
        )
        fresh = istio_router().routed(virtual_service(), TrafficTable({"1.0": 10_000}, 1, routes), BACKENDS)
        header, cookie, split = fresh["spec"]["http"][1:]
        assert header["match"] == [{"headers": {"x-preview": {"exact": "yes"}}}]
        assert cookie["match"] == [{"headers": {"cookie": {"regex": "^(.*;[ ]*)?beta=a\\.b([ ]*;.*)?$"}}}]
        assert split["mirror"] == {"host": "shop-1-2.shop.svc.cluster.local", "port": {"number": 80}}
        assert split["mirrorPercentage"] == {"value": 5.0}
        assert len({each["name"] for each in fresh["spec"]["http"]}) == 4

    def test_only_the_routes_that_were_named(self) -> None:
        item = virtual_service()
        item["spec"]["http"].append({**copy.deepcopy(item["spec"]["http"][1]), "name": "admin"})
        fresh = istio_router(routes=("all",)).routed(item, TrafficTable({"1.1": 10_000}, 1), BACKENDS)
        assert fresh["spec"]["http"][2] == item["spec"]["http"][2]

    def test_it_counts_as_in_effect_after_a_while(self) -> None:
        now = 100.0
        propagation = Propagation(2.0, lambda: now)
        item = propagation.begun(virtual_service())
        assert not propagation.over(item)
        now = 102.0
        assert propagation.over(item)
        now = 50.0  # the clock was set back
        assert propagation.over(item)


class TestIngressNginx:
    router = IngressNginxRouter(CLUSTER, "production", IngressNginxRouterConfig(ingress="shop"), clock=lambda: 1.0)

    @given(tables(most=2), tables(most=2))
    def test_both_ingresses_make_the_split_whatever_was_before(self, first, table) -> None:
        main = written(self.router, written(self.router, ingress(), first), table)
        _, arm = stable_and_arm(table, main_version(main, BACKENDS))
        canary = canary_ingress(main, "c", table, BACKENDS, "production") if arm else None
        assert weights_of(main, canary, BACKENDS) == positive(table)
        assert self.router.stands(main, table, BACKENDS)
        assert freed(self.router, main) == ingress()
        if canary:
            assert "tls" not in canary["spec"]
            (rule,) = canary["spec"]["rules"]
            assert [path["path"] for path in rule["http"]["paths"]] == ["/"]  # /static is another Service's

    def test_the_main_one_stays_where_it_is_while_it_has_any_traffic(self) -> None:
        assert stable_and_arm(TrafficTable({"1.0": 100, "1.1": 9900}, 1), "1.0") == ("1.0", "1.1")
        assert stable_and_arm(TrafficTable({"1.0": 0, "1.1": 10_000}, 1), "1.0") == ("1.1", "")
        table = TrafficTable({"1.1": 10_000}, 1)
        assert main_version(self.router.routed(ingress(), table, BACKENDS), BACKENDS) == "1.1"

    def test_a_third_version_is_refused_with_the_reason(self) -> None:
        with pytest.raises(UsageError, match="between two versions, and there are 3") as raised:
            stable_and_arm(TrafficTable({"1.0": 9000, "1.1": 500, "1.2": 500}, 1), "1.0")
        assert "on_overlap: queue" in (raised.value.hint or "")

    def test_a_header_or_a_cookie_of_the_arm(self) -> None:
        routes = (Route("1.1", header="x-preview", value="yes"), Route("1.1", cookie="beta", value="always"))
        table = TrafficTable({"1.0": 10_000}, 1, routes)
        assert stable_and_arm(table, "1.0") == ("1.0", "1.1")
        notes = canary_ingress(ingress(), "c", table, BACKENDS, "production")["metadata"]["annotations"]
        prefix = "nginx.ingress.kubernetes.io/canary"
        assert notes == {
            prefix: "true", f"{prefix}-weight": "0", f"{prefix}-weight-total": "10000", f"{prefix}-by-header": "x-preview",
            f"{prefix}-by-header-value": "yes", f"{prefix}-by-cookie": "beta",
        }  # fmt: skip
        wrong = TrafficTable({"1.0": 10_000}, 1, (Route("1.1", cookie="beta", value="yes"),))
        with pytest.raises(UsageError, match="only where its value is `always`"):
            canary_ingress(ingress(), "c", wrong, BACKENDS, "production")


@given(st.dictionaries(st.sampled_from(VERSIONS), st.integers(0, 1000)))
def test_shares_are_whole(weighted) -> None:
    found = shares(weighted)
    assert sum(found.values()) == (10_000 if sum(weighted.values()) else 0)
    for version, share in found.items():
        assert abs(share - weighted[version] * 10_000 / sum(weighted.values())) <= 1
