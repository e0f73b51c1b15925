"""`RatingState`: ratings that go on from history, one bar at a time, equal to the batch to the bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from services.features.domain.ratings import kernel, layout
from services.features.domain.ratings.bars import bars_of_frame, checked_bars
from services.features.domain.ratings.panel import PanelRatings, panel_state
from services.features.domain.ratings.rules import Rules, rules_named, switches
from shared.errors import ContractError, IntegrityError

Array = NDArray[np.float64]

_MAGIC: Final = b"asof-rating-state\n"


@dataclass(slots=True)
class RatingState:
    """What the next bar's ratings need of all bars before it, for one symbol or a panel of many.

    `update` costs the same however long the history is. A state belongs to its rules and to the bars it has seen:
    when one of those was revised, build it again with `from_history`.
    """

    rules: Rules
    matrix: Array  # [layout.ROWS, S]
    phase: int
    scalar: bool  # of one symbol given as a frame: update takes and gives floats

    @classmethod
    def from_history(
        cls,
        open: ArrayLike | pd.DataFrame,  # noqa: A002  the field's name
        high: ArrayLike | None = None,
        low: ArrayLike | None = None,
        close: ArrayLike | None = None,
        volume: ArrayLike | None = None,
        rules: str = "screener",
    ) -> RatingState:
        """The state after five arrays `[T, S]`, or after a DataFrame of one symbol in their place. T may be 0."""
        chosen = rules_named(rules)
        if isinstance(open, pd.DataFrame):
            bars, scalar = bars_of_frame(open), True
        elif high is None or low is None or close is None or volume is None:
            raise ContractError(
                "from_history takes five arrays or one DataFrame",
                cause="some of high, low, close, volume are missing",
                fix="pass all five [T, S] arrays",
            )
        else:
            bars, scalar = checked_bars(open, high, low, close, volume), False
        return cls(chosen, panel_state(bars, chosen), bars.close.shape[0], scalar)

    @property
    def width(self) -> int:
        """The number of symbols."""
        return int(self.matrix.shape[1])

    @property
    def bars_seen(self) -> NDArray[np.int64]:
        """How many bars each symbol has had, `[S]`."""
        return np.asarray(self.matrix[layout.BARS], dtype=np.int64)

    def update(
        self,
        open: ArrayLike,  # noqa: A002  the field's name
        high: ArrayLike,
        low: ArrayLike,
        close: ArrayLike,
        volume: ArrayLike,
    ) -> PanelRatings:
        """Take one bar of every symbol in (arrays `[S]`, floats for one symbol) and give its ratings in that form.

        A symbol with a NaN open, high, low or close has no bar: its ratings are NaN and its state stays.
        """
        given = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (open, high, low, close, volume))
        bars = checked_bars(*(x[None] if x.ndim == 1 else x for x in given))
        if bars.close.shape != (1, self.width):
            raise ContractError(
                f"update takes one bar of {self.width} symbols",
                cause=f"the arrays have the shape {bars.close.shape[1:]}",
                fix="pass arrays [S] in the order of the history's columns, NaN where a symbol has no bar",
            )
        out = PanelRatings(*(np.full((1, self.width), np.nan) for _ in PanelRatings._fields))
        idle = bars.missing[0]
        if idle.all():
            return self._shaped(out)
        resting = self.matrix[:, idle] if idle.any() else None
        with np.errstate(all="ignore"):
            kernel.advance(
                self.matrix, self.phase, switches(self.rules), 0, self.width, *bars.arrays, *out,
                np.zeros((kernel.BALLOTS, self.width)), np.empty((0, kernel.BALLOTS, 0)),
            )  # fmt: skip
        if resting is not None:
            self.matrix[:, idle] = resting[layout.TURNED]
            for values in out:
                values[0, idle] = np.nan
        self.phase += 1
        return self._shaped(out)

    def _shaped(self, out: PanelRatings) -> PanelRatings:
        return PanelRatings(*(x[0, 0] if self.scalar else x[0] for x in out))

    def to_bytes(self) -> bytes:
        """The state as bytes: a line of JSON that names versions, rules, shape and checksum, then the matrix."""
        body = np.ascontiguousarray(self.matrix, dtype="<f8").tobytes()
        header = {
            "layout": layout.VERSION,
            "rules": self.rules.id,
            "rules_version": self.rules.version,
            "rows": layout.ROWS,
            "symbols": self.width,
            "phase": self.phase,
            "scalar": self.scalar,
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        return _MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> RatingState:
        """What `to_bytes` wrote. `IntegrityError` for damaged bytes, `ContractError` for another version's."""
        head, _, rest = data.removeprefix(_MAGIC).partition(b"\n")
        if not data.startswith(_MAGIC):
            raise IntegrityError(
                "these bytes are no rating state", cause=f"they begin with {data[:16]!r}", fix=_REBUILD
            )
        try:
            header = json.loads(head)
        except ValueError as error:
            raise IntegrityError("the rating state's header is damaged", cause=str(error), fix=_REBUILD) from error
        rules = rules_named(header["rules"])
        if (header["layout"], header["rules_version"], header["rows"]) != (layout.VERSION, rules.version, layout.ROWS):
            raise ContractError(
                "the rating state was saved by another version",
                cause=f"layout {header['layout']} and rules {header['rules']}@{header['rules_version']}, "
                f"where this program has layout {layout.VERSION} and {rules}",
                fix=_REBUILD,
            )
        if hashlib.sha256(rest).hexdigest() != header["sha256"] or len(rest) != 8 * layout.ROWS * header["symbols"]:
            raise IntegrityError(
                "the rating state's bytes are not those that were saved", cause="sha256 or length differ", fix=_REBUILD
            )
        matrix = np.frombuffer(rest, dtype="<f8").reshape(layout.ROWS, header["symbols"]).astype(np.float64)
        return cls(rules, matrix, header["phase"], header["scalar"])


_REBUILD: Final = "build it again with RatingState.from_history"
