"""Bars of several symbols as plain arrays, and their place in a panel."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from services.features.domain.bars_batch import BarsBatch, Layout, first_and_last
from shared.errors import ContractError
from tests.unit.features import made


def batch_of(**frames):
    return BarsBatch.of({f"X:{name}": frame for name, frame in frames.items()})


def test_rows_keep_the_order_in_which_they_were_given():
    backwards = made.bars(3).iloc[::-1]
    batch = batch_of(A=backwards, B=made.bars(2, seed=2))
    assert batch.symbols == ("X:A", "X:B")
    assert batch.codes.tolist() == [0, 0, 0, 1, 1]
    assert batch.stamps[:3].tolist() == [made.stamp(f"2021-01-0{day}") for day in (6, 5, 4)]
    assert batch.values[0].tolist() == backwards.iloc[0].tolist()


def test_any_zone_and_unit_is_the_same_instant():
    frame = made.bars(3)
    local = frame.set_axis(frame.index.tz_convert("Asia/Manila").as_unit("s"))
    assert batch_of(A=local).stamps.tolist() == batch_of(A=frame).stamps.tolist()


def test_whole_numbers_and_nullable_columns_are_read_as_floats():
    frame = made.bars(3).assign(volume=pd.array([1, None, 3], dtype="Int64"))
    volume = batch_of(A=frame).values[:, 4]
    assert volume[[0, 2]].tolist() == [1.0, 3.0]
    assert np.isnan(volume[1])


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda f: f.tz_localize(None), "UTC"),
        (lambda f: f.reset_index(drop=True), "UTC"),
        (lambda f: f.set_axis(pd.DatetimeIndex([pd.NaT, *f.index[1:]], tz="UTC")), "UTC"),
        (lambda f: f.drop(columns=["open", "volume"]), "lack open, volume"),
    ],
)
def test_frames_of_another_shape_are_refused_by_name(broken, words):
    with pytest.raises(ContractError, match=f"X:A: .*{words}"):
        batch_of(A=broken(made.bars(3)))


def test_a_choice_of_rows_keeps_the_symbols_numbers():
    batch = batch_of(A=made.bars(3), B=made.bars(2, seed=2), C=made.bars(1, seed=3))
    kept = batch.rows(~batch.of_symbols({"X:A", "X:UNKNOWN"}))
    assert kept.symbols == batch.symbols
    assert kept.codes.tolist() == [1, 1, 2]
    assert batch.to_frame()["symbol"].tolist() == ["X:A"] * 3 + ["X:B"] * 2 + ["X:C"]


def test_first_and_last_are_by_symbol_and_0_for_one_without_rows():
    batch = batch_of(A=made.bars(3), B=made.bars(2).iloc[:0], C=made.bars(1, start="2020-05-05"))
    first, last = first_and_last(batch)
    assert first.tolist() == [made.stamp("2021-01-04"), 0, made.stamp("2020-05-05")]
    assert last.tolist() == [made.stamp("2021-01-06"), 0, made.stamp("2020-05-05")]


def test_a_panel_has_a_row_a_stamp_and_nothing_where_a_symbol_has_no_bar():
    batch = batch_of(A=made.bars(3), B=made.bars(3, start="2021-01-05"))
    layout = Layout.of(batch)
    panel = layout.panel(batch.values[:, 3])
    assert panel.shape == (4, 2)
    assert np.isnan(panel[[3, 0], [0, 1]]).all()
    assert np.isnan(panel).sum() == 2
    assert layout.rows(panel).tolist() == batch.values[:, 3].tolist()


def test_two_bars_of_one_stamp_have_no_place_in_a_panel():
    twice = pd.concat([made.bars(2), made.bars(1)])
    with pytest.raises(ContractError, match="two bars of one stamp"):
        Layout.of(batch_of(A=made.bars(2, seed=3), B=twice))
