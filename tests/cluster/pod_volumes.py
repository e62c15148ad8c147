"""A pod's volumes as folders of this machine: what ConfigMaps, Secrets and the downward API hold is written there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.api import Object
from cluster.container import Fetch, NotConfigured, contents, field

Files = dict[str, bytes]


async def materialise(pod: Object, ip: str, folder: Path, fetch: Fetch) -> dict[str, Path]:
    """Return a folder for each volume of a pod. Raises NotConfigured for what is not there.

    Written once: a ConfigMap that changes later does not change the files, as with `immutable` ones.
    """
    return {
        volume["name"]: await _volume(volume, pod, ip, folder / "volumes" / volume["name"], fetch)
        for volume in pod["spec"].get("volumes", ())
    }


async def _volume(volume: Object, pod: Object, ip: str, folder: Path, fetch: Fetch) -> Path:
    if "hostPath" in volume:
        path = Path(volume["hostPath"]["path"])
        if volume["hostPath"].get("type") in {"DirectoryOrCreate", "", None} and not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    sources = volume["projected"].get("sources", ()) if "projected" in volume else [volume]
    for source in sources:
        for name, value in (await _files(source, pod, ip, fetch)).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
            path.chmod(0o600 if "secret" in source else 0o644)
    return folder


async def _files(source: Object, pod: Object, ip: str, fetch: Fetch) -> Files:
    if "configMap" in source:
        return await _held("configmaps", source["configMap"].get("name", ""), source["configMap"], fetch)
    if "secret" in source:
        told = source["secret"]
        return await _held("secrets", told.get("secretName") or told.get("name", ""), told, fetch)
    if "downwardAPI" in source:
        items = source["downwardAPI"].get("items", ())
        return {item["path"]: _downward(item, pod, ip).encode() for item in items}
    if "serviceAccountToken" in source:
        told = source["serviceAccountToken"]
        token = await fetch("serviceaccounttokens", told.get("audience", ""))
        return {told["path"]: token["status"]["token"].encode() if token else b""}
    return {}


async def _held(plural: str, name: str, told: Object, fetch: Fetch) -> Files:
    item = await fetch(plural, name)
    if item is None:
        if told.get("optional"):
            return {}
        raise NotConfigured(f'{plural.removesuffix("s")} "{name}" not found')
    found = contents(item)
    if "items" not in told:
        return found
    lacking = [each["key"] for each in told["items"] if each["key"] not in found]
    if lacking and not told.get("optional"):
        raise NotConfigured(f"references non-existent {plural.removesuffix('s')} key: {lacking[0]}")
    return {each["path"]: found[each["key"]] for each in told["items"] if each["key"] in found}


def _downward(item: Object, pod: Object, ip: str) -> str:
    if "fieldRef" not in item:
        return ""
    path = item["fieldRef"]["fieldPath"]
    if path in {"metadata.labels", "metadata.annotations"}:
        held: dict[str, Any] = pod["metadata"].get(path.removeprefix("metadata.")) or {}
        return "".join(f'{key}="{value}"\n' for key, value in sorted(held.items()))
    return field(pod, path, ip)
