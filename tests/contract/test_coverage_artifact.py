"""The coverage artifact's form: its JSON Schema is current, and what does not add up is refused with the reason."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from services.auditor.domain.coverage import Coverage, read_coverage
from shared.errors import IntegrityError
from tests.integration.auditor_house import House, failure

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture
def artifact(tmp_path: Path) -> bytes:
    house = House(tmp_path / "data")
    house.start(["PSE:JFC", "PSE:BDO", 7])
    house.note(house.attempted(), house.catalogued("PSE:JFC", "PSE:BDO"))
    house.note(house.hydrated("PSE:JFC", failed={"PSE:BDO": failure()}), house.rated("PSE:JFC"))
    return house.home.run("r1").coverage.read_bytes()


def test_the_exported_schema_is_current() -> None:
    spec = importlib.util.spec_from_file_location("coverage_schema_export", SCHEMAS / "export.py")
    assert spec is not None
    assert spec.loader is not None
    export = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(export)
    for name, text in export.schemas().items():
        assert (SCHEMAS / name).read_text() == text, "run `make schemas`"


def test_an_artifact_comes_back_as_it_was_written(artifact: bytes) -> None:
    coverage = read_coverage(artifact, name="it")
    assert isinstance(coverage, Coverage)
    assert coverage.counts == {"expected": 3, "covered": 1, "gaps": 2, "waived": 0, "open_gaps": 2}
    assert json.loads(artifact)["covered"] == 0.333333


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: b"", "is empty"),
        (lambda a: b" \n", "is empty"),
        (lambda a: a[: len(a) // 2], "is no coverage artifact"),
        (lambda a: b"[]", "is no coverage artifact"),
        (lambda a: a.replace(b'"covered": 0.333333', b'"covered": 1.0'), "covered is 1.0, its gaps make it 0.333333"),
        (lambda a: a.replace(b"the series is empty", b"the series is short"), "does not have its evidence_sha256"),
        (lambda a: a.replace(b'"run_id"', b'"runid"'), "run_id: Field required"),
    ],
)
def test_an_empty_or_malformed_one_is_refused_with_the_reason(artifact: bytes, change: object, reason: str) -> None:
    changed = change(artifact)  # type: ignore[operator]
    assert changed != artifact
    with pytest.raises(IntegrityError, match=reason):
        read_coverage(changed, name="it")
