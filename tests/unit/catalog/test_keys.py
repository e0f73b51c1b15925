"""Keys that are still a column and keys that are Python's own have the same codes."""

from __future__ import annotations

import pyarrow as pa
import pytest

from services.catalog.adapters.chunk import SMALL
from services.catalog.adapters.keys import Keys

MANY = [f"X:S{number:05}" for number in range(SMALL + 1000)]


def column(*names: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(names)])


@pytest.mark.parametrize("names", [MANY, MANY[:10]], ids=["many", "few"])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_key_has_the_code_of_the_order_in_which_it_was_met(names: list[str], encoded: bool) -> None:
    keys, rows = Keys(), column(*names, names[3])
    codes = keys.coded(rows.dictionary_encode() if encoded else rows)
    assert codes.tolist() == [*range(len(names)), 3]
    assert [keys[code] for code in (0, 3, len(names) - 1)] == [names[0], names[3], names[-1]]
    assert (keys.code(names[7]), keys.code("X:NONE")) == (7, None)
    assert (len(keys), keys.names, keys.codes) == (len(names), names, dict(zip(names, range(len(names)), strict=True)))


@pytest.mark.parametrize("looked_up", [0, 1000])
def test_later_rows_keep_the_codes_of_known_keys_and_give_new_ones_the_next(looked_up: int) -> None:
    keys = Keys()
    keys.coded(column(*MANY))
    for number in range(looked_up):  # so many that they become Python's own
        assert keys.code(MANY[number]) == number
    assert keys.coded(column("X:A", MANY[5], "X:B", "X:A")).tolist() == [len(MANY), 5, len(MANY) + 1, len(MANY)]
    keys.learn("X:C")
    keys.learn(MANY[6])
    assert keys.names[len(MANY) :] == ["X:A", "X:B", "X:C"]
    assert [keys.code(name) for name in ("X:C", MANY[6])] == [len(MANY) + 2, 6]
