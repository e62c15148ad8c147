"""What ready replicas can carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.release.capacity import capacity, full_size, ready_capacity, replicas_for, spread_shortage
from forge.model.traffic import ReplicaCount, Version
from forge.model.units import WHOLE


@pytest.mark.parametrize(
    ("ready", "full", "carries"),
    [(0, 3, 0), (1, 3, 3334), (2, 3, 6667), (3, 3, WHOLE), (5, 3, WHOLE), (1, 1, WHOLE), (-1, 2, 0)],
)
def test_each_replica_carries_its_share(ready: int, full: int, carries: int) -> None:
    assert capacity(ready, full) == carries


@pytest.mark.parametrize(
    ("weight", "full", "replicas"),
    [(0, 4, 0), (1, 4, 1), (500, 2, 1), (2500, 4, 1), (2501, 4, 2), (WHOLE, 4, 4), (3334, 3, 1), (6667, 3, 2)],
)
def test_as_few_replicas_as_carry_a_weight(weight: int, full: int, replicas: int) -> None:
    assert replicas_for(weight, full) == replicas


@given(st.integers(0, WHOLE), st.integers(1, 50))
def test_replicas_for_is_the_smallest_number_whose_capacity_suffices(weight: int, full: int) -> None:
    fewest = replicas_for(weight, full)
    assert 0 <= fewest <= full
    assert capacity(fewest, full) >= weight
    assert fewest == 0 or capacity(fewest - 1, full) < weight


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_bound_is_exact_to_one_basis_point(full: int, ready: int) -> None:
    assert 0 <= capacity(ready, full) * full - min(ready, full) * WHOLE < full


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, WHOLE), min_size=1, max_size=5))
def test_a_shortage_is_spread_in_proportion(capacities: dict[str, int]) -> None:
    bounds = spread_shortage(capacities)
    total = sum(capacities.values())
    assert bounds.keys() == capacities.keys()
    assert sum(bounds.values()) >= WHOLE or total == 0
    for version, bound in bounds.items():
        assert bound >= capacities[version]
        if 0 < total < WHOLE:
            assert bound * total - capacities[version] * WHOLE < total


@pytest.mark.parametrize(
    ("config", "size"), [({}, 2), ({"replicas": 5}, 5), ({"replicas": 0}, 1), ({"replicas": "x"}, 2)]
)
def test_the_full_size_is_what_the_configuration_says(config: dict[str, object], size: int) -> None:
    assert full_size(Version("1", config=config)) == size


def test_ready_capacity_of_a_version() -> None:
    version = Version("1", config={"replicas": 4})
    assert ready_capacity(version, ReplicaCount(4, 4, 3)) == 7500
    assert ready_capacity(version, None) == 0
