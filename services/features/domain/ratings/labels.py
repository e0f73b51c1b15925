"""The word for a rating."""

from __future__ import annotations

import math
from typing import Literal

Label = Literal["strong buy", "buy", "neutral", "sell", "strong sell"]


def label(rating: float) -> Label | None:
    """`rating` in [−1, 1] as a word; exactly ±0.5 is buy or sell, exactly ±0.1 is neutral; None for NaN."""
    if math.isnan(rating):
        return None
    side: tuple[Label, Label] = ("buy", "strong buy") if rating > 0 else ("sell", "strong sell")
    if abs(rating) > 0.5:
        return side[1]
    return side[0] if abs(rating) > 0.1 else "neutral"
