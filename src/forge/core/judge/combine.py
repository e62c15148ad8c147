"""Evidence of several metrics and several arms as one, with the bound on false alarms kept under any dependence.

Averages of e-values are e-values whatever their dependence (Vovk & Wang, Annals of Statistics 2021); the closed
average over arms keeps the family-wise error and is never worse than dividing alpha (docs/judge.md 2.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def combine_metrics(weights: Mapping[str, float], log_es: Mapping[str, float]) -> float:
    """Return the log of the weighted average of the metrics' evidence. Metrics without data count as 1.

    `weights` are taken relative to their sum. Raises KeyError for evidence of a metric without a weight.
    """
    unknown = log_es.keys() - weights.keys()
    if unknown:
        raise KeyError(f"no weight for {', '.join(sorted(unknown))}")
    whole = math.fsum(weights.values())
    terms = [(weight / whole, log_es.get(name, 0.0)) for name, weight in weights.items() if weight > 0]
    return log_mean(terms)


def log_mean(terms: list[tuple[float, float]]) -> float:
    """Return ln of the weighted sum of e-values given by their logs, without overflow."""
    if not terms:
        return 0.0
    top = max(value for _, value in terms)
    return top + math.log(math.fsum(weight * math.exp(max(value - top, -700.0)) for weight, value in terms))


def closed_log_e(log_es: Mapping[str, float]) -> dict[str, float]:
    """Return, for each arm, the evidence that stands against it when all arms are tested at once.

    e*_j is the least average of E_j with any number of the smallest of the others.
    """
    closed: dict[str, float] = {}
    for name, own in log_es.items():
        least, chosen = own, [own]
        for other in sorted(value for arm, value in log_es.items() if arm != name):
            chosen.append(other)
            least = min(least, log_mean([(1 / len(chosen), value) for value in chosen]))
        closed[name] = least
    return closed
