"""The arithmetic that indicators share, elementwise.

`settled` is True once every symbol of a pass is past all its warm-ups: as a constant in compiled code it takes every
warm-up condition out of the loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.features.domain.ratings.lanes import Value, inlined, where

NA = np.nan


@inlined
def smooth(before: Value, x: Value, seen: Value, length: float, rate: float, settled: bool) -> Value:
    """An EMA or Wilder average that is seeded with the mean of its first `length` inputs.

    `seen` counts the inputs, x included. Until the seed it holds their sum, and 0 while there is none.
    """
    total = before + x
    seeded = where(settled | (seen > length), before + rate * (x - before), total * (1.0 / length))
    return where(settled | (seen >= length), seeded, total)


@inlined
def if_seen(x: Value, seen: Value, length: float, settled: bool) -> Value:
    return where(settled | (seen >= length), x, NA)


@inlined
def larger(a: Value, b: Value) -> Value:
    return where(a > b, a, b)


@inlined
def smaller(a: Value, b: Value) -> Value:
    return where(a < b, a, b)


@inlined
def mean_of_last_three(x: Value, x1: Value, x2: Value) -> Any:
    """The mean of x and the two inputs before it that existed, NA without x; and the last two for the next bar."""
    here = x == x  # noqa: PLR0124
    mean = (x + x1 + x2) * (1.0 / 3.0)  # NA with x
    return mean, where(here, x, x1), where(here, x1, x2)
