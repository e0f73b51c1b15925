"""What a ledger entry says, in words for a person: the report's proof and `asof show` tell it alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 6


def what_happened(kind: str, data: Mapping[str, Any]) -> str:
    """One line about an entry of this kind; empty for a kind that says nothing beyond its name."""
    match kind:
        case "opened":
            return f"{data['expected'] + data['malformed']:,} candidates, by {data['requested_by'] or 'an event'}"
        case "covered":
            return f"{data['counts']['covered']:,} of {data['counts']['expected']:,}, closed by {data['closed_by']}"
        case "decided":
            return f"{data['decision']}: {data['reason']}"
        case "waived":
            signed = sorted({waiver["approver"] for waiver in data["waivers"]})
            symbols = [waiver["symbol"] for waiver in data["waivers"]]
            more = f" and {len(symbols) - _SHOWN:,} more" if len(symbols) > _SHOWN else ""
            return f"{', '.join(symbols[:_SHOWN])}{more}, by {', '.join(signed)}"
        case "reopened":
            return f"{len({*data['metadata'], *data['bars']}):,} symbols asked for again, by {data['requested_by']}"
        case "promoted":
            return f"features version {data['feature_version']}, catalog version {data['catalog_version']}"
        case "repaired":
            gone = ", ".join(map(str, data["gives_up"]))
            return f"{data['table']}: version {gone} given up, version {data['version']} stands, by {data['by']}"
        case "reported":
            return str(data["report"]["path"])
    return ""
