"""A real Redis-compatible server for a house that has none: started, joined or adopted, and stopped with its last user.

`embedded_redis(home)` is all most callers need; `find_server()` says which binary it would run.
"""

from __future__ import annotations

from asof.embedded.binary import ServerBinary, find_server, find_servers
from asof.embedded.server import embedded_redis

__all__ = ["ServerBinary", "embedded_redis", "find_server", "find_servers"]
