"""schedules.toml, the candidates it names, and how far each schedule was carried out."""

from __future__ import annotations

import json
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.auditor.domain.schedule import Schedule, read_schedules
from shared.clock import format_instant
from shared.errors import ContractError, NotFoundError
from shared.events import explain
from shared.files import make_dirs, write_atomic
from shared.paths import Home, ensure_safe_path


class ScheduleFiles:
    """`schedules` is read once, at the start. Candidates lie below the file's own folder or the home."""

    def __init__(self, home: Home, path: Path) -> None:
        self._roots = [path.parent, home.root]
        self._folder = path.parent
        self._state = home.state / "auditor" / "schedules.json"
        try:
            self.schedules = read_schedules(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, tomllib.TOMLDecodeError, TypeError) as fault:
            raise ContractError(
                f"{path} holds no schedules", cause=str(fault), fix='[NAME] cron = "30 1 * * *"'
            ) from fault
        except ValidationError as fault:
            raise ContractError(f"a schedule in {path} cannot be read", cause=explain(fault)) from fault

    def candidates(self, schedule: Schedule) -> Any:
        """The content of its candidates file. Raises NotFoundError, ContractError or UnsafePathError."""
        assert schedule.candidates is not None, "only a run has candidates"
        path = ensure_safe_path(self._folder / schedule.candidates, self._roots)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as fault:
            raise NotFoundError(f"schedule {schedule.name}: {schedule.candidates} does not exist") from fault
        except (ValueError, RecursionError) as fault:
            raise ContractError(
                f"schedule {schedule.name}: {schedule.candidates} is no JSON", cause=str(fault)
            ) from fault

    def carried_out(self) -> dict[str, datetime]:
        """The newest due time of each schedule that was dealt with. A file that cannot be read is as if absent."""
        try:
            stored = json.loads(self._state.read_bytes())
            return {name: datetime.fromisoformat(at) for name, at in stored.items()}
        except (FileNotFoundError, ValueError, AttributeError, TypeError):
            return {}

    def carry_out(self, done: dict[str, datetime]) -> None:
        make_dirs(self._state.parent)
        write_atomic(self._state, json.dumps({name: format_instant(at) for name, at in done.items()}).encode())


def is_session(calendar: str, day: date) -> bool:
    """Whether an exchange trades on a date. Raises ContractError for a calendar that nobody keeps."""
    import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    try:
        kept = exchange_calendars.get_calendar(calendar)
    except InvalidCalendarName as fault:
        raise ContractError(f"no exchange calendar is called {calendar!r}", fix="use a name such as XNYS") from fault
    return bool(kept.first_session.date() <= day <= kept.last_session.date() and kept.is_session(day.isoformat()))
