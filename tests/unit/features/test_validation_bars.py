"""`IngestionValidator`: what is wrong with bars is named, and stops no other symbol."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from services.features.domain.bars_batch import BarsBatch
from services.features.domain.validation import IngestionValidator
from services.features.domain.validation_bars import price_grid
from shared.errors import ContractError
from tests.unit.features import made


def check(frame, **settings):
    """The report of one bad symbol among two good ones, which must go on whatever the bad one has."""
    report = IngestionValidator(**settings).validate(
        {"X:A": made.bars(seed=7), "X:BAD": frame, "X:Z": made.bars(seed=8)}
    )
    assert {"X:A", "X:Z"} <= set(report.accepted)
    assert not {"X:A", "X:Z"} & set(report.rejected)
    assert len(report.bars("X:A")) == 60
    return report


def rejection(frame, **settings):
    report = check(frame, **settings)
    assert "X:BAD" not in report.accepted
    assert report.bars("X:BAD").empty
    assert "X:BAD" not in report.warnings
    return report.rejected["X:BAD"]


def test_sound_bars_pass_without_a_word():
    report = check(made.bars())
    assert report.accepted == ("X:A", "X:BAD", "X:Z")
    assert not report.rejected
    assert not report.warnings
    pd.testing.assert_frame_equal(report.bars("X:BAD"), made.bars(), check_freq=False, check_index_type=False)


@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, -np.inf, np.nan, 1.7e308])
def test_one_price_that_is_not_positive_and_finite_rejects_the_symbol(column, value):
    finding = rejection(made.with_value(made.bars(), 30, **{column: value}))
    assert finding.code == "bad_price"
    assert "2021-02-03" in finding.message
    assert len(finding.rows) == 1


def test_high_below_low_rejects_the_symbol_and_shows_the_bar():
    finding = rejection(made.with_value(made.bars(), 30, high=90.0, low=91.0, open=90.5, close=90.5))
    assert finding.code == "high_below_low"
    assert "2021-02-03" in finding.message
    assert "high 90 low 91" in finding.message


def test_two_bars_of_one_stamp_reject_the_symbol_even_when_they_are_equal():
    frame = made.bars()
    finding = rejection(pd.concat([frame.iloc[:31], frame.iloc[30:]]))
    assert finding.code == "duplicate_bar"
    assert finding.message == "two bars of 2021-02-03"


def test_bars_that_descend_reject_the_symbol():
    frame = made.bars()
    finding = rejection(pd.concat([frame.iloc[:30], frame.iloc[[35]], frame.iloc[30:35], frame.iloc[36:]]))
    assert finding.code == "descending_bars"
    assert "2021-02-03" in finding.message


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_bar_that_was_set_aside_still_has_a_stamp_that_nobody_else_may_have(value):
    frame = made.bars()
    empty = frame.iloc[[30]] * value
    assert rejection(pd.concat([frame.iloc[:31], empty, frame.iloc[31:]])).code == "duplicate_bar"
    assert rejection(pd.concat([frame.iloc[:40], empty, frame.iloc[40:]])).code == "descending_bars"


def test_a_repeated_stamp_that_is_not_adjacent_is_found_too():
    frame = made.bars()
    assert rejection(pd.concat([frame, frame.iloc[[3]]])).code == "descending_bars"


def test_of_several_faults_the_first_in_kind_is_named_and_counted():
    frame = made.bars()
    for row in (10, 20, 30, 40):
        frame = made.with_value(frame, row, close=-1.0)
    finding = rejection(frame)
    assert finding.code == "bad_price"
    assert "2021-01-14" in finding.message
    assert "3 more (2021-01-24, 2021-02-03, 2021-02-13)" in finding.message


def test_a_close_six_times_the_one_before_survives_and_one_above_that_is_toxic():
    assert "X:BAD" in check(made.from_closes([1.0] * 20 + [6.0] * 20)).accepted
    finding = rejection(made.from_closes([1.0] * 20 + [6.01] * 20))
    assert finding.code == "toxic"
    assert finding.message == "close went from 1 to 6.01 on 2021-01-24, +501%, more than +500%"


def test_plus_392_percent_survives_and_a_reverse_split_does_not():
    assert "X:BAD" in check(made.from_closes([1.0] * 20 + [4.92] * 20)).accepted
    assert rejection(made.from_closes([1.16] * 20 + [18.5] * 20)).code == "toxic"


def test_a_fall_is_not_toxic_however_deep():
    assert "X:BAD" in check(made.from_closes([100.0] * 20 + [0.01] * 20)).accepted


def test_the_move_is_measured_from_the_last_bar_that_counts():
    """A bar without prices between the two does not hide the move."""
    closes = [1.0] * 20 + [np.nan] + [7.0] * 20
    assert rejection(made.from_closes(closes)).code == "toxic"


def test_the_last_close_of_one_symbol_is_not_the_one_before_of_the_next():
    report = IngestionValidator().validate(
        {"X:LOW": made.from_closes([0.01] * 30), "X:TALL": made.from_closes([1e6] * 30)}
    )
    assert report.accepted == ("X:LOW", "X:TALL")


@pytest.mark.parametrize(("close", "aside"), [(101.0, False), (101.01, False), (101.02, True)])
def test_a_close_above_the_high_by_more_than_the_grid_of_its_prices_is_set_aside(close, aside):
    """Without a tick size, the decimal grid of the bar's own prices is the tick: here a cent."""
    frame = made.with_value(made.flat(price=100.0), 30, high=101.0, low=99.99, close=close)
    report = check(frame)
    assert "X:BAD" in report.accepted
    assert len(report.bars("X:BAD")) == (59 if aside else 60)
    assert bool(report.warnings) == aside


@pytest.mark.parametrize(("tick", "open_", "aside"), [(0.05, 98.95, False), (0.05, 98.94, True), (0.25, 98.75, False)])
def test_an_open_below_the_low_is_held_against_the_tick_that_is_given(tick, open_, aside):
    frame = made.with_value(made.flat(price=100.0), 30, high=101.0, low=99.0, open=open_)
    report = check(frame, ticks={"X:BAD": tick})
    assert len(report.bars("X:BAD")) == (59 if aside else 60)
    if aside:
        assert report.warnings["X:BAD"] == ("bars set aside, open or close outside low to high: 1 (2021-02-03)",)


def test_an_all_zero_row_is_set_aside_and_reported():
    frame = made.with_value(made.bars(), 30, open=0, high=0, low=0, close=0, volume=0)
    report = check(frame)
    assert report.warnings["X:BAD"] == ("bars set aside, all zero: 1 (2021-02-03)",)
    assert len(report.bars("X:BAD")) == 59


def test_zero_prices_with_a_volume_are_no_empty_row_but_bad_prices():
    frame = made.with_value(made.bars(), 30, open=0, high=0, low=0, close=0, volume=10)
    assert rejection(frame).code == "bad_price"


def test_a_row_without_prices_is_no_bar():
    frame = made.with_value(made.bars(), 30, open=np.nan, high=np.nan, low=np.nan, close=np.nan)
    report = check(frame)
    assert report.warnings["X:BAD"] == ("bars set aside, no price: 1 (2021-02-03)",)


@pytest.mark.parametrize("volume", [-1.0, np.inf, -np.inf, 1.7e308])
def test_a_negative_or_infinite_volume_sets_its_bar_aside(volume):
    report = check(made.with_value(made.bars(), 30, volume=volume))
    assert len(report.bars("X:BAD")) == 59
    assert "negative or infinite volume" in report.warnings["X:BAD"][0]


def test_a_missing_volume_is_a_bar():
    assert len(check(made.with_value(made.bars(), 30, volume=np.nan)).bars("X:BAD")) == 60


def test_many_set_aside_bars_are_counted_and_the_first_three_named():
    frame = made.bars()
    for row in range(10, 20):
        frame = made.with_value(frame, row, open=0, high=0, low=0, close=0, volume=0)
    expected = "bars set aside, all zero: 10 (2021-01-14, 2021-01-15, 2021-01-16, …)"
    assert check(frame).warnings["X:BAD"] == (expected,)


def test_a_symbol_of_which_every_bar_is_set_aside_is_rejected():
    frame = made.bars() * 0.0
    assert rejection(frame).message == "none of its 60 bars has usable prices"


def test_a_symbol_without_bars_is_rejected_as_such():
    finding = rejection(made.bars().iloc[:0])
    assert finding.code == "no_bars"


def test_sessions_without_a_bar_are_counted():
    """2021-01-18 and 2021-02-15 are holidays in New York, 2021-01-20 to 2021-01-22 are not."""
    frame = made.bars(40, freq="B").drop(
        pd.to_datetime(["2021-01-18", "2021-02-15", "2021-01-20", "2021-01-22"], utc=True)
    )
    report = check(frame, markets={"X:BAD": made.NEW_YORK})
    assert report.warnings["X:BAD"] == ("gaps: 2 sessions without a bar (2021-01-20, 2021-01-22)",)


def test_sessions_before_the_first_and_after_the_last_bar_are_no_gaps():
    frame = made.bars(40, freq="B").drop(pd.to_datetime(["2021-01-18", "2021-02-15"], utc=True))
    assert not check(frame, markets={"X:BAD": made.NEW_YORK}).warnings


def test_frames_of_another_shape_are_refused_with_the_symbol_named():
    with pytest.raises(ContractError, match=r"X:NAIVE.*UTC"):
        BarsBatch.of({"X:NAIVE": made.bars().tz_localize(None)})
    with pytest.raises(ContractError, match=r"X:SHORT.*bars lack volume"):
        BarsBatch.of({"X:SHORT": made.bars().drop(columns="volume")})


@pytest.mark.parametrize(
    ("prices", "grid"), [([1.0, 2.0], 1.0), ([50.25, 50.0], 0.01), ([0.00000012, 1.0], 1e-8), ([1 / 3, 1.0], 0.0)]
)
def test_the_grid_of_prices_is_the_coarsest_power_of_ten_that_they_stand_on(prices, grid):
    assert price_grid(np.array(prices)) == pytest.approx(grid, abs=0)
