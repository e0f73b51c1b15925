"""Stored bars: the house's versioned bar tables, read as the exact versions that an event or a run names."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from services.features.domain.bars_batch import BarsBatch
from shared.bars import BarsTable
from shared.errors import IntegrityError, PipelineError, TerminalError
from shared.events import Bars
from shared.paths import Home


class LakehouseBars:
    def __init__(self, home: Home) -> None:
        self._home = home

    def read(self, interval: str, wanted: Sequence[Bars]) -> tuple[BarsBatch, dict[str, PipelineError]]:
        frames: dict[str, pd.DataFrame] = {}
        faults: dict[str, PipelineError] = {}
        for bars in sorted(wanted, key=lambda one: one.symbol):
            try:
                table = BarsTable.open(self._home.bars_table(interval, bars.symbol))
                info = table.info(bars.table_version)
                if info.sha256 != bars.sha256:
                    raise IntegrityError(
                        f"stored bars, version {bars.table_version}, are not those that were announced",
                        cause=f"content {info.sha256[:12]}…, announced was {bars.sha256[:12]}…",
                        fix="asof audit bars",
                    )
                frames[bars.symbol] = table.read(bars.table_version)
            except TerminalError as fault:
                faults[bars.symbol] = fault
        return BarsBatch.of(frames), faults

    def added(self, interval: str, bars: Bars, *, since: int, sha256: str) -> pd.DataFrame | None:
        table = BarsTable.open(self._home.bars_table(interval, bars.symbol))
        try:
            if table.info(bars.table_version).sha256 != bars.sha256:
                return None
            return table.added(bars.table_version, since=since, sha256=sha256)
        except TerminalError:
            return None  # whoever reads the whole of it says what is wrong

    def newest(self, interval: str, symbols: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
        versions: dict[str, int] = {}
        unreadable: dict[str, str] = {}
        for symbol in symbols:
            try:
                version = BarsTable.open(self._home.bars_table(interval, symbol)).info().version
            except IntegrityError as fault:
                unreadable[symbol] = str(fault)
            else:
                if version:
                    versions[symbol] = version
        return versions, unreadable

    def pinned(self, interval: str, symbol: str, version: int) -> Bars:
        root = self._home.bars_table(interval, symbol)
        info = BarsTable.open(root).info(version)
        if info.first_bar is None or info.last_bar is None:
            raise IntegrityError("a pinned version of its bars is empty", symbol=symbol, fix="asof audit bars")
        return Bars(
            symbol=symbol,
            path=self._home.relative(root),
            table_version=version,
            sha256=info.sha256,
            rows=info.rows,
            first_bar=info.first_bar.to_pydatetime(),
            last_bar=info.last_bar.to_pydatetime(),
            added=0,
            timezone=info.trading.timezone,
            session=info.trading.session,
            calendar=info.trading.calendar,
        )
