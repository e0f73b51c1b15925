"""A daily run goes on from what was kept of each symbol, equal to a full computation to the bit; in doubt it is one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from services.features.adapters.histories import LakehouseHistories
from services.features.going_on import NOTHING_KEPT
from services.features.staging import Stage
from shared.errors import IntegrityError
from tests.integration.features_house import CALENDARS, START, FeaturesHouse, LakehouseBars, holds, said_by_replicas
from tests.unit.features import made
from tests.unit.features.made import instant

NAMES = ("X:A", "X:B", "X:C")
DAYS = {name: made.bars(80, seed=sum(map(ord, name)), start="2021-01-10", scale=50.0) for name in NAMES}


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


@pytest.fixture
def full(tmp_path):
    """A house that keeps nothing and computes every run from the whole history."""
    house = FeaturesHouse(tmp_path / "full")
    house.stage = Stage(LakehouseBars(house.home), CALENDARS, house.workspace, house.adjustments, NOTHING_KEPT)
    return house


def until(day: int, frames=DAYS) -> dict[str, pd.DataFrame]:
    return {name: frame.iloc[:day] for name, frame in frames.items()}


def how(house: FeaturesHouse) -> dict[str, object]:
    return house.table().load().meta["ratings"]


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    words = dict.fromkeys(("symbol", "source", "rules", "rules_version"), str)
    return frame.astype(words).sort_values(["symbol", "ts", "source"], ignore_index=True)


def same(house: FeaturesHouse, full: FeaturesHouse, run_id: str) -> None:
    """Both masters, both runs' own files and both matrices hold the same, to the bit."""
    for read in (
        lambda one: plain(one.table().load().read().to_pandas()),
        lambda one: plain(pd.read_parquet(one.home.run(run_id).features)),
        lambda one: pd.read_parquet(one.home.features_export),
    ):
        pd.testing.assert_frame_equal(read(house), read(full), check_exact=True)


def both(house, full, run_id, frames, **asked):
    said = [one.run(run_id, frames, **asked) for one in (house, full)]
    same(house, full, run_id)
    (mine, _), (theirs, _) = said
    assert (mine.staged, mine.rejected, mine.warnings) == (theirs.staged, theirs.rejected, theirs.warnings)
    return mine


def test_one_new_bar_a_day_is_rated_without_its_history_and_to_the_bit(house, full):
    both(house, full, "day0", until(70))
    assert how(house) == {"continued": 0, "computed": 3, "continues": 0, "rebuilt": {}}
    for day in range(1, 8):
        said = both(house, full, f"day{day}", until(70 + day))
        assert how(house) == {"continued": 3, "computed": 0, "continues": day, "rebuilt": {}}
        assert said.file.rows == 3 * 60  # not 3 * (70 + day)
    assert holds(house.matrix(), until(77))


def test_the_history_is_not_read(house):
    house.run("day0", until(75))
    for name in NAMES:
        for segment in (house.home.bars_table("1d", name) / "segments").iterdir():
            segment.write_bytes(b"gone")
    bars = []
    for name in NAMES:  # what the fetcher says of an append, which reads them
        table = FeaturesHouse(house.home.root.parent / "elsewhere")
        bars += table.write_bars({name: DAYS[name].iloc[:75]})
    house.open("again", NAMES)
    said = house.rate(house.hydrated(bars, "again"))
    assert [one.symbol for one in said.staged] == list(NAMES)
    assert not said.rejected


def test_several_new_bars_and_none_go_on_too(house, full):
    both(house, full, "first", until(40), as_of=instant("2021-02-20"))
    both(house, full, "later", until(79))
    assert how(house)["continued"] == 3
    both(house, full, "nothing-new", until(79))
    assert how(house)["continued"] == 3


def test_a_short_history_goes_on_while_it_warms_up(house, full):
    for day in (16, 17, 30, 31):
        both(house, full, f"day{day}", until(day), as_of=instant("2021-02-15"))
    assert how(house)["continued"] == 3


def test_symbols_join_and_leave(house, full):
    both(house, full, "r1", {name: DAYS[name].iloc[:70] for name in ("X:A", "X:C")})
    both(house, full, "r2", {name: DAYS[name].iloc[:71] for name in ("X:A", "X:B")})
    assert (how(house)["continued"], how(house)["computed"]) == (1, 1)
    both(house, full, "r3", until(72))
    assert (how(house)["continued"], how(house)["computed"]) == (3, 0)


def test_a_blocked_run_leaves_no_hole(house, full):
    both(house, full, "r1", until(70))
    for one in (house, full):
        bars = one.write_bars(until(71))
        one.open("blocked", NAMES)
        one.rate(one.hydrated(bars, "blocked"))
    both(house, full, "r3", until(72))
    assert how(house)["continued"] == 3
    assert holds(house.matrix(), until(72))


def test_runs_that_overtake_each_other_still_give_whole_rows(house, full):
    """Two runs go on from the same version; the one that was opened first is promoted last."""
    both(house, full, "r1", until(70))
    for one in (house, full):
        one.open("slow", NAMES)
        slow = one.rate(one.hydrated(one.write_bars(until(71)), "slow"))
        one.run("fast", until(72))
        one.promote(one.decided("slow", [slow]))
    same(house, full, "slow")
    assert holds(house.matrix(), until(71))
    both(house, full, "next", until(73))
    assert how(house)["continued"] == 3


def test_after_a_rollback_a_run_goes_on_from_what_the_store_then_is(house, full):
    for one in (house, full):
        one.run("r1", until(70))
        one.run("r2", until(71))
        table = one.table()
        newest = table.load()
        table.restore(1, base_version=2, epoch=newest.epoch)
    both(house, full, "r3", until(72))
    assert how(house)["continued"] == 3
    assert holds(house.matrix(), until(72))


def test_a_compacted_store_is_gone_on_from(house, full):
    both(house, full, "r1", until(70))
    both(house, full, "r2", {"X:A": DAYS["X:A"].iloc[:71]})
    house.table().compact()
    newest = house.table().load().version
    assert newest == 3
    both(house, full, "r3", until(72))
    assert how(house) == {"continued": 3, "computed": 0, "continues": newest, "rebuilt": {}}


def test_bars_not_known_yet_wait_for_the_next_run(house, full):
    """Without a calendar a bar is known 14 hours after its day; the run comes before that."""
    for number, at in enumerate(["2021-03-20T02:00", "2021-03-21T02:00", "2021-03-21T15:00"]):
        said = []
        for one in (house, full):
            bars = one.write_bars(until(70 + number), timezone=None, session=None)
            one.open(f"r{number}", NAMES, as_of=instant(at))
            said.append(one.rate(one.hydrated(bars, f"r{number}")))
            one.promote(one.decided(f"r{number}", said[-1:]))
        assert said[0].staged == said[1].staged
        same(house, full, f"r{number}")
    assert how(house)["continued"] == 3
    assert said[0].staged[0].rows == 70


def test_a_strict_scope_holds_whole_rows_of_its_symbols_alone(house, full):
    both(house, full, "r1", until(70))
    some = {name: DAYS[name].iloc[:71] for name in ("X:A", "X:B")}
    both(house, full, "r2", some, strict_scope=True)
    assert how(house)["continued"] == 2
    assert holds(house.matrix(), some)


def test_values_of_a_screener_and_its_parity_are_those_of_a_full_computation(house, full):
    frames = {"X:A": made.bars(80, seed=3, start="2020-12-10", freq="B")}
    sent = [{"symbol": "X:A", "metadata": {"Recommend.All": 0.25}, "observed_at": "2021-03-31T22:00:00Z"}]
    told = {"timezone": "America/New_York", "session": "0930-1600", "calendar": "XNYS"}
    for one in (house, full):
        for run_id, day in (("r1", 79), ("r2", 80)):
            one.open(run_id, sent, as_of=START)
            bars = one.write_bars(until(day, frames), **told)
            one.promote(one.decided(run_id, [one.rate(one.hydrated(bars, run_id))]))
    same(house, full, "r2")
    assert how(house)["continued"] == 1
    assert house.table().load().meta["parity"] == full.table().load().meta["parity"] != {}


# -- back to the whole history


@pytest.mark.parametrize("where", [3, 68])
def test_a_revised_bar_brings_the_whole_history_of_its_symbol_back(house, full, where):
    both(house, full, "r1", until(70))
    frames = until(71)
    frames["X:B"] = frames["X:B"].copy()
    frames["X:B"].iloc[where, 3] *= 1.001
    frames["X:B"].iloc[where, 1] *= 1.001
    with capture_logs() as logs:
        both(house, full, "r2", frames)
    assert how(house)["rebuilt"] == {"X:B": "its stored bars were revised, or their version is gone"}
    assert how(house)["continued"] == 2
    rated = next(entry for entry in logs if entry["event"] == "batch_rated")
    assert (rated["continued"], rated["rebuilt"]) == (2, how(house)["rebuilt"])
    both(house, full, "r3", {**until(72), "X:B": pd.concat([frames["X:B"], DAYS["X:B"].iloc[71:72]])})
    assert how(house)["continued"] == 3


def test_a_new_bar_that_is_not_plain_is_judged_with_its_whole_history(house, full):
    """A toxic move is refused and quarantined with all its bars; a gap and a bar set aside are said."""
    both(house, full, "r1", until(70))
    frames = until(72)
    frames["X:A"] = frames["X:A"].copy()
    frames["X:A"].iloc[71, :4] *= 9.0
    frames["X:C"] = frames["X:C"].copy()
    frames["X:C"].iloc[71, :4] = 0.0
    frames["X:C"].iloc[71, 4] = 0.0
    said = both(house, full, "r2", frames)
    assert said.rejected["X:A"].failure.code == "toxic"
    assert "bars set aside, all zero: 1" in said.warnings["X:C"][0]
    assert [why.split(":")[0] for why in how(house)["rebuilt"].values()] == ["its new bars"]
    assert house.table().load().meta["ratings"]["continued"] == 1
    refused = pq.read_table(house.home.root / said.rejected["X:A"].quarantine.path)
    assert refused.num_rows == 72
    # What was set aside stays so, and what comes behind it goes on.
    frames["X:C"] = pd.concat([frames["X:C"], DAYS["X:C"].iloc[72:73]])
    frames["X:B"] = DAYS["X:B"].iloc[:73]
    said = both(house, full, "r3", {name: frames[name] for name in ("X:B", "X:C")})
    assert how(house)["continued"] == 2
    assert "bars set aside, all zero: 1" in said.warnings["X:C"][0]


def test_a_missing_session_is_counted_with_the_whole_history(house, full):
    frame = made.bars(70, seed=5, start="2021-01-04", freq="B")
    told = {"timezone": "America/New_York", "session": "0930-1600", "calendar": "XNYS"}
    said = []
    for one in (house, full):
        for run_id, frame_then in (("r1", frame.iloc[:50]), ("r2", frame.iloc[:58].drop(frame.index[55]))):
            one.open(run_id, ["X:A"], as_of=START)
            answer = one.rate(one.hydrated(one.write_bars({"X:A": frame_then}, **told), run_id))
            one.promote(one.decided(run_id, [answer]))
        said.append(answer)
    assert said[0].warnings == said[1].warnings
    assert "sessions without a bar" in said[0].warnings["X:A"][0]
    same(house, full, "r2")
    assert how(house)["continued"] == 0


def test_a_stale_series_is_refused_although_nothing_of_it_is_new(house, full):
    both(house, full, "r1", until(70))
    for one in (house, full):
        bars = one.write_bars(until(70))
        one.open("r2", NAMES, as_of=instant("2021-05-20"))
        said = one.rate(one.hydrated(bars, "r2"))
        assert {name: one.failure.code for name, one in said.rejected.items()} == dict.fromkeys(NAMES, "stale")


def test_another_tick_and_an_earlier_as_of_are_another_history(house, full):
    both(house, full, "r1", until(70))
    for one in (house, full):
        one.open("r2", [{"symbol": "X:A", "metadata": {"tick_size": 0.5}}, "X:B"], as_of=START)
        bars = one.write_bars(until(71))
        one.promote(one.decided("r2", [one.rate(one.hydrated(bars[:2], "r2"))]))
    same(house, full, "r2")
    assert how(house)["rebuilt"] == {"X:A": "another tick size"}
    both(house, full, "r3", until(71), as_of=instant("2021-03-10"))
    assert set(how(house)["rebuilt"].values()) == {"the run's as_of is earlier", "another tick size"}


def test_a_recorded_split_is_computed_with_the_whole_history(house, full):
    both(house, full, "r1", until(70))
    frames = until(72)
    frames["X:A"] = frames["X:A"].copy()
    frames["X:A"].iloc[71, :4] *= 16
    for one in (house, full):
        date = frames["X:A"].index[71].date()
        one.adjustments.record("X:A", date, 16.0, recorded_by="mia", reason="16 into 1")
    both(house, full, "r2", frames)
    assert how(house)["rebuilt"] == {"X:A": "an adjustment is recorded"}


def test_other_rules_have_a_history_of_their_own(house, full):
    both(house, full, "r1", until(70))
    for one in (house, full):
        one.run("r2", until(71), rules="pine_v3")
        one.run("r3", until(72), rules="pine_v3")
    assert house.table("pine_v3").load().meta["ratings"]["continued"] == 3
    assert house.table("pine_v3").load().read().equals(full.table("pine_v3").load().read())


def test_another_program_computes_everything_anew(house, full, monkeypatch):
    both(house, full, "r1", until(70))
    monkeypatch.setattr(LakehouseHistories, "program", "another")
    both(house, full, "r2", until(71))
    assert set(how(house)["rebuilt"].values()) == {"another program"}


def _flip(path, offset=200):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["0.histories", "histories-1.json"])
def test_what_was_kept_and_is_damaged_is_computed_anew_and_never_a_wrong_rating(house, full, name, damage):
    both(house, full, "r1", until(70))
    path = house.home.run("r1").staged_parts / name
    damage(path) if damage is not _flip else _flip(path, len(path.read_bytes()) // 2)
    both(house, full, "r2", until(71))
    assert how(house)["continued"] == 0
    assert all("cannot be read" in why for why in how(house)["rebuilt"].values())
    assert sorted(how(house)["rebuilt"]) == list(NAMES)
    both(house, full, "r3", until(72))
    assert how(house)["continued"] == 3


def test_a_file_that_does_not_go_on_from_its_version_is_never_merged(house):
    """Somebody changed what was kept and made its hashes fit: the rows that both have tell."""
    house.run("r1", until(70))
    house.open("r2", NAMES)
    bars = house.write_bars(until(71))
    kept, _ = house.stage.histories.load(house.workspace.record("r2"), NAMES)
    tail = kept["X:A"].tail
    values = tail.values.copy()
    values[5, 0] += 1e-9
    kept["X:A"] = replace(kept["X:A"], tail=replace(tail, values=values))
    house.stage = Stage(house.stage.bars, CALENDARS, house.workspace, house.adjustments, _Given(house.home, {**kept}))
    said = house.rate(house.hydrated(bars, "r2"))
    with pytest.raises(IntegrityError, match="does not go on from feature version 1"):
        house.promote(house.decided("r2", [said]))
    assert holds(house.matrix(), until(70))


class _Given(LakehouseHistories):
    def __init__(self, home, histories):
        super().__init__(home)
        self.histories = histories

    def load(self, record, symbols):
        return self.histories, {}


def test_a_batch_delivered_again_after_a_later_promotion_has_the_same_bytes(house):
    """What a run goes on from is pinned when it is opened."""
    house.run("r1", until(70))
    house.open("r2", NAMES)
    event = house.hydrated(house.write_bars(until(71)), "r2")
    first = house.rate(event)
    house.run("r3", until(72))
    (house.home.run("r2").staged_parts / "0.json").unlink()
    assert house.rate(event) == first


def test_replicas_that_go_on_with_the_same_batch_at_once_say_and_write_the_same(house):
    house.run("r1", until(70))
    house.open("r2", NAMES)
    bars = house.write_bars(until(71))
    assert len(said_by_replicas(house, bars, "r2")) == 1
    house.promote(house.decided("r2", [house.rate(house.hydrated(bars, "r2"))]))
    assert how(house)["continued"] == 3
    assert holds(house.matrix(), until(71))


def test_the_receipt_names_what_was_continued(house):
    house.run("r1", until(70))
    house.run("r2", until(71))
    receipt = json.loads((house.home.run("r2").staged_parts / "0.json").read_bytes())
    assert receipt["continued"] == list(NAMES)
    assert receipt["rebuilt"] == {}


def test_the_kept_state_does_not_grow_with_history(house):
    sizes = []
    for day in (70, 79):
        house.run(f"d{day}", until(day))
        sizes.append((house.home.run(f"d{day}").staged_parts / "0.histories").stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]
    assert np.isfinite(sizes).all()
