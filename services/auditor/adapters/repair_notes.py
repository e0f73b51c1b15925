"""Repairs that are not in the ledger yet: a file each, left by `asof audit … --repair` for the next auditor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import ValidationError

from services.auditor.domain.repairs import Repair
from shared.events import explain
from shared.paths import Home

log = structlog.get_logger(__name__)


class RepairNotes:
    def __init__(self, home: Home) -> None:
        self._folder = home.repair_notes

    def waiting(self) -> Iterator[tuple[Path, Repair]]:
        """Each with its note, oldest first. One that cannot be read is kept under another name, and logged."""
        for note in sorted(self._folder.glob("*.json")):
            try:
                repair = Repair.model_validate_json(note.read_bytes())
            except FileNotFoundError:  # another auditor was faster
                continue
            except ValidationError as fault:
                aside = note.with_suffix(".unreadable")
                note.replace(aside)
                log.error("a note of a repair cannot be read", note=str(aside), cause=explain(fault))
            else:
                yield note, repair

    def done(self, note: Path) -> None:
        """The repair is in the ledger."""
        note.unlink(missing_ok=True)
