"""What each user of the server may do: one access-list user a service, and one for the command line.

Generated from shared/streams.py: a service reads and acknowledges what it consumes, adds to, looks up and trims what it
publishes, and keeps its own keys; nothing else. Nobody may list keys, empty the server or configure it.

`python -m shared.bus.access` prints the access-list file without passwords; add each one's `#` and SHA-256 to its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from shared.streams import SERVICES, STREAMS, consumed_by, published_by

CLI = "cli"
USERS = (*SERVICES, CLI)

# Keys that a service keeps besides the bus's own: the catalog's lease, the pace of the fetcher's fleet.
_OWN: Mapping[str, tuple[str, ...]] = MappingProxyType({"catalog": ("asof:catalog:*",), "fetcher": ("asof:pace:*",)})
# Who watches how far everybody's groups are, and that nobody else has one.
_WATCHERS = ("auditor",)

# What needs no key. What does is allowed below, for some keys only.
_KEYLESS = "-@all +@connection +@transaction -@dangerous +info +time +script|load"
_LOOKING = "+xinfo|groups"
# A consumer that is gone is removed by a script.
_CONSUMING = (
    "+xreadgroup +xack +xclaim +xpending +xgroup|create +xgroup|delconsumer +xinfo|groups +xinfo|consumers +eval"
)
_PUBLISHING = "+xadd +xrange +xtrim +xpending +xinfo|groups"
_KEEPING = "+@read +@write +eval +evalsha -@dangerous -scan -randomkey -dbsize"
# The command line puts dead letters back wherever they came from, and follows every stream.
_OPERATING = "+xadd +xread +xrange +xrevrange +xpending +xinfo|groups +xinfo|consumers"
_NOTING = "+hset +hmget"


def rules_of(user: str) -> list[str]:
    """The rules of one user, for ACL SETUSER after `reset` or for a line of an access-list file."""
    if user == CLI:
        allowed = [_allow(_OPERATING, STREAMS), _allow(_NOTING, ["asof:dead-letters:*"])]
    else:
        own = [f"asof:seen:{user}:*", f"asof:failures:{user}:*", *_OWN.get(user, ())]
        allowed = [
            _allow(_CONSUMING, consumed_by(user)),
            _allow(_PUBLISHING, published_by(user)),
            _allow(_KEEPING, own),
        ]
    if user in _WATCHERS:
        allowed.append(_allow(_LOOKING, STREAMS, access="R"))
    return ["on", "resetkeys", "resetchannels", *_KEYLESS.split(), *allowed]


def access_file() -> str:
    """An access-list file with every user of USERS. It holds no password, and without one nobody gets in."""
    return "\n".join(["user default off", *(f"user {user} {' '.join(rules_of(user))}" for user in USERS)]) + "\n"


def _allow(commands: str, keys: Iterable[str], *, access: str = "RW") -> str:
    """A selector: these commands on these keys, and no other commands on them."""
    return f"({commands} {' '.join(f'%{access}~{key}' for key in keys)})"


if __name__ == "__main__":
    print(access_file(), end="")
