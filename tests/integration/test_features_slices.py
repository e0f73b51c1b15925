"""A slice of the feature store touches the files of its symbols and no others."""

from __future__ import annotations

import pandas as pd
import pytest

from services.features.adapters.reader import FeatureReader
from shared.tables import snapshot
from tests.integration.features_house import FeaturesHouse, good

BATCHES = [tuple(f"X:{batch}{number}" for number in range(3)) for batch in "ABCDE"]
NAMES = [name for batch in BATCHES for name in batch]
SLICE = ["X:B1", "X:D0", "X:D2"]


@pytest.fixture
def house(tmp_path):
    house = FeaturesHouse(tmp_path / "data")
    for number, batch in enumerate(BATCHES):
        house.run(f"r{number}", good(*batch))
    return house


@pytest.fixture
def opened(monkeypatch):
    """The segments that were opened, one after the other: each is read, and hashed, as it is opened."""
    seen = []
    real = snapshot.open_segment
    monkeypatch.setattr(snapshot, "open_segment", lambda root, segment: seen.append(segment) or real(root, segment))
    return seen


READS = {
    "matrix": lambda reader, symbols: reader.matrix(symbols),
    "matrix from a start": lambda reader, symbols: reader.matrix(symbols, start="2021-02-01"),
    "matrix to an end": lambda reader, symbols: reader.matrix(symbols, end="2021-02-01"),
    "at": lambda reader, symbols: reader.at("2021-03-01", symbols),
    "current": lambda reader, symbols: reader.current(symbols),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_slice_opens_only_its_symbols_segments(house, opened, read):
    newest = house.table().load()
    assert len(newest.segments) == 5
    part = read(FeatureReader(house.home), SLICE)
    touched = newest.touched(SLICE)
    assert len(touched) == 2
    assert [segment.file for segment in opened] == [segment.file for segment in touched]
    assert sum(segment.size for segment in opened) < newest.bytes / 2
    whole = read(FeatureReader(house.home), None)
    chosen = whole[SLICE] if isinstance(whole.columns, pd.MultiIndex) else whole.loc[whole.index.isin(SLICE)]
    pd.testing.assert_frame_equal(part, chosen, check_names=False)


def test_slices_of_one_version_are_kept_and_it_is_read_twice_at_most(house, opened):
    reader = FeatureReader(house.home)
    first = reader.at("2021-03-01", SLICE)
    reader.at("2021-03-08", SLICE[1:])
    assert len(opened) == 2
    assert list(reader.at("2021-03-01", ["X:A0", "X:B1"]).index) == ["X:A0", "X:B1"]  # others: all of it
    assert len(opened) == 2 + 5
    assert list(reader.at("2021-03-01").index) == NAMES
    pd.testing.assert_frame_equal(reader.at("2021-03-01", SLICE), first)
    assert len(opened) == 2 + 5
    house.run("later", good(*BATCHES[1], shift=7))
    assert not reader.at("2021-03-01", SLICE).equals(first)
