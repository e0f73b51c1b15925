"""The features service's handlers on a real house in a folder, without a bus: events in, events out."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from services.features import handlers
from services.features.adapters.adjustments import LakehouseAdjustments
from services.features.adapters.bars import LakehouseBars
from services.features.adapters.calendars import ExchangeCalendars
from services.features.adapters.histories import LakehouseHistories
from services.features.adapters.reader import FeatureReader
from services.features.adapters.store import LakehouseFeatures
from services.features.adapters.workspace import RunWorkspace
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.runs import event_rules
from services.features.domain.validation_features import FEATURES
from services.features.staging import Stage
from shared.bars import BarsTable, Trading
from shared.events import (
    Bars,
    BarsHydrated,
    Event,
    FileRef,
    PromotionDecided,
    RatingsComputed,
    RunCandidates,
    Versions,
)
from shared.paths import Home
from shared.tables import open_table
from tests.unit.features import made

START = datetime(2021, 4, 1, tzinfo=UTC)
CALENDARS = ExchangeCalendars()


class FeaturesHouse:
    def __init__(self, root: Path) -> None:
        self.home = Home.at(root)
        self.now = START
        self.workspace = RunWorkspace(self.home)
        self.adjustments = LakehouseAdjustments(self.home, self.clock)
        self.stage = Stage(
            LakehouseBars(self.home), CALENDARS, self.workspace, self.adjustments, LakehouseHistories(self.home)
        )
        self.store = LakehouseFeatures(self.home, self.clock)

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    # -- what other services do

    def write_bars(self, frames: Mapping[str, pd.DataFrame], *, interval: str = "1d", **told) -> tuple[Bars, ...]:
        """Store bars as the fetcher does, and say so as it says it."""
        said = []
        for symbol, frame in frames.items():
            root = self.home.bars_table(interval, symbol)
            told = {"timezone": "Etc/UTC", "session": "24x7", "calendar": None, **told}
            result = BarsTable.open(root).append(frame, run_id="fetched", trading=Trading(**told))
            info = result.info
            said.append(
                Bars(
                    symbol=symbol,
                    path=self.home.relative(root),
                    table_version=info.version,
                    sha256=info.sha256,
                    rows=info.rows,
                    first_bar=info.first_bar.to_pydatetime(),
                    last_bar=info.last_bar.to_pydatetime(),
                    added=result.added,
                    revised=len(result.revised),
                    **told,
                )
            )
        return tuple(said)

    # -- events

    def open(self, run_id: str = "r1", candidates: Sequence[object] = ("X:A",), *, batch_size: int = 50, **asked):
        """The run's own event through its handler; what it published."""
        data = RunCandidates(candidates=list(candidates), run_id=run_id, **{"as_of": START, **asked})
        event = Event.of(data, source="test", time=START)
        return [
            said.data
            for said in asyncio.run(
                handlers.open_run(
                    event, stage=self.stage, clock=self.clock, default_exchange=None, batch_size=batch_size
                )
            )
        ]

    def hydrated(self, bars: Sequence[Bars], run_id: str = "r1", batch: int = 0, interval: str = "1d"):
        return Event.of(
            BarsHydrated(run_id=run_id, batch=batch, interval=interval, hydrated=tuple(bars)),
            source="fetcher",
            time=START,
        )

    def rate(self, event) -> RatingsComputed | None:
        said = asyncio.run(handlers.rate_batch(event, stage=self.stage, clock=self.clock))
        return said[0].data if said else None

    def decided(self, run_id: str, said: Sequence[RatingsComputed], symbols: Sequence[str] | None = None, **fields):
        files = tuple(one.file for one in said if one.file is not None)
        staged = [one.symbol for each in said for one in each.staged]
        rules = event_rules(fields.pop("rules", "screener"))
        data = PromotionDecided(
            **{
                "run_id": run_id,
                "decision": "granted",
                "reason": "complete",
                "coverage": FileRef(path=f"runs/{run_id}/coverage.json", sha256="0" * 64),
                "ledger_head": hashlib.sha256(run_id.encode()).hexdigest(),
                "base": Versions(features=0, catalog=0),
                "catalog_version": 7,
                "interval": "1d",
                "rules": rules,
                "staged": files,
                "symbols": tuple(sorted(set(staged))) if symbols is None else tuple(symbols),
                **fields,
            }
        )
        return Event.of(data, source="auditor", time=START)

    def promote(self, event):
        """What was published: one `FeaturesPromoted`, or nothing."""
        said = asyncio.run(handlers.promote(event, workspace=self.workspace, store=self.store, clock=self.clock))
        return said[0].data if said else None

    def run(self, run_id: str, frames: Mapping[str, pd.DataFrame], **asked):
        """Open, hydrate, rate and promote; the rating's and the promotion's words."""
        bars = self.write_bars(frames)
        self.open(run_id, list(frames), **asked)
        said = self.rate(self.hydrated(bars, run_id))
        return said, self.promote(self.decided(run_id, [said], rules=asked.get("rules", "screener")))

    # -- what is there afterwards

    def table(self, rules: str = "screener", interval: str = "1d"):
        return open_table(self.home.features_table(interval, rules))

    def matrix(self, **asked) -> pd.DataFrame:
        return FeatureReader(self.home).matrix(**asked)

    def contents(self) -> dict[str, str]:
        """The hash of every file of the house."""
        files = sorted(path for path in self.home.root.rglob("*") if path.is_file())
        return {self.home.relative(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _say(root: Path, bars: Sequence[Bars], run_id: str, barrier, results) -> None:
    house = FeaturesHouse(root)
    barrier.wait()
    results.put(house.rate(house.hydrated(bars, run_id)).model_dump_json())


def said_by_replicas(house: FeaturesHouse, bars: Sequence[Bars], run_id: str) -> set[str]:
    """What three processes say that rate the same batch at once."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    given = (house.home.root, bars, run_id, barrier, results)
    workers = [context.Process(target=_say, args=given) for _ in range(3)]
    for worker in workers:
        worker.start()
    said = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(timeout=30)
    return said


def good(*names: str, count: int = 80, shift: int = 0) -> dict[str, pd.DataFrame]:
    """Sound daily bars up to 2021-03-30, of each name its own; `shift` for others of the same names."""
    return {name: made.bars(count, seed=sum(map(ord, name)) + shift, start="2021-01-10", scale=50.0) for name in names}


def staged(house: FeaturesHouse, said: RatingsComputed) -> pd.DataFrame:
    assert said.file is not None
    return pd.read_parquet(house.home.root / said.file.path)


def holds(matrix: pd.DataFrame, frames: Mapping[str, pd.DataFrame], rules: str = "screener") -> bool:
    """The matrix has exactly these bars' ratings."""
    assert sorted(set(matrix.columns.get_level_values("symbol"))) == sorted(frames)
    for symbol, frame in frames.items():
        expected = TechnicalRatings.compute(frame, rules=rules)
        own = matrix[symbol].loc[frame.index]
        for name in FEATURES:
            assert np.array_equal(own[name], expected[name], equal_nan=True), (symbol, name)
    return True
