"""The bars table on a real disk."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shared.bars import PRICES, BarsTable, Trading, content_sha256
from shared.errors import ContractError, IntegrityError, NotFoundError
from shared.tables import Changes, NewSegment


def bars(days: int, *, start: str = "2024-01-01", seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    index = pd.date_range(start, periods=days, freq="D", tz="UTC", name="ts")
    return pd.DataFrame({name: random.random(days) for name in PRICES}, index=index)


@pytest.fixture
def table(tmp_path: Path) -> BarsTable:
    return BarsTable.open(tmp_path / "PSE%3AJFC")


def test_opening_creates_nothing_and_an_absent_table_is_empty(table: BarsTable, tmp_path: Path) -> None:
    assert table.info().version == 0
    assert table.info().last_bar is None
    frame = table.read()
    assert frame.empty
    assert list(frame.columns) == list(PRICES)
    assert str(frame.index.tz) == "UTC"
    assert not (tmp_path / "PSE%3AJFC").exists()


def test_appended_bars_come_back_exactly(table: BarsTable) -> None:
    given = bars(300)
    result = table.append(given, run_id="r1")
    assert (result.added, result.revised, result.unchanged) == (300, (), 0)
    pd.testing.assert_frame_equal(table.read(), given, check_freq=False, check_index_type=False)
    assert result.info == table.info()
    assert result.info.rows == 300
    assert result.info.first_bar == given.index[0]
    assert result.info.last_bar == given.index[-1]
    assert result.info.sha256 == content_sha256(given)


def test_bars_that_are_there_already_make_no_version(table: BarsTable) -> None:
    first = table.append(bars(30), run_id="r1")
    again = table.append(bars(30).tail(10), run_id="r2")
    assert again.info == first.info
    assert (again.added, again.revised, again.unchanged) == (0, (), 10)
    assert table.table.versions() == [0, 1]


def test_a_changed_value_is_reported_by_its_stamp_and_the_old_version_keeps_the_old_value(table: BarsTable) -> None:
    given = bars(5)
    table.append(given, run_id="r1")
    revised = given.copy()
    revised.iloc[2, 3] += 1
    result = table.append(revised, run_id="r2")
    assert result.revised == (given.index[2],)
    assert (result.added, result.unchanged) == (0, 4)
    assert table.read().iloc[2, 3] == revised.iloc[2, 3]
    assert table.read(1).iloc[2, 3] == given.iloc[2, 3]
    assert table.info(1).sha256 != table.info(2).sha256


def test_of_one_stamp_given_twice_the_last_row_wins(table: BarsTable) -> None:
    twice = pd.concat([bars(2), bars(2, seed=1)])
    assert table.append(twice, run_id="r1").added == 2
    assert table.read()["open"].tolist() == bars(2, seed=1)["open"].tolist()


def test_a_missing_value_equals_a_missing_value(table: BarsTable) -> None:
    given = bars(3)
    given.iloc[1, 4] = np.nan
    table.append(given, run_id="r1")
    assert table.append(given, run_id="r2").unchanged == 3
    assert np.isnan(table.read().iloc[1, 4])


def test_a_flag_that_appears_later_is_missing_on_older_bars_and_kept_by_appends_without_it(table: BarsTable) -> None:
    table.append(bars(3), run_id="r1")
    flagged = bars(2, start="2024-01-04", seed=1).assign(estimated=[True, False])
    table.append(flagged, run_id="r2")
    assert table.read()["estimated"].tolist() == [pd.NA, pd.NA, pd.NA, True, False]
    revised = flagged.drop(columns="estimated")
    revised["close"] += 1
    assert len(table.append(revised, run_id="r3").revised) == 2
    assert table.read()["estimated"].tolist()[3:] == [True, False]


def test_a_flag_on_known_bars_is_a_revision(table: BarsTable) -> None:
    given = bars(2)
    table.append(given, run_id="r1")
    assert table.append(given.assign(estimated=True), run_id="r2").revised == tuple(given.index)


def test_every_order_of_appends_ends_in_the_same_content(tmp_path: Path) -> None:
    parts = [bars(10), bars(10, start="2024-01-20", seed=1), bars(10, start="2023-12-01", seed=2)]
    forward, backward = BarsTable.open(tmp_path / "a"), BarsTable.open(tmp_path / "b")
    for part in parts:
        forward.append(part, run_id="r")
    for part in reversed(parts):
        backward.append(part, run_id="r")
    assert forward.info().sha256 == backward.info().sha256


def test_many_appends_leave_few_segments_and_every_version_readable(table: BarsTable) -> None:
    for day in range(40):
        table.append(bars(1, start=f"2024-01-{day % 28 + 1:02d}", seed=day), run_id="r")
    assert len(table.table.load().segments) <= 16
    assert table.read().shape == (28, 5)
    assert table.read(5).shape == (5, 5)


def test_bars_without_a_zone_or_without_a_price_are_refused(table: BarsTable) -> None:
    with pytest.raises(ContractError, match="DatetimeIndex in UTC"):
        table.append(bars(2).tz_localize(None), run_id="r")
    with pytest.raises(ContractError, match="lack close"):
        table.append(bars(2).drop(columns="close"), run_id="r")


def test_an_unknown_version_is_not_found(table: BarsTable) -> None:
    table.append(bars(2), run_id="r")
    with pytest.raises(NotFoundError, match="no version 7"):
        table.read(7)


def test_content_that_is_not_what_the_manifest_says_is_refused(table: BarsTable) -> None:
    table.append(bars(2), run_id="r")
    newest = table.table.load()
    rows = pa.Table.from_pandas(bars(1, seed=9).reset_index(), preserve_index=False)
    table.table.commit(1, Changes(append=(NewSegment(rows),)), meta=newest.meta)
    with pytest.raises(IntegrityError, match="not those that were written"):
        table.read()


def _append_days(root: str, first: int, count: int) -> None:
    table = BarsTable.open(Path(root))
    for day in range(first, first + count):
        start = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=day)
        table.append(bars(1, start=str(start.date()), seed=day), run_id=f"r{first}")


def test_appends_of_two_runs_at_once_both_survive(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_days, args=(str(tmp_path / "t"), first, 25)) for first in (0, 25)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(BarsTable.open(tmp_path / "t").read()) == 50


def test_when_a_symbol_trades_is_kept_with_its_bars_and_what_is_not_known_later_stays(tmp_path: Path):
    table = BarsTable.open(tmp_path)
    manila = Trading("Asia/Manila", "0930-1530", "XPHS")
    table.append(bars(3), run_id="r1", trading=manila)
    table.append(bars(5), run_id="r2")
    assert table.info().trading == manila
    again = table.append(bars(5), run_id="r3", trading=Trading(session="0900-1530"))
    assert (again.added, again.info.version) == (0, 3)
    assert table.info().trading == Trading("Asia/Manila", "0900-1530", "XPHS")
    assert table.info(2).trading == manila


def test_the_bars_behind_a_version_are_read_from_what_was_written_since(table: BarsTable) -> None:
    given = bars(30)
    first = table.append(given.iloc[:20], run_id="r1").info
    table.append(given.iloc[20:29], run_id="r2")
    older = table.table.root / table.table.load(1).segments[0].file
    older.write_bytes(b"damaged")  # nobody opens it
    later = table.added(2, since=first.version, sha256=first.sha256)
    pd.testing.assert_frame_equal(later, given.iloc[20:29], check_freq=False)


def test_a_version_that_brings_no_bar_adds_none(table: BarsTable) -> None:
    info = table.append(bars(20), run_id="r1").info
    table.append(bars(20), run_id="r2", trading=Trading(calendar="XPHS"))
    for version in (1, 2):
        added = table.added(version, since=info.version, sha256=info.sha256)
        assert added is not None
        assert (len(added), list(added.columns)) == (0, list(PRICES))


def test_history_that_an_append_wrote_again_is_compared_by_its_hash(table: BarsTable) -> None:
    given = bars(60)
    first = table.append(given.iloc[:40], run_id="r").info
    for day in range(40, 60):
        table.append(given.iloc[day : day + 1], run_id="r")
    assert table.table.load().since(first.version) is None  # written whole on the way
    later = table.added(None, since=first.version, sha256=first.sha256)
    pd.testing.assert_frame_equal(later, given.iloc[40:], check_freq=False)
    for day in range(20):
        table.append(given.iloc[day : day + 1] + 1, run_id="revised")
    assert table.added(None, since=first.version, sha256=first.sha256) is None


@pytest.mark.parametrize("where", [3, 20])
def test_a_revised_bar_and_one_that_comes_late_are_no_addition(table: BarsTable, where: int) -> None:
    """Bar 3 is stored and given with other values; the one at 20 was left out and comes behind that of 21."""
    given = bars(24)
    first = table.append(given.drop(given.index[20]).iloc[:21], run_id="r1").info
    table.append(given.iloc[[where]] + 0.5, run_id="r2")
    table.append(given.iloc[22:], run_id="r3")
    assert table.added(None, since=first.version, sha256=first.sha256) is None


def test_an_unknown_beginning_adds_nothing(table: BarsTable) -> None:
    info = table.append(bars(5), run_id="r").info
    assert table.added(1, since=9, sha256=info.sha256) is None
    assert table.added(1, since=1, sha256="0" * 64) is None
    assert table.added(1, since=0, sha256=table.info(0).sha256) is None
