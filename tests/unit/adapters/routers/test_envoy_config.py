"""Envoy's configuration as data. `FORGE_GOLDEN=write` writes the golden files anew."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.routers import envoy_config
from forge.model.configs import EnvoyRouterConfig
from forge.model.traffic import Route, TrafficTable

GOLDEN = Path(__file__).parents[3] / "golden" / "envoy"
CONFIG = EnvoyRouterConfig(port=8080, request_timeout=15.0, max_connections=512)
FOLDER = Path("/srv/envoy")
TABLES = {
    "no_version": None,
    "weights": TrafficTable({"1.0": 9500, "1.1": 500, "1.2": 0}, 3),
    "sticky": TrafficTable({"1.0": 5000, "1.1": 5000, "1.2": 0}, 4, sticky=True),
    "named": TrafficTable(
        {"1.0": 10000},
        5,
        (
            Route("1.1", header="x-preview", value="yes"),
            Route("1.1", header="x-any"),
            Route("1.2", cookie="tester", value="a.b"),
            Route("1.2", mirror=250),
        ),
    ),
}


def check_golden(name: str, data: object) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    if os.environ.get("FORGE_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", sorted(TABLES))
def test_routes_are_as_they_were(name: str) -> None:
    check_golden(f"routes_{name}", envoy_config.routes(TABLES[name], "7", CONFIG))


def test_the_rest_is_as_it_was() -> None:
    check_golden("bootstrap", envoy_config.bootstrap(FOLDER, Path("/run/envoy.sock"), 8080, CONFIG, "production"))
    check_golden("clusters", envoy_config.clusters(FOLDER, ["1.1", "1.0"], "2", CONFIG))
    check_golden("endpoints", envoy_config.endpoints("1.0", [9001, 9002], [9003], "9"))


@given(st.text(min_size=1, max_size=30))
def test_a_version_has_a_name_of_its_own_that_stats_can_carry(version: str) -> None:
    name = envoy_config.cluster_name(version)
    assert re.fullmatch(r"v-[A-Za-z0-9_-]*", name)
    assert envoy_config.version_of(name) == version


@given(
    st.dictionaries(st.sampled_from(["1.0", "1.1", "1.2", "2.0"]), st.integers(0, 10000), min_size=1),
    st.booleans(),
)
def test_only_versions_with_weight_are_in_the_split(weights: dict[str, int], sticky: bool) -> None:
    table = TrafficTable(weights, 1, sticky=sticky)
    rules = envoy_config.routes(table, "1", CONFIG)["resources"][0]["virtual_hosts"][0]["routes"]
    carrying = {version: weight for version, weight in weights.items() if weight > 0}
    if not carrying:
        assert [rule["direct_response"]["status"] for rule in rules] == [503]
        return
    split = {
        envoy_config.version_of(cluster["name"]): cluster["weight"]
        for cluster in rules[-1]["route"]["weighted_clusters"]["clusters"]
    }
    assert split == carrying
    assert len(rules) == 2 + (2 * len(carrying) if sticky else 0)


@given(st.text(min_size=1, max_size=8).filter(lambda value: ";" not in value and "\n" not in value), st.booleans())
def test_a_cookie_is_found_among_others_and_only_whole(value: str, first: bool) -> None:
    [match] = envoy_config._cookie_match("user", value)
    pattern = match["string_match"]["safe_regex"]["regex"]
    others = "session=1; theme=dark"
    header = f"user={value}; {others}" if first else f"{others}; user={value}"
    assert re.fullmatch(pattern, header, re.DOTALL)
    assert not re.fullmatch(pattern, f"xuser={value}")
    assert not re.fullmatch(pattern, others)


def test_requests_with_an_effect_have_their_own_retries() -> None:
    rules = envoy_config.routes(TABLES["weights"], "1", CONFIG)["resources"][0]["virtual_hosts"][0]["routes"]
    unsafe, safe = rules
    assert unsafe["match"]["headers"][0]["string_match"]["safe_regex"]["regex"] == "POST|PATCH"
    assert "reset-before-request" in unsafe["route"]["retry_policy"]["retry_on"]
    assert safe["route"]["retry_policy"]["retry_on"] == "connect-failure,reset"


def test_a_percent_sign_in_a_version_is_no_command_to_envoy() -> None:
    rules = envoy_config.routes(TrafficTable({"100%": 10000}, 1), "1", CONFIG)
    assert '"100%%"' in json.dumps(rules)


def test_latency_bounds_grow() -> None:
    assert list(envoy_config.LATENCY_MS) == sorted(set(envoy_config.LATENCY_MS))
    beyond = [bound for bound in envoy_config.LATENCY_MS if 10 <= bound <= 1000]
    assert all(after / before <= 4 / 3 for before, after in pairwise(beyond))
