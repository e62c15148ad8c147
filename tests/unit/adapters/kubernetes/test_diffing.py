"""What is different between two forms of an object is told field by field; secrets never are."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes.diffing import LONGEST, FieldChange, change_of, changes, without_marks


def workload(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "replicas": 3,
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {
                    "containers": [
                        {"name": "shop", "image": "shop:1", "env": [{"name": "A", "value": "1"}], "args": ["-v"]},
                        {"name": "side", "image": "side:1", "ports": [{"containerPort": 8080}]},
                    ]
                },
            },
            **spec,
        },
    }


def edited(change: Any) -> dict[str, Any]:
    item = workload()
    change(item["spec"]["template"]["spec"]["containers"], item)
    return item


def told(before: Any, after: Any) -> list[tuple[str, str | None, str | None]]:
    return [(one.path, one.before, one.after) for one in changes(before, after)]


POD = "spec.template.spec"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c, _: c[0].update(image="shop:2"), [(f"{POD}.containers[shop].image", '"shop:1"', '"shop:2"')]),
        (lambda _, i: i["spec"].update(replicas=5), [("spec.replicas", "3", "5")]),
        (lambda _, i: i["spec"].pop("replicas"), [("spec.replicas", "3", None)]),
        (lambda c, _: c.reverse(), [(f"{POD}.containers", "shop, side", "side, shop")]),
        (
            lambda c, _: c.insert(0, {"name": "new", "image": "new:1"}),
            [(f"{POD}.containers[new].image", None, '"new:1"'), (f"{POD}.containers[new].name", None, '"new"')],
        ),
        (
            lambda c, _: c.pop(), [
                (f"{POD}.containers[side].image", '"side:1"', None), (f"{POD}.containers[side].name", '"side"', None),
                (f"{POD}.containers[side].ports[8080].containerPort", "8080", None),
            ],
        ),
        (
            lambda c, _: c[0]["env"].append({"name": "B", "value": "2"}),
            [(f"{POD}.containers[shop].env[B].name", None, '"B"'), (f"{POD}.containers[shop].env[B].value", None, '"2"')],
        ),
        (lambda c, _: c[0].update(args=["-v", "-x"]), [(f"{POD}.containers[shop].args", '["-v"]', '["-v", "-x"]')]),
        (lambda c, _: c[0].update(env=[]), [
            (f"{POD}.containers[shop].env[A].name", '"A"', None), (f"{POD}.containers[shop].env[A].value", '"1"', None),
        ]),
        (lambda _, i: i["metadata"].update(labels={"example.org/team": "a"}),
         [("metadata.labels[example.org/team]", None, '"a"')]),
        (lambda c, _: c[0].update(securityContext={}), [(f"{POD}.containers[shop].securityContext", None, "{}")]),
        (lambda c, _: c[0].update(stdin=None), [(f"{POD}.containers[shop].stdin", None, "null")]),
    ],
)  # fmt: skip
def test_a_difference_is_told_where_it_is(change: Any, expected: Any) -> None:
    assert told(workload(), edited(change)) == expected


def test_the_same_is_no_difference() -> None:
    assert told(workload(), workload()) == []


def test_what_the_cluster_and_forge_write_is_no_difference() -> None:
    live = workload()
    live["status"] = {"replicas": 3}
    live["metadata"] |= {
        "uid": "1", "resourceVersion": "7", "generation": 3, "creationTimestamp": "x", "managedFields": [{}],
        "namespace": "shop",
        "labels": {"app.kubernetes.io/managed-by": "forge", "forge.dev/environment": "production", "forge.dev/version": "x"},
        "annotations": {"forge.dev/token": "5", "forge.dev/version-id": "1", "deployment.kubernetes.io/revision": "2",
                        "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }  # fmt: skip
    live["spec"]["template"]["metadata"]["labels"] |= {"forge.dev/version": "x", "pod-template-hash": "abc"}
    live["spec"]["template"]["metadata"]["annotations"] = {"forge.dev/version-id": "1"}
    before = copy.deepcopy(live)
    assert told(live, workload()) == []
    assert without_marks(live) == workload()
    assert live == before, "nothing that is given is changed"


def test_a_label_of_the_users_is_one() -> None:
    live = workload()
    live["metadata"]["labels"] = {"team": "shop", "forge.dev/version": "x"}
    assert told(live, workload()) == [("metadata.labels.team", '"shop"', None)]


def test_an_object_that_comes_is_new_and_one_that_stays_the_same() -> None:
    assert change_of("Deployment/shop", None, workload(), "a note").outcome == "new"
    assert change_of("Deployment/shop", workload(), workload()).outcome == "same"
    changed = change_of("Deployment/shop", workload(), workload(replicas=4))
    assert (changed.outcome, changed.fields) == ("changed", (FieldChange("spec.replicas", "3", "4"),))


def secret(**values: str) -> dict[str, Any]:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": data}


def test_a_secret_tells_what_changed_and_never_the_values() -> None:
    before, after = secret(a="hunter2", b="same", c="gone"), secret(a="hunter3", b="same", d="fresh!")
    assert told(before, after) == [
        ("data.a", "(secret, 7 bytes)", "(secret, 7 bytes)"),
        ("data.c", "(secret, 4 bytes)", None),
        ("data.d", None, "(secret, 6 bytes)"),
    ]


def test_a_secret_in_plain_text_is_the_same_secret() -> None:
    plain = {**secret(), "stringData": {"a": "hunter2"}}
    assert told(secret(a="hunter2"), plain) == []
    assert told(None, plain) == [
        ("apiVersion", None, '"v1"'), ("data.a", None, "(secret, 7 bytes)"), ("kind", None, '"Secret"'),
        ("metadata.name", None, '"key"'),
    ]  # fmt: skip


def test_a_secret_that_is_no_base64_is_masked_too() -> None:
    broken = {**secret(), "data": {"a": "not base64!", "b": 5}}
    assert "not base64" not in str(changes(secret(), broken))


@given(st.dictionaries(st.sampled_from("abc"), st.text(min_size=6, max_size=20), max_size=3))
def test_no_value_of_a_secret_is_ever_shown(values: dict[str, str]) -> None:
    wanted = {"kind": "Secret", "metadata": {"name": "x"}, "stringData": values}
    shown = " ".join(str(one.after) for one in changes(None, wanted))
    assert not any(value in shown for value in values.values() if value not in "(secret, 10 bytes) (secret, 20 bytes)")


def test_long_values_are_cut_and_texts_of_many_lines_are_counted() -> None:
    before = {"data": {"one": "x" * 500, "many": "a\nb\n"}}
    after = {"data": {"one": "y" * 500, "many": "a\nc\n"}}
    (many, one) = changes(before, after)
    assert one.after == f"{'y' * LONGEST}..."
    assert (many.before or "").startswith("(4 characters in 3 lines, ")
    assert many.before != many.after


def test_lists_without_names_are_compared_by_place() -> None:
    assert told({"spec": {"rules": [{"a": 1}, {"a": 2}]}}, {"spec": {"rules": [{"a": 1}, {"a": 3}, {"b": 1}]}}) == [
        ("spec.rules[1].a", "2", "3"), ("spec.rules[2].b", None, "1"),
    ]  # fmt: skip


def test_two_entries_of_one_name_are_compared_by_place() -> None:
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert told({"spec": {"ports": ports}}, {"spec": {"ports": [ports[1], ports[1]]}}) == [
        ("spec.ports[0].protocol", '"UDP"', '"TCP"')
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a", "b.c", "port", ""]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(st.sampled_from(["spec", "data", "kind"]), values, max_size=3)


@given(objects)
def test_nothing_differs_from_itself(item: dict[str, Any]) -> None:
    assert changes(item, copy.deepcopy(item)) == ()


@given(objects, objects)
def test_whatever_differs_is_told_in_both_directions(before: dict[str, Any], after: dict[str, Any]) -> None:
    there, back = changes(before, after), changes(after, before)
    if before.get("kind") != "Secret" and after.get("kind") != "Secret":
        assert bool(there) == (before != after)
    assert {(one.path, one.before, one.after) for one in there} == {(one.path, one.after, one.before) for one in back}
