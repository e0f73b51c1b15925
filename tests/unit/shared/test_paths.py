from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import NotFoundError, PipelineError, UnsafePathError
from shared.paths import Home, ensure_safe_path


def test_a_path_inside_a_root_comes_back_resolved(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert ensure_safe_path(tmp_path / "a" / ".." / "b.json", [tmp_path]) == (tmp_path / "b.json").resolve()


def test_dots_that_lead_out_are_refused(tmp_path: Path):
    with pytest.raises(UnsafePathError, match="outside"):
        ensure_safe_path(tmp_path / ".." / "etc", [tmp_path])


def test_a_symlink_that_leads_out_is_refused(tmp_path: Path):
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(UnsafePathError):
        ensure_safe_path(tmp_path / "link" / "passwd", [tmp_path])


def test_a_root_whose_name_is_a_prefix_is_another_folder(tmp_path: Path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UnsafePathError):
        ensure_safe_path(tmp_path / "data-evil" / "x", [tmp_path / "data"])


@pytest.mark.parametrize("path", ["a\x00b", "x" * 100_000])
def test_what_no_file_system_takes_is_our_error(tmp_path: Path, path: str):
    with pytest.raises(PipelineError):
        ensure_safe_path(f"{tmp_path}/{path}", [tmp_path], must_exist=True)


def test_an_absent_file_is_not_found_when_it_has_to_exist(tmp_path: Path):
    with pytest.raises(NotFoundError):
        ensure_safe_path(tmp_path / "x", [tmp_path], must_exist=True)


def test_no_symbol_and_no_run_id_leaves_the_house(tmp_path: Path):
    home = Home.at(tmp_path)
    table = home.bars_table("1d", "PSE:../../../../etc/passwd")
    assert table.parent == home.lakehouse / "bars" / "1d"
    with pytest.raises(PipelineError, match="run id"):
        home.run("../x")


def test_a_reference_in_an_event_stays_in_the_house(tmp_path: Path):
    home = Home.at(tmp_path)
    inside = home.run("r1").coverage
    assert home.resolve(home.relative(inside)) == inside
    with pytest.raises(UnsafePathError):
        home.resolve("../outside")
    with pytest.raises(UnsafePathError):
        home.resolve("/etc/passwd")
