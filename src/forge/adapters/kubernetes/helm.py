"""Objects of a Helm chart, rendered by `helm template` on this machine: no release is kept in the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from forge.adapters.kubernetes.commands import Output, find_tool, run_tool
from forge.adapters.kubernetes.objects import Object, key_of, mapping
from forge.adapters.paths import inside, near_names
from forge.model.configs import HelmChart
from forge.model.errors import UsageError

_HINT = "install helm; or render the chart in a step before and use `manifests`"
_HOOK = "helm.sh/hook"
_LONGEST_RELEASE = 53
"""Characters that helm allows."""
_NEEDS_FETCHING = "missing in charts/ directory"


async def template(chart: HelmChart, *, namespace: str, base: Path, root: Path, env: Mapping[str, str]) -> Output:
    """Return what a chart renders to. Its folder and its files of values are relative to `base` and stay in `root`.

    Raises UsageError for files that are not there and for what helm complains of; DependencyFailed without helm.
    """
    where = _chart(chart.chart, base, root)
    values = [_file(path, base, root) for path in chart.values]
    helm = find_tool("helm", env, _HINT)
    argv = [helm, "template", release_name(chart), where, "--include-crds"]
    argv += ["--namespace", namespace] if namespace else []
    argv += [word for path in values for word in ("--values", str(path))]
    argv += [word for name, value in chart.settings.items() for word in ("--set", f"{name}={escaped(value)}")]
    try:
        return await run_tool(argv, title=f"helm template {chart.chart}", cwd=base, env=env)
    except UsageError as error:
        if _NEEDS_FETCHING in error.message:
            hint = f"fetch what it is made of in a step before: `helm dependency build {chart.chart}`"
            raise UsageError(error.message, hint=hint) from None
        raise


def release_name(chart: HelmChart) -> str:
    """Return the release's name: the given one, or the chart's, as far as helm allows."""
    name = chart.release or chart.chart.rstrip("/").rpartition("/")[2].partition(":")[0]
    return re.sub(r"[^a-z0-9-]+", "-", name.lower())[:_LONGEST_RELEASE].strip("-") or "release"


def escaped(value: str) -> str:
    """Return a value for `--set` as it is written: a comma would begin another setting. `{a,b}` stays a list."""
    if value.startswith("{") and value.endswith("}"):
        return value
    return value.replace("\\", "\\\\").replace(",", "\\,")


def without_hooks(objects: Iterable[Object]) -> tuple[tuple[Object, ...], tuple[str, ...]]:
    """Return the objects that are applied, and what the others are called: helm runs hooks, an apply does not.

    What installs types stays.
    """
    kept: list[Object] = []
    left: list[str] = []
    for item in objects:
        hook = mapping(item, "metadata", "annotations").get(_HOOK)
        if hook is None or "crd-install" in str(hook):
            kept.append(item)
        else:
            left.append(f"{key_of(item).title} ({hook})")
    return tuple(kept), tuple(left)


def _chart(written: str, base: Path, root: Path) -> str:
    """Return the chart for helm's command line: a folder as a whole path, a reference as it is."""
    if "://" in written:
        return written
    path = inside(root, written, base)
    if path.exists():
        return str(path)
    if written.count("/") == 1 and not written.startswith("."):
        return written  # a chart of a repository that helm knows
    raise UsageError(f"there is no chart `{written}`", hint=near_names(base, f"{written}/Chart.yaml"))


def _file(written: str, base: Path, root: Path) -> Path:
    path = inside(root, written, base)
    if not path.is_file():
        raise UsageError(f"there is no file `{written}` of values", hint=near_names(base, written))
    return path
