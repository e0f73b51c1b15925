"""Manifests as bytes, and what a commit does to the list of segments: no files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import CommitConflict, ContractError, IntegrityError, StaleEpochError
from shared.tables import manifest as manifests
from shared.tables.changes import check_base, compacted, next_manifest, small_tail
from shared.tables.model import EMPTY, Changes, Manifest, Segment


def segment(number: int, *, rows: int = 50, keys: tuple[str, ...] | None = None, version: int | None = None) -> Segment:
    at = number if version is None else version
    return Segment(
        f"segments/{at:012d}-{number:010x}.parquet", 9000, f"{number:064x}", rows, at, at, keys, "symbol", None
    )


KEYED = Segment("segments/000000000002-a.parquet", 5_000_000, "f" * 64, 9, 1, 2, ("A", "B:ü"), "ticker", "e" * 64)


def test_a_manifest_comes_back_as_it_was() -> None:
    given_manifest = Manifest(3, 7, (segment(1), KEYED, segment(3)), {"run_id": "r1", "n": [1, None]}, rewritten=2)
    data = manifests.encode(given_manifest, given_manifest.segments)
    back = manifests.decode(manifests.unseal(data, "m"), (), len(data))
    assert replace(back, written=0) == given_manifest
    assert back.written == len(data) + 9000


def test_a_manifest_on_a_checkpoint_lists_only_what_changed() -> None:
    base = tuple(segment(number) for number in range(1, 40))
    manifest = Manifest(41, 0, (*base[:4], *base[5:], segment(41)), checkpoint="manifests/checkpoint-x.json")
    data = manifests.encode(manifest, (segment(41),), (base[4].file,))
    assert len(data) < 700
    assert manifests.decode(manifests.unseal(data, "m"), base, 0).segments == manifest.segments


DATA = manifests.encode(Manifest(1, 0, (segment(1),), {"note": "x"}), (segment(1),))


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, flip: int) -> None:
    changed = DATA[:position] + bytes([DATA[position] ^ flip]) + DATA[position + 1 :]
    with pytest.raises(IntegrityError, match=r"m\.json is torn or was changed"):
        manifests.unseal(changed, "m.json")


@given(st.integers(0, len(DATA) - 1))
def test_any_torn_end_is_noticed(length: int) -> None:
    with pytest.raises(IntegrityError):
        manifests.unseal(DATA[:length], "m.json")


def test_a_later_format_is_refused_with_the_way_out() -> None:
    with pytest.raises(ContractError, match="upgrade"):
        manifests.unseal(manifests.seal({"format": 2}), "m.json")


def test_a_smaller_epoch_is_refused_before_an_old_base() -> None:
    newest = Manifest(5, 3, ())
    with pytest.raises(StaleEpochError):
        check_base(Path("t"), newest, 4, 2)
    with pytest.raises(CommitConflict, match="based on version 4, the newest is 5"):
        check_base(Path("t"), newest, 4, 3)
    check_base(Path("t"), newest, 5, 4)


def test_only_dropping_and_folding_make_followers_start_anew() -> None:
    one = next_manifest(EMPTY, Changes(), [segment(1), segment(2, version=1)], epoch=0, meta={})
    assert one.rewritten == 0
    dropped = next_manifest(one, Changes(drop=(one.segments[0].file,)), [], epoch=0, meta={})
    assert (dropped.rewritten, dropped.segments) == (2, one.segments[1:])
    assert compacted(one, one.segments, segment(3), folded=False).rewritten == 0
    assert compacted(one, one.segments, segment(3), folded=True).rewritten == 2


def test_compaction_puts_the_new_segment_where_the_old_ones_stood() -> None:
    base = Manifest(5, 4, tuple(segment(number) for number in range(1, 6)), {"a": 1})
    after = compacted(base, base.segments[1:4], segment(9), folded=False)
    assert after.segments == (segment(1), segment(9), segment(5))
    assert (after.version, after.epoch, after.meta) == (6, 4, {"a": 1})


@given(st.lists(st.integers(1, 80), min_size=1, max_size=400))
def test_merging_the_small_tail_keeps_segments_and_rewriting_few(sizes: list[int]) -> None:
    """Whatever the sizes of the commits, merged after every 16: the work grows with the logarithm."""
    live: list[Segment] = []
    rewritten = 0
    for number, rows in enumerate(sizes):
        live.append(segment(number, rows=rows))
        if (number + 1) % 16 == 0:
            tail = small_tail(live)
            merged = sum(each.rows for each in tail)
            rewritten += merged
            live = [*live[: len(live) - len(tail)], segment(1000 + number, rows=merged)]
    assert len(live) <= 16 + 8
    assert rewritten <= 8 * max(sum(sizes), 1024)


def test_a_large_base_is_no_part_of_the_small_tail() -> None:
    base, deltas = segment(1, rows=1_000_000), [segment(number) for number in range(2, 34)]
    assert small_tail([base, *deltas]) == tuple(deltas)
    assert small_tail([base]) == ()
