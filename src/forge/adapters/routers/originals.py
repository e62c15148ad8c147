"""What of a routed object is the user's: its rules without the split, also where they were edited meanwhile. Pure."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

Rule = dict[str, Any]


class RuleForm(ABC):
    """How one kind of route writes its rules: which are about the environment, and which part of them."""

    @abstractmethod
    def at_front(self, rule: Rule) -> bool:
        """Whether a rule points at the environment's Service. Raises UsageError for one that splits by itself."""

    @abstractmethod
    def at_versions(self, rule: Rule) -> bool:
        """Whether a rule points at Services of versions, and at nothing else."""

    @abstractmethod
    def is_added(self, rule: Rule) -> bool:
        """Whether Forge added the rule, for a header or a cookie."""

    @abstractmethod
    def key(self, rule: Rule) -> str:
        """Return what tells a rule from others, whatever it points at."""

    @abstractmethod
    def undone(self, rule: Rule, before: Rule | None) -> Rule:
        """Return a rule that points at the Service again, as `before` did, with everything else as it is now."""


def own_rules(rules: Sequence[Rule], noted: Sequence[Rule], form: RuleForm) -> list[Rule]:
    """Return the rules as the user wants them. `noted`: as they were when Forge last split them; none at first.

    What somebody changed meanwhile stays changed (timeouts, filters, rules of other Services, a manifest that was
    applied again); only where requests of the environment go is Forge's.
    """
    split = [rule for rule in noted if form.at_front(rule)]
    keys = {form.key(rule) for rule in rules}
    known = {form.key(rule): rule for rule in split}
    lost = [rule for rule in split if form.key(rule) not in keys]
    own: list[Rule] = []
    for rule in rules:
        if form.at_front(rule):
            own.append(rule)
        elif form.is_added(rule):
            continue
        elif form.key(rule) in known:
            own.append(form.undone(rule, known[form.key(rule)]))
        elif form.at_versions(rule) and (lost or not noted):
            own.append(form.undone(rule, lost.pop(0) if lost else None))
        else:
            own.append(rule)
    if split and not any(form.at_front(rule) for rule in own):
        return list(noted)  # somebody took all of them away: as they were
    return own


def contains(actual: Any, wanted: Any) -> bool:
    """Whether something has all that was written; what the apiserver or a webhook added to mappings does not count."""
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            key in actual and contains(actual[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(contains(one, other) for one, other in zip(actual, wanted, strict=True))
        )
    return bool(actual == wanted)


def canonical(part: Any) -> str:
    """Return plain data as one text: equal data, equal text."""
    return json.dumps(part, sort_keys=True)
