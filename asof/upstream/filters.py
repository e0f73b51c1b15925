"""The scanner's filter and sort, applied to values. A null never matches a comparison and is sorted last, as there."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class UnknownOperation(ValueError):
    pass


def _in_range(value: Any, bounds: Any) -> bool:
    # Two numbers are a range; texts are a list of choices. The scanner has one operation for both.
    if isinstance(value, str) or (bounds and isinstance(bounds[0], str)):
        return value in bounds
    low, high = bounds
    return bool(low <= value <= high)


_OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "equal": operator.eq,
    "nequal": operator.ne,
    "greater": operator.gt,
    "egreater": operator.ge,
    "less": operator.lt,
    "eless": operator.le,
    "in_range": _in_range,
    "not_in_range": lambda value, bounds: not _in_range(value, bounds),
    "match": lambda value, text: text.lower() in value.lower(),
    "has": lambda value, wanted: bool(set(value) & set(wanted)),
    "has_none_of": lambda value, wanted: not set(value) & set(wanted),
}


def matches(conditions: Sequence[Mapping[str, Any]], value_of: Callable[[str], Any]) -> bool:
    """Whether every condition `{"left", "operation", "right"}` holds.

    Raises UnknownOperation, and TypeError for values that do not compare.
    """
    return all(_holds(condition, value_of) for condition in conditions)


def _holds(condition: Mapping[str, Any], value_of: Callable[[str], Any]) -> bool:
    value = value_of(condition["left"])
    operation = condition["operation"]
    if operation in ("empty", "nempty"):
        return (value is None) is (operation == "empty")
    if operation not in _OPERATIONS:
        raise UnknownOperation(operation)
    return value is not None and bool(_OPERATIONS[operation](value, condition["right"]))


def sort_key(values: Mapping[str, Any], *, descending: bool) -> Callable[[str], tuple[bool, Any]]:
    """For `sorted`: by value, nulls last in both directions; texts and numbers never meet in one column."""

    def key(symbol: str) -> tuple[bool, Any]:
        value = values[symbol]
        if value is None:
            return (True, 0)
        if isinstance(value, str):
            return (False, tuple(-ord(char) for char in value) if descending else tuple(map(ord, value)))
        return (False, -value if descending else value)

    return key
