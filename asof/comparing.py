"""`asof audit metadata`: the catalog beside what upstreams say now, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from services.catalog import MetadataCatalog
from services.catalog.domain.schema import SYMBOLS, same
from shared.errors import ContractError, NotFoundError

# What a symbol is and how it is executed. The rest describes it, and may be worded anew any day.
STRUCTURE = frozenset(SYMBOLS.attributes) - {
    "description", "sector", "industry", "country", "subtype", "renamed_from", "active",
}  # fmt: skip
UNKNOWN = "unknown_symbol"


@dataclass
class Comparison:
    """`structural`: a field that says what a symbol is or how it trades differs, or upstream no longer knows it."""

    asked: int
    matched: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    answered: int = 0

    @property
    def structural(self) -> int:
        return sum(one["structural"] for one in self.differences)

    def as_dict(self) -> dict[str, Any]:
        total = sum(self.compared.values())
        return {
            "audit": "metadata",
            "asked": self.asked,
            "answered": self.answered,
            "matching_percent": _percent(sum(self.matched.values()), total) if total else None,
            "fields": {
                name: {
                    "compared": self.compared[name],
                    "matching_percent": _percent(self.matched[name], self.compared[name]),
                    "structural": name in STRUCTURE,
                }
                for name in SYMBOLS.attributes
                if self.compared[name]
            },
            "structural_differences": self.structural,
            "differences": self.differences,
            "failures": self.failures,
        }


def chosen(catalog: MetadataCatalog, sample: int | None, seed: int) -> list[str]:
    """The active symbols of the catalog, or so many of them; the same seed chooses the same ones."""
    active = catalog.active()
    if not active:
        raise NotFoundError("the catalog has no active symbol", fix="asof run FILE, to observe some")
    return active if sample is None or sample >= len(active) else sorted(Random(seed).sample(active, sample))  # noqa: S311


def compare(catalog: MetadataCatalog, asked: Sequence[str], contents: Sequence[Mapping[str, Any]]) -> Comparison:
    """`contents` are the fetcher's answers. A field that upstream does not state is not compared: nothing denies it."""
    found = Comparison(len(asked))
    for content in contents:
        for answer in content["records"]:
            found.answered += 1
            _compare_one(catalog, answer, found)
        for symbol, failure in content["failures"].items():
            if failure["code"] == UNKNOWN:
                found.differences.append(
                    {
                        "symbol": symbol,
                        "field": "active",
                        "catalog": True,
                        "upstream": None,
                        "structural": True,
                        "last_confirmed": _confirmed(catalog.get_instrument(symbol)),
                        "cause": failure["message"],
                    }
                )
            else:
                found.failures[symbol] = failure
    return found


def _compare_one(catalog: MetadataCatalog, answer: Mapping[str, Any], found: Comparison) -> None:
    symbol = answer["symbol"]
    stored = catalog.get_instrument(symbol)
    assert stored is not None, "active symbols were asked for, and the catalog forgets none"
    try:
        stated = SYMBOLS.read_record(answer["record"])
    except ContractError as fault:
        found.failures[symbol] = {"code": fault.code, "message": str(fault), "retryable": False}
        return
    for name, value in stated.items():
        if value is None:
            continue
        found.compared[name] += 1
        if stored[name] is not None and same(stored[name], value):
            found.matched[name] += 1
            continue
        found.differences.append(
            {
                "symbol": symbol,
                "field": name,
                "catalog": stored[name],
                "upstream": value,
                "structural": name in STRUCTURE or name == "active",
                "last_confirmed": _confirmed(stored),
                "cause": f"stated by {answer['sources'].get(name, 'the upstream')}",
            }
        )


def _confirmed(stored: Mapping[str, Any] | None) -> Any:
    return None if stored is None else stored["last_confirmed"]


def _percent(part: int, whole: int) -> float:
    """100 only when nothing differs."""
    return 100.0 if part == whole else min(round(100 * part / whole, 2), 99.99)
