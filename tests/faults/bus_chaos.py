"""Random faults against workers and server while events flow: `python -m tests.faults.bus_chaos --seed 1 --seconds 20`.

A seed gives the same events and the same sequence of faults; when each one meets which event depends on the machine.
Printed at the end: faults by kind, events, lost, wrongly dead-lettered, and how long the rest took.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from shared.bus.client import Backlog, backlog
from shared.bus.dead_letters import raw_fields
from shared.bus.publishing import CONFIRM_AFTER_S
from shared.bus.wire import decode, encode
from shared.events import DeadLetter, Event
from tests.faults.bus_crew import Crew
from tests.faults.bus_worker import is_poison
from tests.integration.bus_parts import QUICK, task
from tests.redis_server import RedisServer, running_server

WORKERS = 2
RECOVERY_S = 30
MALFORMED = b'{"not":"an event"}'


@dataclass
class Outcome:
    seed: int
    events: int = 0
    malformed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    lost: set[int] = field(default_factory=set)
    unaudited: set[int] = field(default_factory=set)
    wrongly_dead: list[str] = field(default_factory=list)
    missing_letters: set[int] = field(default_factory=set)
    left: list[Backlog] = field(default_factory=list)
    recovery_s: float = 0

    @property
    def fine(self) -> bool:
        return not (self.lost or self.unaudited or self.wrongly_dead or self.missing_letters or self.left)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: {sum(self.faults.values())} faults ({kinds}), {self.events} events, "
            f"lost {len(self.lost)}, unaudited {len(self.unaudited)}, wrongly dead {len(self.wrongly_dead)}, "
            f"letters missing {len(self.missing_letters)}, left {self.left}, recovered in {self.recovery_s:.1f} s"
        )


class Chaos:
    def __init__(self, seed: int, server: RedisServer, folder: Path, without: str | None, recovery_s: float) -> None:
        self.outcome = Outcome(seed)
        self._options = ("--chaos", "--without", without) if without else ("--chaos",)
        self._recovery_s = recovery_s
        self._random = random.Random(seed)
        self._server = server
        self._crew = Crew(server.url(), folder)
        self._workers = [self._start() for _ in range(WORKERS)]
        self._frozen: dict[int, float] = {}
        self._recent: deque[tuple[float, list[Event[Any]]]] = deque(maxlen=100)

    def run(self, seconds: float, events: int) -> Outcome:
        with self._crew:
            for worker in self._workers:
                self._crew.await_ready(worker)
            self._torment(seconds, events)
            self._recover()
            self._judge()
        return self.outcome

    def _torment(self, seconds: float, events: int) -> None:
        ends = time.monotonic() + seconds
        each = max(1, int(events / (seconds / 0.05)))
        next_fault = time.monotonic() + 0.3
        while time.monotonic() < ends or self.outcome.events < events:
            self._publish(min(each, events - self.outcome.events))
            if time.monotonic() >= next_fault and time.monotonic() < ends:
                self._fault()
                next_fault = time.monotonic() + self._random.uniform(0.05, 0.4)
            self._thaw(time.monotonic())
            time.sleep(0.05)
        self._thaw(float("inf"))

    def _publish(self, count: int) -> None:
        if count <= 0:
            return
        events = [task("chaos", self.outcome.events + number) for number in range(count)]
        self._random.shuffle(events)
        while True:
            try:
                with Redis.from_url(self._server.url()) as redis, redis.pipeline(transaction=True) as pipe:
                    for event in events:
                        pipe.xadd("fetch-tasks", dict(encode(event)))
                    pipe.execute()
                break
            except RedisError:
                time.sleep(0.02)  # sent again as a whole: what got through the first time is a duplicate
        self.outcome.events += count
        self._recent.append((time.monotonic(), events))

    def _fault(self) -> None:
        kind = self._random.choices(
            ["kill -9", "stop", "redis kill -9", "duplicates", "malformed"], weights=[5, 3, 1, 3, 2]
        )[0]
        self.outcome.faults[kind] += 1
        place = self._random.randrange(WORKERS)
        worker = self._workers[place]
        match kind:
            case "kill -9":
                worker.kill()
                worker.wait()
                self._frozen.pop(worker.pid, None)
                self._workers[place] = self._start()
            case "stop":
                os.kill(worker.pid, signal.SIGSTOP)
                self._frozen[worker.pid] = time.monotonic() + self._random.uniform(0.2, 1.5)
            case "redis kill -9":
                self._server.kill()
                killed = time.monotonic()
                time.sleep(self._random.uniform(0, 0.3))
                self._server.start()
                self._confirm(killed)
            case "duplicates":
                self._again(self._random.randrange(1, 20))
            case "malformed":
                with Redis.from_url(self._server.url()) as redis:
                    redis.xadd("fetch-tasks", {"data": MALFORMED})

    def _again(self, count: int) -> None:
        with Redis.from_url(self._server.url()) as redis:
            for _ in range(min(count, self.outcome.events)):
                redis.xadd("fetch-tasks", dict(encode(task("chaos", self._random.randrange(self.outcome.events)))))

    def _confirm(self, killed: float) -> None:
        """As the bus does for what has no input: the server may have lost the last seconds of what it answered."""
        with Redis.from_url(self._server.url()) as redis:
            for published, events in self._recent:
                if published > killed - CONFIRM_AFTER_S:
                    for event in events:
                        redis.xadd("fetch-tasks", dict(encode(event)))

    def _start(self) -> subprocess.Popen[str]:
        return self._crew.start(*self._options, ready=False)

    def _thaw(self, now: float) -> None:
        for pid, until in list(self._frozen.items()):
            if until <= now:
                os.kill(pid, signal.SIGCONT)
                del self._frozen[pid]

    def _recover(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < self._recovery_s:
            self.outcome.left = asyncio.run(_left(self._server.url()))
            if not self.outcome.left:
                break
            time.sleep(0.05)
        self.outcome.recovery_s = time.monotonic() - began

    def _judge(self) -> None:
        wanted = {batch for batch in range(self.outcome.events) if not is_poison(batch)}
        poison = set(range(self.outcome.events)) - wanted
        self.outcome.lost = wanted - self._crew.effects()
        self.outcome.unaudited = wanted - {int(path.name) for path in (self._crew.folder / "audited").iterdir()}
        buried: set[int] = set()
        malformed = 0
        with Redis.from_url(self._server.url()) as redis:
            self.outcome.malformed = sum(fields[b"data"] == MALFORMED for _, fields in redis.xrange("fetch-tasks"))
            for entry_id, fields in redis.xrange("dead-letters"):
                letter = decode("dead-letters", entry_id, fields, cap=QUICK.event_cap).data
                assert isinstance(letter, DeadLetter)
                raw = raw_fields(letter)
                if raw == {b"data": MALFORMED}:
                    malformed += 1
                    continue
                batch = decode(letter.origin, b"1-1", raw, cap=QUICK.event_cap).data.batch  # type: ignore[attr-defined]
                if is_poison(batch):
                    buried.add(batch)
                else:
                    self.outcome.wrongly_dead.append(f"{letter.origin} {batch}: {letter.error.message}")
        self.outcome.missing_letters = poison - buried
        if malformed != self.outcome.malformed:
            self.outcome.wrongly_dead.append(f"{malformed} letters about {self.outcome.malformed} malformed entries")


async def _left(url: str) -> list[Backlog]:
    from redis.asyncio import Redis as AsyncRedis

    async with AsyncRedis.from_url(url) as redis:
        return [row for row in await backlog(redis) if row.unread or row.pending]


def torment(
    seed: int,
    folder: Path,
    *,
    seconds: float,
    events: int,
    without: str | None = None,
    recovery_s: float = RECOVERY_S,
) -> Outcome:
    with running_server(folder / "redis") as server:
        return Chaos(seed, server, folder / "crew", without, recovery_s).run(seconds, events)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random faults against the bus")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--events", type=int, default=4000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = torment(asked.seed, Path(temporary), seconds=asked.seconds, events=asked.events)
    print(result)
    print("\n".join([*result.wrongly_dead, f"lost: {sorted(result.lost)}"] if not result.fine else []))
    raise SystemExit(0 if result.fine else 1)
