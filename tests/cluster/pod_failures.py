"""What a pod or a node can be told to do wrong, by annotations."""

from __future__ import annotations

from cluster.api import Object

FAIL = "forge.test/fail"
"""Of a pod or its template: never-ready, crash-loop, image-error, slow, stuck."""
SECONDS = "forge.test/seconds"
"""Of a pod: how long `slow` takes until its containers are probed; 5 by default."""
LOST = "forge.test/lost"
"""Of a node. true, dead: it and its pods' processes are gone; partitioned: the pods run on, nobody hears of them."""
FAILURES = ("never-ready", "crash-loop", "image-error", "slow", "stuck")
BAD_IMAGES = "forge.test/"
"""Images of this registry do not exist: a way to let one container of several fail."""
CRASH = ["sh", "-c", "echo 'this version cannot start' >&2; exit 3"]


def failure_of(pod: Object) -> str:
    """Return the failure that a pod asks for, or "". Raises ValueError for one that there is not."""
    wanted = str((pod["metadata"].get("annotations") or {}).get(FAIL, ""))
    if wanted and wanted not in FAILURES:
        raise ValueError(f"{FAIL}: {wanted} is none of {', '.join(FAILURES)}")
    return wanted


def slowness_of(pod: Object) -> float:
    """Return the seconds that `slow` takes."""
    return float((pod["metadata"].get("annotations") or {}).get(SECONDS, 5)) if failure_of(pod) == "slow" else 0.0


def image_problem(pod: Object, image: str) -> str:
    """Return why an image cannot be pulled, or ""."""
    if failure_of(pod) == "image-error" or image.startswith(BAD_IMAGES):
        return f'failed to pull image "{image}": not found'
    return ""


def how_lost(node: Object) -> str:
    """Return "", "dead" or "partitioned"."""
    told = str((node["metadata"].get("annotations") or {}).get(LOST, ""))
    return {"": "", "false": "", "true": "dead"}.get(told, told)
