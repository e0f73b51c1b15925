"""Bars, markets and runs made by hand; every number comes from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from services.features.adapters.calendars import ExchangeCalendars
from services.features.domain.sessions import Market, to_stamp

CALENDARS = ExchangeCalendars()
NEW_YORK = Market("America/New_York", "0930-1600", CALENDARS.sessions("XNYS"))
MANILA = Market("Asia/Manila", "0930-1530", CALENDARS.sessions("XPHS"))
CRYPTO = Market("Etc/UTC", "24x7")


def stamp(text: str) -> int:
    """Microseconds of a UTC date or instant."""
    at = datetime.fromisoformat(text)
    return to_stamp(at if at.tzinfo else at.replace(tzinfo=UTC))


def instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def days(count: int, *, start: str = "2021-01-04", freq: str = "D") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=count, freq=freq, tz="UTC", name="ts")


def bars(
    count: int = 60, *, seed: int = 1, start: str = "2021-01-04", freq: str = "D", scale: float = 100.0
) -> pd.DataFrame:
    """A sound random walk on a grid of cents."""
    random = np.random.default_rng(seed)
    close = np.maximum(scale * np.exp(np.cumsum(random.normal(0, 0.02, count))), 0.05)
    open_ = close * np.exp(random.normal(0, 0.005, count))
    high = np.maximum(open_, close) * (1 + random.random(count) * 0.01)
    low = np.minimum(open_, close) * (1 - random.random(count) * 0.01)
    prices = {"open": open_, "high": high, "low": low, "close": close}
    frame = pd.DataFrame(
        {name: np.round(values, 2) for name, values in prices.items()}, index=days(count, start=start, freq=freq)
    )
    frame["high"] = frame[["open", "high", "close"]].max(axis=1)
    frame["low"] = frame[["open", "low", "close"]].min(axis=1)
    return frame.assign(volume=np.round(random.random(count) * 1e6))


def flat(count: int = 60, price: float = 10.0, *, start: str = "2021-01-04") -> pd.DataFrame:
    frame = pd.DataFrame(price, index=days(count, start=start), columns=["open", "high", "low", "close"])
    return frame.assign(volume=0.0)


def from_closes(closes: Sequence[float], *, start: str = "2021-01-04") -> pd.DataFrame:
    """Bars that open and close at the same price."""
    frame = pd.DataFrame(dict.fromkeys(["open", "high", "low", "close"], closes), index=days(len(closes), start=start))
    return frame.astype("float64").assign(volume=1000.0)


def with_value(frame: pd.DataFrame, row: int, **values: float) -> pd.DataFrame:
    """One bar changed."""
    changed = frame.copy()
    for name, value in values.items():
        changed.iloc[row, changed.columns.get_loc(name)] = value
    return changed
