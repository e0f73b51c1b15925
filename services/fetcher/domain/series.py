"""A series as it was sent, made into bars that may be stored: ordered, unique, final, and what was odd about it.

Nothing is filled, smoothed or repaired: the values of a bar are the upstream's own, and whether they make sense is
judged by validation. What cannot be a bar (a forming candle, a row without prices) is left out, and said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from services.fetcher.domain.faults import Garbled
from services.fetcher.domain.sessions import (
    DAY_S,
    Hours,
    Instants,
    closes_of,
    from_seconds,
    interval_seconds,
    is_daily,
    trading_dates,
)

Rows = npt.NDArray[np.float64]  # n × 6: start in seconds, open, high, low, close, volume (NaN where not sent)
_LATEST_S = 4_102_444_800  # 2100: a later start is milliseconds or nonsense
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Series:
    """Bars in ascending order. `index`: seconds; a daily bar stands at 00:00 UTC of its trading date.

    `values`: n × 5, open, high, low, close, volume. `warnings`: what an auditor should know, in words.
    """

    index: Instants
    values: Rows
    warnings: tuple[str, ...]


def make_rows(raw: Sequence[Sequence[object]]) -> Rows:
    """Rows of 5 or 6 values as floats. Raises Garbled for anything else: a short row is never shifted."""
    if not raw:
        return np.empty((0, 6))
    if any(not isinstance(row, list | tuple) or len(row) not in {5, 6} for row in raw):
        raise Garbled("a bar has neither 5 nor 6 values")
    try:
        if all(len(row) == 6 for row in raw):
            return np.array(raw, dtype=np.float64)
        return np.array([row if len(row) == 6 else [*row, None] for row in raw], dtype=np.float64)
    except (TypeError, ValueError) as fault:
        raise Garbled("a bar holds something that is no number", cause=str(fault)) from fault


def clean(rows: Rows, *, interval: str, hours: Hours | None, cutoff: datetime) -> Series:
    """Order, deduplicate and cut `rows` at what was final at `cutoff`.

    Raises Garbled when a start is no instant, or when daily bars of an exchange with unknown hours do not start at
    midnight, because their trading date would be a guess.
    """
    starts = rows[:, 0]
    if not np.all(np.isfinite(starts) & (starts > 0) & (starts < _LATEST_S)):
        raise Garbled("a bar starts at no instant in seconds")
    warnings: list[str] = []
    priced = np.isfinite(rows[:, 1:5]).all(axis=1)
    if not priced.all():
        warnings.append(f"no prices: {int((~priced).sum())} rows left out")
        rows = rows[priced]
    seconds = rows[:, 0].astype(np.int64)
    step = interval_seconds(interval)
    if is_daily(interval):
        if hours is None and (seconds % DAY_S).any():
            raise Garbled(
                "daily bars do not start at midnight UTC and the exchange's hours are unknown",
                fix="add the exchange to shared/exchanges.py",
            )
        unaligned = _unaligned_days(seconds, hours)
        index = trading_dates(seconds, hours)
        final = closes_of(index, hours, interval) <= int(cutoff.timestamp())
    else:
        unaligned = (seconds % 60) != 0 if hours is not None and hours.opens is not None else (seconds % step) != 0
        index = seconds
        final = index + step <= int(cutoff.timestamp())
    if unaligned.any():
        warnings.append(f"unaligned: {_count(seconds[unaligned], 'bars start off their grid')}")
    index, values = index[final], rows[final, 1:]
    # A stable sort keeps the upstream's order among equals, so that the last one sent wins.
    order = np.argsort(index, kind="stable")
    index, values = index[order], values[order]
    if len(index) > 1:
        keep = np.append(index[1:] != index[:-1], True)
        if not keep.all():
            warnings.append(f"duplicates: {_count(index[~keep], 'bars sent twice, the last one taken')}")
            index, values = index[keep], values[keep]
    return Series(index, values, tuple(warnings))


def _unaligned_days(seconds: Instants, hours: Hours | None) -> npt.NDArray[np.bool_]:
    if hours is not None and hours.opens is not None:
        return np.zeros(len(seconds), dtype=np.bool_)  # half days and changed hours start daily bars at any minute
    return np.not_equal(seconds % DAY_S, 0)


def missing_sessions(index: Instants, expected: Instants) -> str | None:
    """The sessions between a series' first and last bar that have no bar, in words; None when there are none."""
    if len(index) < 2:
        return None
    inside = expected[(expected > index[0]) & (expected < index[-1])]
    absent = inside[~np.isin(inside, index, assume_unique=True)]
    return f"gaps: {_count(absent, 'sessions without a bar')}" if len(absent) else None


def every_step(index: Instants, interval: str) -> Instants:
    """The grid of a market that never closes."""
    if len(index) == 0:
        return index
    return np.arange(index[0], index[-1] + 1, interval_seconds(interval), dtype=np.int64)


def _count(instants: Instants, what: str) -> str:
    shown = ", ".join(from_seconds(second).strftime("%Y-%m-%d") for second in instants[:_SHOWN])
    return f"{len(instants)} {what} ({shown}{', …' if len(instants) > _SHOWN else ''})"
