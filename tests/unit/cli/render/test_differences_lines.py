"""What a release would change, as people read it."""

from __future__ import annotations

from forge.adapters.kubernetes.diffing import FieldChange, ObjectChange
from forge.cli.render.differences import difference_lines
from forge.cli.render.paint import Paint, strip_ansi
from forge.engine.differences import StepDifferences

CHANGES = (
    ObjectChange("Deployment/shop", "changed", (
        FieldChange("spec.replicas", "2", "3"),
        FieldChange("spec.template.spec.containers[shop].image", '"shop:1"', '"shop:2"'),
        FieldChange("spec.template.spec.containers[shop].env[MODE].value", None, '"live"'),
        FieldChange("spec.paused", "true", None),
    )),
    ObjectChange("Secret/key", "changed", (FieldChange("data.a", "(secret, 7 bytes)", "(secret, 7 bytes)"),)),
    ObjectChange("ConfigMap/new", "new", note="a copy of this version alone"),
    ObjectChange("ConfigMap/lookup", "changed", (FieldChange("data.A", '"9"', '"1"'),), "payroll manages .data.A"),
    ObjectChange("Service/old", "removed", note="when the last version that has it is gone"),
    ObjectChange("PersistentVolumeClaim/data", "kept", note="remove it by hand: data may go with it"),
    ObjectChange("HTTPRoute/shop", "left", note="it is there, and the router alone changes it"),
    ObjectChange("Widget/a", "refused", note="the cluster has no Widget of example.com/v1\x1b[31m"),
    ObjectChange("Service/shop", "same"),
    ObjectChange("ServiceAccount/shop", "same"),
)  # fmt: skip
TOLD = """\

Changes to production (release) on cluster prod, namespace shop; held against 1.0, which serves now:
  ~ Deployment/shop
      ~ spec.replicas: 2 -> 3
      ~ spec.template.spec.containers[shop].image: "shop:1" -> "shop:2"
      + spec.template.spec.containers[shop].env[MODE].value: "live"
      - spec.paused: true
  ~ Secret/key
      ~ data.a: (secret, 7 bytes), of other content
  + ConfigMap/new  a copy of this version alone
  ~ ConfigMap/lookup  payroll manages .data.A
      ~ data.A: "9" -> "1"
  - Service/old  when the last version that has it is gone
  ! PersistentVolumeClaim/data  is not removed: remove it by hand: data may go with it
  = HTTPRoute/shop  is left alone: it is there, and the router alone changes it
  ! Widget/a  would be refused: the cluster has no Widget of example.com/v1
    2 objects stay as before

Changes to staging (release) are not known: the cluster was not reached within 30 s

Changes to first (release) on cluster prod; its first release:
  + Deployment/shop"""


def lines(colour: bool) -> str:
    found = [
        StepDifferences("release", "deploy", "production", "cluster prod", "shop", "1.0", CHANGES),
        StepDifferences("release", "deploy", "staging", problem="the cluster was not reached within 30 s"),
        StepDifferences(
            "release", "deploy", "first", "cluster prod", "", "", (ObjectChange("Deployment/shop", "new"),)
        ),
    ]
    return "\n".join(difference_lines(found, Paint(colour)))


def test_changes_read_as_recorded() -> None:
    assert lines(False) == TOLD


def test_colours_say_nothing_that_words_do_not() -> None:
    assert strip_ansi(lines(True)) == TOLD
    assert "\x1b[" in lines(True)


def test_without_deploys_to_clusters_there_is_nothing_to_tell() -> None:
    assert difference_lines([], Paint(False)) == []
