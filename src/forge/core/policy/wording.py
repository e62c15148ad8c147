"""A policy's gates in words, for `forge plan`: what every release to an environment has to pass."""

from __future__ import annotations

from forge.model.policy import ReleasePolicy
from forge.model.units import format_duration, format_weight


def gate_words(policy: ReleasePolicy) -> tuple[str, ...]:
    """Return one line for each gate, in the order in which they are looked at."""
    rows = []
    for freeze in policy.freezes:
        reason = f" ({freeze.reason})" if freeze.reason else ""
        rows.append(f"not from {_moment(freeze.begins)} to {_moment(freeze.ends)} {freeze.zone}{reason}")
    if policy.windows:
        rows.append(f"only in {' or '.join(_window(window.text, window.lasts) for window in policy.windows)}")
    if policy.max_releases is not None:
        rule = policy.max_releases
        rows.append(f"at most {rule.count} releases within {_brief(rule.per)}")
    rows += _budget_words(policy)
    if policy.approvals is not None:
        rule_ = policy.approvals
        who = f" of {', '.join(rule_.approvers)}" if rule_.approvers else ""
        people = "approval of 1 person" if rule_.required == 1 else f"approval of {rule_.required} people"
        rows.append(f"after {people}{who}" + ("" if rule_.allow_self else ", not of who asked for it"))
    return tuple(rows)


def _budget_words(policy: ReleasePolicy) -> list[str]:
    slo, low = policy.slo, policy.when_budget_low
    if slo is None:
        return []
    rows = []
    if policy.when_budget_empty == "fixes_only":
        rows.append(f"only fixes while the error budget is empty ({slo.objective * 100:g}% over {_brief(slo.window)})")
    if low is not None:
        step = f" steps of at most {format_weight(low.largest_step)}" if low.largest_step is not None else ""
        bake = f" {_brief(low.bake)} of watching at the end" if low.bake else ""
        joined = " and".join(part for part in (step, bake) if part)
        rows.append(f"below {low.below * 100:g}% of the error budget in{joined}" if step else
                    f"below {low.below * 100:g}% of the error budget with{joined}")  # fmt: skip
    return rows


def _window(text: str, lasts: float) -> str:
    return f"{text} for {_brief(lasts)}" if lasts else text


def _moment(text: str) -> str:
    return text.removesuffix("T00:00:00").removesuffix(":00").replace("T", " ")


def _brief(seconds: float) -> str:
    return format_duration(seconds).removesuffix(" 0s").removesuffix(" 0m").removesuffix(" 0h")
