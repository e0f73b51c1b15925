"""What each user of the server may do: one access-list user a service, and one for the command line.

Generated from shared/streams.py: a service reads and acknowledges what it consumes, adds to, looks up and trims what it
publishes, and keeps its own keys; nothing else. The auditor may also ask how far the groups of every stream are. Nobody
may list keys, empty the server or configure it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shared.streams import SERVICES, STREAMS, consumed_by, published_by

CLI = "cli"
USERS = (*SERVICES, CLI)

# Keys that a service keeps besides the bus's own: the catalog's lease, the pace of the fetcher's fleet.
_OWN: Mapping[str, tuple[str, ...]] = MappingProxyType({"catalog": ("asof:catalog:*",), "fetcher": ("asof:pace:*",)})
_COMMANDS = (
    "-@all +@connection +@read +@write +@transaction +eval +evalsha +script|load +script|exists +time "
    "-@dangerous -scan -randomkey -dbsize +info +client|setname"
)


def rules_of(user: str) -> list[str]:
    """The rules of one user, for ACL SETUSER after `reset` or for a line of an access-list file."""
    if user == CLI:
        # It puts dead letters back wherever they came from, and follows every stream.
        keys = [*STREAMS, "asof:dead-letters:*"]
    else:
        streams = dict.fromkeys([*consumed_by(user), *published_by(user)])
        keys = [*streams, f"asof:seen:{user}:*", f"asof:failures:{user}:*", *_OWN.get(user, ())]
    rules = ["on", "resetkeys", "resetchannels", *(f"%RW~{key}" for key in keys), *_COMMANDS.split()]
    if user == "auditor":
        # It watches the groups of all streams, also of those whose entries are not its business.
        rules.append(f"(-@all +xinfo|groups {' '.join(f'%R~{stream}' for stream in STREAMS)})")
    return rules


def access_file(digests: Mapping[str, str]) -> str:
    """An access-list file with every user of USERS. `digests`: the SHA-256 of each one's password, in hex."""
    lines = [f"user {user} {' '.join([f'#{digests[user]}', *rules_of(user)])}" for user in USERS]
    return "\n".join(["user default off", *lines]) + "\n"
