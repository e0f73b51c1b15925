"""All 26 votes, the three ratings, RSI and ADX, side by side with TA-Lib + numpy and with pandas as commonly written.

    .venv/bin/python benchmarks/ratings.py [--rounds 9] [--symbols 200] [--bars 2000]

Every contender computes the same rules (`screener`) of the same random walks; `agree` is the share of its ratings that
are the kernel's, from bar 1,400 on, where no seed counts any more (what is left are ties, which the others break by
rounding, most of all K = D = 0 in the Stochastic RSI). One round runs each of them once, one after the
other, so that a busy machine is busy for all. Medians; `ratio` is of CPU times, round by round.
pandas is run on a few of the symbols, and computes both groups again for All, as a library of separate functions does.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import talib
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from services.features.adapters.warm import warm
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.panel import compute_panel
from services.features.domain.ratings.state import RatingState

Array = NDArray[np.float64]
Five = tuple[Array, Array, Array, Array, Array]
LENGTHS = (10, 20, 30, 50, 100, 200)
PANDAS_SYMBOLS = 4
SETTLED = 1_400
_SMA: Any = 0  # its kind of moving average that is simple
CONSOLE = Console(width=110)


def walks(bars: int, symbols: int) -> Five:
    """Open, high, low, close, volume `[T, S]` of seeded random walks."""
    random = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, (bars, symbols)), axis=0))
    open_ = close * np.exp(random.normal(0, 0.005, close.shape))
    high = np.maximum(open_, close) * (1 + random.random(close.shape) * 0.01)
    low = np.minimum(open_, close) * (1 - random.random(close.shape) * 0.01)
    return open_, high, low, close, np.round(random.random(close.shape) * 1e6)


# ---- the rules once, for numpy arrays and for Series alike ----------------------------------------------------------


def exists(x: Any) -> Any:
    return x == x  # noqa: PLR0124  NaN is the one value that differs from itself


def cast(known: Any, buy: Any, sell: Any) -> Array:
    return np.where(known, np.where(buy, 1.0, np.where(sell, -1.0, 0.0)), np.nan)


def average_votes(x: dict[str, Any]) -> list[Array]:
    close = x["close"]
    means = [x[f"{kind}{n}"] for n in LENGTHS for kind in ("sma", "ema")] + [x["hull"], x["vwma"]]
    return [*(cast(exists(m), close > m, close < m) for m in means), cast(x["lead2"], False, False)]


def oscillator_votes(x: dict[str, Any], before: Callable[[Any], Any]) -> list[Array]:
    rsi, cci, adx, ao, mom, r = (x[name] for name in ("rsi", "cci", "adx", "ao", "mom", "williams_r"))
    rsi1, cci1, adx1, ao1, mom1, r1 = (before(one) for one in (rsi, cci, adx, ao, mom, r))
    k, d, sk, sd = x["k"], x["d"], x["srsi_k"], x["srsi_d"]
    k1, d1, sk1, sd1 = (before(one) for one in (k, d, sk, sd))
    plus, minus, bull, bear = x["plus"], x["minus"], x["bull"], x["bear"]
    bull1, bear1, ao2 = before(bull), before(bear), before(ao1)
    up, down = x["close"] > x["ema50"], x["close"] < x["ema50"]
    strong = (adx > 20) & (adx > adx1)
    return [
        cast(exists(rsi1), (rsi < 30) & (rsi > rsi1), (rsi > 70) & (rsi < rsi1)),
        cast(exists(k1 + d1), (k < 20) & (d < 20) & (k > d), (k > 80) & (d > 80) & (k < d)),
        cast(exists(cci1), (cci < -100) & (cci > cci1), (cci > 100) & (cci < cci1)),
        cast(exists(adx), strong & (plus > minus), strong & (plus < minus)),
        cast(
            exists(ao1),
            (ao > 0) & ((ao1 <= 0) | ((ao > ao1) & (ao2 > ao1))),
            (ao < 0) & ((ao1 >= 0) | ((ao < ao1) & (ao2 < ao1))),
        ),
        cast(exists(mom1), mom > mom1, mom < mom1),
        cast(exists(x["signal"]), x["macd"] > x["signal"], x["macd"] < x["signal"]),
        cast(exists(sk1 + sd1), down & (sk < 20) & (sd < 20) & (sk > sd), up & (sk > 80) & (sd > 80) & (sk < sd)),
        cast(exists(r1), (r < -80) & (r > r1), (r > -20) & (r < r1)),
        cast(exists(bull1), up & (bear < 0) & (bear > bear1), down & (bull > 0) & (bull < bull1)),
        cast(exists(x["uo"]), x["uo"] > 70, x["uo"] < 30),
    ]


# ---- TA-Lib and numpy ------------------------------------------------------------------------------------------------


def with_talib(bars: Five) -> Array:
    """`[5, T, S]`, a symbol after the other."""
    out = np.empty((5, *bars[3].shape))
    with np.errstate(invalid="ignore"):
        for symbol in range(bars[3].shape[1]):
            _, high, low, close, volume = (np.ascontiguousarray(x[:, symbol]) for x in bars)
            x = talib_indicators(high, low, close, volume)
            ma, other = (mean_of_votes(votes) for votes in (average_votes(x), oscillator_votes(x, shifted)))
            out[:, :, symbol] = ma, other, (ma + other) / 2, x["rsi"], x["adx"]
    return out


def talib_indicators(high: Array, low: Array, close: Array, volume: Array) -> dict[str, Any]:
    x: dict[str, Any] = {"close": close, "lead2": np.arange(len(close)) >= 51}
    for n in LENGTHS:
        x[f"sma{n}"], x[f"ema{n}"] = talib.SMA(close, n), talib.EMA(close, n)
    x["hull"] = talib.WMA(2 * talib.WMA(close, 4) - talib.WMA(close, 9), 3)
    x["vwma"] = talib.SMA(close * volume, 20) / talib.SMA(volume, 20)
    x["rsi"] = talib.RSI(close, 14)
    x["k"], x["d"] = talib.STOCH(high, low, close, 8, 3, _SMA, 3, _SMA)
    x["cci"] = talib.CCI(high, low, close, 20)
    x["adx"] = talib.ADX(high, low, close, 14)
    x["plus"], x["minus"] = talib.PLUS_DI(high, low, close, 14), talib.MINUS_DI(high, low, close, 14)
    middle = (high + low) / 2
    x["ao"] = talib.SMA(middle, 5) - talib.SMA(middle, 34)
    x["mom"] = talib.MOM(close, 10)
    x["macd"], x["signal"], _ = talib.MACD(close, 12, 26, 9)
    x["srsi_k"], x["srsi_d"] = talib.STOCH(x["rsi"], x["rsi"], x["rsi"], 14, 3, _SMA, 3, _SMA)
    x["williams_r"] = talib.WILLR(high, low, close, 14)
    ema13 = talib.EMA(close, 13)
    x["bull"], x["bear"] = high - ema13, low - ema13
    x["uo"] = talib.ULTOSC(high, low, close, 7, 14, 28)
    return x


def shifted(x: Array) -> Array:
    out = np.empty_like(x)
    out[0], out[1:] = np.nan, x[:-1]
    return out


def mean_of_votes(votes: list[Array]) -> Array:
    stack = np.stack(votes)
    known = exists(stack)
    return np.asarray(np.where(known, stack, 0.0).sum(axis=0) / known.sum(axis=0))


# ---- pandas ---------------------------------------------------------------------------------------------------------


def with_pandas(bars: Five) -> Array:
    """`[5, T, S]` of the first few symbols."""
    names = ("open", "high", "low", "close", "volume")
    few = min(PANDAS_SYMBOLS, bars[3].shape[1])
    out = np.empty((5, bars[3].shape[0], few))
    for symbol in range(few):
        frame = pd.DataFrame({name: x[:, symbol] for name, x in zip(names, bars, strict=True)})
        ma, (other, rsi, adx) = pandas_ma(frame), pandas_other(frame)
        both = (pandas_ma(frame) + pandas_other(frame)[0]) / 2
        out[:, :, symbol] = ma, other, both, rsi, adx
    return out


def pandas_ma(frame: pd.DataFrame) -> pd.Series[float]:
    close, volume = frame["close"], frame["volume"]
    x: dict[str, Any] = {"close": close, "lead2": np.arange(len(close)) >= 51}
    for n in LENGTHS:
        x[f"sma{n}"] = close.rolling(n).mean()
        x[f"ema{n}"] = close.ewm(span=n, adjust=False, min_periods=n).mean()
    x["hull"] = weighted(2 * weighted(close, 4) - weighted(close, 9), 3)
    x["vwma"] = (close * volume).rolling(20).sum() / volume.rolling(20).sum()
    return pd.DataFrame(average_votes(x)).mean()


def pandas_other(frame: pd.DataFrame) -> tuple[pd.Series[float], pd.Series[float], pd.Series[float]]:
    high, low, close = frame["high"], frame["low"], frame["close"]
    x: dict[str, Any] = {"close": close, "ema50": close.ewm(span=50, adjust=False, min_periods=50).mean()}
    change = close.diff()
    rise, fall = wilder(change.clip(lower=0)), wilder(-change.clip(upper=0))
    x["rsi"] = 100 - 100 / (1 + rise / fall)
    x["k"], x["d"] = stochastic(close, high, low, 8)
    typical = (high + low + close) / 3
    deviation = typical.rolling(20).apply(lambda window: np.abs(window - window.mean()).mean(), raw=True)
    x["cci"] = (typical - typical.rolling(20).mean()) / (0.015 * deviation)
    before = close.shift()
    true_range = pd.concat([high - low, (high - before).abs(), (low - before).abs()], axis=1).max(axis=1)
    up, down = high.diff(), -low.diff()
    range14 = wilder(true_range)
    x["plus"] = 100 * wilder(up.where((up > down) & (up > 0), 0.0)) / range14
    x["minus"] = 100 * wilder(down.where((down > up) & (down > 0), 0.0)) / range14
    x["adx"] = wilder(100 * (x["plus"] - x["minus"]).abs() / (x["plus"] + x["minus"]))
    middle = (high + low) / 2
    x["ao"] = middle.rolling(5).mean() - middle.rolling(34).mean()
    x["mom"] = close.diff(10)
    x["macd"] = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    x["signal"] = x["macd"].ewm(span=9, adjust=False).mean()
    x["srsi_k"], x["srsi_d"] = stochastic(x["rsi"], x["rsi"], x["rsi"], 14)
    top, bottom = high.rolling(14).max(), low.rolling(14).min()
    x["williams_r"] = -100 * (top - close) / (top - bottom)
    ema13 = close.ewm(span=13, adjust=False).mean()
    x["bull"], x["bear"] = high - ema13, low - ema13
    true_low = pd.concat([low, before], axis=1).min(axis=1)
    shares = [(close - true_low).rolling(n).sum() / true_range.rolling(n).sum() for n in (7, 14, 28)]
    x["uo"] = 100 * (4 * shares[0] + 2 * shares[1] + shares[2]) / 7
    return pd.DataFrame(oscillator_votes(x, lambda one: one.shift())).mean(), x["rsi"], x["adx"]


def weighted(x: pd.Series[float], n: int) -> pd.Series[float]:
    weights = np.arange(1, n + 1)
    return x.rolling(n).apply(lambda window: np.dot(window, weights) / weights.sum(), raw=True)


def wilder(x: pd.Series[float]) -> pd.Series[float]:
    return x.ewm(alpha=1 / 14, adjust=False, min_periods=14).mean()


def stochastic(close: Any, high: Any, low: Any, n: int) -> tuple[pd.Series[float], pd.Series[float]]:
    top, bottom = high.rolling(n).max(), low.rolling(n).min()
    k = (100 * (close - bottom) / (top - bottom)).rolling(3).mean()
    return k, k.rolling(3).mean()


# ---- measuring ------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """Seconds of each round, by the clock and of this process."""

    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], Any], times: int = 1) -> Any:
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            found = work()
        self.clock.append((time.perf_counter() - clock) / times)
        self.cpu.append((time.process_time() - cpu) / times)
        return found


def compare(title: str, contenders: dict[str, tuple[Callable[[], Any], int]], rounds: int, few: int) -> None:
    """`contenders`: what to run, and of how many bars it is; the first is what the ratio is to, the last is slow."""
    found = {name: Measured() for name in contenders}
    agree, first = {}, np.empty(0)
    for number in range(rounds):
        for place, (name, (work, _)) in enumerate(contenders.items()):
            if place == len(contenders) - 1 and number >= few:
                continue
            ratings = np.asarray(found[name].take(work))[:3]
            if number == 0:
                first = ratings if place == 0 else first
                agree[name] = agreement(first, ratings)
    table = Table(
        title, "ns a bar", "best", "CPU ns a bar", "best", "ratio", "agree", "peak MiB", box=None, padding=(0, 2, 0, 0)
    )
    for column in table.columns[1:]:
        column.justify = "right"
    base, base_bars = found[next(iter(contenders))], next(iter(contenders.values()))[1]
    for name, (work, bars) in contenders.items():
        one = found[name]
        ratios = [a / bars / (b / base_bars) for a, b in zip(one.cpu, base.cpu, strict=False)]
        figures = [statistics.median(one.clock), min(one.clock), statistics.median(one.cpu), min(one.cpu)]
        table.add_row(
            name,
            *(f"{x / bars * 1e9:,.1f}" for x in figures),
            f"{statistics.median(ratios):,.1f}",
            f"{agree[name]:.2%}",
            f"{peak(work):,.0f}",
        )
    CONSOLE.print(table)
    CONSOLE.print()


def agreement(ours: Array, theirs: Array) -> float:
    a, b = ours[..., SETTLED:, : theirs.shape[-1]], theirs[..., SETTLED:, :]
    return float((np.abs(a - b) < 1e-9).mean())


def peak(work: Callable[[], Any]) -> float:
    """What it takes at most beside its input, results included."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def panels(rounds: int, symbols: int, bars: int) -> None:
    data = walks(bars, symbols)
    count = symbols * bars
    contenders: dict[str, tuple[Callable[[], Any], int]] = {
        "asof, one thread": (lambda: compute_panel(*data, threads=1), count),
        "asof, two threads": (lambda: compute_panel(*data, threads=2), count),
        "TA-Lib + numpy": (lambda: with_talib(data), count),
        f"pandas ({PANDAS_SYMBOLS} symbols)": (lambda: with_pandas(data), PANDAS_SYMBOLS * bars),
    }
    compare(f"{symbols:,} symbols × {bars:,} bars", contenders, rounds, 2)


def single(rounds: int, bars: int = 5_000) -> None:
    data = walks(bars, 1)
    index = pd.date_range("2001-01-01", periods=bars, tz="UTC")
    frame = pd.DataFrame(
        dict(zip(("open", "high", "low", "close", "volume"), (x[:, 0] for x in data), strict=True)), index
    )
    contenders: dict[str, tuple[Callable[[], Any], int]] = {
        "asof, a DataFrame": (lambda: TechnicalRatings.compute(frame).to_numpy().T[:, :, None], bars),
        "asof, arrays": (lambda: compute_panel(*data), bars),
        "TA-Lib + numpy": (lambda: with_talib(data), bars),
        "pandas": (lambda: with_pandas(data), bars),
    }
    compare(f"one symbol × {bars:,} bars", contenders, 5 * rounds, 3)


def market(rounds: int, symbols: int = 1_130, bars: int = 1_260) -> None:
    data = walks(bars, symbols)
    bars_mib = sum(x.nbytes for x in data) / 2**20
    for threads in (1, 2):
        work = partial(compute_panel, *data, threads=threads)
        found = Measured()
        for _ in range(rounds):
            found.take(work)
        clock, cpu = statistics.median(found.clock), statistics.median(found.cpu)
        CONSOLE.print(
            f"{symbols:,} symbols × {bars:,} bars in one call, threads {threads}: {clock * 1e3:,.0f} ms, best "
            f"{min(found.clock) * 1e3:,.0f} ms; CPU {cpu * 1e3:,.0f} ms, {cpu / symbols / bars * 1e9:.1f} ns a bar; "
            f"peak {peak(work):,.0f} MiB beside {bars_mib:,.0f} MiB of bars",
            soft_wrap=True,
        )


def updates(symbols: int = 1_000, bars: int = 400, times: int = 300) -> None:
    data = walks(bars + times, symbols)
    open_, high, low, close, volume = (x[:bars] for x in data)
    state = RatingState.from_history(open_, high, low, close, volume)
    found = Measured()
    for row in range(bars, bars + times):
        found.take(partial(state.update, *(x[row] for x in data)))
    took = sorted(found.clock)
    CONSOLE.print(
        f"one bar of {symbols:,} symbols into a RatingState: {statistics.median(took) * 1e3:.2f} ms, p99 "
        f"{took[int(times * 0.99)] * 1e3:.2f} ms, CPU {statistics.median(found.cpu) * 1e3:.2f} ms; "
        f"{state.blocks.nbytes / symbols / 1024:.0f} KiB a symbol",
        soft_wrap=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The ratings kernel beside TA-Lib and pandas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--bars", type=int, default=2_000)
    asked = parser.parse_args()
    heat = warm()
    CONSOLE.print(f"kernel ready after {heat.kernel_s:.2f} s{f' ({heat.problem})' if heat.problem else ''}\n")
    panels(asked.rounds, asked.symbols, asked.bars)
    single(asked.rounds)
    market(max(3, asked.rounds // 2))
    updates()
