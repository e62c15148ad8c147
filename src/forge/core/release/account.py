"""The account of one arm's harm: what of it failed above what stable would have failed, as sums that never restart.

It is kept in blocks of some seconds. In a block the arm answered n requests, of which f failed, and stable m, of which
s failed, at the same time. What stable would have failed of the arm's requests is estimated by n/m * s, so bursts that
both share and weights that change cancel. Where stable had no requests beside the arm's, or hardly any (n > 5 m: after
a blue-green switch, at the end of a promotion), the rate that it had before is taken instead: a guess, told as such.

The interval. Given the past and n and m, let f have the mean n*p and s the mean m*q; p and q may change with every
block. What is bounded is the harm H = sum n*(p - q): what the version does, without the luck of the draw. Errors come
in clumps of at most c. A count X of parts within [0, w*c] (f has w = 1, the weighted n/m * s has w = n/m) with the
cumulative mean M satisfies, by convexity, E[t^(X/(w*c))] <= exp((t - 1) * M/(w*c)) for every t > 0, so that
t^(X/(w*c)) * exp(-(t - 1) * M/(w*c)) is a supermartingale. Mixed over t with Gamma(r, r) it has a closed form, and by
Ville's inequality exceeds 1/a at any time with a chance of at most a: all M at which it does not are an interval that
holds at every time at once. Blocks of like w = n/m share one such sum; the j-th sum that is opened gets 6/(pi*j)^2 of
stable's half of the error, the arm's own count gets the other half; the open block counts as if it ended now. Nothing
is assumed of how rates change from block to block, nor that the arm and stable are independent. Assumed is that no
more than c errors come as one, that q is the same for all requests of a block, that n and m say nothing of errors to
come, and, for guesses only, that stable's rate stayed as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

SHAPE = 1.0
"""The r of the mixture: the interval is tightest for counts of a few to some hundred."""
FINEST, FACTOR = 1.25 / 64, 4.0
"""Bounds on n/m of the blocks that share a sum: 1.25 / 64, 1.25 / 16, ... so that usual weights lie well within."""

BLOCK = 5.0
"""Seconds of a block at least: shorter ones differ so much in n/m that each would need a sum of its own."""
HARDLY = 5.0
"""As many times as many requests as stable make its errors at that time too few to tell its rate."""

Pair = tuple[int, int]
"""Requests and failed requests."""


class Interval(NamedTuple):
    """Bounds that hold at every time at once."""

    low: float
    high: float


class Guess(msgspec.Struct, frozen=True, array_like=True):
    """Requests of the arm at a time when stable had none, and the requests and failures that its rate comes from."""

    requests: int
    of: Pair


class Account(msgspec.Struct, frozen=True, array_like=True):
    """All that an arm's ledger needs, plain JSON. `beside` is the version that it is compared with (empty: none).

    The open block began at `since` with the counters `own` and `other`; `seen` and `met` are the newest ones, of the
    arm and of `beside`, the arm's read at `at`; `share` is its seconds times share of the traffic. `past` is what the
    rate of `beside` is known from. `expected` is what stable would have failed of the closed blocks, of which `sums`
    has what was compared, by (bound on n/m, requests, sum), and `guesses` what could not be. `outage` is how many seconds of
    full outage are as bad as the harm.
    """

    beside: str = ""
    own: Pair | None = None
    other: Pair | None = None
    seen: Pair | None = None
    met: Pair | None = None
    since: float = 0.0
    at: float = 0.0
    past: Pair = (0, 0)
    expected: float = 0.0
    sums: tuple[tuple[float, int, float], ...] = ()
    guesses: tuple[Guess, ...] = ()
    share: float = 0.0
    outage: float = 0.0


def opened(beside: str, own: Pair, other: Pair | None, at: float, past: Pair = (0, 0)) -> Account:
    """Return the account of an arm that gets its first traffic now."""
    return Account(beside, own, other, own, other, at, at, past)


def grown(account: Account, own: Pair) -> Pair:
    """Return how many requests and failures are new in the arm's counters.

    A counter that fell was reset: what it counts from there on is new, so that a false reading that comes and goes
    is never counted as harm.
    """
    if account.seen is None or own[0] < account.seen[0] or own[1] < account.seen[1]:
        return 0, 0
    return own[0] - account.seen[0], own[1] - account.seen[1]


def read(account: Account, own: Pair, other: Pair | None, at: float, weight: float, *, rests: bool) -> Account:
    """Take in a reading of the arm, and one of stable where there is one; `weight`: the arm's share of all traffic.

    `rests`: stable has no traffic, so that waiting for its requests would be in vain.
    """
    share = account.share + max(0.0, at - account.at) * weight
    if _fell(account.seen, own):
        return replace(settled(replace(account, share=share)), own=own, seen=own, other=other, met=other, at=at)
    # A clock that was set back must not keep the block open for as long as it takes to catch up.
    since = min(account.since, at)
    account = replace(account, seen=own, at=at, since=since, share=share, own=account.own or own)
    if other is None:
        return account if account.beside else settled(account)
    if account.met is None:
        return replace(settled(account) if known(account) else account, other=other, met=other)
    if _fell(account.met, other):
        return replace(settled(account), other=other, met=other)
    account = replace(account, met=other)
    answered = _met(account)[0] > 0
    if (answered and at - account.since >= BLOCK) or (rests and (answered or known(account))):
        return settled(account)
    return account


def turned(account: Account, beside: str, other: Pair | None, past: Pair) -> Account:
    """Return the account when another version becomes the one to compare with: sums stay, a new block begins."""
    return replace(settled(account), beside=beside, other=other, met=other, past=past)


def settled(account: Account) -> Account:
    """Return the account with its open block closed."""
    answered, failed = _met(account)
    account = replace(account, past=(account.past[0] + answered, account.past[1] + failed))
    requests = _pending(account)[0]
    if not requests or not account.beside:
        return _closed(account, 0.0)
    if answered and (requests <= HARDLY * answered or account.past[0] == answered):
        weighted = requests / answered * failed
        return _closed(replace(account, sums=_added(account, requests, requests / answered, weighted)), weighted)
    rate = account.past[1] / account.past[0] if known(account) else 0.0
    return _closed(replace(account, guesses=_guessed(account, requests)), requests * rate)


def expected_failures(account: Account) -> float:
    """Return what stable would have failed of all the arm's requests so far; 0 where nothing is known of it."""
    return settled(account).expected


def outage_seconds(account: Account) -> float:
    """Return how many seconds of everything failing for everybody would have been as bad; below 0: it did better."""
    return settled(account).outage


def excess_interval(account: Account, failed: int, clump: float = 1.0, level: float = 0.95) -> Interval:
    """Return how many of `failed`, the arm's failed requests, it has above stable, at every time at once."""
    account, error = settled(account), 1.0 - level
    own = count_interval(failed / clump, error / 2)
    low = high = 0.0
    parts = 0
    for scale, requests, total in account.sums:
        parts += 1
        one = count_interval(total / (scale * clump), _part(error, parts))
        low, high = low + one.low * scale * clump, high + min(float(requests), one.high * scale * clump)
    for guess in account.guesses:
        parts += 1
        rate = _rate_interval(guess.of, clump, _part(error, parts))
        low, high = low + guess.requests * rate.low, high + guess.requests * rate.high
    return Interval(own.low * clump - high, own.high * clump - low)


def count_interval(count: float, error: float) -> Interval:
    """Return the cumulative means that a count in units of its largest part does not exclude, at every time at once."""
    fixed = SHAPE * math.log(SHAPE) - math.lgamma(SHAPE) + math.lgamma(count + SHAPE)
    limit = -math.log(error)

    def inside(mean: float) -> bool:
        return mean + fixed - (count + SHAPE) * math.log(mean + SHAPE) <= limit

    top = 2.0 * count + 10.0
    while inside(top):
        top *= 2.0
    low = 0.0 if inside(0.0) else _edge(0.0, count, inside)
    return Interval(low, _edge(top, count, inside))


def known(account: Account) -> bool:
    """Whether anything is known of the rate of the version that it is compared with."""
    return account.past[0] > 0


def _edge(outside: float, within: float, inside: Callable[[float], bool]) -> float:
    for _ in range(50):
        middle = (outside + within) / 2
        outside, within = (outside, middle) if inside(middle) else (middle, within)
    return outside


def _part(error: float, number: int) -> float:
    return error / 2 * 6 / (math.pi * number) ** 2


def _rate_interval(of: Pair, clump: float, error: float) -> Interval:
    if of[0] <= 0:
        return Interval(0.0, 1.0)
    mean = count_interval(of[1] / clump, error)
    return Interval(min(1.0, mean.low * clump / of[0]), min(1.0, mean.high * clump / of[0]))


def _fell(before: Pair | None, now: Pair) -> bool:
    return before is not None and (now[0] < before[0] or now[1] < before[1])


def _pending(account: Account) -> Pair:
    if account.own is None or account.seen is None:
        return 0, 0
    return account.seen[0] - account.own[0], account.seen[1] - account.own[1]


def _met(account: Account) -> Pair:
    if account.other is None or account.met is None:
        return 0, 0
    return account.met[0] - account.other[0], account.met[1] - account.other[1]


def _added(account: Account, requests: int, ratio: float, weighted: float) -> tuple[tuple[float, int, float], ...]:
    scale = FINEST
    while scale < ratio:
        scale *= FACTOR
    sums = {bound: (before, total) for bound, before, total in account.sums}
    before, total = sums.get(scale, (0, 0.0))
    sums[scale] = (before + requests, round(total + weighted, 6))
    return tuple((bound, *rest) for bound, rest in sums.items())


def _guessed(account: Account, requests: int) -> tuple[Guess, ...]:
    guesses = account.guesses
    if guesses and guesses[-1].of == account.past:
        return (*guesses[:-1], Guess(guesses[-1].requests + requests, account.past))
    return (*guesses, Guess(requests, account.past))


def _closed(account: Account, expected: float) -> Account:
    """Close the open block, of whose requests stable would have failed `expected`."""
    requests, failed = _pending(account)
    outage = account.outage + (account.share * (failed - expected) / requests if requests else 0.0)
    return replace(
        account, own=account.seen, other=account.met, since=account.at, share=0.0, outage=round(outage, 6),
        expected=round(account.expected + expected, 6),
    )  # fmt: skip
