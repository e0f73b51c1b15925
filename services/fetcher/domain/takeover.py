"""Judging the bars of another house: a symbol comes over whole or is refused by name with each thing that is wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd

from services.fetcher.domain.sessions import is_daily
from shared.errors import ContractError

PRICES: Final = ("open", "high", "low", "close", "volume")
STAMPS: Final = ("ts", "timestamp", "time", "datetime", "date", "index")
SYMBOL: Final = "symbol"


def read_series(frame: pd.DataFrame) -> dict[str | None, pd.DataFrame]:
    """By symbol, bars by a UTC index that ascends; None is the symbol of a file that names none in a column.

    Column names count without regard to case; stamps without a zone mean UTC. Raises ContractError for a frame that
    has no bars in it.
    """
    index = frame.index
    if isinstance(index, pd.DatetimeIndex) or index.name is not None:
        frame = frame.reset_index(names=STAMPS[0] if index.name is None else str(index.name))
    frame = frame.rename(columns={name: str(name).lower() for name in frame.columns})
    stamp = next((name for name in STAMPS if name in frame.columns), None)
    missing = [name for name in PRICES if name not in frame.columns]
    if stamp is None or missing:
        raise ContractError(
            "the file holds no bars",
            cause=f"no {', '.join(missing) if missing else 'stamps'}; it has {', '.join(map(str, frame.columns))}",
            fix=f"name {', '.join(PRICES)} and one of {', '.join(STAMPS)}",
        )
    if pd.api.types.is_numeric_dtype(frame[stamp]):
        raise ContractError(
            f"the stamps in {stamp} are numbers", cause="they do not say of which unit", fix="make them instants"
        )
    try:
        stamps = pd.DatetimeIndex(pd.to_datetime(frame[stamp], utc=True), name=STAMPS[0])
        bars = frame[list(PRICES)].astype("float64").set_axis(stamps)
    except (ValueError, TypeError, OverflowError) as fault:
        raise ContractError("the file holds no bars", cause=str(fault)[:200], fix="convert its columns") from fault
    if SYMBOL not in frame.columns:
        return {None: bars.sort_index(kind="stable")}
    names = frame[SYMBOL].astype(str).to_numpy()
    return {str(name): bars[names == name].sort_index(kind="stable") for name in pd.unique(names)}


def flaws_of(bars: pd.DataFrame, interval: str, now: datetime) -> tuple[str, ...]:
    """What is wrong with the bars of one symbol; empty when they may be stored."""
    index = pd.DatetimeIndex(bars.index)
    if len(bars) == 0:
        return ("it has no bars",)
    flaws = []
    if index.hasnans:
        flaws.append(f"{int(np.asarray(index.isna(), dtype=bool).sum()):,} bars without a stamp")
    for what, wrong in _wrong(bars, index, interval, now).items():
        if wrong.any():
            first = index[wrong][0]
            flaws.append(f"{what}: {int(wrong.sum()):,} ({first:%Y-%m-%d %H:%M}{', …' if wrong.sum() > 1 else ''})")
    return tuple(flaws)


def _wrong(bars: pd.DataFrame, index: pd.DatetimeIndex, interval: str, now: datetime) -> dict[str, np.ndarray]:
    prices = bars[list(PRICES[:4])].to_numpy()
    # A row without prices is no bar, which ratings leave out.
    priced = ~np.isnan(prices).all(axis=1) & ~(prices == 0).all(axis=1)
    sound = ((prices > 0) & np.isfinite(prices)).all(axis=1)
    with np.errstate(invalid="ignore"):
        crossed = bars["high"].to_numpy() < bars["low"].to_numpy()
    known = ~np.asarray(index.isna(), dtype=bool)
    wrong = {
        "two bars of one stamp": np.asarray(index.duplicated()) & known,
        "bars that have not begun": np.asarray(index > pd.Timestamp(now)),
        "prices that are not positive and finite": priced & ~sound & known,
        "high below low": crossed & known,
    }
    if is_daily(interval):
        off = np.asarray(index != index.normalize()) & known
        wrong["daily bars that are not of 00:00 UTC of their trading date"] = off
    return wrong
