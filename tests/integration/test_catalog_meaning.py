"""Every sentence of what the catalog means, on real files, through the public interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from services.catalog import ExchangeCatalog, MetadataCatalog, UpsertResult
from services.catalog.domain.decide import Batch
from shared.errors import ContractError, IntegrityError

T = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
JFC = "PSE:JFC"


def day(number: float) -> datetime:
    return T + timedelta(days=number)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = T

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def cat(tmp_path: Path, clock: Hand) -> MetadataCatalog:
    return MetadataCatalog.open(tmp_path / "symbols", clock=clock)


def table(cat: MetadataCatalog, symbol: str = JFC, field: str = "sector", known_at: Any = None) -> list[Any]:
    """(value, valid_from, valid_until) of each version, by number of day."""
    frame = cat.history(symbol, known_at=known_at)
    return [
        (None if pd.isna(row[field]) else row[field], number_of(row["valid_from"]), number_of(row["valid_until"]))
        for _, row in frame.iterrows()
    ]


def number_of(stamp: Any) -> float | None:
    return None if pd.isna(stamp) else (stamp.to_pydatetime() - T) / timedelta(days=1)


def put(cat: MetadataCatalog, at: float, known: float | None = None, **fields: Any) -> UpsertResult:
    return cat.upsert_symbols(
        [{"symbol": JFC, **fields}], effective_at=day(at), known_at=day(at if known is None else known)
    )


# -- intervals and two times


def test_intervals_are_half_open_and_the_open_one_has_no_end(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    put(cat, 5, sector="Banks")
    assert table(cat) == [("Food", 0, 5), ("Banks", 5, None)]
    assert cat.get_instrument(JFC, as_of=day(5) - TICK)["sector"] == "Food"
    assert cat.get_instrument(JFC, as_of=day(5))["sector"] == "Banks"
    assert cat.get_instrument(JFC, as_of=T - TICK) is None


def test_known_at_shows_the_table_exactly_as_it_stood_then(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    put(cat, 5, sector="Banks")
    before = cat.history()
    put(cat, 3, known=9, sector="Rail")
    assert table(cat) == [("Food", 0, 3), ("Rail", 3, 5), ("Banks", 5, None)]
    assert cat.history(known_at=day(8)).equals(before)
    assert cat.get_instrument(JFC, as_of=day(4), known_at=day(8))["sector"] == "Food"
    assert cat.get_instrument(JFC, as_of=day(4), known_at=day(9))["sector"] == "Rail"
    assert cat.get_instrument(JFC, known_at=day(2))["sector"] == "Food"  # as_of defaults to known_at
    assert cat.history(known_at=day(-1)).empty


def test_text_and_dates_without_a_zone_are_utc(cat: MetadataCatalog) -> None:
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}], effective_at="2024-01-01", known_at="2024-01-02T00:00")
    assert cat.get_instrument(JFC, as_of="2024-01-01")["valid_from"] == T
    with pytest.raises(ContractError, match="as_of"):
        cat.get_instrument(JFC, as_of="yesterday")


# -- upserts


def test_only_stated_fields_change_and_an_absent_field_is_kept(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food", industry="Restaurants")
    put(cat, 1, sector="Banks")
    assert cat.get_instrument(JFC, as_of=day(1))["industry"] == "Restaurants"


@pytest.mark.parametrize("null", [None, float("nan"), pd.NaT, "", "  "])
def test_an_explicit_null_is_kept_by_default_and_clears_under_nulls_set(cat: MetadataCatalog, null: Any) -> None:
    put(cat, 0, sector="Food", tick_size=0.1)
    assert put(cat, 1, sector=null, tick_size=null).unchanged == (JFC,)
    result = cat.upsert_symbols(
        [{"symbol": JFC, "sector": null, "tick_size": null}], effective_at=day(2), known_at=day(2), nulls="set"
    )
    assert result.changed == (JFC,)
    found = cat.get_instrument(JFC, as_of=day(2))
    assert (found["sector"], found["tick_size"]) == (None, None)


def test_an_unknown_execution_limit_is_null_never_zero(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    found = cat.get_instrument(JFC, as_of=T)
    assert [found[name] for name in ("tick_size", "lot_size", "min_notional", "contract_size")] == [None] * 4


@pytest.mark.parametrize(
    ("symbol", "record", "hours"),
    [
        ("PSE:JFC", {"timezone": "Asia/Tokyo", "session": "0900-1000"}, ("Asia/Tokyo", "0900-1000")),
        ("PSE:JFC", {}, ("Asia/Manila", "0930-1530")),
        ("BINANCE:BTCUSDT", {}, ("UTC", "24x7")),
        ("NEWDEX:BTCUSDT", {"type": "spot", "subtype": "crypto"}, ("UTC", "24x7")),
        ("NEWDEX:BTCUSDT", {"type": "spot"}, ("Unknown", "Unknown")),
    ],
)
def test_timezone_and_session_are_the_upstreams_else_the_exchanges_else_utc_for_crypto_else_unknown(
    cat: MetadataCatalog, symbol: str, record: dict[str, str], hours: tuple[str, str]
) -> None:
    cat.upsert_symbols([{"symbol": symbol, **record}])
    for found in (cat.get_instrument(symbol), cat.history().iloc[0], cat.history(symbol).iloc[0], cat.at(T).iloc[0]):
        assert (found["timezone"], found["session"]) == hours


def test_a_default_that_upstream_confirms_makes_no_version(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    assert put(cat, 1, timezone="Asia/Manila").unchanged == (JFC,)
    assert len(cat.history()) == 1
    assert cat.audit() == []


def test_a_symbol_absent_from_an_upsert_is_untouched_and_absent_from_a_snapshot_retired(
    cat: MetadataCatalog, clock: Hand
) -> None:
    cat.upsert_symbols([{"symbol": JFC}, {"symbol": "PSE:BDO"}], known_at=day(0))
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}], known_at=day(1))
    assert cat.get_instrument("PSE:BDO")["active"] is True
    result = cat.apply_snapshot([{"symbol": JFC, "sector": "Food"}], known_at=day(2))
    assert result.changed == ("PSE:BDO",)
    assert cat.get_instrument("PSE:BDO", as_of=day(2))["active"] is False
    clock.now = day(2)
    assert cat.active() == [JFC]


def test_in_a_snapshot_a_field_that_is_not_stated_is_null(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food", industry="Restaurants")
    cat.apply_snapshot([{"symbol": JFC, "sector": "Food"}], known_at=day(1))
    assert table(cat, field="industry") == [("Restaurants", 0, 1), (None, 1, None)]


def test_a_first_record_without_active_is_active(cat: MetadataCatalog) -> None:
    put(cat, 0)
    put(cat, 1, active=None)
    assert table(cat, field="active") == [(True, 0, None)]


# -- what counts as a change


def test_a_version_exists_only_if_a_meaningful_field_changed_against_the_stored_version(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food", tick_size=1.0, pricescale=2**53 + 1)
    for at, fields in enumerate(
        (
            {"sector": "Food"},
            {"tick_size": 1.0 + 0.6e-9},
            {"pricescale": str(2**53 + 1)},
            {"run_id": "r", "source": "s", "updated_at": "x"},
        ),
        start=1,
    ):
        assert put(cat, at, **fields).unchanged == (JFC,), fields
    # Against what is stored, not against the observation before: small steps do not add up unseen.
    assert put(cat, 8, tick_size=1.0 + 1.2e-9).changed == (JFC,)
    assert put(cat, 9, pricescale=2**53).changed == (JFC,)
    assert put(cat, 10, sector="food").changed == (JFC,)


def test_run_id_and_source_never_make_a_version(cat: MetadataCatalog) -> None:
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}], known_at=day(0), run_id="r1", source="a")
    result = cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}], known_at=day(1), run_id="r2", source="b")
    assert result.unchanged == (JFC,)
    found = cat.get_instrument(JFC, as_of=day(1))
    assert (found["run_id"], found["source"], found["updated_at"]) == ("r1", "a", T)
    assert found["last_confirmed"] == day(1)


# -- retire


def test_retire_keeps_all_attributes_is_idempotent_and_reports_unknown_symbols(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food", tick_size=0.1)
    result = cat.retire_symbols([JFC, "PSE:NOPE"], known_at=day(1))
    assert result.changed == (JFC,)
    assert list(result.rejected) == ["PSE:NOPE"]
    assert cat.history("PSE:NOPE").empty
    assert cat.retire_symbols([JFC], known_at=day(2)).unchanged == (JFC,)
    found = cat.get_instrument(JFC, as_of=day(2))
    assert (found["active"], found["sector"], found["tick_size"], found["valid_from"]) == (False, "Food", 0.1, day(1))


def test_a_retire_of_a_symbol_that_is_not_known_is_no_event(cat: MetadataCatalog) -> None:
    result = cat.retire_symbols([JFC], known_at=day(5))
    assert (list(result.rejected), result.version) == ([JFC], 0)
    put(cat, 1, known=6, sector="Food")
    assert table(cat, field="active") == [(True, 1, None)]


def test_active_or_a_snapshot_relists_contiguously_and_a_patch_without_active_does_not(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    cat.retire_symbols([JFC], known_at=day(1))
    put(cat, 2, sector="Banks")
    assert table(cat, field="active")[-1] == (False, 2, None)
    put(cat, 3, active=True)
    cat.retire_symbols([JFC], known_at=day(4))
    cat.apply_snapshot([{"symbol": JFC, "sector": "Banks"}], known_at=day(5))
    assert table(cat, field="active") == [
        (True, 0, 1),
        (False, 1, 2),
        (False, 2, 3),
        (True, 3, 4),
        (False, 4, 5),
        (True, 5, None),
    ]
    assert cat.audit() == []


# -- batches


def test_the_same_symbol_twice_in_one_batch_the_last_wins_and_makes_one_version(cat: MetadataCatalog) -> None:
    result = cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}, {"symbol": f" {JFC} ", "sector": "Banks"}])
    assert result.inserted == (JFC,)
    assert table(cat) == [("Banks", 0, None)]


def test_records_that_fail_are_rejected_by_name_and_the_rest_proceed(cat: MetadataCatalog) -> None:
    result = cat.upsert_symbols(
        [{"sector": "Food"}, {"symbol": "PSE:BAD", "tick_size": "x"}, 7, {"symbol": JFC}]  # type: ignore[list-item]
    )
    assert result.inserted == (JFC,)
    assert set(result.rejected) == {0, "PSE:BAD", 2}
    assert "tick_size" in result.rejected["PSE:BAD"]


def test_a_record_that_a_snapshot_cannot_read_is_no_absence(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    result = cat.apply_snapshot([{"symbol": JFC, "tick_size": "x"}], known_at=day(1))
    assert list(result.rejected) == [JFC]
    assert cat.active() == [JFC]


# -- late events


def test_a_late_event_splits_the_interval_it_falls_in(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    put(cat, 5, sector="Banks")
    put(cat, 2, known=9, sector="Rail")
    assert table(cat) == [("Food", 0, 2), ("Rail", 2, 5), ("Banks", 5, None)]


def test_a_late_event_moves_its_neighbours_start_earlier(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    put(cat, 5, sector="Banks")
    put(cat, 3, known=9, sector="Banks")
    assert table(cat) == [("Food", 0, 3), ("Banks", 3, None)]


def test_a_late_event_that_repeats_changes_nothing(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    assert put(cat, 3, known=9, sector="Food").unchanged == (JFC,)
    assert table(cat) == [("Food", 0, None)]


def test_a_late_patch_flows_forward_field_by_field_up_to_the_next_event_that_stated_the_field(
    cat: MetadataCatalog,
) -> None:
    put(cat, 0, sector="Food", tick_size=0.1)
    put(cat, 4, tick_size=0.2)
    put(cat, 6, sector="Rail")
    put(cat, 2, known=9, sector="Banks", tick_size=0.5)
    assert table(cat) == [("Food", 0, 2), ("Banks", 2, 4), ("Banks", 4, 6), ("Rail", 6, None)]
    assert table(cat, field="tick_size") == [(0.1, 0, 2), (0.5, 2, 4), (0.2, 4, 6), (0.2, 6, None)]


def test_an_observation_that_changed_nothing_ends_a_late_event_before_it(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    put(cat, 5, sector="Food")
    put(cat, 3, known=9, sector="Banks")
    assert table(cat) == [("Food", 0, 3), ("Banks", 3, 5), ("Food", 5, None)]


def test_an_observation_that_changed_nothing_says_how_fresh_a_value_is(cat: MetadataCatalog, tmp_path: Path) -> None:
    put(cat, 0, sector="Food")
    put(cat, 5, sector="Food")
    for reader in (cat, MetadataCatalog.open(tmp_path / "symbols")):
        assert reader.get_instrument(JFC, as_of=day(9))["last_confirmed"] == day(5)
        assert reader.history()["last_confirmed"].tolist() == [pd.Timestamp(day(5))]
        assert reader.history(known_at=day(4))["last_confirmed"].tolist() == [pd.Timestamp(day(0))]


def test_corrections_at_one_instant_apply_in_order_of_known_time_and_the_earlier_stays_visible(
    cat: MetadataCatalog,
) -> None:
    put(cat, 0, known=0, sector="Food", industry="Restaurants")
    put(cat, 0, known=3, sector="Banks")
    assert table(cat) == [("Banks", 0, None)]
    assert table(cat, known_at=day(2)) == [("Food", 0, None)]
    found = cat.get_instrument(JFC, as_of=day(0))
    assert (found["industry"], found["updated_at"]) == ("Restaurants", day(3))


def test_events_of_one_instant_learned_at_once_apply_by_content_in_either_order(tmp_path: Path) -> None:
    tables = []
    for number, order in enumerate((("Food", "Banks"), ("Banks", "Food"))):
        cat = MetadataCatalog.open(tmp_path / str(number))
        for sector in order:
            put(cat, 0, known=3, sector=sector)
        tables.append(table(cat))
    assert tables[0] == tables[1]


# -- clocks


@pytest.mark.parametrize("back", [timedelta(0), timedelta(seconds=5)])
def test_a_live_clock_that_stands_still_or_goes_back_takes_the_newest_and_a_microsecond(
    cat: MetadataCatalog, clock: Hand, back: timedelta
) -> None:
    for sector in ("Food", "Banks", "Rail", "Ships"):
        cat.upsert_symbols([{"symbol": JFC, "sector": sector}])
        clock.now -= back
    frame = cat.history()
    assert frame["sector"].tolist() == ["Food", "Banks", "Rail", "Ships"]
    assert [stamp.to_pydatetime() for stamp in frame["valid_from"]] == [T, T + TICK, T + 2 * TICK, T + 3 * TICK]
    assert set(frame["updated_at"]) == {pd.Timestamp(T)}  # only the effective instant moves
    assert cat.audit() == []


def test_observations_count_for_the_newest_instant(cat: MetadataCatalog, clock: Hand) -> None:
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}])
    clock.now = day(5)
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}])
    clock.now = day(3)
    cat.upsert_symbols([{"symbol": JFC, "sector": "Banks"}])
    assert cat.history()["valid_from"].iloc[1] == day(5) + TICK


def test_an_announced_future_change_does_not_hold_back_the_present(cat: MetadataCatalog, clock: Hand) -> None:
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}])
    cat.upsert_symbols([{"symbol": JFC, "sector": "Banks"}], effective_at=day(30))
    clock.now = day(2)
    cat.upsert_symbols([{"symbol": JFC, "sector": "Rail"}])
    assert table(cat) == [("Food", 0, 2), ("Rail", 2, 30), ("Banks", 30, None)]


def test_a_known_at_earlier_than_the_newest_stored_is_raised_to_it(cat: MetadataCatalog) -> None:
    cat.upsert_symbols([{"symbol": "PSE:BDO"}], known_at=day(9))
    before = cat.history(known_at=day(8))
    put(cat, 1, known=2, sector="Food")
    assert cat.get_instrument(JFC, as_of=day(1))["updated_at"] == day(9)
    assert cat.history(known_at=day(8)).equals(before)


def test_updated_at_is_when_the_row_first_stood_in_the_table(cat: MetadataCatalog) -> None:
    put(cat, 0, known=0, sector="Food")
    put(cat, 5, known=5, sector="Banks")
    put(cat, 3, known=6, sector="Banks")  # the version of day 5 is gone
    put(cat, 4, known=7, sector="Food")  # and back
    assert cat.history()["valid_from"].tolist() == [pd.Timestamp(day(number)) for number in (0, 3, 4, 5)]
    assert cat.history()["updated_at"].tolist() == [pd.Timestamp(day(number)) for number in (0, 6, 7, 5)]


# -- redelivery


def files_of(tmp_path: Path) -> list[str]:
    return sorted(str(path) for path in (tmp_path / "symbols").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "write",
    [
        lambda cat: cat.upsert_symbols([{"symbol": JFC, "sector": "Banks"}], event_id="e1"),
        lambda cat: cat.upsert_symbols([{"symbol": JFC, "sector": "Banks"}], effective_at=day(1)),
        lambda cat: cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}], effective_at=day(1)),
        lambda cat: cat.retire_symbols([JFC], event_id="e2"),
        lambda cat: cat.retire_symbols([JFC], effective_at=day(1)),
        lambda cat: cat.apply_snapshot([{"symbol": JFC}], event_id="e3"),
        lambda cat: cat.apply_snapshot([{"symbol": "PSE:NEW"}], effective_at=day(1)),
    ],
)
def test_a_redelivered_event_is_no_version_no_file_and_no_new_updated_at(
    cat: MetadataCatalog, clock: Hand, tmp_path: Path, write: Callable[[MetadataCatalog], UpsertResult]
) -> None:
    put(cat, 0, sector="Food")
    clock.now = day(2)
    first = write(cat)
    before, files = cat.history(), files_of(tmp_path)
    put_later = MetadataCatalog.open(tmp_path / "symbols", clock=clock)
    for again in (cat, put_later):
        clock.now += timedelta(days=1)
        result = write(again)
        assert (result.inserted, result.changed, result.version) == ((), (), first.version)
    assert files_of(tmp_path) == files
    assert cat.history().equals(before)


def test_a_redelivery_is_recognised_before_any_stamp_is_moved(cat: MetadataCatalog) -> None:
    # The clock stands still: asked for again at the same instant, the first is the first, not a return to it.
    cat.upsert_symbols([{"symbol": JFC, "sector": "Food"}])
    cat.upsert_symbols([{"symbol": JFC, "sector": "Banks"}])
    for sector in ("Banks", "Food", "Banks"):
        assert cat.upsert_symbols([{"symbol": JFC, "sector": sector}]).unchanged == (JFC,)
    assert cat.history()["sector"].tolist() == ["Food", "Banks"]
    assert cat.version == 2


def test_the_same_content_at_another_instant_is_another_event(cat: MetadataCatalog, clock: Hand) -> None:
    for number, sector in enumerate(("Food", "Banks", "Food")):
        clock.now = day(number)
        cat.upsert_symbols([{"symbol": JFC, "sector": sector}])
    assert table(cat) == [("Food", 0, 1), ("Banks", 1, 2), ("Food", 2, None)]


# -- snapshots


def test_a_symbol_learned_after_a_snapshot_is_not_touched_by_it_even_when_it_is_redelivered(
    cat: MetadataCatalog,
) -> None:
    put(cat, 0, sector="Food")
    universe = [{"symbol": JFC, "sector": "Food"}]
    cat.apply_snapshot(universe, effective_at=day(5), known_at=day(5), event_id="s1")
    cat.upsert_symbols([{"symbol": "PSE:NEW"}], effective_at=day(1), known_at=day(6))
    result = cat.apply_snapshot(universe, effective_at=day(5), known_at=day(7), event_id="s1")
    assert result.changed == ()
    assert table(cat, "PSE:NEW", "active") == [(True, 1, None)]


def test_a_snapshot_of_one_exchange_leaves_the_others_alone(cat: MetadataCatalog, clock: Hand) -> None:
    cat.upsert_symbols([{"symbol": JFC}, {"symbol": "PSE:BDO"}, {"symbol": "BINANCE:BTCUSDT"}], known_at=day(0))
    result = cat.apply_snapshot([{"symbol": JFC}, {"symbol": "OKX:ETHUSDT"}], known_at=day(1), exchange="PSE")
    assert (result.changed, list(result.rejected)) == (("PSE:BDO",), ["OKX:ETHUSDT"])
    clock.now = day(1)
    assert cat.active() == ["BINANCE:BTCUSDT", JFC]


def test_a_symbol_is_active_until_the_retirement_that_was_announced_for_later(
    cat: MetadataCatalog, clock: Hand
) -> None:
    put(cat, 0, sector="Food")
    cat.retire_symbols([JFC], effective_at=day(300), known_at=day(1))
    cat.upsert_symbols([{"symbol": "PSE:SOON"}], effective_at=day(400), known_at=day(1))
    assert cat.active() == [JFC]
    clock.now = day(300)
    assert cat.active() == []
    clock.now = day(400)
    assert cat.active() == ["PSE:SOON"]


def test_a_snapshot_by_a_clock_that_went_back_retires_what_it_does_not_have(cat: MetadataCatalog, clock: Hand) -> None:
    clock.now = day(10)
    cat.upsert_symbols([{"symbol": JFC}, {"symbol": "PSE:BDO"}])
    clock.now = day(5)
    assert cat.apply_snapshot([{"symbol": JFC}], event_id="s1").changed == ("PSE:BDO",)
    assert table(cat, "PSE:BDO", "active")[0][:2] == (True, 10)
    assert list(cat.history("PSE:BDO")["valid_from"]) == [day(10), day(10) + TICK]
    assert cat.audit() == []


def test_a_snapshot_retires_what_is_live_at_its_own_instant(cat: MetadataCatalog) -> None:
    cat.upsert_symbols([{"symbol": "PSE:SOON"}], effective_at=day(30), known_at=day(0))
    cat.retire_symbols(["PSE:SOON"], effective_at=day(40), known_at=day(0))
    assert cat.apply_snapshot([], known_at=day(2)).changed == ()
    assert cat.apply_snapshot([], known_at=day(3), effective_at=day(35)).changed == ("PSE:SOON",)
    assert table(cat, "PSE:SOON", "active") == [(True, 30, 35), (False, 35, None)]


# -- what a run saw


def saw(cat: MetadataCatalog, event_id: str, field: str = "sector") -> Any:
    found = cat.left_by(JFC, event_id)
    return None if found is None else found[field]


def two_runs(cat: MetadataCatalog, known: Sequence[float], at: Sequence[float] = (1, 1)) -> None:
    """Two runs that observe a symbol differently, in one commit where they are known at one instant."""
    batches = [
        Batch("upsert", [{"symbol": JFC, **fields}], day(when), day(effective), event_id=run, run_id=run)
        for run, when, effective, fields in zip(
            ("r1", "r2"),
            known,
            at,
            ({"sector": "Food", "pricescale": 100}, {"sector": "Banks", "country": "PH"}),
            strict=True,
        )
    ]
    if known[0] == known[1]:
        cat.apply(batches)
    else:
        for batch in batches:
            cat.apply([batch])


@pytest.mark.parametrize("known", [(1, 1), (1, 2)])
@pytest.mark.parametrize("at", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("anew", [False, True])
def test_each_of_two_runs_keeps_its_own_whatever_the_other_did(
    cat: MetadataCatalog, tmp_path: Path, known: Sequence[float], at: Sequence[float], anew: bool
) -> None:
    put(cat, 0, sector="Rail", industry="Trains")
    two_runs(cat, known, at)
    put(cat, 9, sector="Ships")
    found = MetadataCatalog.open(tmp_path / "symbols") if anew else cat
    assert (saw(found, "r1"), saw(found, "r1", "pricescale")) == ("Food", 100)
    assert saw(found, "r2") == "Banks"
    assert {saw(found, run, "industry") for run in ("r1", "r2")} == {"Trains"}
    assert saw(found, "r3") is None


def test_what_a_run_saw_says_until_when_it_was_known_to_hold(cat: MetadataCatalog) -> None:
    put(cat, 5, sector="Ships")
    two_runs(cat, (6, 7))
    seen = cat.left_by(JFC, "r1")
    assert seen is not None
    assert (seen["valid_from"], seen["valid_until"], seen["run_id"]) == (day(1), day(5), "r1")


# -- keys, files


def test_a_rename_keeps_everything_and_is_a_no_op_when_it_is_repeated(cat: MetadataCatalog, clock: Hand) -> None:
    put(cat, 0, sector="Food", tick_size=0.05)
    for _ in range(2):
        result = cat.rename_symbol(JFC, "PSE:JFCX", effective_at=day(2), known_at=day(2), event_id="e1")
    assert (result.unchanged, result.rejected, cat.version) == (("PSE:JFCX", JFC), {}, 2)
    clock.now = day(3)
    assert cat.active() == ["PSE:JFCX"]
    found = cat.get_instrument("PSE:JFCX")
    assert (found["sector"], found["tick_size"], found["renamed_from"]) == ("Food", 0.05, JFC)


def test_a_rename_of_nothing_of_itself_or_onto_an_active_symbol_changes_neither(cat: MetadataCatalog) -> None:
    put(cat, 0, sector="Food")
    cat.upsert_symbols([{"symbol": "PSE:BDO"}, {"symbol": "PSE:OLD", "sector": "Rail"}], known_at=day(0))
    cat.retire_symbols(["PSE:OLD"], known_at=day(1))
    version = cat.version
    for old, new, why in (
        (JFC, "no symbol at all", "no symbol"),
        (JFC, JFC, "already"),
        (JFC, "PSE:BDO", "another symbol"),
        ("PSE:OLD", "PSE:NEW", "retired"),
        ("PSE:NONE", "PSE:NEW", "does not know"),
    ):
        result = cat.rename_symbol(old, new, known_at=day(2))
        assert why in result.rejected[old], (old, new)
        assert (result.inserted, result.changed, cat.version) == ((), (), version)
    assert cat.rename_symbol(JFC, "PSE:OLD", known_at=day(3)).changed == ("PSE:OLD", JFC)  # a ticker is used again
    assert table(cat, "PSE:OLD") == [("Rail", 0, 1), ("Rail", 1, 3), ("Food", 3, None)]


def test_a_rename_takes_the_attributes_that_stand_when_it_is_committed(cat: MetadataCatalog, tmp_path: Path) -> None:
    put(cat, 0, sector="Food")
    other = MetadataCatalog.open(tmp_path / "symbols")
    assert cat.rename_symbol("PSE:NONE", "PSE:X").rejected
    put(other, 1, sector="Banks")
    cat.rename_symbol(JFC, "PSE:JFCX", effective_at=day(2), known_at=day(2))
    assert table(cat, "PSE:JFCX") == [("Banks", 2, None)]


def test_composite_keys_are_never_concatenated(cat: MetadataCatalog) -> None:
    cat.upsert_symbols([{"symbol": "A:BC", "sector": "one"}, {"symbol": "AB:C", "sector": "two"}])
    assert (cat.get_instrument("A:BC")["sector"], cat.get_instrument("AB:C")["sector"]) == ("one", "two")


def test_an_unreadable_file_stops_with_its_name_and_is_never_read_as_empty(
    cat: MetadataCatalog, tmp_path: Path
) -> None:
    put(cat, 0, sector="Food")
    (segment,) = (tmp_path / "symbols" / "segments").iterdir()
    segment.write_bytes(segment.read_bytes()[:-9])
    fresh = MetadataCatalog.open(tmp_path / "symbols")
    for read in (lambda: fresh.get_instrument(JFC), fresh.history, lambda: put(fresh, 1, sector="Banks")):
        with pytest.raises(IntegrityError, match=segment.name):
            read()
    assert any(segment.name in violation for violation in cat.audit())


def test_an_export_is_plain_parquet_that_names_its_version(cat: MetadataCatalog, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    put(cat, 0, sector="Food")
    put(cat, 5, sector="Banks")
    path = cat.export(tmp_path / "symbols.parquet")
    assert pq.read_schema(path).metadata[b"asof.version"] == b"2"
    frame = pd.read_parquet(path)
    assert frame["sector"].tolist() == ["Food", "Banks"]
    assert frame["valid_until"].isna().tolist() == [False, True]


def test_exchanges_are_versioned_the_same_way(tmp_path: Path, clock: Hand) -> None:
    cat = ExchangeCatalog.open(tmp_path / "exchanges", clock=clock)
    cat.upsert_exchanges([{"exchange": "PSE", "country": "PH", "is_crypto": False}])
    clock.now = day(1)
    cat.upsert_exchanges([{"exchange": "PSE", "description": "Philippine Stock Exchange"}])
    found = cat.get_exchange("PSE")
    assert (found["country"], found["description"], found["valid_from"]) == ("PH", "Philippine Stock Exchange", day(1))
    assert cat.get_exchange("PSE", as_of=day(0))["description"] is None
    assert cat.get_exchange("XXX") is None
    assert len(cat.history()) == 2


# -- readers


def test_a_reader_follows_what_another_writes_and_reads_nothing_twice(
    cat: MetadataCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.tables import snapshot as snapshots

    put(cat, 0, sector="Food")
    reader = MetadataCatalog.open(tmp_path / "symbols")
    assert reader.get_instrument(JFC, as_of=day(0))["sector"] == "Food"
    opened: list[str] = []
    really = snapshots.open_segment
    monkeypatch.setattr(
        snapshots, "open_segment", lambda root, segment: opened.append(segment.file) or really(root, segment)
    )
    put(cat, 1, sector="Banks")
    assert reader.get_instrument(JFC, as_of=day(1))["sector"] == "Banks"
    assert len(opened) == 1
    cat.compact()
    put(cat, 2, sector="Rail")
    assert table(reader) == [("Food", 0, 1), ("Banks", 1, 2), ("Rail", 2, None)]
    assert len(reader.history()) == 3
    cat.compact()
    assert len(reader.history()) == 3


def test_the_writer_merges_small_segments_as_it_goes(cat: MetadataCatalog) -> None:
    for number in range(100):
        put(cat, number, sector=f"S{number}")
    snapshot = cat._table.load()
    assert len(snapshot.segments) < 40
    assert len(cat.history()) == 100
    assert cat.audit() == []
