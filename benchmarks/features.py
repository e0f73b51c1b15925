"""What a daily run costs in the features service, by step: from stored bars to the master, in batches of 50.

    .venv/bin/python benchmarks/features.py [SYMBOLS …]     default 272 and 1130; BARS=2000 daily bars each

The first run brings every symbol. `daily` brings one new bar a symbol and goes on from what was kept; `whole` brings
the next one and computes the whole history, as a run in doubt does. `ratings stage` is all that lies between the stored
bars and `ratings-computed`. Behind the seconds of all three: how many times `daily` goes into `whole`, and the seconds
of processor time of both.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from services.features.adapters.histories import LakehouseHistories
from services.features.adapters.store import LakehouseFeatures
from services.features.adapters.warm import warm
from services.features.adapters.workspace import RunWorkspace
from services.features.domain.ratings.state import RatingState
from services.features.domain.runs import event_rules
from services.features.domain.validation import FeatureConsistencyValidator, FeatureStoreSchema, IngestionValidator
from services.features.going_on import NOTHING_KEPT
from services.features.staging import Stage
from shared.bars import BarsTable
from shared.events import Event, FileRef, PromotionDecided, RunCandidates, Versions
from shared.paths import Home

BARS = int(os.environ.get("BARS", "2000"))
BATCH = 50
START = datetime(2022, 1, 1, tzinfo=UTC)
_STEPS = (
    "ratings stage",
    "  read bars",
    "  go on",
    "  rate",
    "    validate bars",
    "    kernel",
    "    check features",
    "  write",
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
    frames = {f"X:S{number:04}": made_bars(BARS + 2, number) for number in range(count)}
    for symbol, frame in frames.items():
        BarsTable.open(home.bars_table("1d", symbol)).append(frame.iloc[:BARS], run_id="fetched")
    runs = [_run(home, "first", list(frames), START)]
    for day, name in ((1, "daily"), (2, "whole")):
        for symbol, frame in frames.items():
            BarsTable.open(home.bars_table("1d", symbol)).append(
                frame.iloc[BARS + day - 1 : BARS + day], run_id="fetched"
            )
        runs.append(_run(home, name, list(frames), START + timedelta(days=day), goes_on=name == "daily"))
    _, daily, whole = runs
    print(f"\n{count:,} symbols × {BARS:,} bars{'first':>14}{'daily':>10}{'whole':>10}{'ratio':>9}{'processor':>18}")
    for step in _STEPS:
        ratio = whole[step].elapsed / (daily[step].elapsed or 1e-9)
        times = "".join(f"{run[step].elapsed:8.2f} s" for run in runs)
        print(f"  {step:20}{times}{ratio:8.1f}×{daily[step].processor:9.2f} s{whole[step].processor:7.2f} s")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MiB")


@dataclass
class _Spent:
    elapsed: float = 0.0
    processor: float = 0.0


def _run(home: Home, run_id: str, symbols: list[str], as_of: datetime, *, goes_on: bool = True) -> dict[str, _Spent]:
    """Seconds of each step of one run that reads stored bars, and is promoted."""
    workspace, store = RunWorkspace(home), LakehouseFeatures(home, lambda: as_of)
    histories = LakehouseHistories(home) if goes_on else NOTHING_KEPT
    stage = Stage(LakehouseBars(home), ExchangeCalendars(), workspace, LakehouseAdjustments(home), histories)
    asked = RunCandidates(candidates=list(symbols), run_id=run_id, as_of=as_of + timedelta(days=1), bars="lakehouse")
    spent = {step: _Spent() for step in _STEPS}
    with _timed(spent, workspace, store, stage), _clock(spent["whole run"]):
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
    return spent


@contextmanager
def _clock(spent: _Spent) -> Iterator[None]:
    elapsed, processor = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        spent.elapsed += time.perf_counter() - elapsed
        spent.processor += time.process_time() - processor


@contextmanager
def _timed(spent: dict[str, _Spent], workspace: RunWorkspace, store: LakehouseFeatures, stage: Stage) -> Iterator[None]:
    """Put a stop-watch around each step's own function, and take it off again."""
    watched: list[tuple[Any, str, str]] = [
        (handlers, "stage_batch", "ratings stage"),
        (stage.bars, "read", "  read bars"),
        (stage.bars, "added", "  read bars"),
        (staging, "go_on_from_kept", "  go on"),
        (IngestionValidator, "validate", "    validate bars"),
        (RatingState, "rated", "    kernel"),
        (FeatureStoreSchema, "inspect", "    check features"),
        (FeatureConsistencyValidator, "inspect", "    check features"),
        (staging, "rate", "  rate"),
        (workspace, "stage", "  write"),
        (store, "merge", "merge"),
        (workspace, "assemble", "own file"),
        (store, "export", "export"),
    ]
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in watched]
    for owner, name, step in watched:
        wrapped = _watch(getattr(owner, name), spent, step)
        setattr(owner, name, staticmethod(wrapped) if owner in (FeatureStoreSchema, RatingState) else wrapped)
    try:
        yield
    finally:
        for owner, name, original in before:
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def _watch(real: Callable[..., Any], spent: dict[str, _Spent], step: str) -> Callable[..., Any]:
    def watched(*given: Any, **named: Any) -> Any:
        with _clock(spent[step]):
            return real(*given, **named)

    return watched


def made_bars(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, count)))
    open_ = close * np.exp(random.normal(0, 0.005, count))
    spread = 1 + random.random((2, count)) * 0.01
    index = pd.date_range(end=START + timedelta(days=1), periods=count, freq="D", tz="UTC", name="ts")
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
