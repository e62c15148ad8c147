"""What versions share, and what is left of those that are gone: on a cluster that only keeps what is written to it."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from cluster import shops
from forge.adapters.kubernetes.errors import Conflict, NotThere
from forge.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, REPLICA_SET, SERVICE, Kind, known_kind
from forge.adapters.kubernetes.naming import ADOPTED, ENVIRONMENT, TOKEN, annotation, label, labels_of, version_slug
from forge.adapters.kubernetes.objects import split_objects
from forge.adapters.targets.kubernetes.adoption import Adoption, find_adoptable
from forge.adapters.targets.kubernetes.counting import POD_HASH
from forge.adapters.targets.kubernetes.orphans import find_orphans, remove_orphan
from forge.adapters.targets.kubernetes.shared import Record, SharedObjects
from forge.model.errors import DependencyFailed, StaleLease, UsageError

RECORD = "forge-production"


class Shelves:
    """Objects by kind and name; `owned` are fields that others manage, by object and manager."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.owned: dict[str, str] = {}
        self.written: list[str] = []
        self.name, self.namespace = "cluster c", "shop"
        self.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RECORD}})

    def put(self, item: dict[str, Any]) -> dict[str, Any]:
        item = copy.deepcopy(item)
        metadata = item["metadata"]
        metadata |= {"uid": f"u-{metadata['name']}", "resourceVersion": str(len(self.written))}
        self.items[item["kind"], metadata["name"]] = item
        self.written.append(f"{item['kind']}/{metadata['name']}")
        return item

    async def get(self, kind: Kind, name: str, _namespace: str = "") -> dict[str, Any] | None:
        return copy.deepcopy(self.items.get((kind.name, name)))

    async def objects(self, kind: Kind, *, labels: str = "", **_: Any) -> tuple[list[dict[str, Any]], str]:
        wanted = [part.partition("=") for part in labels.split(",") if part]
        found = [item for (name, _), item in self.items.items() if name == kind.name]
        return [item for item in found if all(
            label(item, key) == value if sign else label(item, key) for key, sign, value in wanted)], "1"  # fmt: skip

    async def apply(self, item: dict[str, Any], *, force: bool = True) -> dict[str, Any]:
        manager = self.owned.get(item["metadata"]["name"])
        if manager and not force:
            raise Conflict(f"{manager} manages it", managers=(manager,))
        return self.put(item)

    async def replace(self, item: dict[str, Any]) -> dict[str, Any]:
        return self.put(item)

    async def patch(self, kind: Kind, name: str, change: dict[str, Any], **_: Any) -> dict[str, Any]:
        item = self.items[kind.name, name]
        for place in ("labels", "annotations"):
            merged = {**item["metadata"].get(place, {}), **change["metadata"].get(place, {})}
            item["metadata"][place] = {key: value for key, value in merged.items() if value is not None}
        item["spec"] = {**item.get("spec", {}), **change.get("spec", {})}
        return item

    async def delete(self, kind: Kind, name: str, *, uid: str = "", **_: Any) -> bool:
        item = self.items.get((kind.name, name))
        return bool(item) and item["metadata"]["uid"] == uid and bool(self.items.pop((kind.name, name)))

    async def kind_of(self, item: dict[str, Any]) -> Kind:
        found = known_kind(item["apiVersion"], item["kind"])
        if found is None:
            raise NotThere(f"no {item['kind']}")
        return found

    async def kind_in_group(self, group: str, name: str) -> Kind:
        return await self.kind_of({"apiVersion": {"": "v1", "policy": "policy/v1"}.get(group, group), "kind": name})


@pytest.fixture
def shelves() -> Shelves:
    return Shelves()


@pytest.fixture
def shared(shelves) -> SharedObjects:
    return SharedObjects(shelves, "production", RECORD)


def parts(*extra: dict):
    return split_objects([shops.deployment(), shops.service(), *extra])


def there(shelves: Shelves) -> set[str]:
    return {f"{kind}/{name}" for kind, name in shelves.items} - {f"ConfigMap/{RECORD}"}


async def test_a_version_applies_what_all_use_once(shelves, shared) -> None:
    await shared.apply(parts(shops.config_map("a"), shops.budget(1)), "1.0", 3)
    assert there(shelves) == {"Service/shop", "ConfigMap/a", "PodDisruptionBudget/shop"}
    item = shelves.items["ConfigMap", "a"]
    assert label(item, ENVIRONMENT) == "production"
    assert annotation(item, TOKEN) == "3"
    written = len(shelves.written)
    await shared.apply(parts(shops.config_map("a")), "1.0", 3)
    assert len(shelves.written) == written
    assert (await shared.record()).shared_by == "1.0"
    assert (await shared.record()).workload == "Deployment/shop"


async def test_only_what_no_version_has_any_more_goes(shelves, shared) -> None:
    old, new = parts(shops.config_map("old"), shops.config_map("both")), parts(shops.config_map("both"))
    await shared.apply(old, "1.0", 1)
    await shared.apply(new, "1.1", 1)
    assert await shared.prune([old, new], 1) == ()
    assert [key.name for key in await shared.prune([new], 1)] == ["old"]
    assert there(shelves) == {"Service/shop", "ConfigMap/both"}
    assert await shared.prune([new], 1) == ()


async def test_what_somebody_took_over_is_not_removed(shelves, shared) -> None:
    old = parts(shops.config_map("old"))
    await shared.apply(old, "1.0", 1)
    shelves.items["ConfigMap", "old"]["metadata"]["labels"][ENVIRONMENT] = "staging"
    assert await shared.prune([parts()], 1) == ()
    assert "ConfigMap/old" in there(shelves)


async def test_hands_of_before_are_taken_over_and_others_are_not(shelves, shared) -> None:
    shelves.put(shops.config_map("a", by="hand"))
    shelves.owned = {"a": "kubectl-client-side-apply"}
    await shared.apply(parts(shops.config_map("a", by="forge")), "1.0", 1)
    assert shelves.items["ConfigMap", "a"]["data"] == {"by": "forge"}
    with pytest.raises(Conflict):  # now they edit what is Forge's
        await shared.apply(parts(shops.config_map("a", by="forge")), "1.1", 1)
    shelves.put(shops.config_map("b"))
    shelves.owned = {"b": "argocd-controller"}
    with pytest.raises(Conflict, match="argocd-controller manages it"):
        await shared.apply(parts(shops.config_map("b")), "1.2", 1)


async def test_a_newer_writers_object_stays(shelves, shared) -> None:
    await shared.apply(parts(shops.config_map("a")), "1.0", 1)
    shelves.items["ConfigMap", "a"]["metadata"]["annotations"][TOKEN] = "9"
    with pytest.raises(StaleLease):
        await shared.apply(parts(shops.config_map("a")), "1.1", 2)


async def test_a_record_that_somebody_broke_is_begun_anew(shelves, shared) -> None:
    shelves.items["ConfigMap", RECORD]["data"] = {"record": "{broken"}
    assert await shared.record() == Record()
    await shared.apply(parts(), "1.0", 1)
    assert (await shared.record()).shared_by == "1.0"
    shelves.items["ConfigMap", RECORD]["data"] = {"record": msgspec.json.encode(["x"]).decode()}
    assert await shared.record() == Record()


async def test_orphans_are_told_from_what_is_needed(shelves) -> None:
    for version in ("1.0", "1.1"):
        item = shops.config_map(f"c-{version}")
        item["metadata"]["labels"] = labels_of("production", version_slug(version))
        shelves.put(item)
    orphans = await find_orphans(shelves, {"production": ["1.1"]})
    assert [(orphan.name, orphan.why) for orphan in orphans] == [
        ("c-1.0", f"environment production has no version {version_slug('1.0')}"),
    ]  # fmt: skip
    assert await find_orphans(shelves, {"production": ["1.0", "1.1"]}) == []
    assert await remove_orphan(shelves, orphans[0])
    assert not await remove_orphan(shelves, orphans[0])
    assert len(await find_orphans(shelves, {})) == 1


def live(shelves: Shelves, replicas: int = 2, image: str = "shop:1.0", **status: int) -> dict[str, Any]:
    item = shops.deployment(replicas=replicas, image=image)
    item["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    item["status"] = {"replicas": replicas, "updatedReplicas": replicas, **status}
    put = shelves.put(item)
    owner = [{"uid": put["metadata"]["uid"]}]
    labels, annotations = {"pod-template-hash": "abc"}, {"deployment.kubernetes.io/revision": "1"}
    metadata = {"name": "shop-abc", "ownerReferences": owner, "labels": labels, "annotations": annotations}
    shelves.put({"apiVersion": "apps/v1", "kind": REPLICA_SET.name, "metadata": metadata})
    return put


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.example:5000/team/shop:1.4.2", "1.4.2"),
        ("shop", "adopted-abc"),
        ("shop:latest", "adopted-abc"),
        ("shop@sha256:0123", "adopted-abc"),
        ("shop:2.0@sha256:0123", "2.0"),
    ],
)
async def test_what_is_adopted_is_called_by_its_image(shelves, image, version) -> None:
    live(shelves, image=image)
    found = await find_adoptable(shelves, "production", parts())
    assert (found.version_id, found.replicas) == (version, 2)
    assert annotation(found.manifests[0], POD_HASH) == "abc"
    assert "status" not in found.manifests[0]


async def test_what_cannot_be_adopted_is_told_or_passed_over(shelves) -> None:
    assert await find_adoptable(shelves, "production", parts()) is None
    live(shelves, replicas=0)
    assert await find_adoptable(shelves, "production", parts()) is None
    live(shelves, updatedReplicas=1)
    with pytest.raises(UsageError, match="in the middle of a rollout"):
        await find_adoptable(shelves, "production", parts())
    live(shelves)
    shelves.items.pop(("ReplicaSet", "shop-abc"))
    with pytest.raises(DependencyFailed, match="has no ReplicaSet yet"):
        await find_adoptable(shelves, "production", parts())


async def test_taken_and_left_it_keeps_its_pods_description(shelves) -> None:
    before = live(shelves)["spec"]
    found = await find_adoptable(shelves, "production", parts())
    adoption, adopted = Adoption(shelves, "production"), split_objects([*found.manifests, shops.service()])
    assert await adoption.applies(adopted, None)
    assert await adoption.take(adopted, "1.0", 2, 1) == "shop"
    taken = await shelves.get(DEPLOYMENT, "shop")
    assert taken["spec"] == before
    assert annotation(taken, ADOPTED) == "true"
    services, _ = await shelves.objects(SERVICE)
    assert services[0]["spec"]["selector"] == {"app": "shop", "pod-template-hash": "abc"}
    await adoption.leave(taken, 1)
    left = await shelves.get(DEPLOYMENT, "shop")
    assert left["spec"] == {**before, "replicas": 0}
    assert annotation(left, ADOPTED) == "true"
    assert await adoption.applies(adopted, None)  # it can come back
    shelves.items["ReplicaSet", "shop-abc"]["metadata"]["labels"]["pod-template-hash"] = "changed"
    assert not await adoption.applies(adopted, None)
    assert not await adoption.applies(parts(), None)
    assert (await shelves.get(CONFIG_MAP, RECORD)) is not None
