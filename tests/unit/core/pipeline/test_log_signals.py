"""Log sources in the user's file: what they become, and what is said of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from forge.core.pipeline.schema_signals_logs import ElasticsearchModel, LogsModel, LokiModel
from forge.engine.planning import diagnose

ELASTIC = {"url": "https://logs.example.com"}
LOKI = {"url": "https://loki.example.com", "query": '{app="shop"}'}


def problems(tmp_path, signals: Any) -> list[str]:
    folder = tmp_path / "forge"
    folder.mkdir()
    pipeline = {
        "secrets": ["KEY"],
        "environments": {"production": {"target": {"local": {"command": "./x"}}, "signals": signals}},
        "jobs": {"a": {"steps": [{"run": "true"}]}},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return [problem.render() for problem in diagnose(folder / "pipeline.yaml")]


@pytest.mark.parametrize(
    "signals",
    [
        ["envoy", "logs"],
        ["envoy", {"logs": {"format": "json", "errors": "^!", "ignore": "a"}}],
        ["envoy", {"elasticsearch": {**ELASTIC, "auth": {"api_key": "KEY"}, "query": "a: b"}}],
        [
            "envoy",
            {"elasticsearch": {**ELASTIC, "auth": {"user": "u", "password": "KEY"}, "query": {"term": {"a": "b"}}}},
        ],
        ["envoy", {"loki": {**LOKI, "auth": {"bearer": "KEY"}, "errors": '|= "E"'}}],
    ],
)
def test_what_is_right(tmp_path, signals: Any) -> None:
    assert problems(tmp_path, signals) == []


@pytest.mark.parametrize(
    ("signals", "words"),
    [
        ({"logs": {"errors": "("}}, ["is no regular expression", "at character 1"]),
        ({"logs": {"ignore": ["ok", "[a"]}}, ["is no regular expression", "`[a`"]),
        ({"logs": {"format": "jsn"}}, ["cannot be `jsn`", "json"]),
        ({"logs": {"patern": "x"}}, ["patern"]),
        ({"elasticsearch": {**ELASTIC, "query": "a: {b: 1}"}}, ["is not understood at character 4", "query DSL"]),
        ({"elasticsearch": {**ELASTIC, "query": {"a": 1, "b": 2}}}, ["must have one kind of query"]),
        ({"elasticsearch": {**ELASTIC, "query": "v: $version"}}, ["names `$version`", "`version` names"]),
        ({"elasticsearch": {**ELASTIC, "index": "../_all"}}, ["cannot be"]),
        ({"elasticsearch": {**ELASTIC, "auth": {"api_key": "KEY", "bearer": "KEY"}}}, ["must have one of `api_key`"]),
        ({"elasticsearch": {**ELASTIC, "auth": {"api_key": "OTHER"}}}, ["OTHER"]),
        ({"elasticsearch": {**ELASTIC, "step": "0.5s"}}, ["whole seconds"]),
        ({"elasticsearch": {}}, ["url"]),
        ({"loki": {**LOKI, "query": 'app="shop"'}}, ["must begin with the labels"]),
        ({"loki": {**LOKI, "errors": "level=error"}}, ["must be a pipeline"]),
        ({"loki": {**LOKI, "version": "service.version"}}, ["cannot be `service.version`", "letters, digits"]),
        ({"loki": {**LOKI, "levels": "detcted"}}, ["cannot be `detcted`", "detected"]),
    ],
)
def test_what_is_wrong_is_told_in_words(tmp_path, signals: Any, words: list[str]) -> None:
    found = "\n".join(problems(tmp_path, ["envoy", signals]))
    for word in words:
        assert word in found, found


def test_what_they_become() -> None:
    assert LogsModel.model_validate({}).config() == {"errors": "", "ignore": [], "format": "auto"}
    elastic = ElasticsearchModel.model_validate({**ELASTIC, "auth": {"api_key": "KEY"}, "query": "a: b"})
    assert (elastic.config()["http"]["bearer"], elastic.config()["http"]["scheme"]) == ("KEY", "ApiKey")
    assert elastic.config()["query"] == {"match": {"a": "b"}}
    assert [*elastic.secret_names()] == [(("auth", "api_key"), "KEY")]
    assert LokiModel.model_validate(LOKI).config()["levels"] == "detected"
