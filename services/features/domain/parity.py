"""Parity: how far local ratings are from what the screener showed of the same closed bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

CLOSE_ENOUGH: Final = 1e-6
COMPARED: Final = ("recommend_ma", "recommend_other", "recommend_all")


@dataclass(frozen=True, slots=True)
class Parity:
    """Local minus screener for one symbol, by feature; only where both have a value."""

    symbol: str
    bar: datetime
    observed_at: datetime
    differences: Mapping[str, float]

    @property
    def agrees(self) -> bool:
        return all(abs(difference) <= CLOSE_ENOUGH for difference in self.differences.values())


def compare(
    symbol: str, bar: datetime, observed_at: datetime, local: Mapping[str, float], screener: Mapping[str, float]
) -> Parity | None:
    """None where the two have no value in common."""
    differences = {name: local[name] - screener[name] for name in COMPARED}
    known = {name: difference for name, difference in differences.items() if not math.isnan(difference)}
    return Parity(symbol, bar, observed_at, known) if known else None


def badge(parities: Iterable[Parity]) -> str:
    """`parity 1e-6: 48 of 50`; empty when nothing was compared."""
    compared = list(parities)
    agreeing = sum(parity.agrees for parity in compared)
    return f"parity {CLOSE_ENOUGH:.0e}: {agreeing} of {len(compared)}".replace("e-0", "e-") if compared else ""


def summary(parities: Iterable[Parity]) -> dict[str, object]:
    """Local minus screener by symbol, and the line that sums it up; empty when nothing was compared. Of a symbol that
    was rated twice the later counts."""
    last = {one.symbol: one for one in parities}
    differences = {symbol: dict(one.differences) for symbol, one in sorted(last.items())}
    return {"badge": badge(last.values()), "differences": differences} if last else {}
