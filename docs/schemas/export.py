"""Write the JSON Schema of the coverage artifact beside this file (`make schemas`); a contract test checks it."""

from __future__ import annotations

import json
from pathlib import Path

from services.auditor.domain.coverage import Coverage

HERE = Path(__file__).parent


def schemas() -> dict[str, str]:
    """File name to content, JSON Schema draft 2020-12."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:asof:coverage:1",
        **Coverage.model_json_schema(),
    }
    return {"coverage.schema.json": json.dumps(schema, indent=2, sort_keys=True) + "\n"}


if __name__ == "__main__":
    for name, text in schemas().items():
        (HERE / name).write_text(text, encoding="utf-8")
