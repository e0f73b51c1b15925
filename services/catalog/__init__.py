"""The catalog service: symbols and exchanges as bitemporal, slowly changing dimensions (type 2)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.catalog.adapters.catalog import ExchangeCatalog as ExchangeCatalog
    from services.catalog.adapters.catalog import MetadataCatalog as MetadataCatalog
    from services.catalog.domain.decide import UpsertResult as UpsertResult
    from services.catalog.takeover import FileReport as FileReport
    from services.catalog.takeover import import_house as import_house

_HOMES = {
    "ExchangeCatalog": "services.catalog.adapters.catalog",
    "MetadataCatalog": "services.catalog.adapters.catalog",
    "FileReport": "services.catalog.takeover",
    "UpsertResult": "services.catalog.domain.decide",
    "import_house": "services.catalog.takeover",
}

__all__ = ["ExchangeCatalog", "FileReport", "MetadataCatalog", "UpsertResult", "import_house"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
