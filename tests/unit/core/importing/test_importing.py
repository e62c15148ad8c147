"""Manifests of Argo Rollouts and Flagger as pipelines: every word is translated, or told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes.documents import read_documents
from forge.cli.main import run_command
from forge.core.importing.metrics import Limit, at_least, filled, limit_of, unfilled
from forge.core.importing.reading import Reader
from forge.core.importing.translating import translate
from forge.engine.planning import diagnose
from forge.model.errors import UsageError

GOLDEN = Path(__file__).parents[3] / "golden" / "import"
CASES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("name", CASES)
def test_a_manifest_letter_by_letter(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`FORGE_UPDATE_GOLDEN=1` writes them anew; look at the difference."""
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setenv("NO_COLOR", "1")
    assert run_command(["import", f"{name}.yaml"]) == 1
    told = capsys.readouterr()
    text = f"{told.out}\n{told.err}"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")
    assert text == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_what_comes_out_is_a_pipeline(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "forge").mkdir()
    (tmp_path / "k8s").mkdir()
    run_command(
        ["import", str(GOLDEN / f"{name}.yaml"), "-o", "json", "--manifests", str(tmp_path / "k8s" / "own.yaml")]
    )
    (made,) = json.loads(capsys.readouterr().out)
    target = made["pipeline"]["environments"]["production"]["target"]["kubernetes"]
    if not made["manifests"]:
        (tmp_path / "k8s" / "own.yaml").write_text(yaml.safe_dump(_deployment(target["workload"].partition("/")[2])))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": target.get("service", "web")},
               "spec": {"selector": _labels(tmp_path), "ports": [{"port": 80}]}}  # fmt: skip
    (tmp_path / "k8s" / "service.yaml").write_text(yaml.safe_dump(service))
    (tmp_path / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(made["pipeline"]))
    problems = [each for each in diagnose(tmp_path / "forge" / "pipeline.yaml") if each.severity == "error"]
    assert problems == [], "\n".join(each.render() for each in problems)


def _deployment(name: str) -> dict[str, Any]:
    container = {"name": name, "image": name, "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}}  # fmt: skip


def _labels(folder: Path) -> dict[str, str]:
    (found,) = [each for each in yaml.safe_load_all((folder / "k8s" / "own.yaml").read_text()) if each]
    labels: dict[str, str] = found["spec"]["template"]["metadata"]["labels"]
    return labels


def test_files_without_a_release_are_told_what_they_hold() -> None:
    (deployment,) = read_documents("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", "a.yaml")
    with pytest.raises(UsageError, match="they hold Deployment"):
        translate([deployment])


def test_several_releases_come_as_json_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n---\n".join((GOLDEN / f"{name}.yaml").read_text() for name in ("rollout-bluegreen", "canary-nginx"))
    (tmp_path / "both.yaml").write_text(text)
    assert run_command(["import", str(tmp_path / "both.yaml")]) == 2
    capsys.readouterr()
    assert run_command(["import", str(tmp_path / "both.yaml"), "-o", "json"]) == 1
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["web", "web"]


@pytest.mark.parametrize("text", ["{", "a: b", "- 1\n- 2", ""])
def test_garbage_is_refused_in_words(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert run_command(["import", str(tmp_path / "x.yaml")]) == 2
    assert "error" in capsys.readouterr().err


class TestMetrics:
    @pytest.mark.parametrize(
        ("condition", "limit"),
        [
            ("result[0] <= 0.05", Limit("q", 0.05)),
            ("result < 10", Limit("q", 10.0)),
            ("result[0] >= 0.95", Limit("1 - (q)", 0.05)),
            ("isNaN(result[0]) || result[0] <= 3", Limit("q", 3.0)),
            ("result[0] > 100", Limit("0 - (q)", -100.0)),
            ("all(result, # < 3)", None),
            ("result[0] < 1 && result[1] < 2", None),
        ],
    )
    def test_a_condition_becomes_one_limit_or_nothing(self, condition: str, limit: Limit | None) -> None:
        assert limit_of("q", condition) == limit

    @given(st.floats(-1e6, 1e6, allow_nan=False).filter(bool), st.floats(-1e6, 1e6))
    def test_turned_round_it_says_the_same(self, least: float, value: float) -> None:
        limit = at_least("q", least)
        turned = 1 - value if limit.query.startswith("1 -") else 0 - value
        if abs(value - least) > 1e-6:
            assert (turned > limit.above) == (value < least)

    def test_what_is_not_known_stays(self) -> None:
        query = filled('up{a="{{ args.x }}",b="{{y}}",c="{{ interval }}"}', {"x": "1", "interval": "1m"})
        assert query == 'up{a="1",b="{{y}}",c="1m"}'
        assert unfilled(query) == ["y"]


LEAVES = st.one_of(st.integers(0, 9), st.booleans(), st.sampled_from(["x", "10%", "web", "30s"]))
KEYS = st.sampled_from(
    ["steps", "setWeight", "pause", "duration", "analysis", "templates", "templateName", "trafficRouting", "istio", "nginx",
     "virtualService", "name", "stableIngress", "metrics", "thresholdRange", "max", "min", "interval", "unheard-of", "match",
     "headers", "service", "port", "maxSurge", "webhooks", "type"]
)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


@given(st.sampled_from(["canary", "blueGreen", "analysis"]), st.dictionaries(KEYS, TREES, max_size=5))
def test_no_word_of_a_manifest_is_lost_in_silence(place: str, tree: dict[str, Any]) -> None:
    """Whatever it holds: each leaf was looked at by a translator, or is told with its place."""
    rollout = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"},
               "spec": {"strategy": {place: tree}}}  # fmt: skip
    canary = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "a"}, "spec": {place: tree}}
    for data in (rollout, canary):
        (manifest,) = read_documents(json.dumps(data, indent=1), "a.yaml")
        (made,) = translate([manifest])
        assert all(problem.line > 0 and problem.hint for problem in made.lost)
        assert made.draft.pipeline("production")["jobs"]


@given(st.dictionaries(KEYS, TREES, max_size=5), st.data())
def test_what_nobody_takes_is_reported_once(tree: dict[str, Any], data: st.DataObject) -> None:
    (manifest,) = read_documents(json.dumps({"kind": "x", "spec": tree}), "a.yaml")
    read = Reader(manifest)
    read.needless("kind")
    taken = data.draw(st.sampled_from([None, *tree]))
    if taken is not None:
        read.take("spec", taken)
    told = {problem.message for problem in read.finish()}
    for key, value in tree.items():
        named = any(f"`spec.{key}" in message or "`spec`" in message for message in told)
        assert named == (key != taken and value not in ({}, [])) or (taken is None and value in ({}, []))
