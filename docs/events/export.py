"""Write the JSON Schema of every event beside this file (`make schemas`); a contract test checks them."""

from __future__ import annotations

import json
from pathlib import Path

from shared.events import EVENTS, Event

HERE = Path(__file__).parent


def schemas() -> dict[str, str]:
    """File name to content, one JSON Schema (draft 2020-12) for each stream."""
    texts = {}
    for stream, model in EVENTS.items():
        schema = Event[model].model_json_schema()  # type: ignore[valid-type]
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:asof:event:{stream}:1",
            **schema,
        }
        texts[f"{stream}.schema.json"] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


if __name__ == "__main__":
    for name, text in schemas().items():
        (HERE / name).write_text(text, encoding="utf-8")
