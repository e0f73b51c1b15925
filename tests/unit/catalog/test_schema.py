"""What counts as null, as equal, and as a record at all."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from services.catalog.domain.schema import EXCHANGES, SYMBOLS, same
from shared.errors import ContractError


@pytest.mark.parametrize("blank", [None, float("nan"), np.nan, pd.NaT, pd.NA, "", "   ", "\t\n"])
def test_none_nan_nat_and_blank_text_are_all_null(blank: object) -> None:
    record = {"symbol": "PSE:JFC", "sector": blank, "tick_size": blank, "minmov": blank, "fractional": blank}
    assert SYMBOLS.read_record(record) == {"sector": None, "tick_size": None, "minmov": None, "fractional": None}


@pytest.mark.parametrize("stated", [100, 100.0, "100", "100.0", " 100 ", np.int64(100), np.float64(100), Decimal(100)])
def test_an_integer_is_one_value_however_it_is_written(stated: object) -> None:
    assert SYMBOLS.read_record({"pricescale": stated}) == {"pricescale": 100}


def test_integers_compare_exactly_past_what_a_float_can_tell_apart() -> None:
    odd = 2**53 + 1
    assert SYMBOLS.read_record({"pricescale": str(odd)}) == {"pricescale": odd}
    assert not same(odd, odd - 1)


def test_floats_within_a_relative_billionth_are_one_value_and_zero_has_no_tolerance() -> None:
    assert same(0.1 + 0.2, 0.3)
    assert same(1.0, 1.0 + 0.9e-9)
    assert not same(1.0, 1.0 + 1.1e-9)
    assert not same(0.0, 1e-300)


def test_text_compares_by_exact_unicode() -> None:
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    assert not same(composed, decomposed)
    assert SYMBOLS.read_record({"description": decomposed})["description"] == decomposed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pricescale", 1.5),
        ("pricescale", "ten"),
        ("pricescale", True),
        ("pricescale", 2**63),
        ("tick_size", "cheap"),
        ("tick_size", float("inf")),
        ("tick_size", True),
        ("fractional", "perhaps"),
        ("fractional", 2),
        ("sector", 7),
        ("sector", ["Food"]),
        ("sector", "a\ud800b"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_field_named(name: str, value: object) -> None:
    with pytest.raises(ContractError, match=name):
        SYMBOLS.read_record({"symbol": "PSE:JFC", name: value})


def test_the_key_is_stripped_of_blanks() -> None:
    assert SYMBOLS.read_key({"symbol": "  PSE:JFC\n"}) == "PSE:JFC"
    assert EXCHANGES.read_key({"exchange": " PSE "}) == "PSE"


@pytest.mark.parametrize("key", [None, "", "  ", 7, "JFC", "pse:JFC", "PSE:", "PSE:J\x00C", float("nan")])
def test_a_record_without_a_proper_symbol_is_refused(key: object) -> None:
    with pytest.raises(ContractError):
        SYMBOLS.read_key({"symbol": key})
