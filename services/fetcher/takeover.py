"""Taking over the bars of an existing house: one Parquet file a symbol, or one with a `symbol` column.

    bars.parquet   bars/<SYMBOL>.parquet   bars/<interval>/<SYMBOL>.parquet

Without a folder that names it the interval is one day. A file's name is its symbol, percent-encoded (`PSE%3AJFC`) or
with the one underscore of `PSE_JFC`. Nothing stored is changed: a symbol of which a stored bar differs is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd

from services.fetcher.domain.takeover import flaws_of, read_series
from shared.bars import PRICES, BarsTable
from shared.clock import Clock, system_clock
from shared.errors import ContractError, NotFoundError, TerminalError
from shared.files import sha256_file
from shared.paths import Home
from shared.symbols import check_symbol

DAILY = "1d"


@dataclass
class BarsReport:
    """What became of the bars of one interval. `refused`: symbol or file -> what is wrong with it."""

    interval: str
    applied: bool
    rows: int = 0
    symbols: int = 0
    added: int = 0
    unchanged: int = 0
    refused: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": f"bars {self.interval}",
            "rows": self.rows,
            "symbols": self.symbols,
            "added": self.added,
            "unchanged": self.unchanged,
            "refused": {key: list(flaws) for key, flaws in self.refused.items()},
            "ignored_columns": [],
            "applied": self.applied,
        }


def import_bars(
    folder: str | Path, home: Home, *, apply: bool = False, clock: Clock = system_clock
) -> list[BarsReport]:
    """Look at an existing house's bars, and with `apply` store what is sound. One file at a time is in memory; the same
    file again adds nothing. Raises NotFoundError when the folder has none.
    """
    reports: dict[str, BarsReport] = {}
    for path, interval in _files(Path(folder)):
        report = reports.setdefault(interval, BarsReport(interval, apply))
        try:
            series = read_series(pd.read_parquet(path))
        except (OSError, ValueError) as fault:
            report.refused[path.name] = (f"no Parquet file: {str(fault)[:200]}",)
            continue
        except ContractError as fault:
            report.refused[path.name] = (str(fault),)
            continue
        for name, bars in series.items():
            _take(path, name, bars, home, report, clock())
    if not reports:
        raise NotFoundError(f"{folder} has no bars", fix="put them into bars/ there, one Parquet file a symbol")
    return [reports[interval] for interval in sorted(reports)]


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    if (folder / "bars.parquet").is_file():
        yield folder / "bars.parquet", DAILY
    for path in sorted((folder / "bars").glob("*.parquet")):
        yield path, DAILY
    for path in sorted((folder / "bars").glob("*/*.parquet")):
        yield path, path.parent.name


def _take(path: Path, name: str | None, bars: pd.DataFrame, home: Home, report: BarsReport, now: datetime) -> None:
    report.rows += len(bars)
    try:
        symbol = check_symbol(_named(path) if name is None else name)
        flaws = flaws_of(bars, report.interval, now)
        if flaws:
            report.refused[symbol] = flaws
            return
        table = BarsTable.open(home.bars_table(report.interval, symbol))
        stored = table.read()
        known = bars.index.isin(stored.index)
        if differing := _differing(stored, bars[known]):
            report.refused[symbol] = (f"{differing:,} bars differ from those that are stored",)
            return
        if report.applied and not known.all():
            table.append(bars[~known], run_id=f"import-{sha256_file(path)[:24]}")
    except TerminalError as fault:
        report.refused[name or path.name] = (str(fault),)
        return
    report.symbols += 1
    report.added += int((~known).sum())
    report.unchanged += int(known.sum())


def _named(path: Path) -> str:
    stem = unquote(path.stem)
    return stem.replace("_", ":") if ":" not in stem and stem.count("_") == 1 else stem


def _differing(stored: pd.DataFrame, given: pd.DataFrame) -> int:
    mine = stored.reindex(given.index)[list(PRICES)].to_numpy()
    theirs = given[list(PRICES)].to_numpy()
    same = (mine == theirs) | (pd.isna(mine) & pd.isna(theirs))
    return int((~same.all(axis=1)).sum())
