"""Recorded adjustments: the one way past a move that no market makes, without a word of the future."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest

from services.features.domain.adjustments import Adjustment, adjust, known_by
from services.features.domain.bars_batch import BarsBatch
from services.features.domain.rating import rate
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.validation import IngestionValidator
from services.features.domain.validation_features import FEATURES
from shared.errors import ContractError
from tests.unit.features import made
from tests.unit.features.made import CRYPTO, instant, stamp

SPLIT = 60  # the bar, from 0, at which the new scale begins: 2021-03-05


def adjustment(symbol="X:A", date="2021-03-05", factor=16.0, known_at=None, **fields):
    return Adjustment(
        **{
            "symbol": symbol,
            "date": instant(date) if isinstance(date, str) else date,
            "factor": factor,
            "known_at": instant(known_at or str(date)),
            "recorded_at": instant("2026-01-01"),
            "recorded_by": "mia",
            "reason": "reverse split",
            **fields,
        }
    )


def split(frame, factor=16.0, at=SPLIT):
    """What an exchange shows of a split: from a bar on, every price times the factor, every volume by it."""
    shown = frame.copy()
    for name in ("open", "high", "low", "close"):
        shown.iloc[at:, shown.columns.get_loc(name)] *= factor
    shown.iloc[at:, shown.columns.get_loc("volume")] /= factor
    return shown


def rated(frames, adjustments=(), as_of="2021-06-01"):
    return rate(
        BarsBatch.of(frames),
        markets=dict.fromkeys(frames, CRYPTO),
        ticks={},
        rules="screener",
        as_of=stamp(as_of),
        interval="1d",
        adjustments=adjustments,
    )


def values_of(result, symbol="X:A"):
    own = result.report.batch.of_symbols({symbol})
    return np.column_stack([result.values[name][own] for name in FEATURES])


FRAME = made.bars(140)
EXPECTED = TechnicalRatings.compute(FRAME)[list(FEATURES)].to_numpy()


def test_without_its_adjustment_a_reverse_split_is_toxic_and_with_it_the_symbol_passes():
    frames = {"X:A": split(FRAME)}
    assert rated(frames).refused["X:A"].finding.code == "toxic"
    assert rated(frames, [adjustment()]).staged == ("X:A",)


@pytest.mark.parametrize("factor", [16.0, 100.0, 0.25, 0.125, 3.0, 1 / 3, 7.5])
def test_an_adjusted_series_rates_as_the_one_that_was_never_split(factor):
    result = rated({"X:A": split(FRAME, factor)}, [adjustment(factor=factor)])
    assert result.staged == ("X:A",)
    np.testing.assert_allclose(values_of(result), EXPECTED, rtol=0, atol=1e-9)


def test_every_row_before_the_split_is_to_the_bit_that_of_a_run_that_never_heard_of_it():
    before = values_of(rated({"X:A": FRAME}, as_of="2021-03-05"))
    after = values_of(rated({"X:A": split(FRAME, 3.7)}, [adjustment(factor=3.7)]))
    assert len(before) == SPLIT
    assert np.array_equal(after[:SPLIT], before, equal_nan=True)


def test_a_run_as_of_a_day_before_an_adjustment_was_known_does_without_it():
    frames = {"X:A": split(FRAME)}
    late = adjustment(known_at="2021-04-01")
    assert rated(frames, [late], as_of="2021-03-31T23:59:59").refused["X:A"].finding.code == "toxic"
    assert rated(frames, [late], as_of="2021-04-01").staged == ("X:A",)
    assert rated(frames, [late], as_of="2021-03-05").staged == ("X:A",), "there is no bar on the new scale yet"


def test_no_rating_is_known_before_the_adjustment_that_it_needs():
    result = rated({"X:A": split(FRAME)}, [adjustment(known_at="2021-04-01T12:00:00")])
    stamps, known = result.report.batch.stamps, result.known_at
    day = 86_400_000_000
    needs = stamps >= stamp("2021-03-05")
    assert (known[~needs] == stamps[~needs] + day).all()
    assert (known[needs] == np.maximum(stamps[needs] + day, stamp("2021-04-01T12:00:00"))).all()


def test_an_adjustment_that_the_bars_have_already_is_not_used_and_that_is_said():
    """An upstream that adjusts its own history later must not be adjusted a second time."""
    result = rated({"X:A": FRAME}, [adjustment()])
    assert np.array_equal(values_of(result), EXPECTED, equal_nan=True)
    assert result.report.warnings["X:A"] == (
        "recorded adjustment not used, the bars do not need it: 2021-03-05 × 16 (reverse split; recorded by mia)",
    )


def test_a_used_adjustment_is_said():
    said = rated({"X:A": split(FRAME)}, [adjustment()]).report.warnings["X:A"]
    assert said == ("adjusted: 2021-03-05 × 16 (reverse split; recorded by mia)",)


def test_a_factor_that_does_not_explain_the_move_leaves_the_symbol_out():
    finding = rated({"X:A": split(FRAME, 100.0)}, [adjustment(factor=2.0)]).refused["X:A"].finding
    assert finding.code == "toxic"
    assert "after recorded adjustments, more than +500%" in finding.message


def test_a_date_that_is_not_that_of_the_move_leaves_the_symbol_out():
    result = rated({"X:A": split(FRAME)}, [adjustment(date="2021-03-04")])
    assert result.refused["X:A"].finding.code == "toxic"


def test_a_second_move_needs_a_record_of_its_own():
    frames = {"X:A": split(split(FRAME, 16.0), 10.0, at=100)}
    assert rated(frames, [adjustment()]).refused["X:A"].finding.code == "toxic"
    both = [adjustment(date="2021-04-14", factor=10.0), adjustment()]
    result = rated(frames, both)
    assert result.staged == ("X:A",)
    np.testing.assert_allclose(values_of(result), EXPECTED, rtol=0, atol=1e-9)


def test_bad_prices_are_no_better_for_an_adjustment():
    frames = {"X:A": made.with_value(split(FRAME), 80, close=-1.0)}
    assert rated(frames, [adjustment()]).refused["X:A"].finding.code == "bad_price"


def test_an_adjustment_touches_its_own_symbol_only():
    frames = {"X:A": split(FRAME), "X:B": FRAME, "X:C": split(FRAME)}
    result = rated(frames, [adjustment()])
    assert result.staged == ("X:A", "X:B")
    assert np.array_equal(values_of(result, "X:B"), EXPECTED, equal_nan=True)


def test_the_move_is_read_from_bars_that_count():
    """A set-aside row at the date of the split neither hides it nor stands for it."""
    shown = made.with_value(split(FRAME), SPLIT, open=0, high=0, low=0, close=0, volume=0)
    assert rated({"X:A": shown}, [adjustment()]).staged == ("X:A",)


def test_ticks_are_of_the_prices_as_they_were_traded():
    """Half a cent outside the range is a tick of the traded price, also where its bar is scaled by a hundred."""
    shown = split(FRAME.round(2), 100.0)
    shown = made.with_value(shown, 80, high=9000.0, low=8000.0, open=8500.0, close=9000.01)
    batch = BarsBatch.of({"X:A": shown})
    report = IngestionValidator(ticks={"X:A": 0.01}, adjustments={"X:A": (adjustment(factor=100.0),)}).validate(batch)
    assert not (report.set_aside != "").any()
    assert report.batch.values[80, 3] == 9000.01
    assert report.bars("X:A")["close"].iloc[80] == pytest.approx(90.0001)


def test_adjustments_without_bars_on_both_sides_change_nothing():
    for date in ("2020-01-01", "2022-01-01"):
        batch = BarsBatch.of({"X:A": FRAME})
        done = adjust(batch, np.ones(len(batch), bool), {"X:A": (adjustment(date=date),)})
        assert done.values is batch.values
        assert not done.applied
        assert not done.ignored


def test_what_is_known_by_an_instant_comes_by_symbol_and_in_order_of_date():
    ones = [adjustment(date="2021-05-01"), adjustment(), adjustment("X:B", known_at="2021-07-01", date="2021-02-01")]
    known = known_by(ones, stamp("2021-06-01"))
    assert {symbol: [one.date.month for one in each] for symbol, each in known.items()} == {"X:A": [3, 5]}
    assert list(known_by(ones, stamp("2021-07-01"))) == ["X:A", "X:B"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"factor": 0.0}, "no factor"),
        ({"factor": -2.0}, "no factor"),
        ({"factor": 1.0}, "no factor"),
        ({"factor": math.nan}, "no factor"),
        ({"factor": math.inf}, "no factor"),
        ({"symbol": "../../etc/passwd"}, "exchange"),
        ({"reason": " "}, "reason"),
        ({"recorded_by": ""}, "name"),
        ({"date": instant("2021-03-05").replace(tzinfo=None)}, "time zone"),
        ({"recorded_at": instant("2021-03-05") - timedelta(seconds=1)}, "known later than it was recorded"),
    ],
)
def test_what_is_no_adjustment_is_refused(wrong, words):
    with pytest.raises(ContractError, match=words):
        adjustment(**wrong)
