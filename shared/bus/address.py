"""Where Redis is: one URL, and the only places that make a client of it.

redis://[user:password@]host:port[/db]                                  one server
rediss://…?ssl_ca_certs=FILE                                            the same over TLS
unix:///path/to/socket                                                  one server on this machine
redis+sentinel://[user:password@]host:port,host:port/service[?db=0]     whoever is the master of `service`
rediss+sentinel://…                                                     the same over TLS, the sentinels included

`?sentinel_username=` and `?sentinel_password=` are for sentinels that ask for them; everything else in the query, and
the user and password, is for the servers and means what it means to redis-py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from shared.errors import ContractError

if TYPE_CHECKING:
    from faststream.redis import RedisBroker

_SCHEMES = {"redis+sentinel": False, "rediss+sentinel": True}
_PORT = 26379
# A sentinel that does not answer is passed over; the next one knows as much.
_SENTINEL_ANSWER_S = 0.5
_FORM = "redis+sentinel://host:port,host:port/service"


@dataclass(frozen=True, slots=True)
class Watched:
    """A master that sentinels watch: who to ask, under which name, and how to talk to them and to it."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    sentinel_options: Mapping[str, Any]
    server_options: Mapping[str, Any]


class _Following(SentinelManagedConnection):
    """Asks who is the master each time it dials.

    While a command is tried again redis-py dials the address that it was given first: the dead master's, for ever.
    """

    async def _connect(self) -> None:
        self.host, self.port = await self.connection_pool.get_master_address()
        await super()._connect()  # type: ignore[no-untyped-call]


class _FollowingOverTls(_Following, SentinelManagedSSLConnection):
    pass


def watched(url: str) -> Watched | None:
    """What a Sentinel URL says; None for the URL of one server. Raises ContractError when it says it wrongly."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        return None
    credentials, at, hosts = parts.netloc.rpartition("@")
    service = parts.path.strip("/")
    if not service or "/" in service:
        raise ContractError("a Sentinel URL names one service", cause=f"its path is {parts.path!r}", fix=_FORM)
    query = dict(parse_qsl(parts.query))
    access = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    try:
        nodes = tuple(_node(host) for host in hosts.split(","))
        server: dict[str, Any] = {**parse_url(f"redis://{credentials}{at}localhost?{urlencode(query)}")}
    except ValueError as fault:
        raise ContractError("a Sentinel URL cannot be read", cause=str(fault), fix=_FORM) from fault
    del server["host"]
    tls = _SCHEMES[parts.scheme]
    sentinel = {
        **({"ssl": True} if tls else {}),
        **{name: value for name, value in server.items() if name.startswith("ssl")},
        **access,
        "socket_timeout": _SENTINEL_ANSWER_S,
        "socket_connect_timeout": _SENTINEL_ANSWER_S,
        "retry": Retry(NoBackoff(), 0),
    }
    server["connection_class"] = _FollowingOverTls if tls else _Following
    return Watched(nodes, service, sentinel, server)


def client_of(url: str, **options: Any) -> Redis:
    """A client that connects when it is first used; `close` ends it. Raises ContractError for a URL that is wrong."""
    if (found := watched(url)) is not None:
        options = {**found.server_options, **options}
        sentinel: Any = Sentinel(found.sentinels, sentinel_kwargs=dict(found.sentinel_options), **options)  # type: ignore[no-untyped-call]
        redis: Redis = sentinel.master_for(found.service)
        return redis
    try:
        return Redis.from_url(url, **options)
    except ValueError as fault:
        raise ContractError("the URL of Redis cannot be read", cause=str(fault), fix="check ASOF_REDIS_URL") from fault


def broker_of(url: str, **options: Any) -> RedisBroker:
    """FastStream's broker for the same URL. Raises ContractError for one that is wrong."""
    # FastStream takes half a second to import; a client that only publishes and follows does not need it.
    from faststream.redis import RedisBroker, RedisSentinelBroker

    if (found := watched(url)) is not None:
        connection: dict[str, Any] = {**found.server_options, **options}
        return RedisSentinelBroker(
            sentinels=found.sentinels,
            sentinel_master_name=found.service,
            sentinel_kwargs=found.sentinel_options,
            **connection,
        )
    try:
        return RedisBroker(url, **options)
    except ValueError as fault:
        raise ContractError("the URL of Redis cannot be read", cause=str(fault), fix="check ASOF_REDIS_URL") from fault


class Master:
    """Leaves a master that was replaced but lives on, as after a planned failover: what is written there is lost."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._known: tuple[str, int] | None = None

    async def follow(self) -> bool:
        """Ask the sentinels; True when there is another master now, and every connection to the old one was dropped."""
        if not isinstance(self._pool, SentinelConnectionPool):
            return False
        try:
            address = await self._pool.get_master_address()  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            return False
        known, self._known = self._known, address
        if known is None or known == address:
            return False
        await self._pool.disconnect()
        return True


def reason(fault: BaseException) -> str:
    """A connection's fault in words; what redis-py says of each sentinel's client is for its developers."""
    text = str(fault)
    return text.partition(" : ")[0] if isinstance(fault, MasterNotFoundError) else text


async def close(redis: Redis) -> None:
    """End a client, and with it what it asked the sentinels over: redis-py leaves those connections open."""
    pool = redis.connection_pool
    await redis.aclose()
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


def _node(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host")
    return parts.hostname, parts.port or _PORT
