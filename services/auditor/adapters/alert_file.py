"""The alert book as a file of the house's state, shared by whoever raises, sends, acknowledges and lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from services.auditor.adapters.line_file import LineFile
from services.auditor.adapters.locks import locked
from services.auditor.domain.alert_book import Book
from shared.clock import format_instant
from shared.events import Alert
from shared.paths import Home


class AlertFile:
    def __init__(self, home: Home, *, repeat: timedelta) -> None:
        folder = home.state / "auditor"
        self._lines = LineFile(folder / "alerts.jsonl")
        self._lock = folder / "alerts.lock"
        self._book = Book(repeat)
        self._guard = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Book]:
        """The book as it is now. Reading only: lines are added by `note` and `add`."""
        with self._guard, locked(self._lock):
            self._catch_up()
            yield self._book

    def note(self, alerts: Sequence[Alert]) -> None:
        """Enter alerts, durably; what is known already adds nothing."""
        if not alerts:
            return
        with self._guard, locked(self._lock):
            self._catch_up()
            self._add(self._book.news(alerts))

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        with self._guard, locked(self._lock):
            self._catch_up()
            self._add(lines)

    def _catch_up(self) -> None:
        for line in self._lines.unread():
            self._book.apply(line)

    def _add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if lines:
            self._lines.append(lines)
        for line in lines:
            self._book.apply(line)


def list_alerts(home: Home, *, now: datetime) -> list[dict[str, Any]]:
    """Every alert that lasts, and the newest that ended, as Alertmanager-like objects; the newest last."""
    rows = []
    with AlertFile(home, repeat=timedelta(days=1)).open() as book:
        for row in book.rows.values():
            silent = book.silenced_until(row.alert, now)
            rows.append(
                {
                    **row.alert.model_dump(mode="json", exclude_none=True),
                    "acknowledged_by": row.acknowledged_by,
                    "silenced_until": None if silent is None else format_instant(silent),
                    "told": {channel: format_instant(at) for channel, at in row.told.items()},
                }
            )
    return sorted(rows, key=lambda row: (row["starts_at"], row["fingerprint"]))
