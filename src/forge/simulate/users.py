"""Sticky users: whoever was once answered by a version comes back to it while it is in the split.

The rule is that of the proxy's cookie: a user without one, or with one of a version that carries nothing, is drawn
by the weights and keeps what was drawn. Users are counted by version, not one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random

from forge.model.units import WHOLE
from forge.simulate.draws import binomial, spread


class Users:
    """`count` people who are there at a time; each stays for `stay` seconds in the mean and is followed by another."""

    def __init__(self, rng: Random, count: int, stay: float) -> None:
        self.pinned: dict[str, int] = {}
        """How many of them have the cookie of each version."""
        self._rng, self._count, self._stay = rng, count, stay

    def shares(self, split: Mapping[str, int], seconds: float) -> tuple[float, ...]:
        """Let time pass and return the part of the users that each version of the split (basis points) answers."""
        leaving = -math.expm1(-seconds / self._stay) if self._stay > 0 else 1.0
        stayed = {
            version: number - binomial(self._rng, number, leaving)
            for version, number in self.pinned.items()
            if version in split
        }
        new = self._count - sum(stayed.values())
        drawn = spread(self._rng, new, tuple(weight / WHOLE for weight in split.values()))
        self.pinned = {version: stayed.get(version, 0) + more for version, more in zip(split, drawn, strict=True)}
        return tuple(number / self._count for number in self.pinned.values())
