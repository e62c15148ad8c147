"""Versions and their traffic: what runs, who gets how many requests, and how they fared.

Weights are basis points: 10,000 is all of the traffic.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Version(msgspec.Struct, frozen=True):
    """One immutable build in an environment. `id` is what people say (`1.4.0`, or the digest's start)."""

    id: str
    artifact: str = ""
    """sha256 of the artifact that it was made from; empty: a version that needs none."""
    artifact_name: str = ""
    config: dict[str, Any] = {}
    """The target's own configuration of this version (command, env, replicas, ready, ...), pinned."""
    run: str = ""
    created_at: float = 0.0


class ReplicaCount(msgspec.Struct, frozen=True):
    """What the target says of one version. `message` tells why replicas are not ready."""

    desired: int
    running: int
    ready: int
    message: str = ""
    restarts: int = 0


class LogTemplate(msgspec.Struct, frozen=True):
    """One kind of error line that a version wrote: the words that stay, how many lines (cumulative), the newest one."""

    text: str
    lines: int
    example: str = ""


class Gauge(msgspec.Struct, frozen=True):
    """What is used of something that has an end (memory, connections, a queue): of the version's fullest replica.

    `limit` is where it is full, in the same unit; None: not known. `grows_with_load`: twice the requests, twice the
    value (CPU, connections); else it does not depend on the requests.
    """

    name: str
    value: float
    limit: float | None = None
    grows_with_load: bool = True


class Sample(msgspec.Struct, frozen=True):
    """Cumulative readings of one version; counters only grow (resets are handled by the signal adapter).

    `latency` maps an upper bound in seconds to the cumulative count at or below it (`inf` last).
    `cpu_seconds` sums the version's replicas; `memory` is their largest resident size in bytes.
    `groups` has (replica, requests, errors) for each replica, cumulative, where the source can tell them apart.
    """

    at: float
    requests: int
    errors: int
    latency: tuple[tuple[float, int], ...] = ()
    cpu_seconds: float | None = None
    memory: int | None = None
    groups: tuple[tuple[str, int, int], ...] = ()
    log_errors: int | None = None
    """Lines at level error or worse that the version wrote, cumulative; None: nobody reads its log."""
    templates: tuple[LogTemplate, ...] = ()
    """What kinds of error lines they were, as many as the reader keeps."""
    gauges: tuple[Gauge, ...] = ()
    values: tuple[tuple[str, float], ...] = ()
    """The newest results of the user's own queries, by name: what `checks` may hold against a limit."""
    good_for: float = 15.0
    """Seconds for which the sample tells of now: more where a store is slow, or counts by the minute."""
    lacks: tuple[str, ...] = ()
    """Sources that had no word on this version now, each with its reason: neither good nor bad, but not known."""


class Observation(msgspec.Struct, frozen=True):
    """What the world looked like at `at`. None: could not be read (which is neither good nor bad)."""

    at: float
    replicas: dict[str, ReplicaCount] | None = None
    weights: dict[str, int] | None = None
    """The router's *observed* split, basis points by version id."""
    samples: dict[str, Sample] | None = None
    problem: str = ""
    """What could not be read, and why."""
    generation: int | None = None
    """That of the table in effect; None: the router cannot tell."""


class Route(msgspec.Struct, frozen=True):
    """Requests that match go to `version` whatever the weights: by header or cookie, or mirrored copies."""

    version: str
    header: str = ""
    cookie: str = ""
    value: str = ""
    mirror: int = 0
    """Basis points of all requests that are also sent to `version`, whose answers are thrown away."""


class TrafficTable(msgspec.Struct, frozen=True):
    """All of an environment's traffic: weights by version id sum to 10,000; `generation` grows with each change."""

    weights: dict[str, int]
    generation: int
    routes: tuple[Route, ...] = ()
    sticky: bool = False
