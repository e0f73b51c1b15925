"""Opening the house of this command for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asof.lakehouse import Lakehouse


def open_lake() -> Lakehouse:
    from asof.lakehouse import Lakehouse
    from asof.settings import house_settings

    return Lakehouse(house_settings().home)
