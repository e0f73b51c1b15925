"""Symbols and run ids: the two names that arrive from outside and end up in file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, NamedTuple
from urllib.parse import unquote

from pydantic import AfterValidator, StringConstraints

from shared.errors import ContractError

_EXCHANGE = re.compile(r"[A-Z0-9_]{1,24}")
# What most symbols look like. ASCII is NFC already, and every event has a symbol.
_PLAIN = re.compile(r"[A-Z0-9_]{1,24}:[A-Za-z0-9._!/&+-]{1,40}")
_TICKER_MARKS = frozenset("._!/&+-")
_MAX_TICKER = 40
RUN_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}\Z"
_RUN_ID = re.compile(RUN_ID_PATTERN)


class SymbolParts(NamedTuple):
    exchange: str
    ticker: str


def split_symbol(symbol: str) -> SymbolParts:
    exchange, _, ticker = symbol.partition(":")
    return SymbolParts(exchange, ticker)


def check_symbol(text: str, *, default_exchange: str | None = None) -> str:
    """The symbol as `EXCHANGE:TICKER` in NFC, or a ContractError that says what is wrong with it.

    A bare ticker takes `default_exchange`. Nothing is upper-cased or guessed.
    """
    if _PLAIN.fullmatch(text):
        return text
    if len(text) > 4 * _MAX_TICKER:
        raise ContractError(f"a symbol of {len(text)} characters is too long", fix="a symbol is EXCHANGE:TICKER")
    symbol = unicodedata.normalize("NFC", text.strip())
    if ":" not in symbol:
        if default_exchange is None:
            raise ContractError(
                f"{symbol!r} names no exchange",
                fix="write EXCHANGE:TICKER, for example PSE:JFC, or set ASOF_DEFAULT_EXCHANGE",
            )
        symbol = f"{default_exchange}:{symbol}"
    exchange, ticker = split_symbol(symbol)
    if not _EXCHANGE.fullmatch(exchange):
        raise ContractError(
            f"{symbol!r}: exchange {exchange!r} is not 1 to 24 of A-Z, 0-9 and _", fix="write EXCHANGE:TICKER"
        )
    if not 1 <= len(ticker) <= _MAX_TICKER or not all(_is_ticker_char(char) for char in ticker):
        raise ContractError(
            f"{symbol!r}: ticker {ticker!r} is not 1 to {_MAX_TICKER} letters, digits and ._!/&+-",
            fix="write EXCHANGE:TICKER",
        )
    return symbol


def _is_ticker_char(char: str) -> bool:
    # Letters, their combining marks and digits of any script (categories L, M, N).
    return char in _TICKER_MARKS or unicodedata.category(char)[0] in "LMN"


def check_run_id(text: str) -> str:
    if not _RUN_ID.match(text):
        raise ContractError(f"run id {text!r} is not 1 to 64 of A-Z, a-z, 0-9, _ and -", fix="choose another --run-id")
    return text


def nearest(text: str, known: Iterable[str]) -> str | None:
    """The known symbol that somebody who typed this most likely meant, if any is near: `jfc` means `PSE:JFC`."""
    exchange, _, ticker = text.upper().rpartition(":")
    tickers = {
        split_symbol(name).ticker.upper(): name
        for name in known
        if not exchange or split_symbol(name).exchange == exchange
    }
    found = get_close_matches(ticker, tickers, 1, 0.75)
    return tickers[found[0]] if found else None


def encode_symbol(symbol: str) -> str:
    """A symbol as one file name: ASCII marks but - and _ are percent-encoded, so that no separator and no dot is left.

    Letters of other scripts stay as they are: percent-encoded, forty of them would be longer than a file name may be.
    """
    return "".join(
        char if char.isalnum() or char in "-_" or ord(char) > 127 else f"%{ord(char):02X}" for char in symbol
    )


def decode_symbol(name: str) -> str:
    return unquote(name)


def _validate_symbol(text: str) -> str:
    # pydantic reports ValueError by field; our own errors would escape it.
    try:
        checked = check_symbol(text)
    except ContractError as fault:
        raise ValueError(fault.what) from fault
    if checked != text:
        raise ValueError(f"{text!r} is not in its normal form {checked!r}")
    return checked


Symbol = Annotated[str, AfterValidator(_validate_symbol)]
RunId = Annotated[str, StringConstraints(pattern=RUN_ID_PATTERN.replace(r"\Z", "$"))]
