from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ContractError
from shared.symbols import check_run_id, check_symbol, decode_symbol, encode_symbol, nearest


@pytest.mark.parametrize(
    "symbol", ["PSE:JFC", "CME_MINI:ES1!", "NSE:M&M", "BINANCE:BTCUSDT.P", "SET:กสิกร", "KRX:삼성", "X:a/b"]
)
def test_a_symbol_of_any_script_is_taken_as_it_is(symbol: str):
    assert check_symbol(symbol) == symbol


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("JFC", "names no exchange"),
        ("../../etc/passwd", "names no exchange"),
        ("pse:JFC", "exchange 'pse'"),
        ("PSE:", "ticker ''"),
        ("PSE:" + "A" * 41, "ticker"),
        ("PSE:J FC", "ticker"),
        ("PSE:J\x00FC", "ticker"),
        ("PSE:J:FC", "ticker"),
        ("PSE:" + "A" * 10_000, "too long"),
        ("", "names no exchange"),
    ],
)
def test_what_is_no_symbol_is_refused_with_the_reason(text: str, words: str):
    with pytest.raises(ContractError, match=words):
        check_symbol(text)


def test_a_bare_ticker_takes_the_default_exchange():
    assert check_symbol(" JFC ", default_exchange="PSE") == "PSE:JFC"


def test_two_spellings_of_one_letter_are_one_symbol():
    assert check_symbol("X:e\u0301") == check_symbol("X:\u00e9")


@given(st.text(alphabet=st.sampled_from("AZaz09._!/&+-%é삼กิ"), min_size=1, max_size=40))
def test_a_file_name_stands_for_one_symbol_and_is_safe(ticker: str):
    name = encode_symbol(f"PSE:{ticker}")
    assert decode_symbol(name) == f"PSE:{ticker}"
    assert "/" not in name
    assert "." not in name
    assert len(name.encode()) <= 255


@pytest.mark.parametrize("run_id", ["", "a/b", "..", "a b", "a\n", "x" * 65, "é"])
def test_a_run_id_that_could_leave_its_folder_is_refused(run_id: str):
    with pytest.raises(ContractError, match="run id"):
        check_run_id(run_id)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("jfc", "PSE:JFC"), ("pse:jfc", "PSE:JFC"), ("PSE:JFCC", "PSE:JFC"), ("PSE:QQQQQQ", None), ("", None)],
)
def test_what_was_mistyped_is_told_by_what_is_near(typed: str, meant: str | None):
    assert nearest(typed, ["PSE:JFC", "PSE:BDO", "NASDAQ:MSFT"]) == meant
