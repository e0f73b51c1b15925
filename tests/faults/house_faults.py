"""What can befall a house of real processes while it works: each fault is over when its function returns."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable

from shared.streams import SERVICES, STREAMS
from tests.e2e.conftest import House

GARBAGE = "no event at all"
_LONGER_THAN_A_TAKEOVER_S = 3.0


def kill(house: House, chance: random.Random) -> None:
    victim = chance.choice(SERVICES)
    house.kill(victim)
    house.service(victim)


def kill_redis(house: House, chance: random.Random) -> None:
    del chance
    server = house.processes["redis"]
    server.send_signal(signal.SIGKILL)
    server.wait()
    house.processes["redis"] = subprocess.Popen(server.args, stdout=subprocess.DEVNULL, text=True)


def stop(house: House, chance: random.Random) -> None:
    """A replica takes over what a stopped one holds; the stopped one wakes up and knows nothing of it."""
    victim = chance.choice(SERVICES)
    _replica(house, victim)
    house.processes[victim].send_signal(signal.SIGSTOP)
    time.sleep(_LONGER_THAN_A_TAKEOVER_S)
    house.processes[victim].send_signal(signal.SIGCONT)


def scale(house: House, chance: random.Random) -> None:
    """One more, and then the first one less."""
    victim = chance.choice(SERVICES)
    _replica(house, victim)
    house.processes[victim].terminate()
    house.processes[victim].wait()
    house.service(victim)


def again(house: House, chance: random.Random) -> None:
    """Everything that was published, once more and in any order."""
    redis = house.redis()
    sent = [(name, fields) for name in STREAMS if name != "dead-letters" for _, fields in redis.xrange(name)]
    chance.shuffle(sent)
    for name, fields in sent:
        redis.xadd(name, fields)


def poison(house: House, chance: random.Random) -> None:
    redis = house.redis()
    for name in STREAMS:
        if name != "dead-letters":
            redis.xadd(name, {"data": chance.choice([GARBAGE, f'{{"data": "{GARBAGE}"}}', f'["{GARBAGE}"]'])})


def fill(house: House, chance: random.Random) -> None:
    """A server without room refuses every write."""
    redis = house.redis()
    redis.config_set("maxmemory", 1)
    time.sleep(chance.uniform(0.5, 2))
    redis.config_set("maxmemory", 0)


FAULTS: dict[str, Callable[[House, random.Random], None]] = {
    "kill": kill,
    "kill redis": kill_redis,
    "stop": stop,
    "scale": scale,
    "again": again,
    "poison": poison,
    "fill": fill,
}


def _replica(house: House, service: str) -> None:
    if f"{service}-2" not in house.processes:
        house.start(f"{service}-2", "up", service)
