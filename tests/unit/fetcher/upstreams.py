"""A scanner and an HTTP upstream to ask in tests: real httpx, an in-memory transport."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx

from services.fetcher.adapters.http import Caps, HttpUpstream
from services.fetcher.adapters.local_pace import LocalPace

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REPLAY = {"X-Asof-Replay": "1", "Date": "Wed, 15 Dec 2021 08:30:00 GMT"}


def upstream(answer, *, base="http://127.0.0.1:9/scanner", caps=None, pace=None, **options):
    """`answer`: request -> httpx.Response."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return HttpUpstream(client, "test", base, pace or LocalPace(), lambda: NOW, caps or Caps(), **options)


class Body(httpx.AsyncByteStream):
    """A body that is read from the wire: httpx would hand out bytes given as content only once, and decoded."""

    def __init__(self, *chunks):
        self._chunks = chunks

    async def __aiter__(self):
        for chunk in self._chunks:
            yield chunk


def response(body, status=200, **headers):
    return httpx.Response(status, stream=Body(body), headers={"Content-Type": "application/json", **headers})


def json_response(data, status=200, **headers):
    return response(json.dumps(data).encode(), status, **headers)
