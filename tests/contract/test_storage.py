"""Both backends of a versioned table pass the same suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.tables import Table, open_table
from shared.tables.conformance import TableConformance


class TestNative(TableConformance):
    def open_table(self, root: Path) -> Table:
        return open_table(root)


class TestDelta(TableConformance):
    def open_table(self, root: Path) -> Table:
        pytest.importorskip("deltalake")
        return open_table(root, backend="delta")
