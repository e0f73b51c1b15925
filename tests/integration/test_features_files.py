"""The plain files that people open: the wide matrix, and the rows of one run."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from services.features.domain.ratings.frames import TechnicalRatings
from tests.integration.features_house import FeaturesHouse, good, holds
from tests.unit.features import made


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def test_the_plain_matrix_opens_in_pandas_and_duckdb_wide_and_in_utc(house):
    frames = good("X:A", "X:B")
    house.run("r1", frames)
    path = house.home.features_export
    wide = pd.read_parquet(path)
    assert str(wide.index.tz) == "UTC"
    assert wide.index.name == "ts"
    assert wide.columns.names == ["symbol", "feature"]
    assert holds(wide, frames)
    assert (wide["X:A", "available_at"] == wide.index + pd.Timedelta(days=1)).all()
    with duckdb.connect() as db:
        columns = [row[0] for row in db.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()]
        assert "('X:A', 'recommend_all')" in columns
        query = f"""SELECT "('X:B', 'rsi')" FROM '{path}' ORDER BY ts"""
        assert np.array_equal(
            db.execute(query).df().iloc[:, 0], TechnicalRatings.compute(frames["X:B"])["rsi"], equal_nan=True
        )


def test_the_plain_matrix_is_of_the_newest_version_and_says_which(house):
    house.run("r1", good("X:A"))
    later = good("X:A", "X:B", count=81)
    house.run("r2", later)
    path = house.home.features_export
    assert pq.read_schema(path).metadata[b"asof.version"] == b"2"
    assert holds(pd.read_parquet(path), later)


def test_a_merge_that_overtakes_an_export_is_exported_too(house, monkeypatch):
    """Of two writers of the plain file, the one that read the older version may finish last."""
    import services.features.adapters.store as module

    house.run("r1", good("X:A"))
    real, overtaken = module.wide_table, []

    def slow(rows):
        if not overtaken:
            overtaken.append(True)
            house.run("r2", good("X:B"))  # commits and exports while this export has read its rows
        return real(rows)

    monkeypatch.setattr(module, "wide_table", slow)
    house.store.export("1d", "screener")
    assert holds(pd.read_parquet(house.home.features_export), good("X:A", "X:B"))


def test_other_intervals_and_rules_have_no_plain_file(house):
    house.run("r1", good("X:A"), rules="pine_v3")
    assert not house.home.features_export.exists()


def test_the_runs_own_file_opens_in_pandas_and_holds_current_values_of_refused_symbols_too(house):
    frames = good("X:A", "X:BAD")
    frames["X:BAD"] = made.with_value(frames["X:BAD"], 40, close=-1.0)
    house.open(candidates=["X:A", {"symbol": "X:BAD", "metadata": {"Recommend.All": 0.5}}])
    said = house.rate(house.hydrated(house.write_bars(frames)))
    house.promote(house.decided("r1", [said], decision="blocked"))
    rows = pd.read_parquet(house.home.run("r1").features)
    assert rows.groupby("symbol", observed=True).size().to_dict() == {"X:A": 80, "X:BAD": 1}
    assert rows.loc[rows["symbol"] == "X:BAD", "source"].tolist() == ["screener"]
