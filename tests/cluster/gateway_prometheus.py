"""How Prometheus scrapes the test cluster's gateway so that its series look as they do in production.

Envoy counts by backend, and names a backend API/NAMESPACE/...; `scrape_configs` has a job for each API that keeps the
API's own backends and, by relabelling alone, gives their numbers the names and labels that the real thing documents:

- envoy_gateway: `envoy_cluster_name` is httproute/NAMESPACE/SERVICE/rule/0, as where each Service has its own route;
- istio: `istio_requests_total` and `istio_request_duration_milliseconds` by `response_code` and `destination_version`
  (the version in the Service's selector, or of the subset), told by the calling side;
- ingress_nginx: `nginx_ingress_controller_requests` and `.._request_duration_seconds` by `ingress`, `service`,
  `status` and `canary`; durations are turned into seconds in the label `le` (sums are left out).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cluster.access import Api
from cluster.gateway import WHERE

Rules = list[dict[str, Any]]
_NAME, _BACKEND, _CODE = "__name__", "envoy_cluster_name", "envoy_response_code"
_COUNTED = "envoy_cluster_upstream_rq"
_TIMES = "envoy_cluster_upstream_rq_time_(bucket|count|sum)"
_OWN_LABELS = {"action": "labeldrop", "regex": "envoy_.*"}


def gateway_jobs(api: Api, namespace: str | None = None) -> list[dict[str, Any]]:
    """Return `scrape_configs` for the gateway of a cluster; none where no gateway runs yet.

    `namespace`: only what went to Services of this one; other tests may have versions of the same names.
    """
    where = api.found(WHERE)
    return scrape_configs(where["data"]["stats"], namespace=namespace) if where else []


def scrape_configs(stats: str, interval: str = "1s", namespace: str | None = None) -> list[dict[str, Any]]:
    """Return Prometheus' `scrape_configs` for the gateway whose statistics are at the URL `stats`."""
    jobs = {"envoy-gateway": _envoy_gateway(), "istio": _istio(), "ingress-nginx": _ingress_nginx()}
    url = urlsplit(stats)
    own = [_keep(_BACKEND, f"[^/]+/{namespace}/.*")] if namespace else []
    return [
        {
            "job_name": name, "scrape_interval": interval, "scrape_timeout": interval, "metrics_path": url.path,
            "static_configs": [{"targets": [url.netloc]}], "metric_relabel_configs": [*own, *rules],
        }
        for name, rules in jobs.items()
    ]  # fmt: skip


def _envoy_gateway() -> Rules:
    return [
        _keep(_BACKEND, "gateway/.*"),
        _keep(_NAME, "envoy_cluster_upstream_.*|envoy_cluster_membership_.*"),
        _set(_BACKEND, "httproute/$1/$2/rule/0", _BACKEND, "gateway/([^/]+)/([^/]+)/.*"),
    ]


def _istio() -> Rules:
    backend = "istio/([^/]+)/([^/]+)/(.*)"
    return [
        _keep(_BACKEND, "istio/.*"),
        _keep(_NAME, f"{_COUNTED}|{_TIMES}"),
        {"action": "drop", "source_labels": [_NAME, _CODE], "regex": f"{_COUNTED};"},
        _set("reporter", "source", _NAME, ".*"),
        _set("destination_service_namespace", "$1", _BACKEND, backend),
        _set("destination_service_name", "$2", _BACKEND, backend),
        _set("destination_service", "$2.$1.svc.cluster.local", _BACKEND, backend),
        _set("destination_version", "$3", _BACKEND, backend),
        _set("response_code", "$1", _CODE, "(.+)"),
        _set(_NAME, "istio_requests_total", _NAME, _COUNTED),
        _set(_NAME, "istio_request_duration_milliseconds_$1", _NAME, _TIMES),
        _OWN_LABELS,
    ]


def _ingress_nginx() -> Rules:
    backend = "nginx/([^/]+)/([^/]+)/([^/]+)/(.*)"
    return [
        _keep(_BACKEND, "nginx/.*"),
        _keep(_NAME, f"{_COUNTED}|envoy_cluster_upstream_rq_time_(bucket|count)"),
        {"action": "drop", "source_labels": [_NAME, _CODE], "regex": f"{_COUNTED};"},
        _set("controller_pod", "test-gateway", _NAME, ".*"),
        _set("exported_namespace", "$1", _BACKEND, backend),
        _set("ingress", "$2", _BACKEND, backend),
        _set("service", "$3", _BACKEND, backend),
        _set("canary", "$1", _BACKEND, "nginx/[^/]+/[^/]+/[^/]+/([^-].*)"),
        _set("status", "$1", _CODE, "(.+)"),
        _set(_NAME, "nginx_ingress_controller_requests", _NAME, _COUNTED),
        _set(_NAME, "nginx_ingress_controller_request_duration_seconds_$1", _NAME, _TIMES),
        *_in_seconds(),
        _OWN_LABELS,
    ]


def _in_seconds() -> Rules:
    """Return rules that move the point of `le` three places: text, since relabelling cannot calculate."""
    label = "le"
    return [
        # Marked, so that no later rule takes what an earlier one has made.
        _set(label, "s$1.$2", label, r"(\d+)(\d{3})"),
        _set(label, "s0.$1", label, r"(\d{3})"),
        _set(label, "s0.0$1", label, r"(\d{2})"),
        _set(label, "s0.00$1", label, r"(\d)"),
        _set(label, "s0.000$1", label, r"0\.(\d+)"),
        _set(label, "$1", label, "s(.*)"),
    ]


def _keep(label: str, regex: str) -> dict[str, Any]:
    return {"action": "keep", "source_labels": [label], "regex": regex}


def _set(label: str, value: str, source: str, regex: str) -> dict[str, Any]:
    return {"action": "replace", "source_labels": [source], "regex": regex, "target_label": label, "replacement": value}
