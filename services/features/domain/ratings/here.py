"""A bar and the place in a state where it is worked out."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.domain.ratings import lanes, layout
from services.features.domain.ratings.lanes import Value, inlined
from services.features.domain.ratings.layout import Ring
from services.features.domain.ratings.rules import VOTES
from services.features.domain.ratings.series import add, larger, since, smaller

_BALLOTS: Final = len(VOTES)


class Bar(NamedTuple):
    """`count` is the number of bars, this one included; `tie` the distance up to which prices count as equal."""

    count: Value
    high: Value
    low: Value
    close: Value
    volume: Value
    tie: Value
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
    return lanes.load(here.state, here.block, ring.first + ring.each * ((here.phase - bars) & (ring.size - 1)))


@inlined
def push(here: Here, ring: Ring, x: Value) -> None:
    """This bar's value of a series."""
    lanes.store(here.state, here.block, ring.first + ring.each * (here.phase & (ring.size - 1)), x)


@inlined
def note_vote(here: Here, vote: int, ballot: Value) -> None:
    lanes.note(here.trace, here.row, here.first, here.block, vote, ballot)


@inlined
def note(here: Here, place: int, x: Value) -> None:
    """Note an input; `place` counts in `layout.INPUTS`."""
    lanes.note(here.trace, here.row, here.first, here.block, _BALLOTS + place, x)


@inlined
def summed(here: Here, ring: Ring, x: Value) -> Any:
    """The running sum of a series, x included, and what its rounding lost."""
    last = ring.first + ring.each * ((here.phase - 1) & (ring.size - 1))
    total, lost = add(lanes.load(here.state, here.block, last), lanes.load(here.state, here.block, last + 1), x)
    now = ring.first + ring.each * (here.phase & (ring.size - 1))
    lanes.store(here.state, here.block, now, total)
    lanes.store(here.state, here.block, now + 1, lost)
    return total, lost


@inlined
def window(here: Here, ring: Ring, total: Value, lost: Value, length: int) -> Value:
    """The sum of the last `length` values of a series; `total` and `lost` are `summed`'s."""
    old = ring.first + ring.each * ((here.phase - length) & (ring.size - 1))
    return since(total, lost, lanes.load(here.state, here.block, old), lanes.load(here.state, here.block, old + 1))


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
