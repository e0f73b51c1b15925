"""A run's journal as state: which notes count, which came late, and whether the run is open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.notes import Closed, Line, Note, Reopened
from services.auditor.domain.tally import Tally


@dataclass
class Journal:
    """Notes count until the run closes. What comes later waits: it is recorded, and changes nothing by itself."""

    tally: Tally = field(default_factory=Tally)
    late: dict[str, Note] = field(default_factory=dict)
    closed: Closed | None = None
    reopened: Reopened | None = None

    def apply(self, line: Line) -> None:
        if isinstance(line, Closed):
            self._count_late()
            self.closed = line
        elif isinstance(line, Reopened):
            self._count_late()
            self.closed, self.reopened = None, line
            self.tally.reopen(line)
        elif self.closed is None:
            self.tally.add(line)
        elif not self.tally.knows(line.id):
            self.late[line.id] = line

    def fresh(self, notes: Iterable[Note]) -> list[Note]:
        """Those that are not known yet, each once."""
        new: dict[str, Note] = {}
        for note in notes:
            if not self.tally.knows(note.id) and note.id not in self.late:
                new[note.id] = note
        return list(new.values())

    def deadline(self, manifest: RunManifest) -> datetime:
        return manifest.deadline_at if self.reopened is None else self.reopened.deadline_at

    def _count_late(self) -> None:
        for note in self.late.values():
            self.tally.add(note)
        self.late.clear()
