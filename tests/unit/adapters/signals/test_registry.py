"""Opening sources: an unknown or wrong one is told with its place, and none stands in for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.adapters.signals import registry
from forge.adapters.signals.registry import SourceContext, known_sources, open_source
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan, SourcePlan


async def secret(name: str) -> str:
    raise AssertionError(name)


CONTEXT = SourceContext(EnvironmentPlan("production"), Path("/nonexistent"), secret)


def refused(plan):
    with pytest.raises(UsageError) as error:
        open_source(plan, CONTEXT)
    return error.value


def test_an_unknown_kind_is_told_with_what_was_meant():
    error = refused(SourcePlan("prometeus", "metrics", {}))
    assert error.message == "environment production, signals `metrics`: there is no source `prometeus`"
    assert error.hint == "did you mean `prometheus`?"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "missing required field `http`"),
        ({"http": {"url": "http://x"}, "presett": "plain"}, "unknown field `presett`"),
        ({"http": {"url": 3}}, "Expected `str`"),
        ({"http": {"url": "http://x"}, "gauges": {"a": {"query": "x", "limt": 3}}}, "unknown field `limt`"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told_with_its_place(config, words):
    error = refused(SourcePlan("prometheus", "metrics", config))
    assert error.message.startswith("environment production, signals `metrics`: its configuration is wrong: ")
    assert words in error.message


def test_a_package_that_is_not_there_is_named(monkeypatch):
    def opener(plan, context):
        raise ImportError("No module named 'botocore'", name="botocore")

    monkeypatch.setattr("forge.adapters.signals.cloudwatch.open_cloudwatch", opener)
    error = refused(SourcePlan("cloudwatch", "aws", {}))
    assert "needs a package that is not installed: botocore" in error.message
    assert error.hint == "install it with `pip install 'forge[cloudwatch]'`"


def test_every_kind_that_is_listed_can_be_imported():
    from importlib import import_module

    assert "prometheus" in known_sources()
    assert list(known_sources()) == sorted(known_sources())
    for kind in known_sources():
        module, _, function = registry._OPENERS[kind].partition(":")
        assert callable(getattr(import_module(module), function))


def test_every_kind_of_the_users_file_has_an_adapter_and_the_other_way_round():
    from forge.core.pipeline.schema_signals import SourceModel

    assert {*SourceModel.kinds()} - {"envoy"} == {*known_sources()}
