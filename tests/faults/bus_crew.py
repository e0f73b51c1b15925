"""Starting and killing worker processes, and reading what they left."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis

from shared.bus.wire import decode
from tests.integration.bus_parts import QUICK

ROOT = Path(__file__).parents[2]


class Crew:
    """The worker processes of one test; none outlives it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._log = folder / "crew.log"
        self._all: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            worker.kill()
            worker.communicate()

    def start(self, *options: str, ready: bool = True) -> subprocess.Popen[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.bus_worker", self.url, str(self.folder), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
            )
        self._all.append(worker)
        if ready:
            self.await_ready(worker)
        return worker

    @staticmethod
    def await_ready(worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        assert "ready\n" in iter(worker.stdout.readline, ""), "it ended before it was ready"

    def last_words(self) -> str:
        """The end of what the workers logged."""
        return self._log.read_text(errors="replace")[-2000:]

    def effects(self) -> set[int]:
        return {int(path.name) for path in (self.folder / "effects").iterdir() if path.name.isdecimal()}

    def doubles(self) -> set[int]:
        """Events with two different effects."""
        return {int(path.stem) for path in (self.folder / "effects").glob("*.double")}

    def calls(self) -> int:
        """Handler calls of a chaotic crew."""
        return sum(path.stat().st_size for path in (self.folder / "calls").iterdir())

    def attempts(self) -> Counter[int]:
        return Counter(int(path.name.split(".")[0]) for path in (self.folder / "attempts").iterdir())

    def shares(self) -> Counter[str]:
        """How many attempts each process made."""
        return Counter(path.name.split(".")[1] for path in (self.folder / "attempts").iterdir())


@dataclass(frozen=True)
class Answers:
    """The fetch-attempted events in the stream: how often each batch was answered."""

    batches: Counter[int]

    @classmethod
    def of(cls, url: str) -> Answers:
        with Redis.from_url(url) as redis:
            rows = redis.xrange("fetch-attempted")
        events = [decode("fetch-attempted", entry_id, fields, cap=QUICK.event_cap) for entry_id, fields in rows]
        return cls(Counter(event.data.batch for event in events))  # type: ignore[attr-defined]


def left(url: str, stream: str = "fetch-tasks", group: str = "fetcher") -> int:
    """What the group has not acknowledged yet, read or not."""
    with Redis.from_url(url) as redis:
        for row in redis.xinfo_groups(stream):
            if row["name"] == group.encode():
                return int(row["pending"]) + int(row["lag"] or 0)
    raise AssertionError(f"no group {group} on {stream}")
