"""The report: one file, the same bytes for the same run, nothing fetched, and what a reader needs to find a cause."""

from __future__ import annotations

import hashlib
import html.parser
import json
from pathlib import Path

import pytest

from shared import events as e
from shared.tables import Changes, NewSegment, open_table
from tests.integration.auditor_house import House, failure

WAIVER = {"stage": "bars", "reason": "never traded <b>&", "approver": "ben", "expires": "2022-01-31"}


class Page(html.parser.HTMLParser):
    """A page's text, elements and addresses; complains about elements that are not closed."""

    VOID = frozenset(("meta", "br", "rect", "polyline", "i"))
    OPTIONAL = frozenset(("th", "td", "tr", "p", "html", "head", "body"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not [tag for tag in self._open if tag not in self.OPTIONAL]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open[-1] != tag and self._open[-1] in self.OPTIONAL:
            self._open.pop()
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "data")
    house.start(["PSE:JFC", "PSE:BDO", "PSE:SM", 7], requested_by="ana <script>alert(1)</script>")
    house.note(house.attempted(1, fetched=2, failed=1), house.catalogued("PSE:JFC", "PSE:BDO", "PSE:SM"))
    house.note(house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    toxic = e.Rejected(stage="validation", failure=failure("toxic", "moved +900 % on 2021-03-01"))
    house.note(house.rated("PSE:JFC", rejected={"PSE:SM": toxic}))
    return house


def read(house: House) -> str:
    result, _ = house.command("report")
    assert result.outcome == "done", result.message
    return house.home.run("r1").report.read_text()


def test_it_fetches_nothing_and_runs_nothing(house: House) -> None:
    page = Page(read(house))
    assert page.addresses == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "svg" in page.tags


def test_the_same_run_gives_the_same_bytes(house: House) -> None:
    first = read(house)
    house.now = house.now.replace(year=2022)
    house.restart()
    assert read(house) == first
    assert [entry.kind for entry in house.desk.ledger.of_run("r1")].count("reported") == 1


def test_a_later_entry_records_its_hash(house: House) -> None:
    text = read(house)
    entry = house.desk.ledger.of_run("r1")[-1]
    assert entry.kind == "reported"
    assert entry.data["report"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert f"up to entry {entry.data['up_to']}" in text
    assert entry.n == entry.data["up_to"] + 1


def test_a_reader_finds_each_cause_with_its_symbols_and_command(house: House) -> None:
    said = " ".join(Page(read(house)).said)
    for expected in (
        "1 of 4 covered: 3 candidates have a gap",
        "bars: no_bars",
        "the series is empty",
        "asof waive r1 --symbol PSE:BDO --stage bars",
        "validation: toxic",
        "moved +900 % on 2021-03-01",
        "candidates: malformed",
        "#3",
        "25.0 %",
        "Nothing of this run is in the feature store",
    ):
        assert expected in said, expected


def test_what_people_wrote_is_text_and_not_markup(house: House) -> None:
    house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    page = Page(read(house))
    assert "b" not in page.tags[page.tags.index("table") :]
    assert "never traded <b>&" in page.said
    assert any("ana <script>" in text for text in page.said)


def test_a_waived_gap_is_shown_as_waived_with_who_signed(house: House) -> None:
    house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    text = read(house)
    assert "<h2>Waivers</h2>" in text
    assert text.count('class="waivedcell"') == 1
    assert json.loads(house.home.run("r1").coverage.read_text())["waived"][0]["waiver"] in text
    assert "ben (not verified: no key)" in text


def test_the_proof_tells_what_happened_entry_by_entry(house: House) -> None:
    house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    house.command("retry")
    house.tick(3600)
    text = read(house)
    proof = text[text.index("<h2>Proof</h2>") :]
    told = [
        "4 candidates, by ana",
        "1 of 4, closed by complete",
        "blocked: 1 of 4 covered: 3 candidates have a gap",
        "PSE:BDO, by ben",
        "blocked: 1 of 4 covered and 1 waived: 2 candidates have a gap",
        "1 symbols asked for again, by ana",
        "1 of 4, closed by deadline",
    ]
    places = [proof.index(one) for one in told]
    assert places == sorted(places)


def test_the_largest_rating_changes_come_with_their_way_there(tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd

    house = House(tmp_path / "data")
    symbols = ["PSE:CALM", "PSE:WILD"]
    house.start(symbols)
    *first, rated = house.all_of(symbols)
    staged = house.home.run("r1").staged_parts / "0.parquet"
    days = pd.date_range("2021-12-01", periods=5, tz="UTC")
    ratings = {"PSE:CALM": [0.1, 0.1, np.nan, 0.1, 0.11], "PSE:WILD": [-0.5, -0.4, -0.2, -0.4, 0.6]}
    rows = [
        {"symbol": s, "ts": day, "recommend_all": r} for s in symbols for day, r in zip(days, ratings[s], strict=True)
    ]
    pd.DataFrame(rows).to_parquet(staged)
    ref = rated.data.file.model_copy(update={"sha256": hashlib.sha256(staged.read_bytes()).hexdigest()})
    house.note(*first, house.event(rated.data.model_copy(update={"file": ref})))
    text = read(house)
    section = text[text.index("Rating changes") :]
    assert section.index("PSE:WILD") < section.index("PSE:CALM")
    assert "+0.600" in section
    assert "+1.000" in section
    assert "<polyline" in section


def test_a_staged_file_that_is_no_parquet_leaves_the_rest_of_the_report(house: House) -> None:
    text = read(house)
    assert "Rating changes" not in text
    assert "<h2>Proof</h2>" in text


def test_how_far_the_ratings_are_from_the_screeners_comes_from_the_promotion_record(tmp_path: Path) -> None:
    import pyarrow as pa

    house = House(tmp_path / "data")
    house.start(["PSE:JFC", "PSE:BDO"])
    house.note(*house.all_of(["PSE:JFC", "PSE:BDO"]))
    table = open_table(house.home.features_table("1d", "screener"))
    parity = {
        "badge": "parity 1e-6: 1 of 2",
        "differences": {"PSE:BDO": {"recommend_all": 0.0}, "PSE:JFC": {"recommend_all": -0.25, "recommend_ma": 0.5}},
    }
    changes = Changes(append=(NewSegment(pa.table({"symbol": ["PSE:JFC"]}), ("PSE:JFC",)),))
    version = table.commit(0, changes, meta={"run_id": "r1", "parity": parity})
    assert "Parity" not in read(house)
    pair = {"feature_version": version, "parent": 0, "catalog_version": 1, "symbols": 2, "rows": 2}
    rules = e.Rules(name="screener", version="1")
    house.note(house.event(e.FeaturesPromoted(run_id="r1", interval="1d", rules=rules, **pair)))
    text = read(house)
    section = text[text.index("Parity with the screener") :]
    assert "parity 1e-6: 1 of 2" in section
    assert section.index("PSE:JFC") < section.index("PSE:BDO")
    assert "-0.250000" in section
    assert read(house) == text
