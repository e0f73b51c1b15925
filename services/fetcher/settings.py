"""The settings of the fetcher, read from `ASOF_FETCHER_…`; what it shares with the house comes from `ASOF_…`."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, HttpUrl, WebsocketUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ContractError


class Settings(BaseSettings):
    """An empty variable is an absent one. Secrets are named by files and read once, at the start."""

    model_config = SettingsConfigDict(env_prefix="ASOF_FETCHER_", env_ignore_empty=True, frozen=True)

    home: Path = Field(
        Path("data"), validation_alias=AliasChoices("ASOF_HOME", "home"), description="the folder of the house"
    )
    default_exchange: str | None = Field(
        None,
        validation_alias=AliasChoices("ASOF_DEFAULT_EXCHANGE", "default_exchange"),
        pattern=r"^[A-Z0-9_]{1,24}$",
        description="of a bare ticker",
    )

    scanner_url: HttpUrl = Field(HttpUrl("https://scanner.tradingview.com"), description="descriptions, discovery")
    scanner_market: str = Field("global", pattern=r"^[a-z]{2,24}$", description="the scanner's market to ask")
    ws_url: WebsocketUrl = Field(
        WebsocketUrl("wss://data.tradingview.com/socket.io/websocket"),
        validation_alias=AliasChoices("ASOF_FETCHER_WS_URL", "ASOF_FETCHER_SCANNER_WS_URL", "ws_url"),
        description="the scanner's websocket: bars no exchange API serves",
    )
    ws_origin: str | None = Field("https://www.tradingview.com", description="Origin header of the websocket")
    ws_token_file: Path | None = Field(None, description="a file with a session token; none is needed")
    binance_url: HttpUrl = Field(HttpUrl("https://api.binance.com"), description="Binance spot")
    binance_futures_url: HttpUrl = Field(
        HttpUrl("https://fapi.binance.com"),
        validation_alias=AliasChoices(
            "ASOF_FETCHER_BINANCE_FUTURES_URL", "ASOF_FETCHER_BINANCE_USDM_URL", "binance_futures_url"
        ),
        description="Binance USD-M futures",
    )
    okx_url: HttpUrl = Field(HttpUrl("https://www.okx.com"), description="OKX v5")
    bybit_url: HttpUrl = Field(HttpUrl("https://api.bybit.com"), description="Bybit v5")

    metadata_batch: int = Field(300, ge=1, le=500, description="symbols that one scanner request describes")
    bars_batch: int = Field(50, ge=1, le=500, description="symbols whose bars are one task")
    tasks_in_flight: int = Field(2, ge=1, le=16, description="batches one fetcher works on at once")
    workers: int = Field(3, ge=1, le=32, description="requests or connections one batch uses at once")
    attempts: int = Field(3, ge=1, le=10, description="attempts at a symbol")
    backoff_s: float = Field(0.5, ge=0, le=60, description="base of the back-off between attempts")
    backoff_cap_s: float = Field(30, ge=0, le=600, description="longest back-off an upstream did not ask for")

    patience_s: float = Field(120, ge=0, le=3600, description="longest pause of an upstream that a run waits for")
    outage_s: float = Field(30, ge=0, le=3600, description="how long a run waits for an upstream that does not answer")
    retry_budget: int = Field(5000, ge=0, le=1_000_000, description="symbols that one run may try again, in all")

    connect_timeout_s: float = Field(5, gt=0, le=60, description="to open a connection")
    read_timeout_s: float = Field(10, gt=0, le=300, description="of silence on a connection")
    request_timeout_s: float = Field(30, gt=0, le=600, description="for one whole answer")
    series_timeout_s: float = Field(60, gt=0, le=600, description="for one whole websocket series")
    body_cap: int = Field(32 * 2**20, ge=2**10, le=2**30, description="bytes of one answer, decoded")

    connections: int = Field(5, ge=1, le=6, description="websocket connections at once; the upstream bears seven")
    history_bars: int = Field(10_000, ge=1, le=20_000, description="bars asked for when none is stored")
    instruments_fresh_s: float = Field(3600, ge=0, le=21_600, description="how long an exchange's list serves")
    overlap_bars: int = Field(10, ge=1, le=1000, description="stored bars asked for again, to see revisions")

    def ws_token(self) -> str | None:
        """The session token, or None. Raises ContractError when the file named cannot be read."""
        if self.ws_token_file is None:
            return None
        try:
            return self.ws_token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise ContractError(
                "ASOF_FETCHER_WS_TOKEN_FILE cannot be read", cause=str(fault), fix="check the path and its mode"
            ) from fault
