"""Repairs of tables, which are made without the auditor: each is one entry of the ledger, however it gets there."""

from __future__ import annotations

from services.auditor.handlers.desk import Desk


def enter_repairs(desk: Desk) -> None:
    for note, repair in desk.repairs.waiting():
        desk.ledger.append(
            "repaired",
            key=f"repaired:{repair.table}:{repair.version}",
            time=desk.clock(),
            data=repair.model_dump(mode="json"),
        )
        desk.repairs.done(note)
