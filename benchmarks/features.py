"""What a daily run costs in the features service, by step: from stored bars to the master, in batches of 50.

    .venv/bin/python benchmarks/features.py [SYMBOLS …]        default 272 and 1130, each with 2,000 daily bars

The first run brings every symbol; the daily one brings one new bar a symbol and rates the whole history again, because
a run's rows come whole. `kernel` is part of `rate`: it is what continuing from a saved state would save; `state` is
what it would cost instead (one bar of every symbol, loading and saving included).
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import structlog

from services.features import handlers, staging
from services.features.adapters.adjustments import LakehouseAdjustments
from services.features.adapters.bars import LakehouseBars
from services.features.adapters.calendars import ExchangeCalendars
from services.features.adapters.store import LakehouseFeatures
from services.features.adapters.warm import warm
from services.features.adapters.workspace import RunWorkspace
from services.features.domain import rating
from services.features.domain.ratings.state import RatingState
from services.features.domain.runs import event_rules
from services.features.domain.validation import FeatureConsistencyValidator, FeatureStoreSchema, IngestionValidator
from services.features.staging import Stage
from shared.bars import BarsTable
from shared.events import Event, FileRef, PromotionDecided, RunCandidates, Versions
from shared.paths import Home

BARS = 2_000
BATCH = 50
START = datetime(2022, 1, 1, tzinfo=UTC)
_STEPS = (
    "read bars",
    "rate",
    "  validate bars",
    "  kernel",
    "  check features",
    "stage",
    "merge",
    "own file",
    "export",
    "whole run",
)


def main(counts: list[int]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    warm()
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            _measure(Path(folder), count)


def _measure(folder: Path, count: int) -> None:
    home = Home.at(folder)
    frames = {f"X:S{number:04}": _bars(BARS + 1, number) for number in range(count)}
    for symbol, frame in frames.items():
        BarsTable.open(home.bars_table("1d", symbol)).append(frame.iloc[:-1], run_id="fetched")
    first = _run(home, "first", list(frames), START)
    for symbol, frame in frames.items():
        BarsTable.open(home.bars_table("1d", symbol)).append(frame.iloc[-1:], run_id="fetched")
    daily = _run(home, "daily", list(frames), START + timedelta(days=1))
    print(f"\n{count:,} symbols × {BARS:,} bars{'first':>14}{'daily':>10}{'daily':>14}")
    for step in _STEPS:
        share = daily[step] / daily["whole run"]
        print(f"  {step:20}{first[step]:10.2f} s{daily[step]:8.2f} s{share:10.1%}")
    print(f"  {'state':20}{'':12}{_state(frames):8.2f} s")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MiB")


def _run(home: Home, run_id: str, symbols: list[str], as_of: datetime) -> dict[str, float]:
    """Seconds of each step of one run that reads stored bars, and is promoted."""
    workspace, store = RunWorkspace(home), LakehouseFeatures(home, lambda: as_of)
    stage = Stage(LakehouseBars(home), ExchangeCalendars(), workspace, LakehouseAdjustments(home))
    asked = RunCandidates(candidates=list(symbols), run_id=run_id, as_of=as_of + timedelta(days=1), bars="lakehouse")
    spent: dict[str, float] = dict.fromkeys(_STEPS, 0.0)
    began = time.perf_counter()
    with _timed(spent, workspace, store, stage):
        said = asyncio.run(
            handlers.open_run(
                Event.of(asked, source="benchmark", time=as_of),
                stage=stage,
                clock=lambda: as_of,
                default_exchange=None,
                batch_size=BATCH,
            )
        )
        computed = [event.data for event in said]
        assert not any(one.rejected for one in computed), computed[0].rejected
        decided = PromotionDecided(
            run_id=run_id,
            decision="granted",
            reason="complete",
            coverage=FileRef(path="none", sha256="0" * 64),
            ledger_head="0" * 64,
            base=Versions(features=0, catalog=0),
            catalog_version=0,
            interval="1d",
            rules=event_rules("screener"),
            staged=tuple(one.file for one in computed if one.file is not None),
            symbols=tuple(symbols),
        )
        event = Event.of(decided, source="benchmark", time=as_of)
        asyncio.run(handlers.promote(event, workspace=workspace, store=store, clock=lambda: as_of))
    spent["whole run"] = time.perf_counter() - began
    return spent


@contextmanager
def _timed(spent: dict[str, float], workspace: RunWorkspace, store: LakehouseFeatures, stage: Stage) -> Iterator[None]:
    """Put a stop-watch around each step's own function, and take it off again."""
    watched: list[tuple[Any, str, str]] = [
        (stage.bars, "read", "read bars"),
        (IngestionValidator, "validate", "  validate bars"),
        (rating, "compute_panel", "  kernel"),
        (FeatureStoreSchema, "inspect", "  check features"),
        (FeatureConsistencyValidator, "inspect", "  check features"),
        (staging, "rate", "rate"),
        (workspace, "stage", "stage"),
        (store, "merge", "merge"),
        (workspace, "assemble", "own file"),
        (store, "export", "export"),
    ]
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in watched]
    for owner, name, step in watched:
        wrapped = _watch(getattr(owner, name), spent, step)
        setattr(owner, name, staticmethod(wrapped) if owner is FeatureStoreSchema else wrapped)
    try:
        yield
    finally:
        for owner, name, original in before:
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def _watch(real: Callable[..., Any], spent: dict[str, float], step: str) -> Callable[..., Any]:
    def watched(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*given, **named)
        finally:
            spent[step] += time.perf_counter() - began

    return watched


def _state(frames: dict[str, pd.DataFrame]) -> float:
    """Seconds to load a panel's saved state, to take in one bar of each symbol and to save it again."""
    names = ("open", "high", "low", "close", "volume")
    open_, high, low, close, volume = (np.column_stack([f[name].to_numpy() for f in frames.values()]) for name in names)
    saved = RatingState.from_history(open_[:-1], high[:-1], low[:-1], close[:-1], volume[:-1]).to_bytes()
    began = time.perf_counter()
    state = RatingState.from_bytes(saved)
    state.update(open_[-1], high[-1], low[-1], close[-1], volume[-1])
    state.to_bytes()
    return time.perf_counter() - began


def _bars(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, count)))
    open_ = close * np.exp(random.normal(0, 0.005, count))
    spread = 1 + random.random((2, count)) * 0.01
    index = pd.date_range(end=START, periods=count, freq="D", tz="UTC", name="ts")
    values = {
        "open": open_,
        "high": np.maximum(open_, close) * spread[0],
        "low": np.minimum(open_, close) / spread[1],
        "close": close,
        "volume": random.random(count) * 1e6,
    }
    return pd.DataFrame(values, index=index)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [272, 1_130])
