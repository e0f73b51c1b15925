"""The book of recorded adjustments: one small versioned table, `lakehouse/adjustments`. Nothing in it is changed; a
later record of the same symbol and date takes the place of an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa

from services.features.domain.adjustments import Adjustment
from shared.clock import system_clock
from shared.errors import CommitConflict, NotFoundError
from shared.paths import Home
from shared.tables import Changes, JsonValue, NewSegment, Snapshot, open_table

_STAMP: pa.DataType = pa.timestamp("us", "UTC")
_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        ("symbol", pa.string()),
        ("date", _STAMP),
        ("factor", pa.float64()),  # null: withdrawn
        ("known_at", _STAMP),
        ("recorded_at", _STAMP),
        ("recorded_by", pa.string()),
        ("reason", pa.string()),
    ]
)
_ATTEMPTS: Final = 50


class LakehouseAdjustments:
    """`version`: read this one instead of the newest, as a batch was rated with it (see `Receipt`)."""

    def __init__(self, home: Home, clock: Callable[[], datetime] = system_clock, *, version: int | None = None) -> None:
        self._table = open_table(home.lakehouse / "adjustments")
        self._clock = clock
        self._version = version

    def newest(self) -> tuple[int, tuple[Adjustment, ...]]:
        """The newest version's number, and what stands in it: of a symbol and date the last record."""
        snapshot = self._table.load(self._version)
        return snapshot.version, _standing(snapshot)

    def record(
        self,
        symbol: str,
        date: date,
        factor: float,
        *,
        recorded_by: str,
        reason: str,
        known_at: datetime | None = None,
    ) -> Adjustment:
        """Write one down. `known_at`: the date itself (now for one that is still to come), unless another is given.

        Raises ContractError for what is no adjustment. Recording the same again makes no version.
        """
        now = self._clock()
        day = datetime(date.year, date.month, date.day, tzinfo=UTC)
        adjustment = Adjustment(symbol, day, factor, known_at or min(day, now), now, recorded_by, reason)
        for _ in range(_ATTEMPTS):
            base = self._table.load()
            for one in _standing(base):
                same = (one.symbol, one.date, one.factor) == (symbol, day, factor)
                if same and known_at in (None, one.known_at):
                    return one
            if self._append(base, adjustment, factor):
                return adjustment
        raise _others_were_faster()

    def withdraw(self, symbol: str, date: date, *, recorded_by: str, reason: str) -> None:
        """Runs from now on do without it; what was rated with it stays. Withdrawing again changes nothing.

        Raises NotFoundError for one that was never recorded.
        """
        day = datetime(date.year, date.month, date.day, tzinfo=UTC)
        for _ in range(_ATTEMPTS):
            base = self._table.load()
            last = _last_records(base).get((symbol, day))
            if last is None:
                raise NotFoundError(
                    f"no adjustment of {symbol} at {day:%Y-%m-%d} is recorded", fix="check symbol and date"
                )
            if last["factor"] is None:
                return
            gone = Adjustment(symbol, day, last["factor"], last["known_at"], self._clock(), recorded_by, reason)
            if self._append(base, gone, None):
                return
        raise _others_were_faster()

    def _append(self, base: Snapshot, one: Adjustment, factor: float | None) -> bool:
        row = [one.symbol, one.date, factor, one.known_at, one.recorded_at, one.recorded_by, one.reason]
        arrays = [pa.array([value], field.type) for value, field in zip(row, _SCHEMA, strict=True)]
        changes = Changes(append=(NewSegment(pa.table(arrays, schema=_SCHEMA)),))
        meta: dict[str, JsonValue] = {"recorded_by": one.recorded_by, "symbol": one.symbol}
        try:
            self._table.commit(base.version, changes, epoch=base.epoch, meta=meta)
        except CommitConflict:
            return False
        return True


def _others_were_faster() -> CommitConflict:
    return CommitConflict(
        "the adjustment could not be recorded", cause=f"other writers were faster {_ATTEMPTS} times", fix="try again"
    )


def _standing(snapshot: Snapshot) -> tuple[Adjustment, ...]:
    last = _last_records(snapshot)
    return tuple(Adjustment(**last[key]) for key in sorted(last) if last[key]["factor"] is not None)


def _last_records(snapshot: Snapshot) -> dict[tuple[str, datetime], dict[str, Any]]:
    """By symbol and date; a factor of None is a withdrawn one."""
    rows = snapshot.read(_SCHEMA.names).to_pylist() if snapshot.version else []
    return {(row["symbol"], row["date"]): row for row in rows}
