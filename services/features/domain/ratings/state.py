"""`RatingState`: ratings that go on from history, one bar at a time, equal to the batch to the bit."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from services.features.domain.ratings import kernel, layout
from services.features.domain.ratings.bars import bars_of_frame, checked_bars, padded
from services.features.domain.ratings.lanes import WIDTH
from services.features.domain.ratings.panel import PanelRatings, panel_ratings_and_state, panel_state
from services.features.domain.ratings.rules import RULE_SETS, Rules, rules_named, switches
from shared.errors import ContractError, IntegrityError

Array = NDArray[np.float64]

_MAGIC: Final = b"asof-rating-state\n"


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    layout: int
    rules: str
    rules_version: str
    symbols: int = Field(ge=0)
    phase: int = Field(ge=0)
    scalar: bool


@dataclass(slots=True)
class RatingState:
    """What the next bar's ratings need of all bars before it, for one symbol or a panel of many.

    `update` costs the same however long the history is. A state belongs to its rules and to the bars it has seen:
    when one of those was revised, build it again with `from_history`.
    """

    rules: Rules
    width: int  # the number of symbols
    blocks: Array  # [blocks, layout.ROWS, WIDTH]: symbol s is lane s % WIDTH of block s // WIDTH
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
        return cls(chosen, bars.close.shape[1], panel_state(bars, chosen), bars.close.shape[0], scalar)

    @classmethod
    def rated(
        cls,
        open: ArrayLike,  # noqa: A002  the field's name
        high: ArrayLike,
        low: ArrayLike,
        close: ArrayLike,
        volume: ArrayLike,
        rules: str = "screener",
    ) -> tuple[PanelRatings, RatingState]:
        """`compute_panel` of five arrays `[T, S]`, and the state after them, in one pass."""
        chosen = rules_named(rules)
        bars = checked_bars(open, high, low, close, volume)
        ratings, blocks = panel_ratings_and_state(bars, chosen)
        return ratings, cls(chosen, bars.close.shape[1], blocks, bars.close.shape[0], scalar=False)

    @classmethod
    def of_columns(cls, columns: ArrayLike, rules: str = "screener") -> RatingState:
        """A panel's state put together from columns `[S, layout.ROWS]` of any panels of these rules."""
        given = np.asarray(columns, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != layout.ROWS:
            raise ContractError(
                f"columns of a state have the shape [S, {layout.ROWS}]", cause=f"it is {given.shape}", fix=_REBUILD
            )
        blocks = layout.empty(-(-len(given) // WIDTH))
        block, lane = np.divmod(np.arange(len(given)), WIDTH)
        blocks[block, :, lane] = given
        return cls(rules_named(rules), len(given), blocks, 0, scalar=False)

    def columns(self) -> Array:
        """Each symbol's own state, `[S, layout.ROWS]`, for `of_columns`."""
        block, lane = np.divmod(np.arange(self.width), WIDTH)
        return np.asarray(self.blocks[block, :, lane][:, layout.rotated(self.phase)])

    @property
    def bars_seen(self) -> NDArray[np.int64]:
        """How many bars each symbol has had, `[S]`."""
        return np.asarray(self.blocks[:, layout.BARS].reshape(-1)[: self.width], dtype=np.int64)

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
        bars = padded(bars)
        idle = bars.missing[0]
        out = PanelRatings(*(np.full((1, idle.size), np.nan) for _ in PanelRatings._fields))
        if idle.all():
            return self._shaped(out)
        # Advanced indices side by side: [idle symbols, rows].
        block, lane = np.divmod(np.flatnonzero(idle), WIDTH)
        resting = self.blocks[block, :, lane]
        with np.errstate(all="ignore"):
            kernel.advance(self.blocks, self.phase, switches(self.rules), 0, *bars.arrays, *out, None)
        self.blocks[block, :, lane] = resting[:, layout.TURNED]
        for values in out:
            values[0, idle] = np.nan
        self.phase += 1
        return self._shaped(out)

    def _shaped(self, out: PanelRatings) -> PanelRatings:
        return PanelRatings(*(x[0, 0] if self.scalar else x[0, : self.width] for x in out))

    def to_bytes(self) -> bytes:
        """The state as bytes: a checksum, a line of JSON that names versions, rules and shape, and the numbers."""
        body = np.ascontiguousarray(self.blocks, dtype="<f8").tobytes()
        header = _Header(
            layout=layout.VERSION,
            rules=self.rules.id,
            rules_version=self.rules.version,
            symbols=self.width,
            phase=self.phase,
            scalar=self.scalar,
        )
        checked = header.model_dump_json().encode() + b"\n" + body
        return _MAGIC + hashlib.sha256(checked).hexdigest().encode() + b"\n" + checked

    @classmethod
    def from_bytes(cls, data: bytes) -> RatingState:
        """What `to_bytes` wrote. `IntegrityError` for damaged bytes, `ContractError` for another version's."""
        if not data.startswith(_MAGIC):
            raise IntegrityError(
                "these bytes are no rating state", cause=f"they begin with {data[:16]!r}", fix=_REBUILD
            )
        checksum, _, checked = data.removeprefix(_MAGIC).partition(b"\n")
        if checksum != hashlib.sha256(checked).hexdigest().encode():
            raise IntegrityError(
                "the rating state's bytes are not those that were saved", cause="their sha256 differs", fix=_REBUILD
            )
        head, _, body = checked.partition(b"\n")
        try:
            header = _Header.model_validate_json(head)
        except ValueError as error:
            raise IntegrityError("the rating state's header is damaged", cause=str(error), fix=_REBUILD) from error
        known = RULE_SETS.get(header.rules)
        if known is None or (header.layout, header.rules_version) != (layout.VERSION, known.version):
            raise ContractError(
                "the rating state was saved by another version",
                cause=f"layout {header.layout} and rules {header.rules}@{header.rules_version}, "
                f"where this program has layout {layout.VERSION} and {', '.join(map(str, RULE_SETS.values()))}",
                fix=_REBUILD,
            )
        shape = (-(-header.symbols // WIDTH), layout.ROWS, WIDTH)
        if len(body) != 8 * math.prod(shape):
            raise IntegrityError(
                "the rating state is not as long as its header says", cause=f"{len(body)} bytes", fix=_REBUILD
            )
        blocks = layout.aligned(shape)
        blocks[:] = np.frombuffer(body, dtype="<f8").reshape(shape)
        return cls(known, header.symbols, blocks, header.phase, header.scalar)


_REBUILD: Final = "build it again with RatingState.from_history"
