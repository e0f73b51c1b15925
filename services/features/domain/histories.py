"""What is kept of a symbol between two runs, and what has to be the same for its next bars to go on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.features.domain.bars_batch import Array, BarsBatch, Mask
from services.features.domain.rating import After, RatedBatch
from services.features.domain.sessions import Sessions, Stamps
from services.features.domain.validation_features import FEATURES

TAIL: Final = 60
"""So many of its last rows a symbol brings along: those who look at a run alone see where its new rows come from."""


Basis = Callable[[str, int], Mapping[str, str]]
"""Of a symbol and the stamp of its last row: by name, all that its rows up to there depend on beside its bars."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one symbol: `[n]`, values `[n, 5]` in the order of FEATURES. `usable`: its bar was rated."""

    stamps: Stamps
    known_at: Stamps
    values: Array
    usable: Mask

    def then(self, other: Rows) -> Rows:
        return Rows(
            np.concatenate([self.stamps, other.stamps]),
            np.concatenate([self.known_at, other.known_at]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.usable, other.usable]),
        )

    def last(self, count: int) -> Rows:
        return Rows(self.stamps[-count:], self.known_at[-count:], self.values[-count:], self.usable[-count:])


@dataclass(frozen=True, slots=True)
class History:
    """What is kept of a symbol so that its next bars cost what they are and not what came before.

    basis         by name, everything but bars that its rows were computed by; another one is another history
    bars_version  the stored version and its content's hash: rows of all its bars up to the last of `tail`, and
    bars_sha256   `waiting` (stamps, values `[n, 5]`), which were not known yet
    rows          how many rows there are
    known_at      when the last of them was known
    last_bar      stamp, open, high, low, close of the last usable bar, as it was traded
    warnings      what the whole history says; a new bar that adds to it is computed with the whole history
    """

    symbol: str
    basis: Mapping[str, str]
    bars_version: int
    bars_sha256: str
    rows: int
    known_at: int
    last_bar: tuple[int, float, float, float, float]
    warnings: tuple[str, ...]
    tail: Rows
    waiting: tuple[Stamps, Array]
    after: After

    @property
    def until(self) -> int:
        """The stamp of its last row."""
        return int(self.tail.stamps[-1])

    def differs(self, basis: Mapping[str, str], as_of: int) -> str | None:
        """Why a run by that basis and `as_of` cannot go on from here; None when it can."""
        for name, value in basis.items():
            if self.basis.get(name) != value:
                return f"another {name}"
        if self.known_at > as_of:
            return "the run's as_of is earlier"
        return None


def sessions_sha256(sessions: Sessions | None, until: int) -> str:
    """Of the sessions up to that date: a calendar grows with every day."""
    if sessions is None:
        return ""
    count = int(np.searchsorted(sessions.dates, until, side="right"))
    digest = hashlib.sha256()
    for stamps in (sessions.dates, sessions.opens, sessions.closes):
        digest.update(stamps[:count].tobytes())
    return digest.hexdigest()


def histories_after(rated: RatedBatch, versions: Mapping[str, tuple[int, str]], basis: Basis) -> dict[str, History]:
    """What to keep of each staged symbol of a batch that was rated from its whole history.

    `versions`: number and hash of its stored bars. Nothing is kept of a symbol with a recorded adjustment, which may
    come to apply or cease to with a later bar, nor of one whose ADX waits for its first move.
    """
    batch, usable = rated.report.batch, rated.report.usable
    adjusted = {*rated.report.adjusted.applied, *rated.report.adjusted.ignored}
    values = np.column_stack([rated.values[name] for name in FEATURES])
    found = {}
    for code, symbol in enumerate(batch.symbols):
        after = rated.after.get(symbol)
        if after is None or symbol in adjusted or not np.isfinite(after.adx_from):
            continue
        own, late = np.flatnonzero(batch.codes == code), rated.late.codes == code
        last = own[usable[own]][-1]
        waiting = rated.late.stamps[late], rated.late.values[late]
        if len(waiting[0]) and waiting[0][0] < batch.stamps[own[-1]]:
            continue  # bars that become known out of order
        rows = Rows(batch.stamps[own], rated.known_at[own], values[own], usable[own])
        version, sha256 = versions[symbol]
        found[symbol] = History(
            symbol=symbol,
            basis=basis(symbol, int(rows.stamps[-1])),
            bars_version=version,
            bars_sha256=sha256,
            rows=len(own),
            known_at=int(rows.known_at.max()),
            last_bar=bar_of(batch, int(last)),
            warnings=rated.report.warnings.get(symbol, ()),
            tail=rows.last(TAIL),
            waiting=waiting,
            after=after,
        )
    return found


def bar_of(batch: BarsBatch, row: int) -> tuple[int, float, float, float, float]:
    """Stamp, open, high, low and close of a row."""
    open_, high, low, close = map(float, batch.values[row, :4])
    return int(batch.stamps[row]), open_, high, low, close
