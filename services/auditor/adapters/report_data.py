"""Gathers what a report shows beyond manifest, artifact and ledger: the ratings that the run staged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.auditor.adapters.report import Parity, RatingChange, render
from services.auditor.domain.chain import Entry
from services.auditor.domain.coverage import Coverage
from services.auditor.domain.manifest import RunManifest
from shared.errors import NotFoundError
from shared.events import FileRef
from shared.paths import Home
from shared.tables import open_table

_SHOWN, _RECENT = 40, 60
_RATING = "recommend_all"


class HtmlReports:
    def __init__(self, home: Home) -> None:
        self._home = home

    def render(self, manifest: RunManifest, coverage: Coverage, entries: Sequence[Entry]) -> bytes:
        return render(
            manifest,
            coverage,
            entries,
            ratings=self._changes(coverage.staged),
            parity=self._parity(manifest, coverage, entries),
        )

    def _parity(self, manifest: RunManifest, coverage: Coverage, entries: Sequence[Entry]) -> Parity | None:
        """What the promotion record says of it; nothing where nothing was promoted or compared."""
        promoted = [entry.data["feature_version"] for entry in entries if entry.kind == "promoted"]
        if not promoted or coverage.rules is None:
            return None
        try:
            record = open_table(self._home.features_table(manifest.interval, coverage.rules.name)).load(promoted[-1])
        except NotFoundError:
            return None  # collected since; the run's other files say what they said
        said = record.meta.get("parity")
        if not isinstance(said, dict) or not said:
            return None
        differences: Any = said["differences"]
        return Parity(str(said["badge"]), {str(symbol): dict(by_name) for symbol, by_name in differences.items()})

    def _changes(self, staged: Iterable[FileRef]) -> list[RatingChange]:
        """The symbols whose newest rating moved most against the bar before, the largest change first."""
        changes: list[RatingChange] = []
        for ref in staged:
            path = self._home.resolve(ref.path)
            if path.is_file():
                changes += _changes_in(path.read_bytes())
        changes.sort(key=lambda change: (-abs(change.now - (change.before or change.now)), change.symbol))
        return changes[:_SHOWN]


def _changes_in(data: bytes) -> list[RatingChange]:
    """From one staged file. A file that the gate found changed may hold anything, which the report says elsewhere."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        instant = _instant(file.schema_arrow)
        if instant is None or not {"symbol", _RATING} <= set(file.schema_arrow.names):
            return []
        wanted = ["symbol", instant, _RATING, *(["source"] if "source" in file.schema_arrow.names else [])]
        table = file.read(columns=wanted)
    except (pa.ArrowException, OSError):
        return []
    frame = table.to_pandas()
    if "source" in frame:
        frame = frame[frame["source"] != "screener"]  # a screener's current value is no bar
    frame = frame.sort_values(["symbol", instant])
    changes = []
    for symbol, rows in frame.groupby("symbol", sort=True, observed=True):
        recent = rows[_RATING].to_numpy(dtype=np.float64)[-_RECENT:]
        rated = recent[~np.isnan(recent)]
        if len(rated):
            before = float(rated[-2]) if len(rated) > 1 else None
            changes.append(RatingChange(str(symbol), float(rated[-1]), before, tuple(map(float, recent))))
    return changes


def _instant(schema: pa.Schema) -> str | None:
    """The column that says which bar a row is."""
    for field in schema:
        if pa.types.is_timestamp(field.type) and field.name != "available_at":
            return str(field.name)
    return None
