from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auditor.domain.canonical import canonical, read_canonical
from shared.errors import ContractError


def double(bits: str) -> float:
    return struct.unpack(">d", bytes.fromhex(bits))[0]


@pytest.mark.parametrize(
    ("bits", "text"),
    # The samples of RFC 8785, appendix B.
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_the_rfc_samples_say(bits: str, text: str) -> None:
    assert canonical(double(bits)).decode() == text


def test_keys_are_sorted_by_utf16_code_units() -> None:
    # The example of RFC 8785, section 3.2.3: a surrogate pair sorts before U+FB33.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    found = list(json.loads(canonical(dict.fromkeys(keys, 0))))
    assert found == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_text_escapes_only_what_it_must() -> None:
    assert canonical("\u20ac$\u000f\nA'B\"\\\u007f/") == '"\u20ac$\\u000f\\nA\'B\\"\\\\\u007f/"'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, 10**400, "\ud800", {"a": object()}])
def test_what_has_no_exact_spelling_is_refused(value: object) -> None:
    with pytest.raises(ContractError):
        canonical(value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(values)
def test_reading_it_back_and_writing_it_again_changes_nothing(value: object) -> None:
    written = canonical(value)
    assert canonical(json.loads(written)) == written
    assert json.loads(written, parse_int=float) == value


@given(values, st.sampled_from([canonical, lambda value: json.dumps(value).encode()]))
def test_a_value_that_was_read_is_spelled_as_ever_however_it_was_read(
    value: object, write: Callable[[object], bytes]
) -> None:
    data = write(value)
    read, spell = read_canonical(data)
    assert read == json.loads(data)
    # Text that is ASCII by its escapes alone is not canonical, and never spelled as it stands.
    assert (spell(read) == data) == (canonical(read) == data)
    assert canonical(read) != data or spell([read, {"a": read}]) == canonical([read, {"a": read}])


@pytest.mark.parametrize(
    "data", [b"NaN", b"[1e400]", b"12345678901234567890123", b"-0", b'{"a":1.0}', b'{"b":1,"a":2}']
)
def test_what_is_read_and_is_not_canonical_is_never_spelled_as_it_stands(data: bytes) -> None:
    read, spell = read_canonical(data)
    with suppress(ContractError):
        assert spell(read) != data
