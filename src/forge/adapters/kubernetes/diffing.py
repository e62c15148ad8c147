"""What is different between two forms of an object, field by field, in words of people. Pure.

What only the cluster writes, and what Forge marks its objects with, is no difference; values of Secrets are never
shown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from forge.adapters.kubernetes.naming import ENVIRONMENT, MANAGED_BY, VERSION
from forge.adapters.kubernetes.objects import Object, mapping

Outcome = Literal["new", "changed", "same", "removed", "kept", "left", "refused"]
"""`kept`: nothing has it any more, but it holds data. `left`: a router or a person cares for it."""
LONGEST = 120
"""Characters of a value that are shown; what is longer is told by its size."""
_MARKS = "forge.dev/"
_OF_THE_CLUSTER = frozenset(
    {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink", "ownerReferences",
     "namespace"}
)  # fmt: skip
_OF_OTHERS = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision",
     "deprecated.daemonset.template.generation"}
)  # fmt: skip
_LABELS = frozenset({MANAGED_BY, ENVIRONMENT, VERSION, "pod-template-hash"})
_KEYS = ("name", "mountPath", "containerPort", "port", "key", "ip", "host", "type", "path")
"""By what an entry of a list is known, in this order: `containers[shop]`, `ports[8080]`."""
_NOTHING: Any = object()


class FieldChange(msgspec.Struct, frozen=True):
    """One field that is not as it was. None: it is not there."""

    path: str
    before: str | None
    after: str | None


class ObjectChange(msgspec.Struct, frozen=True):
    """What a release does to one object. `note` says in words what else there is to know."""

    object: str
    outcome: Outcome
    fields: tuple[FieldChange, ...] = ()
    note: str = ""


def changes(before: Object | None, after: Object | None) -> tuple[FieldChange, ...]:
    """Return the fields in which two forms of an object differ, in the order of their paths."""
    old, new = (None if item is None else _comparable(item) for item in (before, after))
    return tuple(_differences("", _NOTHING if old is None else old, _NOTHING if new is None else new))


def change_of(title: str, before: Object | None, after: Object, note: str = "") -> ObjectChange:
    """Return what an apply does to an object: `before` is how it is in the cluster, `after` how it will be."""
    if before is None:
        return ObjectChange(title, "new", (), note)
    found = changes(before, after)
    return ObjectChange(title, "changed" if found else "same", found, note)


def without_marks(item: Object) -> Object:
    """Return an object without what Forge and the cluster write into the metadata of it, and of its pods."""
    fresh: Object = json.loads(json.dumps(item))
    fresh.pop("status", None)
    for metadata in (mapping(fresh, "metadata"), mapping(fresh, "spec", "template", "metadata")):
        for key in _OF_THE_CLUSTER & metadata.keys():
            del metadata[key]
        for key, of_forge in (("labels", _LABELS), ("annotations", _OF_OTHERS)):
            own = mapping(metadata, key)
            kept = {name: text for name, text in own.items() if name not in of_forge and not name.startswith(_MARKS)}
            metadata.pop(key, None)
            if kept:
                metadata[key] = kept
    return fresh


def _comparable(item: Object) -> Object:
    fresh = without_marks(item)
    if fresh.get("kind") == "Secret":
        fresh["data"] = _masked(fresh)
        fresh.pop("stringData", None)
    return fresh


def _masked(secret: Object) -> dict[str, _Masked]:
    """Return the values by what they are known to differ by, never by what they are."""
    plain: dict[str, bytes] = {}
    for name, text in mapping(secret, "data").items():
        try:
            plain[name] = base64.b64decode(str(text), validate=True)
        except binascii.Error:
            plain[name] = str(text).encode()
    plain |= {name: str(text).encode() for name, text in mapping(secret, "stringData").items()}
    return {name: _Masked(hashlib.sha256(value).digest(), len(value)) for name, value in plain.items()}


@dataclass(frozen=True, slots=True)
class _Masked:
    """A secret value: two compare as their contents do, and neither shows more than its size."""

    mark: bytes
    size: int


def _differences(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(_joined(path, key), before.get(key, _NOTHING), after.get(key, _NOTHING))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(path, before, after)
    elif before is _NOTHING or after is _NOTHING:
        # A whole that comes or goes is told by its fields, so that what is inside can be read.
        there = after if before is _NOTHING else before
        if isinstance(there, (dict, list)) and there:
            empty: Any = {} if isinstance(there, dict) else []
            yield from _differences(
                path, empty if before is _NOTHING else before, empty if after is _NOTHING else after
            )
        elif _shown(before) != _shown(after):
            yield FieldChange(path, _shown(before), _shown(after))
    elif before != after:
        yield FieldChange(path, _shown(before), _shown(after))


def _of_lists(path: str, before: list[Any], after: list[Any]) -> Iterator[FieldChange]:
    key = _key_of([*before, *after])
    if key is not None and _all_different(before, key) and _all_different(after, key):
        old = {str(entry[key]): entry for entry in before}
        new = {str(entry[key]): entry for entry in after}
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(f"{path}[{name}]", old.get(name, _NOTHING), new.get(name, _NOTHING))
        if not old.keys() ^ new.keys() and list(old) != list(new):
            yield FieldChange(path, ", ".join(old), ", ".join(new))
        return
    if any(isinstance(entry, (dict, list)) for entry in [*before, *after]):
        for index in range(max(len(before), len(after))):
            pair = [entries[index] if index < len(entries) else _NOTHING for entries in (before, after)]
            yield from _differences(f"{path}[{index}]", pair[0], pair[1])
    elif before != after:
        yield FieldChange(path, _shown(before), _shown(after))


def _key_of(entries: list[Any]) -> str | None:
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    return next((key for key in _KEYS if all(isinstance(entry.get(key), (str, int)) for entry in entries)), None)


def _all_different(entries: list[Mapping[str, Any]], key: str) -> bool:
    return len({str(entry[key]) for entry in entries}) == len(entries)


def _joined(path: str, key: str) -> str:
    if any(letter in key for letter in "./[]") or not key:
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str | None:
    if value is _NOTHING:
        return None
    if isinstance(value, _Masked):
        return f"(secret, {value.size} bytes)"
    if isinstance(value, str):
        lines = value.count("\n") + 1
        if len(value) > LONGEST or lines > 1:
            digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            return f"({len(value)} characters in {lines} lines, {digest})" if lines > 1 else f"{value[:LONGEST]}..."
        return json.dumps(value, ensure_ascii=False)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
