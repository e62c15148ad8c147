"""Evidence that an arm fails more often than stable: a conditional, clump-bounded e-process on error counts.

Within one block of time the total number of errors is taken as given, and only how it is shared between the arm
and stable is judged, so that load, drift and shared bursts cancel exactly. A block's errors are bounded to clumps
of `clump`, and blocks are as long as errors of one arm are correlated, so that a retry storm is one vote and not
a hundred. The product over blocks is a nonnegative supermartingale under "the arm is not worse than `ratio` times
stable, or fails no more often than `rate`": by Ville's inequality it reaches 1/alpha with probability at most
alpha, whenever and however often one looks.

Sources: Lindon & Malek, NeurIPS 2022 (conditioning on the total cancels the nuisance intensity); Turner, Ly &
Grünwald, JSPI 2024 (two-sample e-variables); Shin, Ramdas & Rinaldo 2022 (sums of e-processes begun at successive
times, for a late onset). The clump bound is Forge's own: see docs/judge.md.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

RATIOS = (1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
"""How many times worse than the tolerated ratio: the alternatives that are bet on, with equal stakes."""
LEAST = 1e-12
"""What is left of a stake that was lost. Trouble that begins after hours is found with it, which a stake of nothing
never would; the bound on false alarms grows by as much a reading, less than a thousandth of itself in a month."""
LOG_LEAST = math.log(LEAST)
LARGEST = 1e280
"""Stakes are capped here, far above any threshold, so that they never overflow."""
LONGEST_HAZARD = 0.2


class Counts(msgspec.Struct, frozen=True):
    """What one version answered between two readings."""

    requests: int = 0
    errors: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.errors + other.errors)


class CountSettings(msgspec.Struct, frozen=True):
    """What is tolerated, and what the service's own history says of its errors.

    `ratio`: how many times stable's error rate an arm may have; `rate`: an error rate that is always fine;
    `clump`: how many errors come as one; `block`: seconds over which errors of one arm are correlated (0: one
    reading). `hazard`: the chance, per second, that the trouble begins just now. The `gross_…` channel needs no
    history: it finds gross faults at once and tolerates more; `gross_idle` of its stake waits for a late onset.
    """

    ratio: float = 1.1
    rate: float = 0.0002
    clump: float = 20.0
    block: float = 15.0
    hazard: float = 1 / 60
    gross_ratio: float = 2.0
    gross_rate: float = 0.01
    gross_clump: float = 10.0
    gross_idle: float = 0.1


class Channel(msgspec.Struct, frozen=True, array_like=True):
    """One pair of bets: against stable (`relative`), and against a rate that is always fine (`absolute`).

    `idle` is the stake not yet placed: what waits for an onset. `opened` is when the open block began.
    """

    idle: float
    relative: tuple[float, ...]
    absolute: tuple[float, ...]
    arm: Counts = Counts()
    stable: Counts = Counts()
    opened: float | None = None


class CountEvidence(msgspec.Struct, frozen=True):
    """The whole state of one metric of one arm, plain JSON. `at` is the newest reading that was taken in."""

    sensitive: Channel
    gross: Channel
    at: float | None = None
    largest: float = 0.0


def fresh_counts(settings: CountSettings) -> CountEvidence:
    """Return the state before anything was seen: evidence 1, which is none."""
    return CountEvidence(_fresh_channel(settings.rate, 0.5), _fresh_channel(settings.gross_rate, settings.gross_idle))


def update_counts(
    state: CountEvidence,
    settings: CountSettings,
    arm: Counts,
    stable: Counts,
    at: float,
    *,
    close_block: bool = False,
) -> CountEvidence:
    """Take in what both versions answered since the last reading; `at` is the reading's time in seconds.

    A reading that is not newer than the last one changes nothing. `close_block` ends the block with this reading,
    as every change of weight must. A gap makes one long block: counters lose nothing.
    """
    if state.at is not None and at <= state.at:
        return state
    # What the first reading covers is not known; it is counted as one whole block.
    since = state.at if state.at is not None else at - max(1.0, settings.block)
    sensitive = _take(
        state.sensitive, arm, stable, since, at, close_block,
        (settings.ratio, settings.rate, settings.clump, settings.block, settings.hazard),
    )  # fmt: skip
    gross = _take(
        state.gross, arm, stable, since, at, True,
        (settings.gross_ratio, settings.gross_rate, settings.gross_clump, 0.0, settings.hazard),
    )  # fmt: skip
    grown = CountEvidence(sensitive, gross, at, state.largest)
    return CountEvidence(sensitive, gross, at, max(state.largest, log_e(grown)))


def log_e(state: CountEvidence) -> float:
    """Return the natural logarithm of the evidence now: 0 is none, ln(100) is 100 to 1."""
    return math.log(0.5 * _value(state.sensitive) + 0.5 * _value(state.gross))


def largest_log_e(state: CountEvidence) -> float:
    """Return the largest logarithm that the evidence ever reached; its always-valid p-value is exp(-largest)."""
    return state.largest


def relative_log_factor(errors: int, total: int, tolerated: float, supposed: float, clump: float) -> float:
    """Return ln L of one block: `errors` of `total` fell on the arm; shares under null and alternative."""
    votes = total / min(total, clump) if clump > 0 else total
    share = errors / total
    return votes * (share * math.log(supposed / tolerated) + (1 - share) * math.log((1 - supposed) / (1 - tolerated)))


def multiples(rate: float) -> tuple[float, ...]:
    """Return how many times `rate` the absolute bets suppose: 2, 4, 8 … as long as that is a rate, at least one."""
    return tuple(2.0**power for power in range(1, 13) if rate * 2.0**power < 1) or ((1 + 1 / rate) / 2,)


@lru_cache(maxsize=64)
def _absolute_logs(rate: float) -> tuple[tuple[float, float], ...]:
    """Return, for each absolute bet, the log factor of one error and of one good answer."""
    return tuple((math.log(a), math.log((1 - rate * a) / (1 - rate))) for a in multiples(rate))


def _fresh_channel(rate: float, idle: float) -> Channel:
    return Channel(idle, (1 - idle,) * len(RATIOS), (1 - idle,) * len(multiples(rate)))


def _value(channel: Channel) -> float:
    relative = channel.idle + math.fsum(channel.relative) / len(channel.relative)
    absolute = channel.idle + math.fsum(channel.absolute) / len(channel.absolute)
    return min(relative, absolute)


def _take(
    channel: Channel,
    arm: Counts,
    stable: Counts,
    since: float,
    at: float,
    close: bool,
    settings: tuple[float, float, float, float, float],
) -> Channel:
    ratio, rate, clump, block, hazard = settings
    opened = channel.opened if channel.opened is not None else since
    grown = Channel(
        channel.idle, channel.relative, channel.absolute, channel.arm + arm, channel.stable + stable, opened
    )
    # A millisecond of tolerance: readings a second apart are never exactly a second apart.
    if not close and at - opened < block - 0.001:
        return grown
    return _close(grown, at, ratio, rate, clump, hazard)


def _close(channel: Channel, at: float, ratio: float, rate: float, clump: float, hazard: float) -> Channel:
    """Turn the open block into factors."""
    seconds = max(0.0, at - (channel.opened if channel.opened is not None else at))
    injected = channel.idle * min(LONGEST_HAZARD, 1 - (1 - hazard) ** max(1.0, seconds))
    arm, stable = channel.arm, channel.stable
    total = arm.errors + stable.errors
    silent = arm.requests == 0 or stable.requests == 0
    relative = tuple(stake + injected for stake in channel.relative)
    if total and not silent:
        weighed = arm.requests * ratio
        tolerated = weighed / (weighed + stable.requests)
        shares = (weighed * worse / (weighed * worse + stable.requests) for worse in RATIOS)
        factors = (relative_log_factor(arm.errors, total, tolerated, share, clump) for share in shares)
        relative = tuple(grow(stake, factor) for stake, factor in zip(relative, factors, strict=True))
    absolute = tuple(stake + injected for stake in channel.absolute)
    if arm.requests and not silent:
        bound = max(1.0, min(arm.errors, clump))
        good = arm.requests - arm.errors
        absolute = tuple(
            grow(stake, (arm.errors * failed + good * answered) / bound)
            for stake, (failed, answered) in zip(absolute, _absolute_logs(rate), strict=True)
        )
    return Channel(channel.idle - injected, relative, absolute, opened=at)


def grow(stake: float, log_factor: float) -> float:
    """Return the stake after a bet with that log factor: never infinite, never less than LEAST, and with nine digits."""
    grown = math.log(stake) + log_factor if stake > 0 else -math.inf
    if grown < LOG_LEAST:
        return LEAST
    # Nine digits are kept: a state stays small, and replaying it gives the same bits.
    return LARGEST if grown > 640 else float(f"{math.exp(grown):.9g}")
