"""The attributes that are versioned, and what counts as null, as equal, and as a record at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from shared.errors import ContractError
from shared.exchanges import EXCHANGES as KNOWN_EXCHANGES
from shared.symbols import check_symbol, split_symbol

_REL = 1e-9
_LIMIT = 1 << 63  # an int64 column ends here
_INTEGER = re.compile(r"[+-]?\d+(?:\.0*)?")
_PLAIN_SYMBOL = re.compile(r"[A-Z0-9_]{1,24}:[A-Za-z0-9._!/&+-]{1,40}")  # most are; the others cost ten times as much
_EXCHANGE = re.compile(r"[A-Z0-9_]{1,24}")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Schema:
    """One catalog's key and attributes with their types, in the order of its columns."""

    key: str
    attributes: Mapping[str, type]

    @cached_property
    def blank(self) -> dict[str, Any]:
        """A key of which nothing is known but that it exists."""
        return {**dict.fromkeys(self.attributes), "active": True}

    def shown(self, key: str, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """`raw` with a default where a symbol's timezone or session is null. Nothing else has one."""
        if self.key != "symbol" or (raw["timezone"] is not None and raw["session"] is not None):
            return raw
        timezone, session = default_hours(split_symbol(key).exchange, raw["type"], raw["subtype"])
        return {**raw, "timezone": raw["timezone"] or timezone, "session": raw["session"] or session}

    def read_key(self, record: Mapping[str, Any]) -> str:
        """The key, stripped of blanks. Raises ContractError when it is missing or malformed."""
        if not isinstance(record, Mapping):
            raise ContractError(f"{type(record).__name__} is no record", fix="give a mapping of fields")
        key = record.get(self.key)
        if not isinstance(key, str) or not key.strip():
            raise ContractError(f"a record without {self.key}", fix=f"give {self.key} as text")
        if self.key == "symbol":
            return key if _PLAIN_SYMBOL.fullmatch(key) else check_symbol(key)
        if not _EXCHANGE.fullmatch(key.strip()):
            raise ContractError(f"exchange {key!r} is not 1 to 24 of A-Z, 0-9 and _", fix="correct the record")
        return key.strip()

    def read_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The stated attributes, typed; None, NaN, NaT and blank are None. Raises ContractError naming the field."""
        return {name: _typed(name, record[name], kind) for name, kind in self.attributes.items() if name in record}


SYMBOLS = Schema(
    "symbol",
    {
        "exchange": str,
        "base": str,
        "quote": str,
        "currency": str,
        "type": str,
        "subtype": str,
        "description": str,
        "sector": str,
        "industry": str,
        "country": str,
        "timezone": str,
        "session": str,
        "tick_size": float,
        "minmov": int,
        "minmove2": int,
        "fractional": bool,
        "pricescale": int,
        "lot_size": float,
        "min_notional": float,
        "contract_size": float,
        "renamed_from": str,
        "active": bool,
    },
)
EXCHANGES = Schema("exchange", {"country": str, "timezone": str, "is_crypto": bool, "description": str, "active": bool})


def default_hours(exchange: str, kind: str | None, subtype: str | None) -> tuple[str, str]:
    """Timezone and session of a symbol that states none: its exchange's, round the clock for crypto, else Unknown."""
    known = KNOWN_EXCHANGES.get(exchange)
    if known is not None:
        return known.timezone, known.session
    return ("UTC", "24x7") if "crypto" in f"{kind} {subtype}".lower() else ("Unknown", "Unknown")


def same(one: Any, other: Any) -> bool:
    """Floats within a relative 1e-9, everything else exactly."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _REL * max(abs(one), abs(other))
    return bool(one == other)


def _typed(name: str, value: Any, kind: type) -> Any:
    if _is_null(value):
        return None
    try:
        if kind is str and isinstance(value, str):
            value.encode()  # a lone surrogate is no text that a file could hold
            return value
        if kind is bool:
            return _boolean(value)
        if kind is int:
            return _integer(value)
        if kind is float and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number + 0.0  # one zero, not two
    except (TypeError, ValueError, OverflowError):
        pass
    raise ContractError(f"{name} {value!r} is no {kind.__name__}", fix="correct the record")


def _is_null(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA (which refuses to be compared) and blank text."""
    if isinstance(value, str):
        return not value or value.isspace()
    try:
        return value is None or bool(value != value)  # noqa: PLR0124  NaN and NaT
    except TypeError:
        return type(value).__name__ == "NAType"
    except ValueError:  # an array has no truth of its own
        return False


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        return _BOOLEANS[value.strip().lower()] if value.strip().lower() in _BOOLEANS else _refuse(value)
    return bool(value) if value in (0, 1) else _refuse(value)


def _integer(value: Any) -> int:
    """100, 100.0 and "100" are one integer, also past 2**53, where a float could not tell them apart."""
    if isinstance(value, bool):
        return _refuse(value)
    if isinstance(value, str):
        value = int(value.strip().partition(".")[0]) if _INTEGER.fullmatch(value.strip()) else _refuse(value)
    whole = int(value)
    return whole if value == whole and -_LIMIT <= whole < _LIMIT else _refuse(value)


def _refuse(value: Any) -> NoReturn:
    raise ValueError(value)
