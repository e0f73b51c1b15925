"""Finding a universe: what a person asks for, as the scanner's filters and sort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ContractError
from shared.events import explain

# What a candidate carries of the scanner's own reading, under the scanner's own names.
SCREENER = (
    "Recommend.All", "Recommend.MA", "Recommend.Other", "close", "change", "volume",
    "RSI", "RSI[1]", "Stoch.K", "Stoch.D", "Stoch.K[1]", "Stoch.D[1]", "CCI20", "CCI20[1]",
    "ADX", "ADX+DI", "ADX-DI", "ADX+DI[1]", "ADX-DI[1]", "AO", "AO[1]", "Mom", "Mom[1]", "MACD.macd", "MACD.signal",
    "Rec.Stoch.RSI", "Stoch.RSI.K", "Rec.WR", "W.R", "Rec.BBPower", "BBPower", "Rec.UO", "UO",
    "EMA10", "SMA10", "EMA20", "SMA20", "EMA30", "SMA30", "EMA50", "SMA50", "EMA100", "SMA100", "EMA200", "SMA200",
    "Rec.Ichimoku", "Ichimoku.BLine", "Rec.VWMA", "VWMA", "Rec.HullMA9", "HullMA9",
)  # fmt: skip

Column = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+|\[\]-]{1,40}$")]
Text = Annotated[str, Field(pattern=r"^[\w ./&-]{1,60}$")]


class Discovery(BaseModel):
    """Which symbols, in which order, how many. Every filter narrows; a value that is absent filters nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    market: Annotated[str, Field(pattern=r"^[a-z]{2,24}$")] = "global"
    exchange: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,24}$")] | None = None
    type: Text | None = None
    subtype: Text | None = None
    country: Text | None = None
    sector: Text | None = None
    currency: Text | None = None
    min_volume: Annotated[float, Field(ge=0)] | None = None
    min_price: Annotated[float, Field(ge=0)] | None = None
    sort: Column = "volume"
    order: Literal["asc", "desc"] = "desc"
    top: Annotated[int, Field(ge=1, le=20_000)] | None = None

    def filters(self) -> list[dict[str, Any]]:
        equal = {name: getattr(self, name) for name in ("exchange", "type", "subtype", "country", "sector", "currency")}
        least = {"volume": self.min_volume, "close": self.min_price}
        return [
            *(
                {"left": name, "operation": "equal", "right": value}
                for name, value in equal.items()
                if value is not None
            ),
            *(
                {"left": name, "operation": "egreater", "right": value}
                for name, value in least.items()
                if value is not None
            ),
        ]

    def whole_exchange(self) -> bool:
        """Whether the answer is everything that `exchange` lists, so that what is absent from it was delisted."""
        return self.exchange is not None and self.top is None and len(self.filters()) == 1


def read_discovery(arguments: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]) -> Discovery:
    """`preset` names a set of values to start from; what is given beside it goes before. Raises ContractError."""
    given = {name: value for name, value in arguments.items() if value is not None}
    name = given.pop("preset", None)
    if name is not None and name not in presets:
        raise ContractError(f"no preset is called {name!r}", fix=f"use one of {', '.join(sorted(presets))}")
    try:
        return Discovery.model_validate({**(presets[name] if name is not None else {}), **given})
    except ValidationError as fault:
        raise ContractError("this cannot be discovered", cause=explain(fault), fix="asof discover --help") from fault
