"""Every version of every key by column, for reads of the whole table. `deriving.py` makes it of the stored facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from services.catalog.adapters.arrow import Rows, pa, pc

_STRIDE = 1 << 15
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Panel:
    """Versions in order of key code and start; instants are microseconds since 1970."""

    names: Sequence[str]
    codes: npt.NDArray[np.int32]
    start: Ints
    updated: Ints
    confirmed: Ints
    columns: Rows  # the attributes as they are shown, run_id, source and sources

    @cached_property
    def offsets(self) -> npt.NDArray[np.int32]:
        """Where each code's versions begin; one more than there are codes."""
        return np.searchsorted(self.codes, np.arange(len(self.names) + 1)).astype(np.int32)

    @cached_property
    def is_open(self) -> Bools:
        return np.append(self.codes[1:] != self.codes[:-1], True) if len(self.codes) else np.zeros(0, bool)

    @cached_property
    def until(self) -> Ints:
        """Where each version ends; the open ones never do."""
        following = np.append(self.start[1:], 0) if len(self.start) else self.start
        return np.where(self.is_open, np.iinfo(np.int64).max, following)

    @cached_property
    def by_name(self) -> Ints | None:
        """The order of key and start; None when that is how they are."""
        present = pa.array(self.names).take(pa.array(self.codes))
        order = pc.sort_indices(pa.table({"n": present, "s": self.start}), [("n", "ascending"), ("s", "ascending")])
        places = order.to_numpy()
        return None if np.all(places[1:] > places[:-1]) else places.astype(np.int64)

    def holding(self, instant: int) -> Ints:
        """The version of each key that holds at an instant."""
        return np.flatnonzero((self.start <= instant) & (instant < self.until))

    def find(self, codes: npt.NDArray[np.int32], instants: Ints) -> npt.NDArray[np.int32]:
        """For each pair the place of the version that holds, -1 before a key's first; a bisection of all at once."""
        found = np.empty(len(codes), np.int32)
        lengths = np.diff(self.offsets)
        steps = [1 << bit for bit in reversed(range(int(lengths.max(initial=0)).bit_length()))]
        for begin in range(0, len(codes), _STRIDE):  # parts that stay in the processor's cache
            part = slice(begin, begin + _STRIDE)
            code, instant = codes[part], instants[part]
            low = self.offsets.take(code)
            end = self.offsets.take(code + 1)
            place = low - 1
            for step in steps:
                there = place + step
                inside = there < end
                holds = self.start.take(there, mode="clip") <= instant
                holds &= inside
                place += holds * np.int32(step)
            place[place < low] = -1
            found[part] = place
        return found
