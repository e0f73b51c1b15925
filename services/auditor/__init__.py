"""The auditor service: coverage, ledger, gate, waivers, alerts and reports (docs/auditor.md).

What other code may use of it, all on files alone: `verify_ledger`, `list_waivers`, `list_alerts`, `compare`, what a
decision rests on (`decided_coverage`, `hydrated_bars`), and for signing waivers `new_key`, `read_private_key`, `sign`
with `read_request` and `statement`; `what_happened` tells an entry in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.auditor.adapters.alert_file import list_alerts as list_alerts
    from services.auditor.adapters.compare import compare as compare
    from services.auditor.adapters.evidence import decided_coverage as decided_coverage
    from services.auditor.adapters.evidence import hydrated_bars as hydrated_bars
    from services.auditor.adapters.keys import new_key as new_key
    from services.auditor.adapters.keys import read_private_key as read_private_key
    from services.auditor.adapters.keys import sign as sign
    from services.auditor.adapters.ledger_file import list_waivers as list_waivers
    from services.auditor.adapters.ledger_file import verify_ledger as verify_ledger
    from services.auditor.domain.telling import what_happened as what_happened
    from services.auditor.domain.waivers import read_request as read_request
    from services.auditor.domain.waivers import statement as statement

_PUBLIC = {
    "compare": "adapters.compare",
    "decided_coverage": "adapters.evidence",
    "hydrated_bars": "adapters.evidence",
    "list_alerts": "adapters.alert_file",
    "list_waivers": "adapters.ledger_file",
    "new_key": "adapters.keys",
    "read_private_key": "adapters.keys",
    "read_request": "domain.waivers",
    "sign": "adapters.keys",
    "statement": "domain.waivers",
    "verify_ledger": "adapters.ledger_file",
    "what_happened": "domain.telling",
}

__all__ = [
    "compare",
    "decided_coverage",
    "hydrated_bars",
    "list_alerts",
    "list_waivers",
    "new_key",
    "read_private_key",
    "read_request",
    "sign",
    "statement",
    "verify_ledger",
    "what_happened",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"services.auditor.{_PUBLIC[name]}"), name)
