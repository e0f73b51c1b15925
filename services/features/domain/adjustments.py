"""Recorded adjustments: the one way in which a symbol passes that moved as no market moves.

A split is recorded as (symbol, date, factor): from the date on, `factor` new prices are one old price. Ratings know no
scale, so the bars from the date on are brought to the scale of those before it, and not the other way round: every
row before the date stays, to the bit, what it was when nobody knew of the split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from services.features.domain.bars_batch import VALUES, Array, BarsBatch, Mask
from services.features.domain.sessions import Stamps, date_text, to_stamp
from shared.errors import ContractError
from shared.symbols import check_symbol

_VOLUME: Final = VALUES.index("volume")
_CLOSE: Final = VALUES.index("close")


@dataclass(frozen=True, slots=True)
class Adjustment:
    """From the bar of `date` on, prices stand `factor` times higher for the same thing: 16 for a reverse split of 16
    shares into one, 0.25 for a split of one into four.

    date         00:00 UTC of the first trading date on the new scale
    known_at     the instant since when anybody could know it: a rating that needs it is not known before
    recorded_at  when it was recorded here, by whom and why
    """

    symbol: str
    date: datetime
    factor: float
    known_at: datetime
    recorded_at: datetime
    recorded_by: str
    reason: str

    def __post_init__(self) -> None:
        check_symbol(self.symbol)
        if not (math.isfinite(self.factor) and self.factor > 0 and self.factor != 1):
            raise ContractError(
                f"{self.factor!r} is no factor of a split",
                symbol=self.symbol,
                fix="give new price over old price: 16 for a reverse split of 16 into 1, 0.25 for a split of 1 into 4",
            )
        for name in ("date", "known_at", "recorded_at"):
            if getattr(self, name).tzinfo is None:
                raise ContractError(f"{name} of an adjustment has no time zone", symbol=self.symbol, fix="give UTC")
        if self.known_at > self.recorded_at:
            raise ContractError(
                "an adjustment cannot be known later than it was recorded",
                symbol=self.symbol,
                cause=f"known_at {self.known_at.isoformat()}, recorded at {self.recorded_at.isoformat()}",
                fix="record it when it is known",
            )
        if not self.reason.strip() or not self.recorded_by.strip():
            raise ContractError(
                "an adjustment needs a reason and the name of who records it", symbol=self.symbol, fix="give both"
            )

    @property
    def words(self) -> str:
        return f"{date_text(to_stamp(self.date))} × {self.factor:g} ({self.reason}; recorded by {self.recorded_by})"


@dataclass(frozen=True)
class Adjusted:
    """A batch on one scale a symbol.

    values    `[n, 5]`: the batch's values after every adjustment that applies
    applied   by symbol, in order of date
    ignored   by symbol: adjustments that would make the move at their date larger. The bars have it already.
    """

    values: Array
    applied: Mapping[str, tuple[Adjustment, ...]]
    ignored: Mapping[str, tuple[Adjustment, ...]]

    def warnings(self) -> dict[str, tuple[str, ...]]:
        said = {symbol: tuple(f"adjusted: {one.words}" for one in ones) for symbol, ones in self.applied.items()}
        for symbol, ones in self.ignored.items():
            texts = (f"recorded adjustment not used, the bars do not need it: {one.words}" for one in ones)
            said[symbol] = (*said.get(symbol, ()), *texts)
        return said


def known_by(adjustments: Iterable[Adjustment], as_of: int) -> dict[str, tuple[Adjustment, ...]]:
    """By symbol, in order of date, those that a run as of that instant (microseconds UTC) may know."""
    known: dict[str, list[Adjustment]] = {}
    for one in sorted(adjustments, key=lambda one: (one.symbol, one.date)):
        if to_stamp(one.known_at) <= as_of:
            known.setdefault(one.symbol, []).append(one)
    return {symbol: tuple(ones) for symbol, ones in known.items()}


def adjust(batch: BarsBatch, usable: Mask, adjustments: Mapping[str, Sequence[Adjustment]]) -> Adjusted:
    """The batch's values with every adjustment that its own bars call for. `usable[n]`: bars whose closes count."""
    values = batch.values
    applied: dict[str, tuple[Adjustment, ...]] = {}
    ignored: dict[str, tuple[Adjustment, ...]] = {}
    for code, symbol in enumerate(batch.symbols):
        recorded = adjustments.get(symbol, ())
        if not recorded:
            continue
        rows = np.flatnonzero(batch.codes == code)
        stamps, closes = batch.stamps[rows], batch.values[rows, _CLOSE]
        factor = np.ones(len(rows))
        for one in recorded:
            move = _move(stamps[usable[rows]], closes[usable[rows]], to_stamp(one.date))
            if move is None:
                continue
            if abs(math.log(move / one.factor)) < abs(math.log(move)):
                factor[stamps >= to_stamp(one.date)] *= one.factor
                applied[symbol] = (*applied.get(symbol, ()), one)
            else:
                ignored[symbol] = (*ignored.get(symbol, ()), one)
        if symbol in applied:
            if values is batch.values:
                values = batch.values.copy()
            values[rows, :_VOLUME] /= factor[:, None]
            values[rows, _VOLUME] *= factor
    return Adjusted(values, applied, ignored)


def available_with(known_at: Stamps, batch: BarsBatch, applied: Mapping[str, Sequence[Adjustment]]) -> Stamps:
    """When each row is known: not before what it was adjusted by."""
    later = known_at.copy()
    for code, symbol in enumerate(batch.symbols):
        for one in applied.get(symbol, ()):
            rows = (batch.codes == code) & (batch.stamps >= to_stamp(one.date))
            later[rows] = np.maximum(later[rows], to_stamp(one.known_at))
    return later


def _move(stamps: Stamps, closes: Array, date: int) -> float | None:
    """The close of the first bar from `date` on over the last before it; None where one is missing or no price."""
    before, after = closes[stamps < date], closes[stamps >= date]
    if len(before) == 0 or len(after) == 0:
        return None
    move = float(after[0]) / float(before[-1]) if before[-1] > 0 else math.nan
    return move if math.isfinite(move) and move > 0 else None
