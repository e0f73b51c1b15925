"""Random faults against workers and server while events flow: `python -m tests.faults.bus_chaos --seed 1 --minutes 20`.

A campaign is a row of legs of about a minute, each with a server of its own and a seed of its own (campaign seed and
leg number). Every leg is judged and appended to a record; the same command goes on after the last recorded leg. A leg's
seed gives the same events and the same sequence of faults (`--leg 17` repeats one); when each fault meets which event
depends on the machine.

Lost: an event without its effect, or without an answer that the next service applied. Double: an event with two
different effects, or one that was applied and dead-lettered by the same group. How often handlers were called again is
counted, because at least once means that they are.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults.bus_torment import HARD, Outcome, torment

LEG_S, LEG_EVENTS, EVENTS_A_FAULT = 60.0, 24_000, 100


@dataclass(frozen=True)
class Sums:
    """Legs, added up."""

    legs: int
    faults: Counter[str]
    events: int
    repeated: int
    lost: int
    double: int
    other: int
    recoveries_s: list[float]
    settled_s: list[float]
    seconds: float

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Sums:
        rows = list(rows)
        faults: Counter[str] = Counter()
        for row in rows:
            faults.update(row["faults"])
        return cls(
            legs=len(rows),
            faults=faults,
            events=sum(row["events"] for row in rows),
            repeated=sum(row["repeated"] for row in rows),
            lost=sum(row["lost"] for row in rows),
            double=sum(row["double"] for row in rows),
            other=sum(row["other"] for row in rows),
            recoveries_s=sorted(seconds for row in rows for seconds in row["recoveries_s"]),
            settled_s=sorted(row["settled_s"] for row in rows),
            seconds=sum(row["seconds"] for row in rows),
        )

    def __str__(self) -> str:
        hard = sum(self.faults[kind] for kind in HARD)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.faults.items()))
        lines = [
            f"legs {self.legs}, {self.seconds / 60:.1f} min",
            f"faults {sum(self.faults.values()):,}, {hard:,} of them kills, stops or restarts ({kinds})",
            f"events {self.events:,}, handler calls made again {self.repeated:,}",
            f"lost {self.lost}, double {self.double}, otherwise wrong {self.other}",
        ]
        lines += [
            f"{what}: {_spread(found)}"
            for what, found in (
                ("from a kill, stop or restart until all of before is applied, faults going on", self.recoveries_s),
                ("from the last fault of a leg until everything is applied", self.settled_s),
            )
            if found
        ]
        return "\n".join(lines)


def _spread(found: list[float]) -> str:
    p50, p99 = found[len(found) // 2], found[min(len(found) - 1, int(len(found) * 0.99))]
    return f"p50 {p50:.1f} s, p99 {p99:.1f} s, max {found[-1]:.1f} s"


def read(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def run_leg(seed: int, leg: int, *, seconds: float, events: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        return torment(
            f"{seed}:{leg}",
            Path(folder),
            seconds=seconds,
            events=events,
            faults=events // EVENTS_A_FAULT,
            recovery_s=180,
        )


def campaign(seed: int, record: Path, *, minutes: float, legs: int, faults: int, seconds: float, events: int) -> Sums:
    """Run legs until a bound is met: this session's time or legs, or the whole campaign's faults."""
    stopped = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        print("the leg under way is the last one", flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    ends, done, took = time.monotonic() + minutes * 60, 0, seconds
    rows = read(record)
    record.parent.mkdir(parents=True, exist_ok=True)
    while not stopped and done < legs and Sums.of(rows).faults.total() < faults:
        if done and time.monotonic() + took > ends:
            break
        leg = max((row["leg"] for row in rows), default=0) + 1
        outcome = run_leg(seed, leg, seconds=seconds, events=events)
        print(f"leg {leg}: {outcome}", flush=True)
        took = outcome.seconds
        rows.append({"leg": leg, **outcome.row()})
        with record.open("a") as lines:
            lines.write(json.dumps(rows[-1]) + "\n")
        done += 1
    return Sums.of(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random faults against the bus")
    parser.add_argument("--seed", type=int, default=1, help="of the campaign")
    parser.add_argument("--leg", type=int, help="repeat this leg alone; nothing is recorded")
    parser.add_argument("--minutes", type=float, default=1.0, help="no further leg begins that would not end by then")
    parser.add_argument("--legs", type=int, default=1000, help="at most so many in this session")
    parser.add_argument("--faults", type=int, default=10_000, help="the campaign is over when it has so many")
    parser.add_argument("--record", type=Path, help="where legs are added up; build/chaos-<seed>.jsonl when absent")
    parser.add_argument("--leg-seconds", type=float, default=LEG_S)
    parser.add_argument("--leg-events", type=int, default=LEG_EVENTS)
    asked = parser.parse_args()
    if asked.leg is not None:
        outcome = run_leg(asked.seed, asked.leg, seconds=asked.leg_seconds, events=asked.leg_events)
        print(outcome)
        return 0 if outcome.fine else 1
    sums = campaign(
        asked.seed,
        asked.record or Path("build") / f"chaos-{asked.seed}.jsonl",
        minutes=asked.minutes,
        legs=asked.legs,
        faults=asked.faults,
        seconds=asked.leg_seconds,
        events=asked.leg_events,
    )
    print(sums)
    return 1 if sums.lost or sums.double or sums.other else 0


if __name__ == "__main__":
    sys.exit(main())
