"""A replay upstream: recorded market data in the upstreams' own wire formats, at any instant of the past.

It imports nothing from the services, so that what they do is really tested.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asof.upstream.app import create_app as create_app
    from asof.upstream.app import endpoints as endpoints
    from asof.upstream.faults.plan import Faults as Faults
    from asof.upstream.folder import folder_source as folder_source
    from asof.upstream.made import made_source as made_source
    from asof.upstream.pse import pse_companies as pse_companies
    from asof.upstream.pse import pse_source as pse_source
    from asof.upstream.server import UpstreamOptions as UpstreamOptions
    from asof.upstream.server import run as run
    from asof.upstream.server import serve as serve
    from asof.upstream.source import Bar as Bar
    from asof.upstream.source import Instrument as Instrument
    from asof.upstream.source import Payload as Payload
    from asof.upstream.source import Series as Series
    from asof.upstream.source import Source as Source

_HOMES = {
    "create_app": "app",
    "endpoints": "app",
    "Faults": "faults.plan",
    "folder_source": "folder",
    "made_source": "made",
    "pse_companies": "pse",
    "pse_source": "pse",
    "UpstreamOptions": "server",
    "run": "server",
    "serve": "server",
    "Bar": "source",
    "Instrument": "source",
    "Payload": "source",
    "Series": "source",
    "Source": "source",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  (a sorted list of literals)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"asof.upstream.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'asof.upstream' has no attribute {name!r}")
