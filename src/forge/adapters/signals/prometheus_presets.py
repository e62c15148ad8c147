"""Which metrics the usual proxies and meshes count requests with, by the names that they document.

Errors are counted where the caller sees them (at the proxy or the calling side), because a version that is dead
reports nothing itself.
"""

from __future__ import annotations

import msgspec


class Preset(msgspec.Struct, frozen=True):
    """`counter` counts requests; one whose label `status` begins as `failures` say is an error. `histogram` is the
    duration (without `_bucket`), in `unit` seconds. `version`: the label that tells versions apart; `replica`: the
    labels that tell who counted; `match`: matchers that are always there."""

    counter: str
    status: tuple[str, ...]
    failures: tuple[str, ...]
    histogram: str
    unit: float
    version: str
    pattern: str = "$version"
    replica: tuple[str, ...] = ("pod", "instance")
    match: str = ""
    first: str = ""
    """A label that tells the version instead where it is not empty."""


PRESETS = {
    # Envoy: "Cluster manager stats"; the classes of codes are counted for each cluster, times in milliseconds.
    "envoy": Preset(
        "envoy_cluster_upstream_rq_xx", ("envoy_response_code_class",), ("5",), "envoy_cluster_upstream_rq_time",
        0.001, "envoy_cluster_name",
    ),
    # Envoy Gateway names clusters httproute/NAMESPACE/ROUTE/rule/N: a version needs a route of its own.
    "envoy_gateway": Preset(
        "envoy_cluster_upstream_rq_xx", ("envoy_response_code_class",), ("5",), "envoy_cluster_upstream_rq_time",
        0.001, "envoy_cluster_name", "httproute/[^/]+/(.*[-.])?$version/rule/.*",
    ),
    # Istio: "Istio Standard Metrics"; reported by the caller's side. Code 0: there was no answer.
    "istio": Preset(
        "istio_requests_total", ("response_code",), ("5", "0"), "istio_request_duration_milliseconds", 0.001,
        "destination_version", match='reporter="source"',
    ),
    # ingress-nginx: "Prometheus and Grafana installation", metrics of requests. What a canary ingress served has the
    # main ingress' `service`, and the canary's own upstream, NAMESPACE-SERVICE-PORT, as `canary`.
    "ingress_nginx": Preset(
        "nginx_ingress_controller_requests", ("status",), ("5",), "nginx_ingress_controller_request_duration_seconds",
        1.0, "service", "(.*[-.])?$version(-[0-9]{2,5})?", replica=("controller_pod", "instance"), first="canary",
    ),
    # Linkerd: "Proxy Metrics"; `classification` is success or failure.
    "linkerd": Preset(
        "response_total", ("classification",), ("failure",), "response_latency_ms", 0.001, "dst_deployment",
        "(.*[-.])?$version", match='direction="outbound"', replica=("dst_pod", "pod", "instance"),
    ),
    # What client libraries of many languages count by default.
    "plain": Preset(
        "http_requests_total", ("code", "status", "status_code", "http_status_code"), ("5",),
        "http_request_duration_seconds", 1.0, "version", replica=("pod", "instance"),
    ),
}  # fmt: skip


class GaugePreset(msgspec.Struct, frozen=True):
    """A query for what is used, one for its limit ("" or a number), both by pod."""

    query: str
    limit: str
    grows_with_load: bool = True


KUBERNETES = {
    "memory": GaugePreset(
        'max by (pod) (container_memory_working_set_bytes{container!="",pod=~"$pods"})',
        'max by (pod) (kube_pod_container_resource_limits{resource="memory",pod=~"$pods"})',
        grows_with_load=False,
    ),
    "cpu": GaugePreset(
        'sum by (pod) (rate(container_cpu_usage_seconds_total{container!="",pod=~"$pods"}[1m]))',
        'sum by (pod) (kube_pod_container_resource_limits{resource="cpu",pod=~"$pods"})',
    ),
    "cpu throttling": GaugePreset(
        'sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{container!="",pod=~"$pods"}[1m])) '
        '/ sum by (pod) (rate(container_cpu_cfs_periods_total{container!="",pod=~"$pods"}[1m]))',
        "1",
    ),
}
"""Names of cAdvisor and kube-state-metrics."""
KUBERNETES_VALUES = {"restarts": 'sum(kube_pod_container_status_restarts_total{pod=~"$pods"})'}
