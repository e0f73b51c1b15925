"""Stored bars: the house's versioned bar tables."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from services.fetcher.domain.series import Series
from services.fetcher.ports import Compared, Written
from shared.bars import BarsInfo, BarsTable, Trading
from shared.errors import ContractError
from shared.paths import Home

COLUMNS = ("open", "high", "low", "close", "volume")


class LakehouseBars:
    def __init__(self, home: Home) -> None:
        self._home = home

    def last_bar(self, interval: str, symbol: str) -> datetime | None:
        last = self._table(interval, symbol).info().last_bar
        return None if last is None else last.to_pydatetime()

    def compare(self, interval: str, symbol: str, series: Series) -> Compared:
        stored = self._table(interval, symbol).read()
        given = _frame(series)
        common = given.index.intersection(stored.index)
        one = given.loc[common].to_numpy()
        other = stored.loc[common, list(COLUMNS)].to_numpy()
        differs = (one != other) & ~(np.isnan(one) & np.isnan(other))
        return Compared(len(given) - len(common), int(differs.any(axis=1).sum()))

    def stored(self, interval: str, symbol: str) -> Written:
        return self._written(interval, symbol, self._table(interval, symbol).info(), 0, 0)

    def write(self, interval: str, symbol: str, series: Series, *, run_id: str, trading: Trading) -> Written:
        result = self._table(interval, symbol).append(_frame(series), run_id=run_id, trading=trading)
        return self._written(interval, symbol, result.info, result.added, len(result.revised))

    def _written(self, interval: str, symbol: str, info: BarsInfo, added: int, revised: int) -> Written:
        if info.first_bar is None or info.last_bar is None:
            raise ContractError("nothing was written and nothing was stored", symbol=symbol)
        return Written(
            path=self._home.relative(self._home.bars_table(interval, symbol)),
            version=info.version,
            sha256=info.sha256,
            rows=info.rows,
            first_bar=info.first_bar.to_pydatetime(),
            last_bar=info.last_bar.to_pydatetime(),
            added=added,
            revised=revised,
        )

    def _table(self, interval: str, symbol: str) -> BarsTable:
        return BarsTable.open(self._home.bars_table(interval, symbol))


def _frame(series: Series) -> pd.DataFrame:
    index = pd.DatetimeIndex(pd.to_datetime(series.index, unit="s", utc=True), name="ts")
    return pd.DataFrame(series.values, index=index, columns=list(COLUMNS), copy=False)
