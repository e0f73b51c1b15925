"""Taking over the ratings of an existing house: its `features_matrix.parquet`.

They passed no gate of this house, so they never enter a table that runs are promoted to. They stand in a table of their
own, which is read with `rules="imported"`; `@prod` of the rules by which this house rates stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from services.features.adapters.rows import LOCAL, SCHEMA, STAMP, by_symbol
from services.features.domain.takeover import IMPORTED, FeaturesTakeover, TakenRatings, take_ratings
from services.features.domain.validation_features import FEATURES
from shared.clock import format_instant, system_clock
from shared.errors import CommitConflict, ContractError, NotFoundError
from shared.files import sha256_file
from shared.paths import Home
from shared.tables import Changes, JsonValue, NewSegment, open_table

FILE = "features_matrix.parquet"
_INTERVAL = "1d"
_ATTEMPTS = 50


@dataclass(frozen=True)
class FeaturesReport:
    """What became of the file. `version`: of the table of imported ratings; None after a dry run."""

    rows: int
    symbols: int
    found: FeaturesTakeover
    version: int | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": FILE,
            "rows": self.rows,
            "symbols": self.symbols,
            "refused": {symbol: list(flaws) for symbol, flaws in self.found.refused.items()},
            "ignored_columns": list(self.found.ignored),
            "applied": self.version is not None,
            "feature_version": self.version,
            "rules": IMPORTED,
        }


def import_features(
    folder: str | Path, home: Home, *, apply: bool = False, clock: Callable[[], datetime] = system_clock
) -> FeaturesReport:
    """Look at an existing house's matrix, and with `apply` take over the symbols in it that are sound, each whole.

    The same file again is a no-op. Raises NotFoundError when the folder has none, ContractError for one that is no
    matrix.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise NotFoundError(f"{folder} has no {FILE}", fix="asof import DIR, the folder with it")
    try:
        matrix = pd.read_parquet(path)
    except (OSError, ValueError) as fault:
        raise ContractError(f"{FILE} is no Parquet file", cause=str(fault)[:500], fix="repair or remove it") from fault
    run_id = f"import-{sha256_file(path)[:24]}"
    found = take_ratings(matrix)
    rows = sum(len(one.stamps) for one in found.taken.values())
    version = _commit(home, run_id, found, rows, clock) if apply and found.taken else None
    return FeaturesReport(rows, len(found.taken), found, version)


def _commit(home: Home, run_id: str, found: FeaturesTakeover, rows: int, clock: Callable[[], datetime]) -> int:
    table = open_table(home.features_table(_INTERVAL, IMPORTED))
    for _ in range(_ATTEMPTS):
        base = table.load()
        if base.meta.get("run_id") == run_id:
            return base.version
        meta: dict[str, JsonValue] = {
            "run_id": run_id,
            "interval": _INTERVAL,
            "rules": IMPORTED,
            "rules_version": run_id.removeprefix("import-"),
            "promoted_at": format_instant(clock()),
            "parent": base.version,
            "symbols": len(found.taken),
            "rows": rows,
            "refused": len(found.refused),
        }
        part = by_symbol([_rows(symbol, one, run_id) for symbol, one in sorted(found.taken.items())])
        changes = Changes(append=(NewSegment(part, keys=tuple(sorted(found.taken))),))
        try:
            return table.commit(base.version, changes, epoch=base.epoch, meta=meta)
        except CommitConflict:
            continue
    raise CommitConflict(
        "the imported ratings could not be stored", cause=f"others were faster {_ATTEMPTS} times", fix="try again"
    )


def _rows(symbol: str, one: TakenRatings, run_id: str) -> pa.Table:
    count = len(one.stamps)
    words = {"symbol": symbol, "source": LOCAL, "rules": IMPORTED, "rules_version": run_id.removeprefix("import-")}
    columns: dict[str, Any] = {name: pa.repeat(word, count).dictionary_encode() for name, word in words.items()}
    columns["ts"], columns["available_at"] = pa.array(one.stamps, STAMP), pa.array(one.known_at, STAMP)
    for place, name in enumerate(FEATURES):
        columns[name] = pa.array(one.values[:, place], pa.float64(), mask=np.isnan(one.values[:, place]))
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
