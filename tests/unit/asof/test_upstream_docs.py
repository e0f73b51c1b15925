"""docs/upstream.md tells what the server does: its faults and its limits."""

from __future__ import annotations

from pathlib import Path

from asof.upstream import binance, bybit, okx, scanner
from asof.upstream.app import endpoints
from asof.upstream.faults.catalogue import BY_NAME

TEXT = (Path(__file__).parents[3] / "docs" / "upstream.md").read_text(encoding="utf-8")


def test_every_fault_is_told():
    assert [fault.name for fault in BY_NAME.values() if f"| `{fault.name}` | {fault.says} |" not in TEXT] == []


def test_every_address_is_told():
    for name, url in endpoints("http://127.0.0.1:PORT").items():
        assert f"| `{name}` | `{url}` |" in TEXT


def test_the_limits_told_are_those_enforced():
    assert f"{scanner.RULE.allowance} requests in any {scanner.RULE.window_s} s, {scanner.RULE.at_once} at once" in TEXT
    assert f"weight {binance.SPOT_RULE.allowance:,} in each minute" in TEXT
    assert f"weight {binance.USDM_RULE.allowance:,} in each minute" in TEXT
    assert f"{okx.RULE.allowance} in any {okx.RULE.window_s} s for each endpoint" in TEXT
    assert f"{bybit.RULE.allowance} in any {bybit.RULE.window_s} s" in TEXT
