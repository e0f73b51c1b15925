"""One batch from bars to rows that may be staged: what was known by `as_of`, and nothing that fails."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.features.domain.bars_batch import BarsBatch
from services.features.domain.rating import rate
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.sessions import Market
from services.features.domain.validation_features import FEATURES
from tests.unit.features import made
from tests.unit.features.made import CRYPTO, MANILA, NEW_YORK


def rated(frames, as_of="2021-03-10", markets=None, rules="screener", interval="1d"):
    batch = BarsBatch.of(dict(sorted(frames.items())))
    return rate(batch, markets=markets or {}, ticks={}, rules=rules, as_of=made.stamp(as_of), interval=interval)


def rows(result, symbol):
    batch = result.report.batch
    own = batch.of_symbols({symbol})
    index = pd.DatetimeIndex(pd.to_datetime(batch.stamps[own], unit="us", utc=True))
    return pd.DataFrame({name: result.values[name][own] for name in FEATURES}, index=index)


def same_bits(one, other):
    return all(np.array_equal(one[name].to_numpy(), other[name].to_numpy(), equal_nan=True) for name in FEATURES)


@pytest.mark.parametrize("rules", ["screener", "pine_v3", "institutional"])
def test_a_batch_has_for_each_symbol_what_the_symbol_has_alone(rules):
    """Series of different lengths, dates and holes share one panel and do not touch each other."""
    holes = made.bars(60, seed=3)
    holes.iloc[[7, 20, 21], :4] = np.nan
    frames = {
        "X:A": made.bars(60, seed=1),
        "X:B": made.bars(45, seed=2, start="2021-01-19"),
        "X:C": holes,
        "X:D": made.bars(5, seed=4, start="2021-02-28"),
    }
    result = rated(frames, rules=rules)
    assert result.staged == ("X:A", "X:B", "X:C", "X:D")
    for symbol, frame in frames.items():
        assert same_bits(rows(result, symbol), TechnicalRatings.compute(frame, rules=rules))


MARKETS = {
    "X:NY": (NEW_YORK, "2021-03-08T21:00:00"),
    "X:MNL": (MANILA, None),
    "X:COIN": (CRYPTO, "2021-03-09T00:00:00"),
    "X:ZONE": (Market("Asia/Tokyo"), "2021-03-08T15:00:00"),
    "X:NOBODY": (Market(), "2021-03-09T14:00:00"),
}


@pytest.mark.parametrize("symbol", MARKETS)
def test_nothing_that_was_known_after_as_of_is_used(symbol):
    """The bar of 2021-03-08 is there from the very instant when it was known, for each kind of market."""
    market, known = MARKETS[symbol]
    frame = made.bars(70)
    if known is None:
        close = made.CALENDARS.sessions("XPHS")
        known = str(pd.Timestamp(close.closes[np.searchsorted(close.dates, made.stamp("2021-03-08"))], unit="us"))
    at = pd.Timestamp(known)
    before = rated({symbol: frame}, str(at - pd.Timedelta("1us")), {symbol: market})
    then = rated({symbol: frame}, str(at), {symbol: market})
    assert str(rows(before, symbol).index[-1].date()) == "2021-03-07"
    assert str(rows(then, symbol).index[-1].date()) == "2021-03-08"
    assert (then.known_at <= made.stamp(known)).all()


def test_the_future_changes_nothing_in_the_past():
    """Every row of a run as of some day is, to the bit, that of a run that never saw the bars after it."""
    frame = made.bars(120)
    changed = frame.copy()
    changed.iloc[80:] = (changed.iloc[80:] * 3).round(2)
    as_of = str(frame.index[80])
    markets = {"X:A": CRYPTO}
    seen, other = rated({"X:A": frame}, as_of, markets), rated({"X:A": changed}, as_of, markets)
    alone = rated({"X:A": frame.iloc[:80]}, as_of, markets)
    assert len(rows(seen, "X:A")) == 80
    assert same_bits(rows(seen, "X:A"), rows(other, "X:A"))
    assert same_bits(rows(seen, "X:A"), rows(alone, "X:A"))


def test_toxic_bars_from_after_as_of_reject_nobody():
    """A run as of a day before a split does not know of the split."""
    frame = made.from_closes([1.0, 1.01] * 30 + [50.0] * 20)
    assert rated({"X:A": frame}, "2021-03-04", {"X:A": CRYPTO}).staged == ("X:A",)
    assert rated({"X:A": frame}, "2021-03-06", {"X:A": CRYPTO}).refused["X:A"].finding.code == "toxic"


def test_a_symbol_with_no_bar_known_yet_is_named():
    result = rated({"X:A": made.bars(60), "X:B": made.bars(60, start="2021-04-01")})
    assert result.staged == ("X:A",)
    assert result.refused["X:B"].stage == "bars"
    assert result.refused["X:B"].finding.code == "no_bars"
    assert "2021-04-01" in result.refused["X:B"].finding.message


TOXIC = {
    "X:JUMP": ("toxic", made.from_closes([1.0] * 30 + [6.5] * 30)),
    "X:NEGATIVE": ("bad_price", made.with_value(made.bars(), 30, close=-1.0)),
    "X:ZERO": ("bad_price", made.with_value(made.bars(), 30, open=0.0)),
    "X:INF": ("bad_price", made.with_value(made.bars(), 30, high=np.inf)),
    "X:NAN": ("bad_price", made.with_value(made.bars(), 30, low=np.nan)),
    "X:TWICE": ("duplicate_bar", pd.concat([made.bars().iloc[:31], made.bars().iloc[30:]])),
    "X:BACK": ("descending_bars", made.bars().iloc[::-1]),
    "X:CROSSED": ("high_below_low", made.with_value(made.bars(), 30, high=1.0)),
    "X:NOTHING": ("no_bars", made.bars().iloc[:0]),
    "X:EMPTY": ("bad_price", made.bars() * np.nan),
    "X:STALE": ("stale", made.bars(start="2019-01-01")),
    "X:HOLEY": (
        "nan_density",
        made.bars(90, start="2020-12-05").where(np.repeat(np.arange(90)[:, None] % 5 != 4, 5, axis=1)),
    ),
}


def test_toxic_data_of_every_kind_is_filtered_by_name_and_stops_nobody():
    good = {f"X:GOOD{number}": made.bars(seed=number) for number in range(5)}
    result = rated({**good, **{symbol: frame for symbol, (_, frame) in TOXIC.items()}})
    assert result.staged == tuple(sorted(good))
    assert {symbol: refusal.finding.code for symbol, refusal in result.refused.items()} == {
        symbol: code for symbol, (code, _) in TOXIC.items()
    }
    for symbol, frame in good.items():
        assert same_bits(rows(result, symbol), TechnicalRatings.compute(frame))


@pytest.mark.parametrize("symbol", TOXIC)
def test_a_batch_of_one_toxic_symbol_is_refused_whole(symbol):
    code, frame = TOXIC[symbol]
    result = rated({symbol: frame})
    assert result.staged == ()
    assert result.refused[symbol].finding.code == code


NASTY = (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 5e-324, 1e-308, 1e300, 1.7e308)
GOOD = made.bars(60, seed=9)
GOOD_RATINGS = TechnicalRatings.compute(GOOD)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 4), st.sampled_from(NASTY)), min_size=1, max_size=12),
    st.lists(st.integers(0, 59), max_size=3),
)
def test_whatever_one_symbol_brings_nothing_crashes_and_its_neighbours_stay_what_they_are(cells, repeated):
    values = made.bars(60).to_numpy().copy()
    for row, column, value in cells:
        values[row, column] = value
    bad = pd.DataFrame(values, index=GOOD.index, columns=GOOD.columns)
    bad = pd.concat([bad, bad.iloc[repeated]]) if repeated else bad
    result = rated({"X:A": GOOD, "X:BAD": bad, "X:Z": GOOD})
    assert {"X:A", "X:Z"} <= set(result.staged)
    for symbol in ("X:A", "X:Z"):
        assert same_bits(rows(result, symbol), GOOD_RATINGS)
    if "X:BAD" in result.staged:
        stored = rows(result, "X:BAD").to_numpy()
        assert not np.isinf(stored).any()
        assert np.nanmax(np.abs(stored[:, :3])) <= 1
        assert ((stored[:, 3:] >= 0) & (stored[:, 3:] <= 100) | np.isnan(stored[:, 3:])).all()


def test_a_refusal_points_at_the_rows_that_show_it():
    result = rated({"X:A": made.bars(seed=2), "X:INF": TOXIC["X:INF"][1], "X:JUMP": TOXIC["X:JUMP"][1]})
    batch = result.report.batch
    for symbol, row in (("X:INF", 30), ("X:JUMP", 30)):
        (found,) = result.refused[symbol].finding.rows
        assert batch.symbols[batch.codes[found]] == symbol
        assert batch.stamps[found] == made.stamp("2021-01-04") + row * 86_400_000_000


def test_set_aside_bars_keep_their_rows_without_values():
    frame = made.with_value(made.bars(), 30, open=0, high=0, low=0, close=0, volume=0)
    result = rated({"X:A": frame})
    found = rows(result, "X:A")
    assert len(found) == 60
    assert found.iloc[30].isna().all()
    others = TechnicalRatings.compute(frame.drop(frame.index[30]))
    assert same_bits(found.drop(found.index[30]), others)


def test_hourly_bars_of_a_market_with_a_calendar_have_no_gaps_by_day():
    index = pd.DatetimeIndex(
        [day + pd.Timedelta(hours=14.5 + hour) for day in made.days(60, freq="B") for hour in range(6)], name="ts"
    )
    frame = made.bars(360).set_axis(index)
    result = rated({"X:A": frame}, "2021-03-27", {"X:A": NEW_YORK}, interval="1h")
    assert result.staged == ("X:A",)
    assert result.report.warnings == {}


def test_ratings_are_held_against_the_number_of_bars_that_were_let_in(monkeypatch):
    import services.features.domain.rating as module

    held = {}
    real = module.FeatureConsistencyValidator.inspect

    def inspect(validator, features):
        held.update(validator.due)
        return real(validator, features)

    monkeypatch.setattr(module.FeatureConsistencyValidator, "inspect", inspect)
    rated({"X:A": made.bars(60), "X:B": made.bars(45, start="2021-01-19"), "X:INF": TOXIC["X:INF"][1]})
    assert held == {"X:A": 60, "X:B": 45, "X:INF": 0}


def test_a_price_that_never_moves_is_no_series():
    """Its ADX is 0/0 for ever: a fifth of its values."""
    assert rated({"X:A": made.flat(60)}).refused["X:A"].finding.code == "nan_density"


def test_an_empty_batch_is_an_empty_answer():
    result = rated({})
    assert result.staged == ()
    assert result.refused == {}
