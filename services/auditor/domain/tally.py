"""What is known of a run: a fold over its notes that does not depend on their order or their repetition.

Of one symbol and stage, a success stands against any failure (its effect exists; a redelivery or a retry may fail
after it), and between two of a kind the later event counts. What the features service says of a symbol is one result
for bars, validation and ratings together: it alone can find that bars which came are unusable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.notes import Note, Reopened
from shared.clock import parse_instant
from shared.events import Stage

_LETTER_STAGE: Mapping[tuple[str, str], Stage] = {
    ("symbol-metadata", "catalog"): "metadata",
    ("symbol-metadata", "auditor"): "metadata",
    ("catalog-updated", "auditor"): "metadata",
    ("bars-hydrated", "auditor"): "bars",
    ("bars-hydrated", "features"): "validation",
    ("ratings-computed", "auditor"): "ratings",
}


class Heard(NamedTuple):
    """What one event said of one symbol. `stage`: where it failed, for a failure. Ordered: the greatest one counts."""

    ok: bool
    time: datetime
    event: str
    stage: Stage
    failure: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] | None = None

    @property
    def rank(self) -> tuple[bool, datetime, str]:
        return self.ok, self.time, self.event


class Attempt(NamedTuple):
    time: datetime
    event: str
    data: Mapping[str, Any]


class File(NamedTuple):
    time: datetime
    event: str
    ref: Mapping[str, Any]


class Tally:
    """The run so far. `add` takes notes in any order; `reopen` asks anew for what failed."""

    def __init__(self) -> None:
        self.metadata: dict[str, Heard] = {}
        self.bars: dict[str, Heard] = {}
        self.rated: dict[str, Heard] = {}
        self.fetched: dict[str, datetime] = {}
        self.attempts: dict[tuple[str, int, int], Attempt] = {}
        self.metadata_files: dict[str, File] = {}
        self.staged_files: dict[str, File] = {}
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.catalog_version: int | None = None
        self.promoted: Mapping[str, Any] | None = None
        self.letters: dict[str, Note] = {}
        self.reopened: list[datetime] = []
        self._asked_again: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self.before: dict[tuple[str, Stage], Heard] = {}
        self._once_failed: set[str] = set()
        self._seen: set[str] = set()

    def add(self, note: Note) -> bool:
        """Take in one note; False when it was known."""
        if note.id in self._seen:
            return False
        self._seen.add(note.id)
        data = note.data
        match note.stream:
            case "symbol-metadata":
                self._symbol_metadata(note, data)
            case "catalog-updated":
                self._catalog_updated(note, data)
            case "bars-hydrated":
                for bars in data.get("hydrated", ()):
                    self._hear(self.bars, bars["symbol"], Heard(True, note.time, note.id, "bars", evidence=bars))
                for symbol, failure in data.get("failures", {}).items():
                    self._hear(self.bars, symbol, Heard(False, note.time, note.id, "bars", failure))
            case "fetch-attempted":
                key = (data["kind"], data["batch"], data["idx"])
                attempt = Attempt(note.time, note.id, data)
                if key not in self.attempts or self.attempts[key][:2] < attempt[:2]:
                    self.attempts[key] = attempt
            case "ratings-computed":
                self._ratings_computed(note, data)
            case "features-promoted":
                self.promoted = data
            case "dead-letters":
                self._dead_letter(note, data)
        return True

    @property
    def round(self) -> int:
        """1, and one more for each time the run was opened again."""
        return 1 + len(self.reopened)

    def knows(self, event_id: str) -> bool:
        return event_id in self._seen

    def reopen(self, mark: Reopened) -> None:
        """Set aside what is asked for again; a failure of it from before `mark.at` does not end it."""
        self.reopened.append(mark.at)
        self._asked_again = frozenset(mark.metadata), frozenset(mark.bars)
        for symbol in mark.metadata:
            self._set_aside(self.metadata, symbol)
        for symbol in mark.bars:
            self._set_aside(self.bars, symbol)
            self._set_aside(self.rated, symbol)

    def pending(self, manifest: RunManifest) -> int:
        """How many ends are still open: one for a symbol's metadata, one for its bars and ratings."""
        expected = manifest.expected_set
        count = 0
        if "metadata" in manifest.stages:
            count += len(expected.difference(self.metadata))
        if "ratings" in manifest.stages:
            count += sum(map(self._bars_may_come, expected.difference(self.rated)))
        elif "bars" in manifest.stages:
            count += len(expected.difference(self.bars))
        return count

    def is_complete(self, manifest: RunManifest) -> bool:
        """Whether nothing is pending. Asked after every batch of events, so what cannot be is seen without a loop."""
        expected = len(manifest.expected)
        if "metadata" in manifest.stages and len(self.metadata) < expected:
            return False
        if "ratings" in manifest.stages and len(self.rated) + len(self._once_failed) < expected:
            return False
        return self.pending(manifest) == 0

    def attempts_known(self, manifest: RunManifest) -> bool:
        """Whether the attempts that were reported account for every symbol that has an outcome in this round.

        They travel apart from the outcomes, so the last of them may come a moment after the last outcome.
        """
        kinds: list[tuple[str, Mapping[str, Heard], frozenset[str]]] = []
        if "metadata" in manifest.stages:
            kinds.append(("metadata", self.metadata, self._asked_again[0]))
        if "bars" in manifest.stages and manifest.bars == "hydrate":
            kinds.append(("bars", self.bars, self._asked_again[1]))
        return all(self._accounted(kind, heard, asked or manifest.expected) for kind, heard, asked in kinds)

    def _accounted(self, kind: str, heard: Mapping[str, Heard], asked: Collection[str]) -> bool:
        made = [one.data for key, one in self.attempts.items() if key[0] == kind and self._is_of_this_round(one)]
        named = {symbol for data in made for symbol in data.get("failures", {})}
        fetched = sum(data["fetched"] for data in made)
        ended = [heard[symbol] for symbol in asked if symbol in heard]
        failed = sum(symbol in heard and not heard[symbol].ok and symbol in named for symbol in asked)
        return bool(fetched + failed >= len(ended))

    def _is_of_this_round(self, attempt: Attempt) -> bool:
        return not self.reopened or parse_instant(attempt.data["started_at"]) >= self.reopened[-1]

    def failed(self, manifest: RunManifest) -> bool:
        """True when any expected symbol has failed anywhere: what ends a strict run."""
        tables = (self.metadata, self.bars, self.rated)
        return bool(manifest.malformed) or any(
            symbol in manifest.expected_set and any(symbol in table and not table[symbol].ok for table in tables)
            for symbol in self._once_failed
        )

    def rated_with(self, expected: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """The evidence of each symbol that was staged: its file, its rules, the hash of its bars."""
        heard = ((symbol, self.rated.get(symbol)) for symbol in expected)
        return {symbol: one.evidence for symbol, one in heard if one is not None and one.ok and one.evidence}

    def attempts_of(self, kind: str, symbol: str) -> list[Mapping[str, Any]]:
        """The failures of a symbol in each attempt at it, in order."""
        tried = sorted((key, attempt) for key, attempt in self.attempts.items() if key[0] == kind)
        return [attempt.data["failures"][symbol] for _, attempt in tried if symbol in attempt.data.get("failures", {})]

    def _bars_may_come(self, symbol: str) -> bool:
        heard = self.bars.get(symbol)
        return heard is None or heard.ok

    def _symbol_metadata(self, note: Note, data: Mapping[str, Any]) -> None:
        symbol = data["symbol"]
        if failure := data.get("failure"):
            self._hear(self.metadata, symbol, Heard(False, note.time, note.id, "metadata", failure))
        else:
            self.fetched[symbol] = max(note.time, self.fetched.get(symbol, note.time))

    def _catalog_updated(self, note: Note, data: Mapping[str, Any]) -> None:
        for group in ("inserted", "changed", "unchanged"):
            for symbol in data.get(group, ()):
                self._hear(
                    self.metadata, symbol, Heard(True, note.time, note.id, "metadata", evidence={"catalog": group})
                )
        for symbol, failure in data.get("rejected", {}).items():
            self._hear(self.metadata, symbol, Heard(False, note.time, note.id, "metadata", failure))
        self.catalog_version = max(data["catalog_version"], self.catalog_version or 0)
        self._file(self.metadata_files, note, data.get("metadata"))

    def _ratings_computed(self, note: Note, data: Mapping[str, Any]) -> None:
        path = (data.get("file") or {}).get("path")
        for staged in data.get("staged", ()):
            evidence = {**staged, "file": path, "rules": data["rules"]}
            self._hear(self.rated, staged["symbol"], Heard(True, note.time, note.id, "ratings", evidence=evidence))
        for symbol, rejected in data.get("rejected", {}).items():
            heard = Heard(False, note.time, note.id, rejected["stage"], rejected["failure"], rejected.get("quarantine"))
            self._hear(self.rated, symbol, heard)
        for symbol, warnings in data.get("warnings", {}).items():
            self.warnings[symbol] = tuple(sorted({*self.warnings.get(symbol, ()), *warnings}))
        self._file(self.staged_files, note, data.get("file"))

    def _dead_letter(self, note: Note, data: Mapping[str, Any]) -> None:
        self.letters[note.id] = note
        stage = _LETTER_STAGE.get((data["origin"], data["group"]))
        if data["origin"] == "fetch-tasks":
            stage = "bars" if data.get("kind") == "bars" else "metadata"
        if stage is None:
            return
        failure = {
            "code": "dead_letter",
            "message": f"{data['group']} could not apply {data['origin']} {data['entry_id']}: "
            f"{data['error']['message']}",
            "retryable": False,
        }
        table = {"metadata": self.metadata, "bars": self.bars}.get(stage, self.rated)
        for symbol in data["symbols"]:
            self._hear(table, symbol, Heard(False, note.time, note.id, stage, failure))

    def _hear(self, table: dict[str, Heard], symbol: str, heard: Heard) -> None:
        if not heard.ok:
            self._once_failed.add(symbol)
        if not heard.ok and self.reopened and heard.time < self.reopened[-1]:
            again = self._asked_again[0] if table is self.metadata else self._asked_again[1]
            if symbol in again:
                self._remember(symbol, heard)
                return
        known = table.get(symbol)
        if known is None or known.rank < heard.rank:
            table[symbol] = heard

    def _set_aside(self, table: dict[str, Heard], symbol: str) -> None:
        heard = table.pop(symbol, None)
        if heard is not None and not heard.ok:
            self._remember(symbol, heard)

    def _remember(self, symbol: str, heard: Heard) -> None:
        known = self.before.get((symbol, heard.stage))
        if known is None or known.rank < heard.rank:
            self.before[symbol, heard.stage] = heard

    def _file(self, files: dict[str, File], note: Note, ref: Mapping[str, Any] | None) -> None:
        if ref is None:
            return
        file = File(note.time, note.id, ref)
        if ref["path"] not in files or files[ref["path"]][:2] < file[:2]:
            files[ref["path"]] = file


def fold(notes: Iterable[Note]) -> Tally:
    tally = Tally()
    for note in notes:
        tally.add(note)
    return tally
