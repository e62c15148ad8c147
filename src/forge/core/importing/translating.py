"""Which of the objects in some files are releases of other tools, and what each comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forge.core.importing.argo_rollouts import translate_rollout
from forge.core.importing.draft import Translation
from forge.core.importing.flagger import translate_canary
from forge.core.importing.reading import Manifest
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

Translator = Callable[[Manifest, Sequence[Manifest]], Translation]
_RELEASES: dict[tuple[str, str], Translator] = {
    ("argoproj.io", "Rollout"): translate_rollout,
    ("flagger.app", "Canary"): translate_canary,
}
_TEMPLATES = {
    ("argoproj.io", "AnalysisTemplate"),
    ("argoproj.io", "ClusterAnalysisTemplate"),
    ("flagger.app", "MetricTemplate"),
}


def translate(manifests: Sequence[Manifest]) -> list[Translation]:
    """Return the translation of each Rollout and Canary. Raises UsageError when there is none."""
    templates = [each for each in manifests if _kind(each) in _TEMPLATES]
    found = [_RELEASES[_kind(each)](each, templates) for each in manifests if _kind(each) in _RELEASES]
    if found:
        return found
    names = sorted({_kind(each)[1] for each in manifests} - {""})
    known = [kind for _, kind in _RELEASES]
    close = next((did_you_mean(name, known) for name in names if did_you_mean(name, known)), "")
    held = f"they hold {', '.join(names)}" if names else "they hold no objects"
    raise UsageError(f"no Rollout of Argo and no Canary of Flagger: {held}", hint=close or "name the file that has it")


def _kind(manifest: Manifest) -> tuple[str, str]:
    data = manifest.data if isinstance(manifest.data, dict) else {}
    return str(data.get("apiVersion", "")).partition("/")[0], str(data.get("kind", ""))
