"""pyarrow without its stubs: they take no numpy array for indices and know no dictionary array, which is what the
catalog's columns are. `Rows` and `Column` say in a signature what goes in and out."""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow
import pyarrow.compute

pa: Any = pyarrow
pc: Any = pyarrow.compute

Rows: TypeAlias = Any  # a pyarrow.Table
Column: TypeAlias = Any  # a pyarrow.Array or ChunkedArray
