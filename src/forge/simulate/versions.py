"""How versions behave: what users would find out about them if all of the traffic went there."""

from __future__ import annotations

import math

import msgspec

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, math.inf)
"""Upper bounds of the latency buckets, in seconds; those that proxies use."""


class Behaviour(msgspec.Struct, frozen=True):
    """One version. Rates are fractions of requests, times are seconds."""

    errors: float = 0.001
    """The part of its requests that fails."""
    errors_before: float | None = None
    """The same before `after` is over; None: as `errors`."""
    after: float = 0.0
    """So long after its first request does the version behave as it is told here."""
    latency: float = 0.08
    """Median answer time."""
    tail: float = 0.6
    """Sigma of the answer time's logarithm."""
    ready_after: float = 5.0
    """Seconds until a new replica is ready."""
    unready: float = 0.0
    """The part of replicas that never gets ready."""
    crash_loops: bool = False
    warm_up: float = 0.0
    """Seconds after it got ready in which a replica fails more."""
    warm_up_errors: float = 0.0
    uneven: float = 0.0
    """How much the replicas differ (sigma of the logarithm of their error rates)."""
    cpu: float = 0.001
    """CPU seconds of a request."""
    memory: int = 80_000_000
    leak: int = 0
    """Bytes that a replica grows by in a second."""
    bad: bool = False
    """Whether a release of it ought to be rolled back."""
    name: str = "good"

    def error_rate(self, age: float) -> float:
        """Return the part of requests that fails `age` seconds after the first request."""
        return self.errors if self.errors_before is None or age >= self.after else self.errors_before


def bucket_shares(median: float, sigma: float) -> tuple[float, ...]:
    """Return which part of answers falls into each bucket of BOUNDS when their logarithm is normal."""
    below = [1.0 if math.isinf(bound) else _normal(math.log(bound / median) / sigma) for bound in BOUNDS]
    return tuple(high - low for low, high in zip([0.0, *below], below, strict=False))


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))
