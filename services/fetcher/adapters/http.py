"""JSON over HTTP from upstreams nobody trusts: bounded size, time and depth, no redirects, faults translated."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Literal

import httpx

from services.fetcher.adapters.text import printable, read_json
from services.fetcher.domain.faults import (
    BadRequest,
    Banned,
    EmptyAnswer,
    Forbidden,
    Garbled,
    RateLimited,
    RegionBlocked,
    ServerFault,
    TimedOut,
    Unreachable,
    Untrusted,
    UpstreamError,
)
from services.fetcher.ports import Pace
from shared.clock import Clock

REPLAY_HEADER = "X-Asof-Replay"
_QUOTED = 300
_ERROR_BYTES = 8192
_UNTIL = re.compile(r"until (\d{13})\b")  # milliseconds, as Binance writes them


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds on one exchange with an upstream: bytes of a decoded body, seconds for the whole of it."""

    body_bytes: int = 32 * 2**20
    connect_s: float = 5.0
    silence_s: float = 10.0
    total_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    data: Any
    status: int
    headers: Mapping[str, str]
    observed_at: datetime


class HttpUpstream:
    """One upstream host: `base_url` and nothing else is ever contacted, in the pace of `venue`.

    `used_header` names the response header that states the weight used; `forbidden_pause_s` turns a 403 into a ban of
    that many seconds, where the venue means it so.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        venue: str,
        base_url: str,
        pace: Pace,
        clock: Clock,
        caps: Caps,
        *,
        used_header: str | None = None,
        forbidden_pause_s: float | None = None,
    ) -> None:
        self._client = client
        self._venue = venue
        self._base = base_url.rstrip("/")
        self._pace = pace
        self._clock = clock
        self._caps = caps
        self._used_header = used_header
        self._forbidden_pause_s = forbidden_pause_s
        self.host = host_of(base_url)

    async def json(
        self,
        method: Literal["GET", "POST"],
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        weight: int = 1,
        accept: Collection[int] = (200,),
    ) -> Answer:
        """One paced request. Raises an UpstreamError for a status that is not in `accept` and for a bad body."""
        turn = await self._pace.acquire(self._venue, weight)
        fault: UpstreamError | None = None
        used: int | None = None
        try:
            answer = await self._exchange(method, path, params, body, accept)
            used = _number(answer.headers.get(self._used_header)) if self._used_header else None
            return answer
        except UpstreamError as met:
            fault = met
            raise
        finally:
            await self._pace.release(turn, fault, used=used)

    async def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        body: Any,
        accept: Collection[int],
    ) -> Answer:
        try:
            async with asyncio.timeout(self._caps.total_s):
                request = self._client.build_request(
                    method, self._base + path, params=params, json=body, headers={"Accept-Encoding": "gzip"}
                )
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    if response.status_code not in accept:
                        raise await self._status_fault(response)
                    raw = await self._read(response, self._caps.body_bytes)
                finally:
                    await response.aclose()
        except TimeoutError as fault:
            raise TimedOut(f"no whole answer within {self._caps.total_s:g} s", host=self.host) from fault
        except httpx.TimeoutException as fault:
            raise TimedOut(f"{type(fault).__name__} after {self._caps.silence_s:g} s", host=self.host) from fault
        except httpx.HTTPError as fault:
            raise Unreachable(
                f"{type(fault).__name__} while talking to {self.host}",
                host=self.host,
                cause=str(fault)[:_QUOTED] or None,
                fix="asof doctor",
            ) from fault
        data = parse_json(raw, host=self.host, status=response.status_code, headers=response.headers)
        observed_at = observed_clock(response.headers, self.host, self._clock)
        return Answer(data, response.status_code, response.headers, observed_at)

    async def _status_fault(self, response: httpx.Response) -> UpstreamError:
        # Only an answer meant for programs is quoted; a page for people says nothing that helps.
        is_json = "json" in response.headers.get("content-type", "")
        words = (await self._read(response, _ERROR_BYTES)).decode(errors="replace") if is_json else ""
        return status_fault(
            response.status_code,
            response.headers,
            words,
            host=self.host,
            now=self._clock(),
            forbidden_pause_s=self._forbidden_pause_s,
        )

    async def _read(self, response: httpx.Response, cap: int) -> bytes:
        # httpx would inflate a whole chunk at once; inflating ourselves keeps a small bomb from becoming a large one.
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"gzip", "identity", ""}:
            raise Untrusted(f"answers in {encoding!r}, which was not asked for", host=self.host)
        inflate = zlib.decompressobj(31) if encoding == "gzip" else None
        body = bytearray()
        async for chunk in response.aiter_raw():
            try:
                body += chunk if inflate is None else inflate.decompress(chunk, cap + 1 - len(body))
            except zlib.error as fault:
                raise Garbled("the compressed body is damaged", host=self.host, cause=str(fault)) from fault
            if len(body) > cap or (inflate is not None and inflate.unconsumed_tail):
                raise Untrusted(f"the body is larger than {cap:,} bytes", host=self.host, status=response.status_code)
        return bytes(body)


def status_fault(
    status: int,
    headers: Mapping[str, str],
    words: str = "",
    *,
    host: str,
    now: datetime,
    forbidden_pause_s: float | None = None,
) -> UpstreamError:
    """What a status other than success means, with the wait that its headers or its `words` named."""
    wait = retry_after(headers, now)
    until = _UNTIL.search(words)
    if wait is None and until is not None:
        wait = max(int(until[1]) / 1000 - (_http_date(headers.get("Date", "")) or now).timestamp(), 0.0)
    where: dict[str, Any] = {"host": host, "status": status, "cause": printable(words) or None}
    if status == 429:
        return RateLimited("429: too many requests", retry_after=wait, **where)
    if status == 418:
        return Banned("418: banned for asking too often", retry_after=wait, **where)
    if status == 451:
        return RegionBlocked("451: not available in this region", **where)
    if status == 403:
        if forbidden_pause_s is not None:
            return Banned("403: asked too often", retry_after=wait or forbidden_pause_s, **where)
        return Forbidden("403: refused", **where)
    if 300 <= status < 400:
        return Untrusted(f"{status}: redirects elsewhere, which is refused", **where)
    if status >= 500:
        return ServerFault(f"{status}: the upstream failed", retry_after=wait, **where)
    return BadRequest(f"{status}: refused", **where)


def parse_json(raw: bytes, *, host: str, status: int, headers: Mapping[str, str]) -> Any:
    """JSON of a body that says it is JSON; a page for people is refused, an empty body may pass with time."""
    if not raw.strip():
        raise EmptyAnswer(f"{status} with an empty body", host=host, status=status)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if "json" not in kind and kind != "text/plain":
        raise Untrusted(f"answers with {kind or 'no content type'!r}, not JSON", host=host, status=status)
    try:
        return read_json(raw)
    except ValueError as fault:
        reason = str(fault)
        if "recursion" in reason:
            raise Untrusted("the JSON is nested too deeply", host=host, status=status, cause=reason) from fault
        raise Garbled("the body is no whole JSON", host=host, status=status, cause=reason[:_QUOTED]) from fault


def host_of(url: str) -> str:
    """Host and port as one name for pace, errors and logs; the port only where it is not the scheme's own."""
    parts = httpx.URL(url)
    return parts.host if parts.port is None else f"{parts.host}:{parts.port}"


def is_loopback(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 else host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def observed_clock(headers: Mapping[str, str], host: str, clock: Clock) -> datetime:
    """Our own clock; the upstream's `Date` only when it is a replay on this machine, which lives at another time."""
    if headers.get(REPLAY_HEADER) == "1" and is_loopback(host):
        stated = _http_date(headers.get("Date", ""))
        if stated is not None:
            return stated
    return clock()


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, from Retry-After in seconds or as a date (against the upstream's own Date, where given)."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    until = _http_date(text)
    if until is None:
        return None
    # Both dates are cut to whole seconds, so that up to one second of the wait is not in their difference.
    return max((until - (_http_date(headers.get("Date", "")) or now)).total_seconds(), 0.0) + 1.0


def _http_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
