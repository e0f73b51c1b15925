"""What an audit calls wrong: each way in which one symbol's versions may contradict each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.catalog.domain.versions import Version, violations

DAY0 = datetime(2024, 1, 1, tzinfo=UTC)


def version(start: int, end: int | None, sector: str) -> Version:
    since, until = DAY0 + timedelta(days=start), None if end is None else DAY0 + timedelta(days=end)
    return Version("PSE:JFC", {"sector": sector}, since, until, since, since, None, None, None)


def test_contiguous_versions_with_one_open_end_are_sound():
    assert violations([version(0, 1, "Food"), version(1, 3, "Banks"), version(3, None, "Food")]) == []


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ([version(0, 1, "Food"), version(2, None, "Banks")], "not followed at once"),
        ([version(0, 2, "Food"), version(1, None, "Banks")], "not followed at once"),
        ([version(0, None, "Food"), version(1, None, "Banks")], "not followed at once"),
        ([version(0, 0, "Food"), version(0, None, "Banks")], "empty or inverted"),
        ([version(0, 1, "Food"), version(1, None, "Food")], "two equal neighbours"),
        ([version(0, 1, "Food"), version(1, 2, "Banks")], "the last version ends"),
    ],
    ids=["gap", "overlap", "two open", "empty", "equal neighbours", "no open end"],
)
def test_each_contradiction_is_named_with_its_symbol(versions: list[Version], words: str):
    (found,) = violations(versions)
    assert words in found
    assert found.startswith("PSE:JFC")
