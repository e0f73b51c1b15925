"""The reading client: files only, so that a backtest needs no service and no Redis.

Every read is of a committed version; nothing here writes. A date or ISO text without a zone is UTC.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import IntegrityError, NotFoundError
from shared.paths import Home, RunPaths

if TYPE_CHECKING:
    import pandas as pd

    from services.catalog import ExchangeCatalog, MetadataCatalog
    from services.features import FeatureReader


class Lakehouse:
    """A house by its folder: `Lakehouse("data")`."""

    def __init__(self, home: str | Path = "data") -> None:
        self.home = Home.at(home)
        if not self.home.root.is_dir():
            raise NotFoundError(
                f"there is no house at {self.home.root}",
                fix="`asof demo` makes one, or set ASOF_HOME to where yours is",
            )

    @cached_property
    def catalog(self) -> MetadataCatalog:
        """Symbols: `get_instrument`, `at`, `join`, `history`, each with `as_of` and `known_at`."""
        from services.catalog import MetadataCatalog

        return MetadataCatalog.open(self.home.symbols_table)

    @cached_property
    def exchanges(self) -> ExchangeCatalog:
        """Exchanges: `get_exchange(exchange, as_of=None)`."""
        from services.catalog import ExchangeCatalog

        return ExchangeCatalog.open(self.home.exchanges_table)

    @cached_property
    def features(self) -> FeatureReader:
        """Ratings: `matrix`, `at` and `explain`, by default of the newest promoted version."""
        from services.features import FeatureReader

        return FeatureReader(self.home)

    def bars(self, symbol: str, *, interval: str = "1d", version: int | None = None) -> pd.DataFrame:
        """A symbol's stored bars: open, high, low, close, volume by UTC date, the newest version or the one named."""
        from shared.bars import BarsTable

        bars = BarsTable.open(self.home.bars_table(interval, symbol)).read(version)
        if bars.empty:
            raise NotFoundError("no bars are stored", symbol=symbol, fix="asof run FILE, to fetch them")
        return bars

    def run(self, run_id: str) -> Run:
        """What one run expected, saw and decided."""
        if not self.home.run(run_id).manifest.is_file():
            raise NotFoundError(f"there is no run {run_id!r}", fix="asof runs")
        return Run(run_id, self.home)

    def runs(self) -> list[str]:
        """The ids of all runs, oldest first."""
        manifests = sorted(self.home.runs.glob("*/manifest.json"), key=lambda path: (path.stat().st_ctime_ns, path))
        return [path.parent.name for path in manifests]


class Run:
    """One run's files, read when asked for."""

    def __init__(self, run_id: str, home: Home) -> None:
        self.run_id = run_id
        self.home = home
        self.paths: RunPaths = home.run(run_id)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Expected symbols, deadline, settings and the versions that the run started from."""
        return self._json(self.paths.manifest)

    @property
    def coverage(self) -> dict[str, Any]:
        """The coverage artifact: every symbol's outcome in every stage, attempts and the two figures."""
        return self._json(self.paths.coverage)

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """This run's entries of the ledger, with their proofs, in order."""
        return [json.loads(line) for line in self._text(self.paths.audit).splitlines()]

    @property
    def metadata(self) -> pd.DataFrame:
        """Exactly the records that this run saw, whatever other runs did."""
        return self._parquet(self.paths.metadata)

    @property
    def features(self) -> pd.DataFrame:
        """Exactly the rows that this run computed, promoted or not."""
        return self._parquet(self.paths.features)

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(self._text(path))
        except json.JSONDecodeError as fault:
            raise IntegrityError(
                f"{path} is no JSON", cause=str(fault), fix=f"asof audit ledger {self.run_id}"
            ) from fault
        assert isinstance(content, dict)
        return content

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as fault:
            raise self._absent(path) from fault

    def _parquet(self, path: Path) -> pd.DataFrame:
        import pandas as pd

        if not path.is_file():
            raise self._absent(path)
        return pd.read_parquet(path)

    def _absent(self, path: Path) -> NotFoundError:
        return NotFoundError(f"run {self.run_id} has no {path.name} yet", fix=f"asof show {self.run_id}")
