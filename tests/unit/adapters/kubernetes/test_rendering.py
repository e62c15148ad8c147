"""Manifests become the objects of one version, and always the same text; what is wrong is told at its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes import rendering
from forge.adapters.kubernetes.objects import containers, find_workload, key_of
from forge.adapters.kubernetes.rendering import (
    canonical,
    manifests_in,
    objects_in,
    read_manifests,
    rendered,
    replicas_of,
    with_images,
)
from forge.model.errors import InvalidConfiguration, UsageError

GOLDEN = Path(__file__).parents[3] / "golden" / "kubernetes" / "rendering"
SHOP = GOLDEN / "shop"
DEPLOYMENT = (SHOP / "shop.yaml").read_text().split("---\n")[1]


def golden(name: str, text: str) -> None:
    recorded = GOLDEN / name
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        recorded.write_text(text)
    assert text == recorded.read_text()


def shop() -> tuple[dict[str, Any], ...]:
    return rendered(manifest.item for manifest in read_manifests(["shop"], GOLDEN, GOLDEN))


def deployment(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(DEPLOYMENT), **changes}


def test_a_folder_is_rendered_as_recorded() -> None:
    golden("shop.rendered.yaml", canonical(shop()))


def test_what_was_rendered_is_read_back_and_rendered_the_same() -> None:
    text = canonical(shop())
    assert objects_in(text) == shop()
    assert canonical(rendered(objects_in(text))) == text
    assert list(yaml.safe_load_all(text)) == list(shop()), "every reader of YAML takes it for the same"


def test_neither_the_order_of_files_nor_of_keys_matters() -> None:
    apart = read_manifests(["shop/settings.json", "shop/shop.yaml"], GOLDEN, GOLDEN)
    turned = [dict(reversed(manifest.item.items())) for manifest in reversed(apart)]
    assert canonical(rendered(turned)) == canonical(shop())


def test_what_only_a_server_says_is_left_out() -> None:
    main = find_workload(shop())
    assert "resourceVersion" not in main["metadata"]
    assert all("status" not in item for item in shop())


def test_a_file_is_read_once_however_often_it_is_named() -> None:
    assert len(read_manifests(["shop", "shop/shop.yaml", "./shop/"], GOLDEN, GOLDEN)) == len(shop())


def test_paths_begin_where_the_step_works(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yaml").write_text(DEPLOYMENT)
    manifests = read_manifests(["a.yaml"], tmp_path / "deep", tmp_path)
    assert manifests[0].problem("c", "m").file == "deep/a.yaml"


def test_containers_get_other_images_by_name() -> None:
    changed = rendered(shop(), images={"shop": "registry.example/shop:2"})
    assert [container["image"] for container in containers(find_workload(changed))] == ["registry.example/shop:2"]
    assert next(iter(containers(find_workload(shop()))))["image"] == "registry.example/shop:1"
    assert canonical(changed) == canonical(shop()).replace("shop:1", "shop:2")


def test_an_image_for_a_container_that_is_not_there_is_refused_with_what_is_near() -> None:
    with pytest.raises(UsageError) as told:
        with_images(deployment(), {"shp": "registry.example/shop:2"})
    assert told.value.message == ("Deployment/shop has no container `shp` to give the image `registry.example/shop:2`")
    assert told.value.hint == "did you mean `shop`?"


@pytest.mark.parametrize(("spec", "count"), [({"replicas": 3}, 3), ({}, None), ({"replicas": "3"}, None), (None, None)])
def test_how_many_replicas_a_manifest_asks_for(spec: Any, count: int | None) -> None:
    assert replicas_of({"spec": spec}) == count


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "path", "message", "hint"),
    [
        ({"k8s__shop_yaml": ""}, "k8s/shp.yaml", "there is no file or folder `k8s/shp.yaml`", "did you mean `k8s/shop.yaml`?"),
        ({"k8s__notes.txt": ""}, "k8s", "the folder `k8s` holds no manifests", "files end in .yaml, .yml or .json"),
        (
            {"k8s__base__shop_yaml": ""}, "k8s", "the folder `k8s` holds no manifests",
            "files end in .yaml, .yml or .json; there are some in `k8s/base`, list it too",
        ),
        ({"k8s__kustomization_yaml": ""}, "k8s", "`k8s` is to be built by Kustomize", "write `kustomize: k8s`"),
        ({"chart__Chart_yaml": ""}, "chart", "`chart` is a Helm chart", "write `helm: {chart: chart}`"),
        ({}, "../other", "`../other` leads out of the workspace", "name a path inside of it"),
        ({}, "/etc", "`/etc` leads out of the workspace", "name a path inside of it"),
    ],
)  # fmt: skip
def test_paths_that_hold_nothing_to_read(tmp_path: Path, files: Any, path: str, message: str, hint: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(UsageError) as told:
        read_manifests([path], tmp_path, tmp_path)
    assert (told.value.message, told.value.hint) == (message, hint)


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", secret_yaml=DEPLOYMENT)
    home = write(tmp_path / "home", k8s__shop_yaml=DEPLOYMENT)
    (home / "k8s" / "x.yaml").symlink_to(outside / "secret.yaml")
    with pytest.raises(UsageError, match="leads out of the workspace"):
        read_manifests(["k8s"], home, home)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MOST_FILES", 1)
    write(tmp_path, k__a_yaml=DEPLOYMENT, k__b_yaml="")
    with pytest.raises(UsageError, match="the manifests are 2 files"):
        read_manifests(["k"], tmp_path, tmp_path)


def edited(change: Callable[[str], str]) -> str:
    return change(DEPLOYMENT)


SLIPS = {
    "no-object": "- a\n- b\n",
    "text": "shop\n",
    "no-kind": "apiVersion: v1\nmetadata: {name: x}\n",
    "no-api": "kind: Service\nmetadata: {name: x}\n",
    "no-name": "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {a: b}\n",
    "number-as-name": "apiVersion: v1\nkind: Service\nmetadata:\n  name: 12\n",
    "made-up-name": "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: x-\n",
    "labels": DEPLOYMENT.replace('"1.10"', "1.10").replace('"yes"', "yes"),
    "variables": DEPLOYMENT.replace('"on"', "on").replace('"2020-01-01"', "2020"),
    "list-of-odd-things": "apiVersion: v1\nkind: List\nitems:\n  - 5\n  - {kind: Service}\n",
    "syntax": "apiVersion: v1\nkind: [\n",
}


@pytest.mark.parametrize("name", sorted(SLIPS))
def test_slips_are_told_as_recorded(name: str) -> None:
    with pytest.raises(InvalidConfiguration) as wrong:
        manifests_in(SLIPS[name], "k8s/shop.yaml")
    golden(f"slip-{name}.txt", "\n".join(one.render() for one in wrong.value.diagnostics) + "\n")


def test_everything_that_is_wrong_in_all_files_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, k__a_yaml=SLIPS["no-kind"], k__b_yaml=SLIPS["syntax"], k__c_yaml=DEPLOYMENT)
    with pytest.raises(InvalidConfiguration) as wrong:
        read_manifests(["k"], tmp_path, tmp_path)
    assert [one.file for one in wrong.value.diagnostics] == ["k/a.yaml", "k/b.yaml"]


def test_an_object_that_is_there_twice_is_told_with_its_first_place(tmp_path: Path) -> None:
    write(tmp_path, k__a_yaml=DEPLOYMENT, k__b_yaml=DEPLOYMENT)
    with pytest.raises(InvalidConfiguration) as wrong:
        read_manifests(["k"], tmp_path, tmp_path)
    (one,) = wrong.value.diagnostics
    assert (one.message, one.hint) == ("Deployment/shop is there twice", "the first is at k/a.yaml:1; remove one")
    assert (one.file, one.line, one.snippet) == ("k/b.yaml", 4, "  name: shop")


def test_one_name_in_two_namespaces_is_two_objects() -> None:
    here, there = (f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a, namespace: {ns}}}}}" for ns in "xy")
    assert len(objects_in(f"{here}\n---\n{there}\n")) == 2


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            lambda spec: spec["template"]["spec"].update(containers=[]), "Deployment/shop has no containers",
            "they are listed under `spec.template.spec.containers`",
        ),
        (
            lambda spec: spec["selector"].update(matchLabels={"app": "shp"}),
            "the selector of Deployment/shop does not fit its own pods",
            "add to `spec.template.metadata.labels`: app: shp",
        ),
        (
            lambda spec: spec.update(selector={}), "Deployment/shop has no `matchLabels`",
            "add `spec.selector.matchLabels`",
        ),
    ],
)  # fmt: skip
def test_a_workload_whose_pods_nobody_could_find_is_refused(change: Any, message: str, hint: str) -> None:
    main = deployment()
    change(main["spec"])
    with pytest.raises(UsageError) as told:
        rendered([main])
    assert (told.value.message, told.value.hint) == (message, hint)


def test_workload_and_service_are_checked_when_they_are_rendered() -> None:
    with pytest.raises(UsageError, match="no workload `Deployment/other`"):
        rendered(shop(), workload="Deployment/other")
    with pytest.raises(UsageError, match="no Service `other`"):
        rendered(shop(), service="other")


letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.sampled_from(["yes", "y", "1.10", "0644", "2020-01-01", "1:30", "null", "~", "=", "<<", "*a", "&a", "!x", "%",
                         "a: b", "- a", "#", " x", "x ", "\n", "a\n", "\na", "a\n\n", "\ta", "a\t\nb", "a \nb", "1e3",
                         "0x1f", ".inf", "---", "...", "'", '"', "a\r\nb", "\u2028", "\x85", "\ufeff", "{{ x }}"])  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | letters | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(letters | words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(letters, values, max_size=4))
def test_any_object_is_read_back_as_it_was(data: dict[str, Any]) -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}
    assert objects_in(canonical([item])) == (item,)


@given(st.lists(st.tuples(st.sampled_from(["ConfigMap", "Secret", "Role", "X"]), st.sampled_from("abc")), unique=True))
def test_objects_are_always_written_in_one_order(names: list[tuple[str, str]]) -> None:
    objects = [{"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} for kind, name in names]
    text = canonical(rendered([deployment(), *objects]))
    assert canonical(rendered([*reversed(objects), deployment()])) == text
    assert sorted(key_of(item) for item in objects_in(text)) == sorted(key_of(i) for i in [deployment(), *objects])


@given(values)
def test_manifests_of_any_shape_are_read_or_refused_with_places(value: Any) -> None:
    for shape in (value, {"apiVersion": "v1", "kind": "Pod", "metadata": value}, {"kind": "List", "items": [value]}):
        try:
            manifests_in(yaml.safe_dump(shape, allow_unicode=True), "k.yaml")
        except InvalidConfiguration as wrong:
            problems = wrong.diagnostics
        else:
            continue
        assert all(one.file == "k.yaml" and one.render() for one in problems)
