"""A bar and the place in a state where it is worked out."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.domain.ratings import lanes, layout
from services.features.domain.ratings.lanes import Value, inlined
from services.features.domain.ratings.layout import Ring
from services.features.domain.ratings.rules import VOTES
from services.features.domain.ratings.series import larger, smaller

_BALLOTS: Final = len(VOTES)


class Bar(NamedTuple):
    """`count` is the number of bars, this one included; `tie` the distance up to which prices count as equal, `floor`
    and `ceiling` are close − tie and close + tie. `settled`: every symbol of the block is past all its warm-ups."""

    count: Value
    high: Value
    low: Value
    close: Value
    volume: Value
    tie: Value
    floor: Value
    ceiling: Value
    settled: bool


class Here(NamedTuple):
    """`state[block]` at `phase`, and the row and column of the trace where one is wanted."""

    state: NDArray[np.float64]
    block: Any
    phase: int
    trace: NDArray[np.float64] | None
    row: int
    first: int


@inlined
def before(here: Here, row: int) -> Value:
    """What the bar before kept in that row."""
    return lanes.load(here.state, here.block, row)


@inlined
def keep(here: Here, row: int, x: Value) -> None:
    lanes.store(here.state, here.block, row, x)


@inlined
def ago(here: Here, ring: Ring, bars: int) -> Value:
    """A series' value that many bars ago."""
    return lanes.load(here.state, here.block, ring.first + ((here.phase - bars) & (ring.size - 1)))


@inlined
def push(here: Here, ring: Ring, x: Value) -> None:
    """This bar's value of a series."""
    lanes.store(here.state, here.block, ring.first + (here.phase & (ring.size - 1)), x)


@inlined
def take(here: Here, panel: NDArray[np.float64]) -> Value:
    """What a panel `[T, S]` holds of this bar."""
    return lanes.take(here.state, panel, here.row, here.first, here.block)


@inlined
def put(here: Here, panel: NDArray[np.float64], x: Value) -> None:
    lanes.put(here.state, panel, here.row, here.first, here.block, x)


@inlined
def note_vote(here: Here, vote: int, ballot: Value) -> None:
    lanes.note(here.trace, here.row, here.first, here.block, vote, ballot)


@inlined
def note(here: Here, place: int, x: Value) -> None:
    """Note an input; `place` counts in `layout.INPUTS`."""
    lanes.note(here.trace, here.row, here.first, here.block, _BALLOTS + place, x)


@inlined
def sum5(here: Here, x: Value, one: Ring, two: Ring) -> Value:
    """The sum of the last 5 values of a series, from those of 2. The rings keep the series and the sums of 2."""
    sum2 = x + ago(here, one, 1)
    sum4 = sum2 + ago(here, two, 2)
    sum5 = sum4 + ago(here, one, 4)
    push(here, one, x)
    push(here, two, sum2)
    return sum5


@inlined
def sums20(here: Here, x: Value, one: Ring, two: Ring, five: Ring, ten: Ring) -> Any:
    """The sums of the last 10 and of the last 20 values."""
    last5 = sum5(here, x, one, two)
    sum10 = last5 + ago(here, five, 5)
    sum20 = sum10 + ago(here, ten, 10)
    push(here, five, last5)
    push(here, ten, sum10)
    return sum10, sum20


@inlined
def sums28(here: Here, x: Value, one: Ring, two: Ring, seven: Ring, fourteen: Ring) -> Any:
    """The sums of the last 7, 14 and 28 values."""
    sum2 = x + ago(here, one, 1)
    sum4 = sum2 + ago(here, two, 2)
    sum6 = sum4 + ago(here, two, 4)
    sum7 = sum6 + ago(here, one, 6)
    sum14 = sum7 + ago(here, seven, 7)
    sum28 = sum14 + ago(here, fourteen, 14)
    push(here, one, x)
    push(here, two, sum2)
    push(here, seven, sum7)
    push(here, fourteen, sum14)
    return sum7, sum14, sum28


@inlined
def highest8(here: Here, x: Value, x1: Value, two: Ring, four: Ring, eight: Ring) -> Value:
    """The highest of the last 8 values, from that of 2 and of 4. The rings keep all three."""
    top2 = larger(x, x1)
    top4 = larger(top2, ago(here, two, 2))
    top8 = larger(top4, ago(here, four, 4))
    push(here, two, top2)
    push(here, four, top4)
    push(here, eight, top8)
    return top8


@inlined
def lowest8(here: Here, x: Value, x1: Value, two: Ring, four: Ring, eight: Ring) -> Value:
    """The lowest of the last 8 values."""
    low2 = smaller(x, x1)
    low4 = smaller(low2, ago(here, two, 2))
    low8 = smaller(low4, ago(here, four, 4))
    push(here, two, low2)
    push(here, four, low4)
    push(here, eight, low8)
    return low8


def place(name: str) -> int:
    """Where `note` puts the input of that name."""
    return layout.INPUTS.index(name)
