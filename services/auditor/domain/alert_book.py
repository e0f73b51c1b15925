"""Which problems there are and who was told: a fold over the lines of the alert file.

An alert is sent to a channel when it begins, again when its words change, with restraint for as long as it lasts
unacknowledged, and once when it ends. A silence holds back what its labels match until a time; what still lasts then
is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.clock import format_instant
from shared.events import Alert

_SETTLED = 500  # ended alerts that are remembered


@dataclass
class Row:
    """One problem. `told` is the instant each channel was last told, `told_text` what it then was told."""

    alert: Alert
    acknowledged_by: str | None = None
    told: dict[str, datetime] = field(default_factory=dict)
    told_text: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Silence:
    labels: Mapping[str, str]
    until: datetime
    by: str
    reason: str

    def holds(self, alert: Alert, now: datetime) -> bool:
        return now < self.until and self.labels.items() <= {**alert.labels, "fingerprint": alert.fingerprint}.items()


class Book:
    def __init__(self, repeat: timedelta) -> None:
        self.rows: dict[str, Row] = {}
        self.silences: list[Silence] = []
        self._repeat = repeat

    def apply(self, line: Mapping[str, Any]) -> None:
        if raised := line.get("raised"):
            self._raise(Alert.model_validate(raised))
        elif told := line.get("told"):
            row = self.rows.get(told["fingerprint"])
            if row is not None:
                row.told[told["channel"]] = datetime.fromisoformat(told["at"])
                row.told_text[told["channel"]] = told["text"]
        elif acknowledged := line.get("acknowledged"):
            self.rows[acknowledged["fingerprint"]].acknowledged_by = acknowledged["by"]
        elif silenced := line.get("silenced"):
            until = datetime.fromisoformat(silenced["until"])
            self.silences.append(Silence(silenced["labels"], until, silenced["by"], silenced["reason"]))

    def news(self, alerts: Iterable[Alert]) -> list[dict[str, Any]]:
        """The lines that these alerts add: none for a problem that is known in these words, or that never began."""
        lines: dict[str, dict[str, Any]] = {}
        for alert in alerts:
            row = self.rows.get(alert.fingerprint)
            known = row is not None and _text(row.alert) == _text(alert)
            ends_nothing = alert.status == "resolved" and (row is None or row.alert.status == "resolved")
            if not known and not ends_nothing:
                lines[alert.fingerprint] = {"raised": alert.model_dump(mode="json", exclude_none=True)}
        return list(lines.values())

    def due(self, channels: Iterable[str], now: datetime) -> Iterator[tuple[str, Alert]]:
        """Whom to tell what, now."""
        names = list(channels)
        for row in self.rows.values():
            if self.silenced_until(row.alert, now) is not None:
                continue
            for channel in names:
                if self._is_due(row, channel, now):
                    yield channel, row.alert

    def silenced_until(self, alert: Alert, now: datetime) -> datetime | None:
        """Until when this alert is held back; None when it is not."""
        return max((silence.until for silence in self.silences if silence.holds(alert, now)), default=None)

    def firing(self) -> list[Row]:
        return [row for row in self.rows.values() if row.alert.status == "firing"]

    def _raise(self, alert: Alert) -> None:
        row = self.rows.pop(alert.fingerprint, None)
        if row is None or (row.alert.status == "resolved" and alert.status == "firing"):
            row = Row(alert)  # a new problem, though it may have been there before
        elif alert.status == "firing" and alert.starts_at > row.alert.starts_at:
            alert = alert.model_copy(update={"starts_at": row.alert.starts_at})  # it has lasted since then
        row.alert = alert
        self.rows[alert.fingerprint] = row
        ended = [name for name, other in self.rows.items() if other.alert.status == "resolved"]
        for name in ended[: max(0, len(ended) - _SETTLED)]:
            del self.rows[name]

    def _is_due(self, row: Row, channel: str, now: datetime) -> bool:
        last = row.told.get(channel)
        if row.alert.status == "resolved":
            return last is not None and row.told_text[channel] != _text(row.alert)
        if last is None:
            return True
        if row.acknowledged_by is not None:
            return False
        return row.told_text[channel] != _text(row.alert) or now - last >= self._repeat


def told_line(alert: Alert, channel: str, at: datetime) -> dict[str, Any]:
    told = {"fingerprint": alert.fingerprint, "channel": channel, "at": format_instant(at), "text": _text(alert)}
    return {"told": told}


def _text(alert: Alert) -> str:
    return f"{alert.status}: {alert.annotations['summary']}"


def as_text(alert: Alert) -> str:
    """The alert for a person: what, which symbols, the exact error, since when, what to do."""
    lines = [f"{alert.status.upper()}  {alert.annotations['summary']}"]
    if alert.status == "firing":
        lines.append(f"  error  {alert.error}")
        lines.append(f"  since  {format_instant(alert.starts_at)}")
        lines.append(f"  next   {alert.next_command}")
    elif alert.ends_at is not None:
        lines.append(f"  lasted {format_instant(alert.starts_at)} to {format_instant(alert.ends_at)}")
    return "\n".join(lines)
