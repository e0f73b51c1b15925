"""A repair of a table, as whoever made it notes it and as it stands in the ledger."""

from __future__ import annotations

from services.auditor.domain.model import Frozen
from shared.events import Instant


class Repair(Frozen):
    """What was given up, and what the table is now: `version` equals `goes_back_to`.

    goes_back_to  None when the newest version was sound all along
    rows_lost     None when a version that cannot be read may have had more
    """

    table: str
    gives_up: tuple[int, ...]
    goes_back_to: int | None
    rows_lost: int | None
    runs: tuple[str, ...]
    version: int
    kept_aside: str
    at: Instant
    by: str
