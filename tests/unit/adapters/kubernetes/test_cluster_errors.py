"""A cluster's refusals in words; and one writer, by a token that only grows."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.errors import Conflict, failure
from forge.adapters.kubernetes.fencing import Fence, marked, token_of
from forge.adapters.kubernetes.naming import TOKEN
from forge.adapters.targets.kubernetes import conflicts
from forge.adapters.targets.kubernetes.conflicts import past_conflicts
from forge.model.errors import DependencyFailed, StaleLease


def refusal(code: int, message: str, asked: str = "create Deployment shop", **rest: Any) -> DependencyFailed:
    return failure(
        code, json.dumps({"kind": "Status", "message": message, "code": code, **rest}).encode(), asked, "cluster c"
    )


FORBIDDEN = (
    'deployments.apps is forbidden: User "forge" cannot create resource "deployments" in API group "apps" '
    'in the namespace "shop"'
)


def test_a_missing_permission_is_told_as_a_verb_on_a_resource() -> None:
    told = refusal(403, FORBIDDEN)
    assert "not allowed to create deployments.apps in namespace shop" in told.message
    assert "docs/kubernetes/permissions.md" in (told.hint or "")
    wide = refusal(
        403, 'nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope'
    )
    assert "list nodes in the cluster" in wide.message


@pytest.mark.parametrize(
    ("code", "message", "kind", "hint"),
    [
        (403, 'pods "a" is forbidden: exceeded quota: small', errors.Refused, "free or raise the ResourceQuota"),
        (403, "unable to create new content in namespace shop because it is being terminated", errors.Refused,
         "the namespace is being deleted"),
        (400, 'admission webhook "x" denied the request: no', errors.Refused, None),
        (422, 'Deployment.apps "shop" is invalid: spec.replicas', errors.Refused, None),
        (404, "deployments.apps not found", errors.NotThere, None),
        (409, "the object has been modified", errors.Conflict, None),
        (410, "too old resource version", errors.Gone, None),
        (401, "Unauthorized", DependencyFailed, "log in to the cluster again"),
        (500, "etcdserver: request timed out", DependencyFailed, "it is tried again"),
        (429, "too many requests", DependencyFailed, "it is tried again"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_kind_and_says_what_to_do(code, message, kind, hint) -> None:
    told = refusal(code, message)
    assert type(told) is kind
    assert message in told.message
    assert "cluster c" in told.message
    if hint is not None:
        assert told.hint == hint


def test_who_owns_a_field_is_named() -> None:
    causes = [{"reason": "FieldManagerConflict", "message": f'conflict with "{who}" using v1', "field": field}
              for who, field in (("team-b", ".data.a"), ("kubectl", ".data.b"), ("team-b", ".data.c"))]  # fmt: skip
    told = refusal(409, "Apply failed with 3 conflicts", details={"causes": causes})
    assert isinstance(told, Conflict)
    assert told.managers == ("team-b", "kubectl")
    assert "team-b, kubectl manages .data.a, .data.b, .data.c" in told.message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b"\xff\xfe", b'{"message": 3}'])
def test_whatever_the_body_is_there_are_words(body) -> None:
    told = failure(502, body, "get ConfigMap a", "cluster c")
    assert told.message.startswith("cluster c: get ConfigMap a: ")


class Shelf:
    """A cluster with one ConfigMap on it, which others may change in between."""

    def __init__(self) -> None:
        self.item: dict[str, Any] | None = None
        self.version = 0
        self.interruptions: list[Any] = []
        self.writes = 0
        self.name = "cluster c"

    async def get(self, _kind: object, _name: str) -> dict[str, Any] | None:
        return None if self.item is None else msgspec.json.decode(msgspec.json.encode(self.item))

    async def create(self, item: dict[str, Any]) -> None:
        self._interrupted()
        if self.item is not None:
            raise Conflict("exists")
        self._put(item)

    async def replace(self, item: dict[str, Any]) -> None:
        self._interrupted()
        if self.item is None or item["metadata"]["resourceVersion"] != self.item["metadata"]["resourceVersion"]:
            raise Conflict("modified")
        self._put(item)

    def _interrupted(self) -> None:
        if self.interruptions:
            self.interruptions.pop(0)()

    def _put(self, item: dict[str, Any]) -> None:
        self.version += 1
        self.writes += 1
        self.item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}

    def by_another(self, token: int) -> None:
        """Let a worker with this token through in between."""
        metadata = {"name": "forge-production", "annotations": {TOKEN: str(token)}}
        self._put({"metadata": metadata})


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_a_token_only_grows_and_is_written_once(shelf) -> None:
    fence = Fence(shelf, "production")
    for token in (3, 3, 3, 5):
        await fence.pass_with(token)
    assert token_of(shelf.item) == 5
    assert shelf.writes == 2
    with pytest.raises(StaleLease, match="production is worked on by a newer worker \\(token 5\\)"):
        await fence.pass_with(4)


async def test_another_worker_is_noticed_by_what_it_wrote(shelf) -> None:
    old, new = Fence(shelf, "production"), Fence(shelf, "production")
    await old.pass_with(1)
    await new.pass_with(2)
    with pytest.raises(StaleLease):
        await old.pass_with(1)
    await new.pass_with(2)


async def test_two_that_come_at_once_leave_the_larger_token(shelf) -> None:
    shelf.interruptions = [lambda: shelf.by_another(9)]
    with pytest.raises(StaleLease):
        await Fence(shelf, "production").pass_with(4)
    assert token_of(shelf.item) == 9
    shelf.interruptions = [lambda: shelf.by_another(10)]
    await Fence(shelf, "production").pass_with(11)
    assert token_of(shelf.item) == 11


async def test_a_record_that_others_change_all_the_time_is_told(shelf) -> None:
    shelf.by_another(1)
    shelf.interruptions = [lambda: shelf.by_another(1)] * 50
    with pytest.raises(DependencyFailed, match="is changed by somebody all the time"):
        await Fence(shelf, "production").pass_with(2)


def test_an_object_of_a_newer_writer_is_not_written() -> None:
    item = {
        "kind": "Service",
        "metadata": {"name": "shop", "annotations": {TOKEN: "7", "kept": "yes"}, "managedFields": [1]},
    }
    with pytest.raises(StaleLease, match="Service shop was written by a newer worker"):
        marked(item, 6)
    mine = marked(item, 8)
    assert mine["metadata"] == {"name": "shop", "annotations": {TOKEN: "8", "kept": "yes"}}
    assert token_of(item) == 7
    assert token_of({"metadata": {"annotations": {TOKEN: "nonsense"}}}) == token_of({}) == -1


async def test_a_change_under_the_hands_is_read_again_and_somebody_elses_field_is_not(monkeypatch) -> None:
    monkeypatch.setattr(conflicts, "PAUSE", 0.0)
    left = [Conflict("modified"), Conflict("modified")]
    done: list[str] = []

    async def change() -> None:
        if left:
            raise left.pop()
        done.append("written")

    await past_conflicts(change)
    assert done == ["written"]
    left = [Conflict("owned", managers=("team-b",))]
    with pytest.raises(Conflict, match="owned"):
        await past_conflicts(change)
    left = [Conflict(f"modified {number}") for number in range(conflicts.ATTEMPTS)]
    with pytest.raises(Conflict, match="modified 0"):
        await past_conflicts(change)
