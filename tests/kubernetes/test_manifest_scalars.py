"""Forge takes a text without quotes for what kubectl takes it for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forge.adapters.kubernetes.documents import read_documents

SCALARS = [
    "true", "True", "yes", "Yes", "YES", "no", "on", "On", "off", "y", "Y", "n", "N", "null", "Null", "~", "", "0", "-7",
    "+7", "1_000", "0644", "0o644", "0x1F", "0b101", "08", "09.5", "1.5", ".5", "1.0", "1e3", "1E3", "1.", "2020-01-01",
    "2020-01-01T10:00:00Z", "1:30", "127.0.0.1", "1.2.3", "100m", "128Mi", "0x", "0_",
    "9223372036854775807", "-0x10", "0777", "12e03", "1.10", "0.1e1", "tRuE", "NULL", "nULL", "123456789012", "1__0",
]  # fmt: skip


def test_scalars_are_read_as_kubectl_reads_them(kubectl: Any, tmp_path: Path) -> None:
    lines = [f"  v{index}: {text}" for index, text in enumerate(SCALARS)]
    manifest = tmp_path / "scalars.yaml"
    manifest.write_text("\n".join(["apiVersion: v1", "kind: ConfigMap", "metadata: {name: a}", "data:", *lines, ""]))
    shown = kubectl.ok("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", manifest)
    theirs = json.loads(shown)["data"]
    (document,) = read_documents(manifest.read_bytes(), "scalars.yaml")
    ours = json.loads(json.dumps(document.data["data"]))
    different = {
        SCALARS[index]: (theirs.get(f"v{index}"), ours[f"v{index}"])
        for index in range(len(SCALARS))
        if (type(theirs.get(f"v{index}")), theirs.get(f"v{index}")) != (type(ours[f"v{index}"]), ours[f"v{index}"])
    }
    assert different == {}
