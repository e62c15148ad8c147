"""What may be set of the sequential judge; the defaults are those of docs/judge.md 3.4."""

from __future__ import annotations

from typing import Literal

import msgspec

from forge.core.judge.calibrate import SHORTEST_HISTORY, Calibration
from forge.core.judge.evidence import CountSettings
from forge.core.judge.latency import DEFAULT as SLOW
from forge.core.judge.latency import LatencySettings
from forge.core.judge.slo import SloSettings

WEIGHTS = {"errors": 0.5, "latency": 0.3, "logs": 0.1, "saturation": 0.1}
"""What part each metric has in the evidence, relative to the sum of those that are measured."""
GROSS_CLUMP = 10.0
GROSS = CountSettings()


class SequentialSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`alpha` bounds the chance that a good release is rolled back, over its whole life.

    `ratio`: how many times stable's error rate is tolerated; `rate`: an error rate that is always fine.
    `slo_alpha`: the bound on a false alarm of the hard limit. `decide_within`: seconds of doubt after which the
    verdict is inconclusive. `doubt`: evidence (to 1) above which the release waits. `prove`: an additional error
    rate that has to be excluded before the release goes on (None: nothing has to be proven).
    `latency_…`, `cpu`, `memory`: how many times stable's are tolerated. `clump` and `block` (see CountSettings)
    replace what the service's own history says. `weights`: the share of each metric in the evidence.
    """

    alpha: float = 0.01
    ratio: float = 1.1
    rate: float = 0.0002
    slo_alpha: float = 0.001
    decide_within: float = 900.0
    doubt: float = 20.0
    prove: float | None = None
    latency: Literal["whole", "tails", "both"] = "both"
    latency_ratio: float = 1.25
    latency_clump: float = 5.0
    cpu: float = 1.5
    memory: float = 2.0
    clump: float | None = None
    block: float | None = None
    weights: dict[str, float] = msgspec.field(default_factory=lambda: dict(WEIGHTS))

    def __post_init__(self) -> None:
        within = {"alpha": self.alpha, "slo_alpha": self.slo_alpha, "rate": self.rate}
        for name, value in within.items():
            if not 0 < value < 1:
                raise ValueError(f"`{name}` is a fraction between 0 and 1, not {value:g}")
        for name, value in {"ratio": self.ratio, "latency_ratio": self.latency_ratio}.items():
            if value < 1:
                raise ValueError(f"`{name}` is at least 1, not {value:g}")
        if self.weights.keys() - WEIGHTS.keys():
            raise ValueError(f"`weights` may have {', '.join(WEIGHTS)}")
        if not self.weights or min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0:
            raise ValueError("`weights` must not be negative, and one must be more than 0")

    def counts(self, found: Calibration) -> CountSettings:
        """Return the settings of the error evidence; `found` is what history says.

        Of a service without history the channel without blocks takes less for one than the fallback says: it
        tolerates twice stable's errors and 1 %, and measured in every null it needs no more (docs/judge.md).
        """
        known = self.clump is not None or found.seconds >= SHORTEST_HISTORY
        clump = max(GROSS_CLUMP, found.clump) if known else GROSS_CLUMP
        # No channel may tolerate less than what is tolerated.
        return CountSettings(
            self.ratio, self.rate, found.clump, found.block, gross_ratio=max(GROSS.gross_ratio, self.ratio),
            gross_rate=max(GROSS.gross_rate, self.rate), gross_clump=clump,
        )  # fmt: skip

    def calibrated(self, found: Calibration) -> Calibration:
        """Return what history says, or what the user says instead."""
        return Calibration(
            found.clump if self.clump is None else self.clump,
            found.block if self.block is None else self.block,
            found.seconds,
        )

    def latencies(self, found: Calibration) -> LatencySettings:
        """Return the settings of the latency evidence."""
        return LatencySettings(
            self.latency,
            self.latency_ratio,
            max(self.latency_clump, found.clump),
            max(found.block, 5.0),
            gross_ratio=max(SLOW.gross_ratio, self.latency_ratio),
        )

    def slo(self, limit: float, found: Calibration) -> SloSettings:
        """Return the settings of the hard limit."""
        return SloSettings(limit, self.slo_alpha, found.clump)
