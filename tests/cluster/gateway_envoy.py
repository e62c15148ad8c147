"""Envoy's configuration for doors and backends, as plain data. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.gateway_model import Backend, Door, Rule, Share
from cluster.gateway_services import Endpoint
from forge.adapters.routers.envoy_config import LATENCY_MS

_TYPES = "type.googleapis.com/envoy"
MISSING = "missing"
"""A backend that is not there: answered 500, as the Gateway API asks for."""


def watched(path: Path) -> dict[str, Any]:
    """Return a config source: a file in a folder of its own, replaced as a whole."""
    return {"path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}}}


def bootstrap(folder: Path, admin: tuple[str, int]) -> dict[str, Any]:
    """Return what Envoy starts with."""
    return {
        "node": {"id": "test-gateway", "cluster": "test-gateway"},
        "admin": {"address": _socket(*admin)},
        "dynamic_resources": {
            "cds_config": watched(folder / "cds" / "clusters.json"),
            "lds_config": watched(folder / "lds" / "listeners.json"),
        },
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": list(LATENCY_MS)}],
        },
    }


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def cluster(backend: Backend, endpoints: Path) -> dict[str, Any]:
    """Return a backend as a cluster of Envoy. It says nothing that changes: a changed one loses its numbers."""
    most = {"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536, "max_retries": 65536}
    return {
        "@type": f"{_TYPES}.config.cluster.v3.Cluster",
        "name": cluster_name(backend), "alt_stat_name": backend.stat, "type": "EDS", "connect_timeout": "1s",
        "lb_policy": "RANDOM" if backend.stat.startswith("service/") else "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [most]},
        "eds_cluster_config": {"service_name": backend.endpoints, "eds_config": watched(endpoints)},
    }  # fmt: skip


def cluster_name(backend: Backend) -> str:
    """Return what rules call a backend."""
    labels = ",".join(f"{name}={value}" for name, value in backend.subset)
    return f"{backend.stat}|{backend.port}|{labels}"


def assignment(name: str, endpoints: list[Endpoint]) -> dict[str, Any]:
    """Return the endpoints that have this name."""
    return {
        "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [
            {"health_status": health, "endpoint": {"address": _socket(address, port)}}
            for address, port, health in endpoints
        ]}],
    }  # fmt: skip


def listener(door: Door, routes: Path) -> dict[str, Any]:
    """Return a door as a listener: its routes are a file of their own, so that it never changes itself."""
    if door.plain is not None:
        kind, name = "tcp_proxy.v3.TcpProxy", "envoy.filters.network.tcp_proxy"
        settings: dict[str, Any] = {"stat_prefix": door.name, "cluster": cluster_name(door.plain)}
    else:
        kind, name = "http_connection_manager.v3.HttpConnectionManager", "envoy.filters.network.http_connection_manager"
        router = {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"}
        settings = {
            "stat_prefix": door.name, "use_remote_address": True, "normalize_path": True,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "rds": {"route_config_name": door.name, "config_source": watched(routes)},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        }  # fmt: skip
    settings["@type"] = f"{_TYPES}.extensions.filters.network.{kind}"
    return {
        "@type": f"{_TYPES}.config.listener.v3.Listener", "name": door.name,
        "address": _socket(door.address, door.port), "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": name, "typed_config": settings}]}],
    }  # fmt: skip


def routes(door: Door) -> dict[str, Any]:
    """Return the rules of a door."""
    hosts = [
        {"name": f"host-{number}", "domains": list(host.domains), "routes": [_route(rule) for rule in host.rules]}
        for number, host in enumerate(door.hosts)
    ]
    return {
        "@type": f"{_TYPES}.config.route.v3.RouteConfiguration", "name": door.name, "virtual_hosts": hosts,
        "ignore_port_in_host_matching": True, "validate_clusters": False,
    }  # fmt: skip


def _route(rule: Rule) -> dict[str, Any]:
    kind, value = rule.match.path
    match: dict[str, Any] = {kind: {"regex": value} if kind == "safe_regex" else value}
    if rule.match.headers:
        match["headers"] = list(rule.match.headers)
    if rule.match.queries:
        match["query_parameters"] = list(rule.match.queries)
    carrying = [share for share in rule.shares if share.weight > 0]
    if not carrying:
        body = {"inline_string": "no backend has a weight\n"}
        return {"match": match, "direct_response": {"status": 500, "body": body}}
    action: dict[str, Any] = {
        "weighted_clusters": {"clusters": [_weighted(share) for share in carrying]},
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR", "timeout": rule.timeout,
        # What was not sent may be sent again: the retries that gateways make unless told otherwise.
        "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 3,
                         "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"}},
    }  # fmt: skip
    if rule.mirrors:
        action["request_mirror_policies"] = [
            {"cluster": cluster_name(backend), "runtime_fraction": {
                "default_value": {"numerator": part, "denominator": "MILLION"}}}
            for backend, part in rule.mirrors
        ]  # fmt: skip
    made = {"match": match, "route": action}
    return {**made, **_headers(rule.request_headers, rule.response_headers)}


def _weighted(share: Share) -> dict[str, Any]:
    name = cluster_name(share.backend) if share.backend else MISSING
    return {"name": name, "weight": share.weight, **_headers(share.request_headers, share.response_headers)}


def _headers(request: tuple[tuple[str, str], ...], response: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    made = {}
    for kind, headers in (("request", request), ("response", response)):
        if headers:
            # Envoy reads % in header values as the start of a command operator.
            listed = [{"key": name, "value": value.replace("%", "%%")} for name, value in headers]
            made[f"{kind}_headers_to_add"] = [
                {"header": each, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"} for each in listed
            ]
    return made
