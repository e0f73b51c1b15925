"""The keys of a catalog and their codes: 0, 1, 2, … in the order in which they were met.

Making a million keys Python's own takes most of a second, for which who asks for one symbol need not wait: those of a
large segment stay a column until more than a few are looked up, at a few milliseconds each.
"""

from __future__ import annotations

from itertools import repeat

import numpy as np
import numpy.typing as npt

from services.catalog.adapters.arrow import Column, pa, pc
from services.catalog.adapters.chunk import SMALL, Codes

_LOOK_UPS = 64


class Keys:
    def __init__(self) -> None:
        self._column: Column | None = None  # all of them, while they are not Python's own
        self._names: list[str] = []
        self._codes: dict[str, int] = {}
        self._looked_up = 0

    def __len__(self) -> int:
        return len(self._names) if self._column is None else len(self._column)

    def __getitem__(self, code: int) -> str:
        return self._names[code] if self._column is None else str(self._column[code].as_py())

    @property
    def names(self) -> list[str]:
        """Every key, in order of codes."""
        self._own()
        return self._names

    @property
    def codes(self) -> dict[str, int]:
        self._own()
        return self._codes

    def code(self, key: str) -> int | None:
        if self._column is not None:
            self._looked_up += 1
            if self._looked_up > _LOOK_UPS:
                self._own()
        if self._column is None:
            return self._codes.get(key)
        place = int(pc.index(self._column, pa.scalar(key, pa.string())).as_py())
        return None if place < 0 else place

    def learn(self, key: str) -> None:
        """Give a key its code, unless it has one."""
        codes = self.codes
        if key not in codes:
            codes[key] = len(self._names)
            self._names.append(key)

    def coded(self, column: Column) -> Codes:
        """A code for each row's key; new keys get the next ones."""
        one = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        encoded = one if pa.types.is_dictionary(one.type) else one.dictionary_encode()
        indices: Codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        if len(self) == 0:  # the first segment holds nearly all keys, and all of them are new
            self._column = encoded.dictionary
            if len(self) <= SMALL:
                self._own()
            return indices
        codes: Codes = self._learned(encoded.dictionary)[indices]
        return codes

    # -- inside

    def _own(self) -> None:
        if self._column is not None:
            self._names = self._column.to_pylist()
            self._codes = dict(zip(self._names, range(len(self._names)), strict=True))
            self._column = None

    def _learned(self, distinct: Column) -> npt.NDArray[np.int32]:
        if self._column is None:
            known = map(self._codes.get, distinct.to_pylist(), repeat(-1))
            mapped = np.fromiter(known, np.int32, len(distinct))
        else:
            found = pc.index_in(distinct, value_set=self._column)
            mapped = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        new, first = np.flatnonzero(mapped < 0), len(self)
        mapped[new] = np.arange(first, first + len(new), dtype=np.int32)
        unknown = distinct.take(pa.array(new))
        if self._column is None:
            for key in unknown.to_pylist():
                self.learn(key)
        else:
            self._column = pa.concat_arrays([self._column, unknown])
        return mapped
