"""From manifests in a folder to the objects of one version, and to the canonical text that is kept of them.

What was rendered is an artifact: a rollback needs no repository, no chart and no registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from forge.adapters.kubernetes.documents import Document, read_documents, read_scalar
from forge.adapters.kubernetes.documents import Path as Steps
from forge.adapters.kubernetes.objects import (
    Object,
    ObjectKey,
    containers,
    entries,
    find_service,
    find_workload,
    in_apply_order,
    key_of,
    mapping,
)
from forge.adapters.paths import inside, near_names
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.errors import InvalidConfiguration, UsageError

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MOST_FILES = 2_000
KUSTOMIZATIONS = frozenset({"kustomization.yaml", "kustomization.yml", "Kustomization"})
CHART = "Chart.yaml"
ARTIFACT_NAME = "manifests.yaml"
_SET_BY_SERVER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object, and where in a file it stands. `path` leads from the document to it: a `List` holds several."""

    item: Object
    document: Document
    path: Steps = ()

    def problem(
        self, code: str, message: str, path: Steps = (), *, hint: str = "", key: bool = False, warning: bool = False
    ) -> Diagnostic:
        """Return a diagnostic that points into the object."""
        return self.document.problem(code, message, (*self.path, *path), hint=hint, key=key, warning=warning)


def read_manifests(paths: Sequence[str], base: Path, root: Path) -> list[Manifest]:
    """Return the objects of files and folders, which are relative to `base` and stay inside of `root`.

    Of a folder the files that end in .yaml, .yml and .json are read, those of its folders are not (as kubectl does).
    Raises UsageError for a path that is not there, InvalidConfiguration with everything that is wrong in the files.
    """
    manifests: list[Manifest] = []
    problems: list[Diagnostic] = []
    for file in _files(paths, base, root):
        name = file.relative_to(root).as_posix()
        try:
            content = file.read_bytes()
        except OSError as wrong:
            raise UsageError(f"`{name}` cannot be read: {wrong.strerror}") from None
        try:
            manifests += manifests_in(content, name)
        except InvalidConfiguration as wrong_file:
            problems += wrong_file.diagnostics
    if problems:
        raise InvalidConfiguration(tuple(problems))
    _refuse_twice(manifests)
    return manifests


def manifests_in(content: str | bytes, name: str) -> list[Manifest]:
    """Return the objects of one file called `name`. Raises InvalidConfiguration with everything that is wrong."""
    found: list[Manifest] = []
    problems: list[Diagnostic] = []
    for document in read_documents(content, name):
        for manifest in _objects(document):
            problems += _misshapen(manifest)
            found.append(manifest)
    if problems:
        raise InvalidConfiguration(tuple(problems))
    return found


def objects_in(content: str | bytes, name: str = ARTIFACT_NAME) -> tuple[Object, ...]:
    """Return the objects of a text that `canonical` wrote, or that a tool rendered."""
    manifests = manifests_in(content, name)
    _refuse_twice(manifests)
    return tuple(manifest.item for manifest in manifests)


def rendered(
    objects: Iterable[Object], *, workload: str = "", service: str = "", images: Mapping[str, str] | None = None
) -> tuple[Object, ...]:
    """Return the objects of one version as they are kept: in the order in which they are applied, without what only a
    server sets, with other images. Raises UsageError for a workload, Service or container that is not there."""
    kept = [_without_state(item) for item in objects]
    main = find_workload(kept, workload)
    find_service(kept, main, service)
    _check_workload(main)
    changed = with_images(main, images or {})
    kept = [changed if item is main else item for item in kept]
    return tuple(in_apply_order(sorted(kept, key=key_of)))


def canonical(objects: Iterable[Object]) -> str:
    """Return objects as one YAML text that is the same for the same objects."""
    texts = [
        yaml.dump(
            _ordered(item), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=4096
        )
        for item in objects
    ]
    return "---\n".join(texts)


def check_front(workload: Object, service: Object | None, router: str) -> None:
    """Raise UsageError for a router that splits the traffic of a Service where the manifests hold none."""
    if service is None and router != "replicas":
        title = key_of(workload).title
        raise UsageError(
            f"the router `{router}` needs a Service, and the manifests hold none that selects the pods of {title}",
            hint="add one, or write `router: replicas` for what nobody asks",
        )


def replicas_of(workload: Object) -> int | None:
    """Return how many replicas a manifest asks for; None: it leaves that to somebody else, or to the number of nodes."""
    count = mapping(workload, "spec").get("replicas")
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def with_images(workload: Object, images: Mapping[str, str]) -> Object:
    """Return a copy of the workload in which the containers of these names run other images.

    Raises UsageError for a name that no container has.
    """
    copy: Object = msgspec.json.decode(msgspec.json.encode(workload))
    by_name = {str(container.get("name")): container for container in containers(copy)}
    for name, image in images.items():
        if name not in by_name:
            title = key_of(workload).title
            raise UsageError(
                f"{title} has no container `{name}` to give the image `{image}`", hint=did_you_mean(name, [*by_name])
            )
        by_name[name]["image"] = image
    return copy


def _files(paths: Sequence[str], base: Path, root: Path) -> list[Path]:
    found: list[Path] = []
    for written in paths:
        path = inside(root, written, base)
        if path.is_dir():
            # A link in a folder must not lead out of the workspace either.
            found += [inside(root, file.name, path) for file in _files_of(path, written)]
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"there is no file or folder `{written}`", hint=near_names(base, written))
    if len(found) > MOST_FILES:
        raise UsageError(f"the manifests are {len(found):,} files; at most {MOST_FILES:,} are read")
    return list(dict.fromkeys(found))


def _files_of(folder: Path, written: str) -> list[Path]:
    names = {entry.name for entry in folder.iterdir()}
    if names & KUSTOMIZATIONS:
        raise UsageError(f"`{written}` is to be built by Kustomize", hint=f"write `kustomize: {written}`")
    if CHART in names:
        raise UsageError(f"`{written}` is a Helm chart", hint=f"write `helm: {{chart: {written}}}`")
    files = sorted(entry for entry in folder.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if not files:
        below = sorted({file.parent.name for file in folder.glob("*/*") if file.suffix in SUFFIXES})
        more = f"; there are some in `{written.rstrip('/')}/{below[0]}`, list it too" if below else ""
        raise UsageError(f"the folder `{written}` holds no manifests", hint=f"files end in .yaml, .yml or .json{more}")
    return files


def _objects(document: Document) -> list[Manifest]:
    data = document.data
    if isinstance(data, dict) and str(data.get("kind", "")).endswith("List") and isinstance(data.get("items"), list):
        return [Manifest(item, document, ("items", index)) for index, item in enumerate(data["items"])]
    return [Manifest(data, document)]


def _misshapen(manifest: Manifest) -> list[Diagnostic]:
    """Return what every object must have and this one has not, at its place."""
    item = manifest.item
    if not isinstance(item, dict):
        hint = "it begins with `apiVersion:` and `kind:`"
        return [manifest.problem("manifest", "this is no Kubernetes object", hint=hint)]
    found: list[Diagnostic] = []
    for key in ("apiVersion", "kind"):
        if not isinstance(item.get(key), str) or not item[key]:
            hint = f"add `{key}:`" if key not in item else ""
            found.append(manifest.problem("manifest", f"an object needs `{key}`, a text", (key,), hint=hint))
    metadata = mapping(item, "metadata")
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        if metadata.get("generateName"):
            message, hint = "an object whose name the server makes up would be a new one each time", "give it a `name:`"
            found.append(manifest.problem("manifest", message, ("metadata", "generateName"), hint=hint, key=True))
        else:
            hint = (
                f'put quotes around it: "{name}"' if isinstance(name, (int, float)) else "add `metadata: {name: ...}`"
            )
            message = "an object needs `metadata.name`, a text"
            found.append(manifest.problem("manifest", message, ("metadata", "name"), hint=hint))
    found += _no_texts(manifest, metadata, ("metadata",), "labels")
    found += _no_texts(manifest, metadata, ("metadata",), "annotations")
    pod = ("spec", "template", "metadata")
    found += _no_texts(manifest, mapping(item, *pod), pod, "labels")
    found += _no_texts(manifest, mapping(item, *pod), pod, "annotations")
    found += _no_text_in_env(manifest)
    return found


def _no_texts(manifest: Manifest, owner: dict[str, Any], path: Steps, key: str) -> list[Diagnostic]:
    """Numbers and booleans where Kubernetes takes only text: the most common slip, and its message the most obscure."""
    return [
        _unquoted(manifest, (*path, key, name), f"`{name}` of `{key}`", value)
        for name, value in mapping(owner, key).items()
        if isinstance(value, (bool, int, float))
    ]


def _no_text_in_env(manifest: Manifest) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for field in ("containers", "initContainers"):
        path: Steps = ("spec", "template", "spec", field)
        for index, container in enumerate(entries(manifest.item, "spec", "template", "spec", field)):
            for number, variable in enumerate(entries(container, "env")):
                value = variable.get("value")
                if isinstance(value, (bool, int, float)):
                    where = (*path, index, "env", number, "value")
                    found.append(_unquoted(manifest, where, f"the variable `{variable.get('name')}`", value))
    return found


def _unquoted(manifest: Manifest, path: Steps, what: str, value: object) -> Diagnostic:
    kind = "a boolean" if isinstance(value, bool) else "a number"
    return manifest.problem("manifest", f"{what} must be text, not {kind}", path, hint="put quotes around it")


def _refuse_twice(manifests: Iterable[Manifest]) -> None:
    first: dict[ObjectKey, Manifest] = {}
    problems: list[Diagnostic] = []
    for manifest in manifests:
        key = key_of(manifest.item)
        before = first.setdefault(key, manifest)
        if before is not manifest:
            other = before.problem("", "")
            message, hint = f"{key.title} is there twice", f"the first is at {other.file}:{other.line}; remove one"
            problems.append(manifest.problem("manifest", message, ("metadata", "name"), hint=hint))
    if problems:
        raise InvalidConfiguration(tuple(problems))


def _without_state(item: Object) -> Object:
    """Return the object without what a server tells of it, as `kubectl get -o yaml` writes it into files."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in _SET_BY_SERVER}
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": metadata}


def _check_workload(workload: Object) -> None:
    """Raise UsageError for a workload whose pods Forge could not tell apart, or that has none."""
    title = key_of(workload).title
    if not any(True for _ in containers(workload)):
        raise UsageError(f"{title} has no containers", hint="they are listed under `spec.template.spec.containers`")
    wanted = mapping(workload, "spec", "selector", "matchLabels")
    labels = mapping(workload, "spec", "template", "metadata", "labels")
    missing = {name: value for name, value in wanted.items() if labels.get(name) != value}
    if missing or not wanted:
        text = ", ".join(f"{name}: {value}" for name, value in missing.items())
        raise UsageError(
            f"the selector of {title} does not fit its own pods" if wanted else f"{title} has no `matchLabels`",
            hint=f"add to `spec.template.metadata.labels`: {text}" if missing else "add `spec.selector.matchLabels`",
        )


def _ordered(item: Object) -> Object:
    first = ("apiVersion", "kind", "metadata")
    rest = [key for key in sorted(item) if key not in first]
    return {key: _sorted(item[key]) for key in (*first, *rest) if key in item}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (key != "name", key))
        return {key: _sorted(value[key]) for key in keys}
    return [_sorted(entry) for entry in value] if isinstance(value, list) else value


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what every reader of YAML takes for the same: no aliases, and quotes around what may be misread."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Each object is whole."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value and _fits_a_block(value) else None
    if not isinstance(read_scalar(value), str) or (not style and not value.isprintable()):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


def _fits_a_block(value: str) -> bool:
    """Blocks keep their text only where every letter is printable and no line ends in spaces."""
    if value[:1].isspace():
        return False
    return all(line == line.rstrip() and line.isprintable() for line in value.split("\n"))


_Dumper.add_representer(str, _text)
