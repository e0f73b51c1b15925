"""One leg of chaos: two worker processes, one server, a stream of events, and seeded faults at all three."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from shared.bus.client import Backlog, backlog
from shared.bus.dead_letters import raw_fields
from shared.bus.publishing import CONFIRM_AFTER_S
from shared.bus.upkeep import id_of
from shared.bus.wire import decode, encode
from shared.events import DeadLetter, Event
from tests.faults.bus_crew import Crew
from tests.faults.bus_worker import FAILS, POISON, SLOW
from tests.integration.bus_parts import QUICK, task
from tests.redis_server import RedisServer, running_server

WORKERS = 2
TICK_S = 0.05
# The publisher waits while so many events are unread: a slow machine makes a leg longer, not its backlog.
MOST_UNREAD = 2000
MALFORMED = b'{"not":"an event"}'
# How often each kind of fault comes, and which of them hit a process.
KINDS = {
    "kill -9": 3,
    "stop": 3,
    "redis kill -9": 1,
    "redis stop": 1,
    "duplicates": 20,
    "reordered": 20,
    "malformed": 20,
    "poison": 20,
    "failing twice": 20,
    "slow handler": 4,
}
HARD = ("kill -9", "stop", "redis kill -9", "redis stop")
MARKED = {"poison": POISON, "failing twice": FAILS, "slow handler": SLOW}


@dataclass
class Outcome:
    seed: str
    events: int = 0
    seconds: float = 0
    settled_s: float = 0
    calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    lost: set[int] = field(default_factory=set)
    double: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    left: list[Backlog] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not (self.lost or self.double or self.wrong or self.left)

    @property
    def repeated(self) -> int:
        return max(0, self.calls - self.events)

    def row(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "events": self.events,
            "seconds": round(self.seconds, 1),
            "repeated": self.repeated,
            "faults": dict(self.faults),
            "lost": len(self.lost),
            "double": len(self.double),
            "other": len(self.wrong) + len(self.left),
            "settled_s": round(self.settled_s, 2),
            "recoveries_s": [round(seconds, 2) for seconds in self.recoveries_s],
        }

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        said = (
            f"seed {self.seed}: {self.faults.total()} faults ({kinds}), {self.events} events, lost {len(self.lost)}, "
            f"double {len(self.double)}, all applied {self.settled_s:.1f} s after the last fault, "
            f"{self.seconds:.0f} s in all"
        )
        return "\n".join([said, *(f"  {reason}" for reason in [*self.wrong, *map(str, self.left)])])


class Torment:
    def __init__(self, seed: str, server: RedisServer, folder: Path, without: str | None, recovery_s: float) -> None:
        self.outcome = Outcome(seed)
        self._options = ("--chaos", "--without", without) if without else ("--chaos",)
        self._recovery_s = recovery_s
        # Of its own, so that the sequence of faults does not depend on how many events each moment sees.
        self._faults = random.Random(seed)
        self._order = random.Random(seed)
        self._server = server
        self._crew = Crew(server.url(), folder)
        self._workers = [self._start() for _ in range(WORKERS)]
        self._frozen: dict[int, float] = {}
        self._recent: deque[tuple[float, list[Event[Any]]]] = deque(maxlen=200)
        self._marks: dict[int, str] = {}
        self._held_back: list[Event[Any]] = []
        self._unread = 0
        self._recovering: list[tuple[float, int]] = []

    def run(self, seconds: float, events: int, faults: int) -> Outcome:
        began = time.monotonic()
        with self._crew:
            for worker in self._workers:
                self._crew.await_ready(worker)
            self._torment(seconds, events, faults)
            self._recover()
            self._judge()
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _torment(self, seconds: float, events: int, faults: int) -> None:
        due = 0.0
        while self.outcome.events < events or self.outcome.faults.total() < faults:
            tick = time.monotonic()
            if self._unread < MOST_UNREAD:
                due = min(1.0, due + TICK_S / seconds)
            self._publish(int(events * due) - self.outcome.events)
            if self.outcome.faults.total() < faults * self.outcome.events / events:
                self._fault()
            self._thaw(time.monotonic())
            self._look()
            time.sleep(max(0.0, TICK_S - (time.monotonic() - tick)))
        self._publish(0)
        self._thaw(float("inf"))

    def _publish(self, count: int) -> None:
        start = self.outcome.events
        events = [self._event(number) for number in range(start, start + max(0, count))]
        self._order.shuffle(events)
        self._send([*events, *self._held_back])
        self._held_back = []
        self.outcome.events += len(events)

    def _event(self, number: int) -> Event[Any]:
        return task("chaos", number, symbol=self._marks.get(number, "PSE:JFC"))

    def _send(self, events: Sequence[Event[Any]]) -> None:
        """As a publisher with an outbox does: again as a whole until the server has it, so some come twice."""
        if not events:
            return
        while True:
            try:
                with Redis.from_url(self._server.url()) as redis, redis.pipeline(transaction=True) as pipe:
                    for event in events:
                        pipe.xadd("fetch-tasks", dict(encode(event)))
                    pipe.execute()
                break
            except RedisError:
                time.sleep(0.02)
        self._recent.append((time.monotonic(), list(events)))

    def _fault(self) -> None:
        (kind,) = self._faults.choices(list(KINDS), weights=list(KINDS.values()))
        self.outcome.faults[kind] += 1
        place, length = self._faults.randrange(WORKERS), self._faults.random()
        if kind in HARD:
            self._recovering.append((time.monotonic(), int(time.time() * 1000)))
        match kind:
            case "kill -9":
                self._kill(place)
            case "stop":
                os.kill(self._alive(place).pid, signal.SIGSTOP)
                self._frozen[self._workers[place].pid] = time.monotonic() + 0.2 + 1.3 * length
            case "redis kill -9":
                self._server.kill()
                killed = time.monotonic()
                time.sleep(0.3 * length)
                self._server.start()
                self._confirm(killed)
            case "redis stop":
                self._server.pause()
                time.sleep(0.05 + 0.45 * length)
                self._server.resume()
            case "duplicates":
                numbers = [self._order.randrange(max(1, self.outcome.events)) for _ in range(10)]
                self._send([self._event(number) for number in numbers if number < self.outcome.events])
            case "reordered":
                start = self.outcome.events
                self._held_back += [self._event(start + number) for number in range(10)][::-1]
                self.outcome.events += 10
            case "malformed":
                with Redis.from_url(self._server.url()) as redis:
                    redis.xadd("fetch-tasks", {"data": MALFORMED})
            case _:
                self._marks[self.outcome.events] = MARKED[kind]
                self._publish(1)

    def _kill(self, place: int) -> None:
        worker = self._alive(place)
        worker.kill()
        worker.wait()
        self._frozen.pop(worker.pid, None)
        self._workers[place] = self._start()

    def _alive(self, place: int) -> subprocess.Popen[str]:
        worker = self._workers[place]
        if worker.poll() is not None:
            self.outcome.wrong.append(f"a worker ended by itself with {worker.returncode}: {self._crew.last_words()}")
            self._workers[place] = self._start()
        return self._workers[place]

    def _confirm(self, killed: float) -> None:
        """As the bus does for what has no input: the server may have lost the last seconds of what it answered."""
        for published, events in list(self._recent):
            if published > killed - CONFIRM_AFTER_S:
                self._send(events)

    def _start(self) -> subprocess.Popen[str]:
        return self._crew.start(*self._options, ready=False)

    def _thaw(self, now: float) -> None:
        for pid, until in list(self._frozen.items()):
            if until <= now:
                os.kill(pid, signal.SIGCONT)
                del self._frozen[pid]

    def _look(self) -> None:
        """How much is unread; and a fault is over when everything that was published before it is done."""
        with Redis.from_url(self._server.url()) as redis:
            (group,) = redis.xinfo_groups("fetch-tasks")
            done, _ = id_of(group["last-delivered-id"])
            if group["pending"] and (oldest := redis.xpending("fetch-tasks", "fetcher")["min"]) is not None:
                done = id_of(oldest)[0]
            self._unread = int(group["lag"] or 0)
            idle = not group["pending"] and not group["lag"]
        now = time.monotonic()
        over = [since for since, published in self._recovering if idle or done >= published]
        self._recovering = [row for row in self._recovering if row[0] not in over]
        self.outcome.recoveries_s += [now - since for since in over]

    def _recover(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < self._recovery_s:
            self._look()
            self.outcome.left = asyncio.run(_left(self._server.url()))
            if not self.outcome.left:
                break
            time.sleep(0.05)
        self.outcome.settled_s = time.monotonic() - began
        for place in range(WORKERS):
            self._alive(place)

    def _judge(self) -> None:
        crew, everything = self._crew, set(range(self.outcome.events))
        poison = {number for number, mark in self._marks.items() if mark == POISON}
        effects, answered = crew.effects(), {int(path.name) for path in (crew.folder / "audited").iterdir()}
        self.outcome.calls = crew.calls()
        self.outcome.lost = everything - poison - effects | everything - poison - answered
        buried: set[int] = set()
        refused: set[str] = set()
        with Redis.from_url(self._server.url()) as redis:
            rows: Any = redis.xrange("fetch-tasks")
            malformed = {entry_id.decode() for entry_id, fields in rows if fields[b"data"] == MALFORMED}
            for entry_id, fields in redis.xrange("dead-letters"):
                letter = decode("dead-letters", entry_id, fields, cap=QUICK.event_cap).data
                assert isinstance(letter, DeadLetter)
                raw = raw_fields(letter)
                if raw == {b"data": MALFORMED}:
                    refused.add(letter.entry_id)
                    continue
                batch = decode(letter.origin, b"1-1", raw, cap=QUICK.event_cap).data.batch  # type: ignore[attr-defined]
                buried.add(batch)
                if batch not in poison:
                    self.outcome.wrong.append(f"{letter.origin} {batch} was dead-lettered: {letter.error.message}")
        self.outcome.lost |= poison - buried
        self.outcome.double = crew.doubles() | (buried & effects)
        if refused != malformed:
            self.outcome.wrong.append(f"letters about {len(refused)} of {len(malformed)} malformed entries")


async def _left(url: str) -> list[Backlog]:
    from redis.asyncio import Redis as AsyncRedis

    async with AsyncRedis.from_url(url) as redis:
        return [row for row in await backlog(redis) if row.unread or row.pending]


def torment(
    seed: str,
    folder: Path,
    *,
    seconds: float,
    events: int,
    faults: int,
    without: str | None = None,
    recovery_s: float = 30,
) -> Outcome:
    with running_server(folder / "redis") as server:
        return Torment(seed, server, folder / "crew", without, recovery_s).run(seconds, events, faults)
