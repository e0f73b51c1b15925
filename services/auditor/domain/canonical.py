"""Canonical JSON by RFC 8785 (JCS): the one spelling of a value, so that its hash means something.

Keys are sorted by UTF-16 code units, numbers are written as ECMAScript writes doubles, text escapes only what it must.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from shared.errors import ContractError

_SAFE = 2**53 - 1
_PLAIN_DIGITS = 15  # fewer than every number that is not safe
_PLAIN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def canonical(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises ContractError for what JSON or a double cannot say exactly."""
    try:
        return _text(value).encode("utf-8")
    except UnicodeEncodeError as fault:
        raise ContractError("text with half a surrogate pair has no canonical form", cause=str(fault)) from fault


def canonical_sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def read_canonical(data: bytes) -> tuple[Any, Callable[[Any], bytes]]:
    """A JSON value, and a function that spells it, or a part of it, canonically.

    Most lines of a ledger are plain: ASCII, and no number but integers that every double has. There the standard
    library's encoder, which is far faster, spells as RFC 8785 does. Raises ValueError for what is no JSON.
    """
    if data.isascii():
        try:
            return _PLAIN_READER.decode(data.decode()), _spell_plain
        except _NotPlainError:
            pass
    return json.loads(data), canonical


class _NotPlainError(Exception):
    pass


def _not_plain(text: str) -> Any:
    raise _NotPlainError


def _plain_int(text: str) -> int:
    if len(text) > _PLAIN_DIGITS:
        raise _NotPlainError
    return int(text)


_PLAIN_READER = json.JSONDecoder(parse_float=_not_plain, parse_int=_plain_int, parse_constant=_not_plain)


def _spell_plain(value: Any) -> bytes:
    try:
        return _PLAIN.encode(value).encode("utf-8")
    except UnicodeEncodeError as fault:
        raise ContractError("text with half a surrogate pair has no canonical form", cause=str(fault)) from fault


def _text(value: Any) -> str:
    # The exact types come first: a run's coverage has a hundred thousand values, and nearly all of them are these.
    if type(value) is str:
        return encode_basestring(value)
    if type(value) is dict:
        return _object(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -_SAFE <= value <= _SAFE else _large(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Mapping):
        return _object(value)
    raise ContractError(f"a {type(value).__name__} is no JSON value")


def _object(value: Mapping[str, Any]) -> str:
    # ASCII text is in the same order by code points as by UTF-16 code units.
    names = sorted(value) if "".join(value).isascii() else sorted(value, key=_code_units)
    return "{" + ",".join([f"{encode_basestring(name)}:{_text(value[name])}" for name in names]) + "}"


def _code_units(name: str) -> bytes:
    return name.encode("utf-16-be")


def _large(value: int) -> str:
    # A double beyond 2**53 is written without a point, so reading it gives an integer; no other one has this spelling.
    try:
        text = _number(float(value))
    except OverflowError as fault:
        raise ContractError("an integer is larger than any double", fix="write it as text") from fault
    if text != str(value):
        raise ContractError(f"{value} is an integer that no double spells", fix="write it as text")
    return text


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ContractError(f"{value} is no JSON number")
    if value == 0:
        return "0"
    sign, digit_tuple, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, digit_tuple)).rstrip("0")
    point = len(digit_tuple) + exponent  # where the decimal point stands, counted from the first digit
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        mantissa = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
        text = f"{mantissa}e{point - 1:+d}"
    return f"-{text}" if sign else text
