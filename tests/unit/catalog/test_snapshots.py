"""What a full universe leaves, after any history and by any clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalog.domain.decide import Batch
from services.catalog.domain.schema import SYMBOLS
from services.catalog.domain.versions import violations
from tests.unit.catalog.test_timeline import Shelf

T = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("PSE:A", "PSE:B", "OKX:C")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "retire", "snapshot", "snapshot of PSE"]),
        st.sets(st.sampled_from(NAMES)),
        st.integers(0, 4),  # the clock: it may stand still and go back
        st.sampled_from(["Food", "Banks"]),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_after_a_snapshot_what_it_has_is_active_and_what_it_has_not_is_retired(
    steps: list[tuple[str, set[str], int, str]],
) -> None:
    shelf = Shelf(SYMBOLS)
    for number, (what, names, day, sector) in enumerate(steps):
        exchange = "PSE" if what == "snapshot of PSE" else None
        named = sorted(name for name in names if exchange is None or name.startswith("PSE:"))
        kind: Any = what.partition(" ")[0]
        records = [{"symbol": name} if kind == "retire" else {"symbol": name, "sector": sector} for name in named]
        untouched = {name: one.rows for name, one in shelf.held.items() if name not in named}
        shelf.take(Batch(kind, records, T + timedelta(day), event_id=f"e{number}", exchange=exchange))
        for name, timeline in shelf.held.items():
            assert violations(timeline.versions) == []
            newest = timeline.rows[-1].shown
            if kind == "snapshot" and (exchange is None or name.startswith("PSE:")):
                assert newest["active"] is (name in named)
                assert name not in named or newest["sector"] == sector
            elif name in untouched:
                assert timeline.rows == untouched[name]
        assert kind == "retire" or set(named) <= set(shelf.held)
