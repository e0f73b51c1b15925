"""Price steps in Decimal: from a scanner's price structure, and from what a venue states as text."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any


def tick_from_structure(minmov: Any, pricescale: Any) -> Decimal | None:
    """The smallest price change: minmov / pricescale; None when either is missing or not positive.

    `fractional` and `minmove2` change how a price is written (32nds and their halves, pips), never the step itself:
    a Treasury note with pricescale 128, minmov 1, minmove2 4 moves by 1/128, a currency pair with pricescale 100000,
    minmove2 10 by 0.00001.
    """
    numerator, denominator = decimal_or_none(minmov), decimal_or_none(pricescale)
    if numerator is None or denominator is None:
        return None
    return numerator / denominator


def decimal_or_none(value: Any) -> Decimal | None:
    """A positive, finite Decimal; None for what is missing, empty, zero, negative or no number.

    Upstreams write an unknown step as null, "" or 0. A float is read by its shortest text, as it was sent.
    """
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number.normalize() if number.is_finite() and number > 0 else None
