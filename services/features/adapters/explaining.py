"""Why a symbol was rated as it was: its stored bars, as far as they were known, through the kernel that rates runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from services.features.adapters.adjustments import LakehouseAdjustments
from services.features.adapters.calendars import ExchangeCalendars
from services.features.domain.adjustments import available_with, known_by
from services.features.domain.bars_batch import BarsBatch
from services.features.domain.ratings.explain import Explanation, explain
from services.features.domain.ratings.rules import rules_named
from services.features.domain.sessions import Market, Stamps, available_at, to_stamp
from services.features.domain.validation import Finding, IngestionReport, IngestionValidator
from shared.bars import BarsInfo, BarsTable
from shared.clock import system_clock
from shared.errors import ContractError, NotFoundError
from shared.paths import Home
from shared.symbols import check_symbol

_ALL_THAT_IS_RECORDED = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Promoted:
    """What a version of the feature store has for the explained bar; `same`: RSI and ADX too are to the bit what is
    explained here."""

    version: int
    recommend_ma: float | None
    recommend_other: float | None
    recommend_all: float | None
    same: bool


@dataclass(frozen=True, slots=True)
class StoredExplanation(Explanation):
    """An `Explanation` of a stored bar.

    available_at   since when the bar, and so its rating, is known
    bars_version   of the symbol's stored bars
    warnings       bars that were set aside, splits that were undone, sessions without a bar
    promoted       what the newest promoted version has for this bar; None where it has nothing
    """

    symbol: str
    interval: str
    available_at: pd.Timestamp
    bars_version: int
    warnings: tuple[str, ...]
    promoted: Promoted | None

    def beside(self, version: int, features: Mapping[str, float | None]) -> StoredExplanation:
        """With what that version of the store has."""
        own = {one.name: one.value for vote in self.votes for one in vote.inputs}
        own |= {"recommend_ma": self.recommend_ma, "recommend_other": self.recommend_other}
        own |= {"recommend_all": self.recommend_all}
        same = all(own[name] == value for name, value in features.items())
        ratings = {name: features[name] for name in ("recommend_ma", "recommend_other", "recommend_all")}
        return replace(self, promoted=Promoted(version=version, same=same, **ratings))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a comparison also in words."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["rules"] = self.rules.model_dump(include={"id", "version", "source"})
        plain["promoted"] = None if self.promoted is None else _plain(self.promoted)
        plain["votes"] = [
            _plain(vote)
            | {
                "inputs": [_plain(one) for one in vote.inputs],
                "comparisons": [_plain(one) | {"words": str(one)} for one in vote.comparisons],
            }
            for vote in self.votes
        ]
        return plain

    def to_frame(self) -> pd.DataFrame:
        """A row a vote, by its name: group, vote (null where it is not counted), what was compared, the rule."""
        rows = [(vote.group, vote.vote, "; ".join(map(str, vote.comparisons)), vote.rule) for vote in self.votes]
        index = pd.Index([vote.name for vote in self.votes], name="name")
        frame = pd.DataFrame(rows, index=index, columns=["group", "vote", "compared", "rule"])
        return frame.astype({"vote": "Int64"})


def explain_stored(home: Home, symbol: str, at: int | None, *, interval: str, rules: str) -> StoredExplanation:
    """The newest bar that was known at `at` (microseconds UTC; now when None), without what the store has for it.

    Raises ContractError for a name that is no symbol, for unknown rules or intervals, and where its bars may not be
    rated; NotFoundError where no bar is stored or none was known yet.
    """
    rules_named(rules)
    table = BarsTable.open(home.bars_table(interval, check_symbol(symbol)))
    info = table.info()
    if info.first_bar is None:
        raise NotFoundError(f"no {interval} bars are stored", symbol=symbol, fix="asof run FILE, to fetch them")
    instant = to_stamp(system_clock()) if at is None else at
    bars = BarsBatch.of({symbol: table.read(info.version)})
    market = _market(info)
    closed = available_at(bars.stamps, market, interval)
    report = _checked(home, symbol, bars.rows(closed <= instant), market, interval)
    # A bar that needs a recorded split is not known before the split is.
    known = available_with(closed[closed <= instant], report.batch, report.adjusted.applied)
    rows = np.flatnonzero(report.usable & (known <= instant))
    if not len(rows):
        raise _too_early(symbol, instant, bars, closed)
    last = rows[-1]
    explained = explain(report.bars(symbol), _time(report.batch.stamps[last]), rules)
    return StoredExplanation(
        **{field.name: getattr(explained, field.name) for field in fields(explained)},
        symbol=symbol,
        interval=interval,
        available_at=_time(known[last]),
        bars_version=info.version,
        warnings=tuple(report.warnings.get(symbol, ())),
        promoted=None,
    )


def _checked(home: Home, symbol: str, bars: BarsBatch, market: Market, interval: str) -> IngestionReport:
    _, recorded = LakehouseAdjustments(home).newest()
    validator = IngestionValidator({symbol: market}, {}, interval, known_by(recorded, _ALL_THAT_IS_RECORDED))
    report = validator.validate(bars)
    finding = report.rejected.get(symbol)
    if finding is not None and finding.code != "no_bars":
        raise _unusable(symbol, finding)
    return report


def _market(info: BarsInfo) -> Market:
    trading = info.trading
    sessions = ExchangeCalendars().sessions(trading.calendar) if trading.calendar is not None else None
    return Market(trading.timezone, trading.session, sessions)


def _unusable(symbol: str, finding: Finding) -> ContractError:
    split = f"; if it was a split, asof adjust {symbol} --date DATE --factor NEW/OLD" if finding.code == "toxic" else ""
    return ContractError(
        "its bars cannot be rated",
        symbol=symbol,
        cause=f"{finding.code}: {finding.message}",
        fix=f"ask for an earlier instant{split}",
    )


def _too_early(symbol: str, instant: int, bars: BarsBatch, closed: Stamps) -> NotFoundError:
    return NotFoundError(
        f"no bar of it was known at {_time(instant):%Y-%m-%d %H:%M} UTC",
        symbol=symbol,
        cause=f"the first is of {_time(bars.stamps[0]):%Y-%m-%d}, known since {_time(closed[0]):%Y-%m-%d %H:%M} UTC",
        fix="ask for a later instant",
    )


def _time(stamp: int | np.int64) -> pd.Timestamp:
    return pd.Timestamp(int(stamp), unit="us", tz="UTC")


def _plain(one: Any) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in fields(one)}
