"""Which symbols of a batch go on from what was kept of them, by this run's as_of, markets, ticks and stored bars."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from services.features.domain.bars_batch import BarsBatch
from services.features.domain.continuing import GoneOn, go_on
from services.features.domain.histories import History, sessions_sha256
from services.features.domain.runs import RunRecord
from services.features.domain.sessions import Market, is_between_sessions, to_stamp
from services.features.ports import BarSource, Histories
from shared.events import Bars, FileRef


class _NothingKept:
    """No histories: every batch is computed from all its bars."""

    program = ""

    def newest(self, interval: str, rules: str) -> int:
        return 0

    def load(self, record: RunRecord, symbols: Sequence[str]) -> tuple[dict[str, History], dict[str, str]]:
        return {}, {}

    def keep(self, staged: FileRef, histories: Mapping[str, History]) -> None:
        return


NOTHING_KEPT: Final = _NothingKept()


@dataclass(frozen=True)
class RunBasis:
    """What each symbol's rows depend on beside its bars, in this run. Calendars are hashed once each."""

    program: str
    record: RunRecord
    markets: Mapping[str, Market]
    calendars: dict[tuple[int, int], str] = field(default_factory=dict)

    def __call__(self, symbol: str, until: int) -> dict[str, str]:
        market, rules = self.markets[symbol], self.record.rules
        key = (id(market.sessions), until)
        if key not in self.calendars:
            self.calendars[key] = sessions_sha256(market.sessions, until)
        return {
            "program": self.program,
            "rules": f"{rules.name} {rules.version}",
            "interval": self.record.interval,
            "time zone": str(market.timezone),
            "session": str(market.session),
            "calendar": self.calendars[key],
            "tick size": repr(self.record.ticks.get(symbol)),
        }


def go_on_from_kept(
    stored: BarSource,
    histories: Histories,
    record: RunRecord,
    wanted: Sequence[Bars],
    basis: RunBasis,
    *,
    adjusted: Collection[str],
) -> GoneOn:
    """The symbols that go on from the feature version that the run continues, rated; and why others cannot."""
    ordered = sorted(wanted, key=lambda bars: bars.symbol)
    kept, back = histories.load(record, [bars.symbol for bars in ordered]) if record.continues else ({}, {})
    frames: dict[str, pd.DataFrame] = {}
    as_of = to_stamp(record.as_of)
    for bars in ordered:
        history = kept.get(bars.symbol)
        if history is None:
            continue
        why = history.differs(basis(bars.symbol, history.until), as_of)
        if bars.symbol in adjusted:
            why = "an adjustment is recorded"
        elif why is None and _is_compared_earlier(record, history, basis.markets[bars.symbol]):
            why = "the screener was read before its last rows"
        if why is None:
            added = stored.added(record.interval, bars, since=history.bars_version, sha256=history.bars_sha256)
            if added is not None:
                frames[bars.symbol] = added
                continue
            why = "its stored bars were revised, or their version is gone"
        back[bars.symbol] = why
    gone_on = go_on(
        {symbol: kept[symbol] for symbol in frames},
        BarsBatch.of(frames),
        versions=versions_of(wanted),
        basis=basis,
        markets=basis.markets,
        ticks=record.ticks,
        rules=record.rules.name,
        as_of=as_of,
        interval=record.interval,
    )
    return GoneOn(gone_on.rated, gone_on.histories, {**back, **gone_on.back})


def _is_compared_earlier(record: RunRecord, history: History, market: Market) -> bool:
    """Whether parity needs a row that is not among the last ones."""
    current = record.current.get(history.symbol)
    if current is None or history.rows == len(history.tail.stamps):
        return False
    date = is_between_sessions(to_stamp(current.observed_at), market)
    return date is not None and date < history.tail.stamps[0]


def versions_of(wanted: Sequence[Bars]) -> dict[str, tuple[int, str]]:
    return {bars.symbol: (bars.table_version, bars.sha256) for bars in wanted}
