"""Envoy's configuration as plain data: the bootstrap file, clusters, endpoints and routes. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from forge.model.configs import EnvoyRouterConfig
from forge.model.traffic import Route, TrafficTable
from forge.model.units import WHOLE

ROUTES = "traffic"
STAT_PREFIX = "edge"
COOKIE = "forge-version"
VERSION_HEADER = "x-forge-version"
LATENCY_MS = (
    0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90, 110, 135, 165, 200, 250, 300, 375,
    450, 550, 675, 820, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 7500, 10000, 15000, 30000, 60000,
)  # fmt: skip
"""Bounds of the latency histogram: neighbours are at most a third apart where services live."""

_TYPES = "type.googleapis.com/envoy"
_NOT_IDEMPOTENT = "POST|PATCH"


def cluster_name(version: str) -> str:
    """Return a version's name inside Envoy: reversible, and free of the dots that stat names are cut at."""
    escaped = re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{match[0].encode().hex()}_", version)
    return f"v-{escaped}"


def version_of(cluster: str) -> str:
    """Return the version that `cluster_name` made the name from."""
    return re.sub(r"_([0-9a-f]+)_", lambda match: bytes.fromhex(match[1]).decode(), cluster.removeprefix("v-"))


def bootstrap(folder: Path, admin: Path, port: int, config: EnvoyRouterConfig, environment: str) -> dict[str, Any]:
    """Return what Envoy starts with. `folder` holds the `cds`, `rds` and `eds` folders that it watches."""
    return {
        "node": {"id": f"forge-{environment}", "cluster": environment or "forge"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _watched(folder / "cds" / "clusters.json")},
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": list(LATENCY_MS)}],
        },
        "overload_manager": {"resource_monitors": [_connection_limit(config.max_connections)]},
        "static_resources": {"listeners": [_listener(folder, port, config)]},
    }


def _connection_limit(most: int) -> dict[str, Any]:
    kind = f"{_TYPES}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": kind, "max_active_downstream_connections": most},
    }


def _listener(folder: Path, port: int, config: EnvoyRouterConfig) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "rds": {"route_config_name": ROUTES, "config_source": _watched(folder / "rds" / "routes.json")},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    return {
        "name": "edge",
        "address": {"socket_address": {"address": config.listen, "port_value": port}},
        # With SO_REUSEPORT a second proxy could take the same port and half of the traffic unnoticed.
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]},
        ],
    }


def _watched(path: Path) -> dict[str, Any]:
    return {"path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}}}


def endpoints_file(folder: Path, version: str) -> Path:
    """Return where a version's endpoints are written: a folder of its own, since Envoy watches folders."""
    return folder / "eds" / cluster_name(version) / "endpoints.json"


def clusters(folder: Path, versions: list[str], serial: str, config: EnvoyRouterConfig) -> dict[str, Any]:
    """Return the CDS file: one cluster a version. Its text depends on nothing that changes during a
    version's life: Envoy would replace a changed cluster, and lose its counters."""
    return _response(serial, [_cluster(folder, version, config) for version in sorted(versions)])


def _cluster(folder: Path, version: str, config: EnvoyRouterConfig) -> dict[str, Any]:
    limits = {
        "max_connections": config.max_connections,
        "max_pending_requests": config.max_connections,
        "max_requests": config.max_connections,
        "max_retries": config.max_connections,
    }
    return {
        "@type": f"{_TYPES}.config.cluster.v3.Cluster",
        "name": cluster_name(version),
        "type": "EDS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # Without this Envoy would send requests to draining replicas when most of them drain.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [limits]},
        "eds_cluster_config": {"eds_config": _watched(endpoints_file(folder, version))},
    }


def endpoints(version: str, ready: list[int], leaving: list[int], serial: str) -> dict[str, Any]:
    """Return the EDS file of a version. Leaving replicas stay listed as DRAINING: they get no new requests,
    and Envoy still tells how many they have in flight."""
    listed = [(port, "HEALTHY") for port in ready] + [(port, "DRAINING") for port in leaving]
    return _response(
        serial,
        [
            {
                "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster_name(version),
                "endpoints": [{"lb_endpoints": [_endpoint(port, health) for port, health in listed]}],
            }
        ],
    )


def _endpoint(port: int, health: str) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"health_status": health, "endpoint": {"address": address}}


def routes(table: TrafficTable | None, serial: str, config: EnvoyRouterConfig) -> dict[str, Any]:
    """Return the RDS file: named routes first, then clients that stick to a version, then the weights."""
    carrying = {version: weight for version, weight in table.weights.items() if weight > 0} if table else {}
    rules: list[dict[str, Any]] = []
    if table is not None and carrying:
        mirrors = [_mirror(route) for route in table.routes if route.mirror]
        sticky = config.sticky or table.sticky
        for route in table.routes:
            if route.header or route.cookie:
                rules += _rules(_match(route), _to(route.version), config, mirrors)
        if sticky:
            for version in sorted(carrying):
                match = _cookie_match(COOKIE, cluster_name(version))
                rules += _rules(match, _to(version), config, mirrors)
        rules += _rules([], _split(carrying, sticky=sticky), config, mirrors)
    else:
        rules.append(_no_version())
    virtual_host = {"name": "environment", "domains": ["*"], "routes": rules}
    route_configuration = {
        "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [virtual_host],
    }
    return _response(serial, [route_configuration])


def _rules(
    headers: list[dict[str, Any]], action: dict[str, Any], config: EnvoyRouterConfig, mirrors: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return two rules that differ in retries: what may have had an effect already is not sent again."""
    unsafe = {"name": ":method", "string_match": {"safe_regex": {"regex": _NOT_IDEMPOTENT}}}
    return [
        {
            "match": {"prefix": "/", "headers": [*headers, *extra]},
            "route": {**action, "timeout": f"{config.request_timeout:g}s", "retry_policy": _retry(retry_on)}
            | ({"request_mirror_policies": mirrors} if mirrors else {}),
        }
        for extra, retry_on in (
            ([unsafe], "connect-failure,reset-before-request"),
            ([], "connect-failure,reset"),
        )
    ]


def _retry(retry_on: str) -> dict[str, Any]:
    previous = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {
        "retry_on": retry_on,
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"type.googleapis.com/{previous}"},
            }
        ],
        "host_selection_retry_max_attempts": "5",
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
    }


def _to(version: str) -> dict[str, Any]:
    return {"weighted_clusters": {"clusters": [_weighted(version, WHOLE, sticky=False)]}}


def _split(weights: dict[str, int], *, sticky: bool) -> dict[str, Any]:
    chosen = [_weighted(version, weight, sticky=sticky) for version, weight in sorted(weights.items())]
    return {"weighted_clusters": {"clusters": chosen}}


def _weighted(version: str, weight: int, *, sticky: bool) -> dict[str, Any]:
    name = cluster_name(version)
    added = [_response_header(VERSION_HEADER, version)]
    if sticky:
        cookie = f"{COOKIE}={name}; Path=/; HttpOnly; SameSite=Lax"
        added.append({"header": {"key": "set-cookie", "value": cookie}, "append_action": "APPEND_IF_EXISTS_OR_ADD"})
    return {"name": name, "weight": weight, "response_headers_to_add": added}


def _response_header(key: str, value: str) -> dict[str, Any]:
    # Envoy reads % in header values as the start of a command operator.
    header = {"key": key, "value": value.replace("%", "%%")}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _match(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if route.header:
        found.append(
            {"name": route.header, "string_match": {"exact": route.value}}
            if route.value
            else {"name": route.header, "present_match": True}
        )
    if route.cookie:
        found += _cookie_match(route.cookie, route.value)
    return found


def _cookie_match(name: str, value: str) -> list[dict[str, Any]]:
    # RE2 matches the whole header; HTTP/2 clients may send several cookie headers, which Envoy joins by "; ".
    wanted = re.escape(value) if value else "[^;]*"
    return [
        {
            "name": "cookie",
            "string_match": {"safe_regex": {"regex": rf"(?:.*;\s*)?{re.escape(name)}={wanted}\s*(?:;.*)?"}},
        }
    ]


def _mirror(route: Route) -> dict[str, Any]:
    fraction = {"default_value": {"numerator": route.mirror * 100, "denominator": "MILLION"}}
    return {"cluster": cluster_name(route.version), "runtime_fraction": fraction}


def _no_version() -> dict[str, Any]:
    text = "No version of this service has been released here yet.\n"
    return {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": {"inline_string": text}}}


def _response(serial: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version_info": serial, "resources": resources}
