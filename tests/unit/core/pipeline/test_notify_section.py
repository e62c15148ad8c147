"""`notify:` of an environment: who is told of its releases, with which secrets; errors in words."""

from __future__ import annotations

import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import resolve
from forge.model.errors import InvalidConfiguration
from forge.model.plan import EnvironmentPlan

FILE = """\
secrets: [TOKEN]
environments:
  production:
    target: {{local: {{command: serve}}}}
    notify: {notify}
jobs:
  build: {{steps: [{{run: make}}]}}
"""


def planned(notify: str) -> EnvironmentPlan:
    return resolve(Sources(read(FILE.format(notify=notify), "pipeline.yaml")), {}).environment("production")


def problem(notify: str) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        planned(notify)
    return " | ".join(f"{one.message} ({one.hint})" for one in raised.value.diagnostics)


def test_a_grafana_is_planned_with_where_its_secret_comes_from() -> None:
    (notifier,) = planned(
        "[{grafana: {url: 'https://grafana.example/', auth: {bearer: TOKEN}, dashboard: abc-1, tags: [shop]}}]"
    ).notify
    assert (notifier.kind, notifier.name) == ("grafana", "grafana")
    assert notifier.config["http"]["url"] == "https://grafana.example"
    assert notifier.config["http"]["bearer"] == "TOKEN"
    assert notifier.config["dashboard"] == "abc-1"
    assert notifier.config["tags"] == ["shop"]
    assert [secret.name for secret in notifier.secrets] == ["TOKEN"]


def test_one_stands_for_a_list_of_one_and_none_is_the_default() -> None:
    assert len(planned("{grafana: {url: 'http://localhost:3000'}}").notify) == 1
    assert planned("[]").notify == ()


def test_two_need_names() -> None:
    one, other = "{grafana: {url: 'http://a'}}", "{name: second, grafana: {url: 'http://b'}}"
    assert [known.name for known in planned(f"[{one}, {other}]").notify] == ["grafana", "second"]
    assert "tells two places called `grafana`" in problem(f"[{one}, {one}]")


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ("[{grafana: {url: 'http://a', auth: {bearer: TOKE}}}]", "there is no secret `TOKE` (did you mean `TOKEN`?"),
        ("[{grafana: {url: 'http://a', dashboard: 'a b'}}]", "must be the uid of a dashboard"),
        ("[{grafana: {url: 'http://a', dashboard: " + "x" * 41 + "}}]", "must be the uid of a dashboard"),
        ("[{grafana: {url: 'http://user:secret@a'}}]", "has a user or a password in the address"),
        ("[{grafana: {url: 'ftp://a'}}]", "must be an http or https address"),
        ("[{name: nobody}]", "must say who is told"),
        ("[{grafana: {url: 'http://a', tags: ['']}}]", "has an empty tag"),
        ("[{grafan: {url: 'http://a'}}]", "did you mean `grafana`"),
    ],
)
def test_what_is_wrong_is_told_in_words(notify: str, words: str) -> None:
    assert words in problem(notify)


def test_no_secret_of_another_kind_is_attached() -> None:
    (notifier,) = planned("[{grafana: {url: 'http://a'}}]").notify
    assert notifier.secrets == ()
