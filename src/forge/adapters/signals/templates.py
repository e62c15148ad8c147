"""Kinds of error lines: lines that differ only in numbers, names and the like are one kind, told apart by Drain.

One set of kinds serves all versions of an environment, so that a kind has the same text wherever it is written.
A kind's text is that of its first line, with what varies masked; it stays when Drain makes the pattern more
general later, for it is the kind's name: the judge compares versions by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from forge.adapters.signals.log_masking import example, plain, words
from forge.model.traffic import LogTemplate

if TYPE_CHECKING:
    from drain3.drain import Drain

KINDS = 200
"""Kinds that are remembered; then the one that was not seen for longest is forgotten."""
SHOWN = 50
"""Kinds that samples carry: those that were seen last, in any version."""
VERSIONS = 30
"""Versions whose counts are remembered; then the one that wrote nothing for longest is forgotten."""
EXAMPLES = 5
"""Versions whose examples are kept over a restart: those that wrote last."""
RECALLED = 5000
"""Masked lines whose kind is remembered as it was found."""
SIMILAR = 0.65
"""The part of its words that a line shares with its kind: one of three may vary."""
_OPEN = "<*>"


class LogKinds:
    """Sorts error lines into kinds and counts them for each version. The counts of a version never fall."""

    def __init__(self) -> None:
        self._drain = _fresh_drain()
        self._texts: dict[int, str] = {}
        self._order: dict[str, None] = {}
        """The texts of all kinds, the one that was seen last at the end."""
        self._lines: dict[str, dict[str, int]] = {}
        self._examples: dict[str, dict[str, str]] = {}
        self._newest: dict[str, dict[str, str]] = {}
        """Lines that become examples when somebody asks: masking each line that is soon replaced takes long."""
        self._total: dict[str, int] = {}
        self._recalled: dict[str, int] = {}

    def add(self, version: str, line: str, *, shown: str = "") -> str:
        """Count one line of a version; return the text of its kind. `shown`: the line as people are shown it."""
        text = self._kind(" ".join(words(line)))
        self._order.pop(text, None)
        self._order[text] = None
        self.count(version)
        counts = self._lines[version]
        counts[text] = counts.get(text, 0) + 1
        self._newest.setdefault(version, {})[text] = plain(shown or line)
        if len(self._texts) > KINDS:
            self._forget()
        return text

    def count(self, version: str, lines: int = 1) -> None:
        """Count lines of a version whose kind nobody asks for."""
        self._lines[version] = self._lines.pop(version, {})
        self._total[version] = self._total.get(version, 0) + lines
        while len(self._lines) > VERSIONS:
            gone = next(iter(self._lines))
            for kept in (self._lines, self._examples, self._newest, self._total):
                kept.pop(gone, None)

    def _kind(self, masked: str) -> str:
        """Return the text of a masked line's kind; the same line is not looked for twice."""
        number = self._recalled.get(masked)
        if number is None or self._drain.id_to_cluster.get(number) is None:
            cluster, _ = self._drain.add_log_message(masked)
            number = cluster.cluster_id
            if number not in self._texts:
                self._texts[number] = cluster.get_template()
            if len(self._recalled) >= RECALLED:
                self._recalled.clear()
            self._recalled[masked] = number
        else:
            self._drain.id_to_cluster[number]  # it was seen: what was not is forgotten first
        return self._texts[number]

    def _settle(self) -> None:
        for version, newest in self._newest.items():
            known = self._examples.setdefault(version, {})
            for text, line in newest.items():
                known[text] = example(line)
        self._newest = {}

    def total(self, version: str) -> int:
        """Return how many lines of a version were counted."""
        return self._total.get(version, 0)

    def told(self, version: str) -> tuple[LogTemplate, ...]:
        """Return the kinds that a version wrote, the most frequent first.

        They are taken from the same `SHOWN` kinds for every version: what one version shows, another one shows
        too if it ever wrote it.
        """
        self._settle()
        counts, examples = self._lines.get(version, {}), self._examples.get(version, {})
        found = [(counts[text], text) for text in list(self._order)[-SHOWN:] if text in counts]
        return tuple(
            LogTemplate(text, lines, examples.get(text, ""))
            for lines, text in sorted(found, key=lambda one: (-one[0], one[1]))
        )

    def _forget(self) -> None:
        """Drop what Drain has dropped; a text of which another pattern is left stays."""
        self._texts = {number: text for number, text in self._texts.items() if number in self._drain.id_to_cluster}
        self._settle()
        self._recalled = {}
        kept = set(self._texts.values())
        self._order = {text: None for text in self._order if text in kept}
        for version, counts in self._lines.items():
            self._lines[version] = {text: lines for text, lines in counts.items() if text in kept}
        for version, examples in self._examples.items():
            self._examples[version] = {text: one for text, one in examples.items() if text in kept}

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`: patterns as words, counts, and examples of what was seen last."""
        self._settle()
        place = {text: index for index, text in enumerate(self._order)}
        patterns = []
        for number, text in self._texts.items():
            cluster = self._drain.id_to_cluster.get(number)
            if cluster is not None:
                pattern = " ".join(cluster.log_template_tokens)
                patterns.append([place[text], "" if pattern == text else pattern])
        shown = {text: place[text] for text in list(self._order)[-SHOWN:]}
        return {
            "texts": list(self._order),
            "patterns": patterns,
            "lines": {
                version: [[place[text], lines] for text, lines in counts.items()]
                for version, counts in self._lines.items()
            },
            "examples": {
                version: [[shown[text], one] for text, one in self._examples.get(version, {}).items() if text in shown]
                for version in list(self._lines)[-EXAMPLES:]
            },
            "total": self._total,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`; one that does not fit is ignored."""
        try:
            saved = msgspec.convert(state, _Saved)
            texts = saved.texts
            patterns = [(pattern or texts[index], texts[index]) for index, pattern in saved.patterns]
            lines = {name: {texts[index]: count for index, count in kinds} for name, kinds in saved.lines.items()}
            examples = {name: {texts[index]: one for index, one in kinds} for name, kinds in saved.examples.items()}
        except (msgspec.ValidationError, IndexError):
            return
        self._drain, self._texts, self._recalled, self._newest = _fresh_drain(), {}, {}, {}
        for pattern, text in patterns[-KINDS:]:
            self._texts[_learn(self._drain, pattern)] = text
        self._order = dict.fromkeys(texts)
        self._lines, self._examples, self._total = lines, examples, saved.total
        for version in self._total:
            self._lines.setdefault(version, {})


class _Saved(msgspec.Struct):
    texts: list[str] = []
    patterns: list[tuple[int, str]] = []
    lines: dict[str, list[tuple[int, int]]] = {}
    examples: dict[str, list[tuple[int, str]]] = {}
    total: dict[str, int] = {}


def _fresh_drain() -> Drain:
    from drain3.drain import Drain

    # Only the algorithm: Drain3's own persistence would unpickle what it reads.
    return Drain(depth=4, sim_th=SIMILAR, max_children=100, max_clusters=KINDS, param_str=_OPEN)


def _learn(drain: Drain, pattern: str) -> int:
    """Put a known pattern into the tree; return its number."""
    from drain3.drain import LogCluster

    drain.clusters_counter += 1
    cluster = LogCluster(pattern.split(), drain.clusters_counter)
    drain.id_to_cluster[cluster.cluster_id] = cluster
    drain.add_seq_to_prefix_tree(drain.root_node, cluster)
    return cluster.cluster_id
