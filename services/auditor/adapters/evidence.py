"""What a decision was made on, read back and checked: the artifact that the ledger names, and the bars it rests on."""

from __future__ import annotations

import json

from services.auditor.adapters.ledger_file import FIX, LedgerFile
from services.auditor.adapters.run_files import RunFolders
from services.auditor.domain.coverage import Coverage, read_coverage
from shared.errors import IntegrityError, NotFoundError
from shared.events import Bars, FileRef
from shared.paths import Home


def decided_coverage(home: Home, run_id: str) -> Coverage:
    """The coverage artifact of a run's newest decision.

    Raises NotFoundError for a run that is not decided, IntegrityError when the ledger is broken or the artifact is
    not the one that it names.
    """
    ledger = LedgerFile(home)
    if (broken := ledger.broken()) is not None:
        raise IntegrityError("the ledger is broken", cause=broken, fix=FIX)
    decided = ledger.of_run(run_id, "decided")
    if not decided:
        raise NotFoundError(f"run {run_id} is not decided yet", fix=f"asof show {run_id}")
    ref = FileRef.model_validate(decided[-1].data["coverage"])
    if (wrong := RunFolders(home).wrong_file(ref)) is not None:
        raise IntegrityError("the coverage artifact is not the one that was decided on", cause=wrong, fix=FIX)
    return read_coverage(home.resolve(ref.path).read_bytes(), name=ref.path)


def hydrated_bars(home: Home, run_id: str) -> dict[str, tuple[Bars, ...]]:
    """The stored bars that each `bars-hydrated` event of a run named, by the event's id, as its journal has them.

    Raises IntegrityError for a journal that cannot be read.
    """
    path = home.run(run_id).journal
    if not path.exists():
        return {}
    try:
        # What follows the last line end was being written when its writer died.
        lines = map(json.loads, path.read_bytes().split(b"\n")[:-1])
        return {
            line["id"]: tuple(map(Bars.model_validate, line["data"].get("hydrated", ())))
            for line in lines
            if line.get("stream") == "bars-hydrated"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise IntegrityError(
            f"the journal of run {run_id} cannot be read",
            cause=f"{type(fault).__name__}: {fault}",
            fix="restore outcomes.jsonl from a backup",
        ) from fault
