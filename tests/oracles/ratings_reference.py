"""Technical ratings, plain and slow: the oracle for the fast kernel.

Written from the rules alone, one bar after the other, in Python floats and lists. Every window is summed anew;
nothing is shared with the kernel, not a constant, not a helper. `None` is NA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Value = float | None
Series = list[Value]

LENGTHS = (10, 20, 30, 50, 100, 200)


def mean(xs: Sequence[float]) -> float:
    return math.fsum(xs) / len(xs)


def windowed(xs: Series, n: int, f: Callable[[list[float]], Value]) -> Series:
    """f over the last n values of each bar; NA while one of them is NA."""
    out: Series = []
    for i in range(len(xs)):
        window = xs[i - n + 1 : i + 1] if i >= n - 1 else []
        out.append(f([x for x in window if x is not None]) if window and None not in window else None)
    return out


def sma(xs: Series, n: int) -> Series:
    return windowed(xs, n, mean)


def wma(xs: Series, n: int) -> Series:
    return windowed(xs, n, lambda w: math.fsum((i + 1) * x for i, x in enumerate(w)) / (n * (n + 1) / 2))


def smoothed(xs: Series, n: int, alpha: float) -> Series:
    """Exponential average, seeded with the mean of its first n values."""
    out: Series = []
    seed: list[float] = []
    last: Value = None
    for x in xs:
        if x is None:
            out.append(None)
        elif last is None:
            seed.append(x)
            if len(seed) == n:
                last = mean(seed)
            out.append(last)
        else:
            last = alpha * x + (1 - alpha) * last
            out.append(last)
    return out


def ema(xs: Series, n: int) -> Series:
    return smoothed(xs, n, 2 / (n + 1))


def rma(xs: Series, n: int) -> Series:
    return smoothed(xs, n, 1 / n)


def sma3_of_existing(xs: Series) -> Series:
    seen: list[float] = []
    out: Series = []
    for x in xs:
        if x is None:
            out.append(None)
        else:
            seen.append(x)
            out.append(mean(seen[-3:]) if len(seen) >= 3 else None)
    return out


def before(xs: Series, n: int = 1) -> Series:
    return ([None] * n + xs)[: len(xs)]


def both(a: Series, b: Series, f: Callable[[float, float], Value]) -> Series:
    return [None if x is None or y is None else f(x, y) for x, y in zip(a, b, strict=True)]


def reference(
    open_: Sequence[float],
    high: Sequence[float],
    low: Sequence[float],
    close: Sequence[float],
    volume: Sequence[float],
    rules: str,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Votes, and ratings with rsi and adx, of one symbol; NaN where NA. Bars with a NaN price come back NaN."""
    keep = [i for i in range(len(close)) if not any(math.isnan(x[i]) for x in (open_, high, low, close))]
    pick = [[float(xs[i]) for i in keep] for xs in (high, low, close)]
    shares = [0.0 if math.isnan(volume[i]) else float(volume[i]) for i in keep]

    def spread(dense: dict[str, Series]) -> dict[str, list[float]]:
        out: dict[str, list[float]] = {}
        for name, xs in dense.items():
            out[name] = [math.nan] * len(close)
            for i, x in zip(keep, xs, strict=True):
                out[name][i] = math.nan if x is None else x
        return out

    votes, ratings = _of_bars(*pick, shares, rules)
    return spread(votes), spread(ratings)


def _of_bars(
    h: list[float],
    l: list[float],  # noqa: E741
    c: list[float],
    v: list[float],
    rules: str,
) -> tuple[dict[str, Series], dict[str, Series]]:
    pine, institutional = rules == "pine_v3", rules == "institutional"
    n = len(c)
    high, low, close = list[Value](h), list[Value](l), list[Value](c)
    votes: dict[str, Series] = {}

    def gt(a: Value, b: Value, tie: float) -> bool:
        return a is not None and b is not None and a > b and abs(a - b) > tie

    def lt(a: Value, b: Value, tie: float) -> bool:
        return gt(b, a, tie)

    def vote(name: str, known: Callable[[int], bool], buy: Callable[[int], bool], sell: Callable[[int], bool]) -> None:
        votes[name] = [None if not known(i) else 1.0 if buy(i) else -1.0 if sell(i) else 0.0 for i in range(n)]

    price = [1e-9 * abs(x) for x in c]
    scale = 1e-9 * 100

    def against(name: str, ma: Series) -> None:
        vote(
            name, lambda i: ma[i] is not None, lambda i: gt(c[i], ma[i], price[i]), lambda i: lt(c[i], ma[i], price[i])
        )

    # moving averages
    emas = {length: ema(close, length) for length in LENGTHS}
    for length in LENGTHS:
        against(f"sma{length}", sma(close, length))
        against(f"ema{length}", emas[length])
    against("hull9", wma(both(wma(close, 4), wma(close, 9), lambda a, b: 2 * a - b), 3))
    vwma: Series = []
    for i in range(n):
        window = range(i - 19, i + 1)
        if i < 19 or all(v[j] == 0 for j in window):
            vwma.append(None)
        else:
            vwma.append(math.fsum(c[j] * v[j] for j in window) / math.fsum(v[j] for j in window))
    against("vwma20", vwma)

    def middle(length: int) -> Series:
        return both(windowed(high, length, max), windowed(low, length, min), lambda a, b: (a + b) / 2)

    conversion, base, lead2 = middle(9), middle(26), middle(52)
    lead1 = both(conversion, base, lambda a, b: (a + b) / 2)
    old1, old2 = before(lead1, 26), before(lead2, 26)
    defined = lambda i: lead2[i] is not None and i >= 1  # noqa: E731
    if pine:
        vote(
            "ichimoku",
            lambda i: lead2[i] is not None,
            lambda i: (
                gt(old1[i], old2[i], price[i])
                and gt(base[i], old1[i], price[i])
                and gt(conversion[i], base[i], price[i])
                and gt(c[i], conversion[i], price[i])
            ),
            lambda i: (
                lt(old1[i], old2[i], price[i])
                and lt(base[i], old1[i], price[i])
                and lt(conversion[i], base[i], price[i])
                and lt(c[i], conversion[i], price[i])
            ),
        )
    elif institutional:
        vote("ichimoku", defined, lambda i: gt(c[i], base[i], price[i]), lambda i: lt(c[i], base[i], price[i]))
    else:
        vote("ichimoku", defined, lambda i: False, lambda i: False)

    # oscillators
    change = both(close, before(close), lambda a, b: a - b)
    up = rma([None if x is None else max(x, 0.0) for x in change], 14)
    down = rma([None if x is None else max(-x, 0.0) for x in change], 14)
    rsi = both(up, down, lambda u, d: 100.0 if d == 0 else 100 - 100 / (1 + u / d))
    rsi1 = before(rsi)
    vote(
        "rsi",
        lambda i: rsi1[i] is not None,
        lambda i: lt(rsi[i], 30, scale) and gt(rsi[i], rsi1[i], scale),
        lambda i: gt(rsi[i], 70, scale) and lt(rsi[i], rsi1[i], scale),
    )

    def stoch_raw(length: int) -> Series:
        top, bottom = windowed(high, length, max), windowed(low, length, min)
        return [
            None if a is None or b is None or a == b else 100 * (x - b) / (a - b)
            for x, a, b in zip(c, top, bottom, strict=True)
        ]

    def every(i: int, *xs: Series) -> bool:
        return all(x[i] is not None for x in xs)

    k = sma3_of_existing(stoch_raw(14 if pine else 8))
    d = sma3_of_existing(k)
    k1, d1 = before(k), before(d)
    vote(
        "stoch",
        lambda i: every(i, d1) if pine else every(i, k, d, k1, d1),
        lambda i: lt(k[i], 20, scale) and lt(d[i], 20, scale) and gt(k[i], d[i], scale),
        lambda i: gt(k[i], 80, scale) and gt(d[i], 80, scale) and lt(k[i], d[i], scale),
    )

    source: Series = list(close) if pine else [(a + b + x) / 3 for a, b, x in zip(h, l, c, strict=True)]

    def cci_of(window: list[float]) -> Value:
        m = mean(window)
        deviation = mean([abs(x - m) for x in window])
        return None if deviation <= 1e-9 * abs(m) else (window[-1] - m) / (0.015 * deviation)

    cci = windowed(source, 20, cci_of)
    cci1 = before(cci)
    vote(
        "cci",
        lambda i: every(i, cci1) if pine else every(i, cci, cci1),
        lambda i: lt(cci[i], -100, scale) and gt(cci[i], cci1[i], scale),
        lambda i: gt(cci[i], 100, scale) and lt(cci[i], cci1[i], scale),
    )

    tr: Series = [None] + [max(h[i] - l[i], abs(h[i] - c[i - 1]), abs(l[i] - c[i - 1])) for i in range(1, n)]
    first_move: Value = None if pine else 0.0
    plus_move: Series = [first_move]
    minus_move: Series = [first_move]
    for i in range(1, n):
        rise, fall = h[i] - h[i - 1], l[i - 1] - l[i]
        plus_move.append(rise if rise > fall and rise > 0 else 0.0)
        minus_move.append(fall if fall > rise and fall > 0 else 0.0)
    tr, plus_move, minus_move = tr[:n], plus_move[:n], minus_move[:n]
    atr, p, m = rma(tr, 14), rma(plus_move, 14), rma(minus_move, 14)
    plus: Series = []
    minus: Series = []
    for i in range(n):
        held = (plus[-1], minus[-1]) if i else (None, None)
        if atr[i] is None or atr[i] == 0:
            plus.append(held[0])
            minus.append(held[1])
        else:
            plus.append(100 * p[i] / atr[i])
            minus.append(100 * m[i] / atr[i])
    dx = both(plus, minus, lambda a, b: 0.0 if a + b == 0 else 100 * abs(a - b) / (a + b))
    adx = rma(dx, 14)
    adx1, plus1, minus1 = before(adx), before(plus), before(minus)
    trending = lambda i: gt(adx[i], 20, scale) and gt(adx[i], adx1[i], scale)  # noqa: E731
    vote(
        "adx",
        lambda i: every(i, adx) if pine else every(i, adx, plus, minus, plus1, minus1),
        lambda i: trending(i) and gt(plus[i], minus[i], scale),
        lambda i: trending(i) and lt(plus[i], minus[i], scale),
    )

    hl2: Series = [(a + b) / 2 for a, b in zip(h, l, strict=True)]
    ao = both(sma(hl2, 5), sma(hl2, 34), lambda a, b: a - b)
    ao1, ao2 = before(ao), before(ao, 2)
    vote(
        "ao",
        lambda i: every(i, ao1),
        lambda i: (
            gt(ao[i], 0, price[i])
            and (
                not gt(ao1[i], 0, price[i])
                or (gt(ao1[i], 0, price[i]) and gt(ao[i], ao1[i], price[i]) and gt(ao2[i], ao1[i], price[i]))
            )
        ),
        lambda i: (
            lt(ao[i], 0, price[i])
            and (
                not lt(ao1[i], 0, price[i])
                or (lt(ao1[i], 0, price[i]) and lt(ao[i], ao1[i], price[i]) and lt(ao2[i], ao1[i], price[i]))
            )
        ),
    )

    mom = both(close, before(close, 10), lambda a, b: a - b)
    mom1 = before(mom)
    vote(
        "mom",
        lambda i: every(i, mom1),
        lambda i: gt(mom[i], mom1[i], price[i]),
        lambda i: lt(mom[i], mom1[i], price[i]),
    )

    macd = both(ema(close, 12), ema(close, 26), lambda a, b: a - b)
    signal = ema(macd, 9)
    vote(
        "macd",
        lambda i: every(i, macd, signal),
        lambda i: gt(macd[i], signal[i], price[i]),
        lambda i: lt(macd[i], signal[i], price[i]),
    )

    top, bottom = windowed(rsi, 14, max), windowed(rsi, 14, min)
    sr_raw: Series = [
        None if a is None or b is None or x is None or a - b <= 1e-7 else 100 * (x - b) / (a - b)
        for x, a, b in zip(rsi, top, bottom, strict=True)
    ]
    sk = sma3_of_existing(sr_raw)
    sd = sma3_of_existing(sk)
    sk1, sd1 = before(sk), before(sd)
    trend = emas[50]
    rising_market = lambda i: gt(c[i], trend[i], price[i])  # noqa: E731
    falling_market = lambda i: lt(c[i], trend[i], price[i])  # noqa: E731
    vote(
        "stoch_rsi",
        lambda i: every(i, trend) if pine else every(i, sk, sd, sk1, sd1),
        lambda i: falling_market(i) and lt(sk[i], 20, scale) and lt(sd[i], 20, scale) and gt(sk[i], sd[i], scale),
        lambda i: rising_market(i) and gt(sk[i], 80, scale) and gt(sd[i], 80, scale) and lt(sk[i], sd[i], scale),
    )

    top, bottom = windowed(high, 14, max), windowed(low, 14, min)
    wr: Series = [
        None if a is None or b is None or a == b else -100 * (a - x) / (a - b)
        for x, a, b in zip(c, top, bottom, strict=True)
    ]
    wr1 = before(wr)
    vote(
        "williams_r",
        lambda i: every(i, wr1) if pine else every(i, wr, wr1),
        lambda i: lt(wr[i], -80, scale) and gt(wr[i], wr1[i], scale),
        lambda i: gt(wr[i], -20, scale) and lt(wr[i], wr1[i], scale),
    )

    ema13 = ema(close, 13)
    bull, bear = both(high, ema13, lambda a, b: a - b), both(low, ema13, lambda a, b: a - b)
    bull1, bear1 = before(bull), before(bear)
    vote(
        "bull_bear",
        lambda i: every(i, trend) if pine else every(i, bull1, bear1),
        lambda i: rising_market(i) and lt(bear[i], 0, price[i]) and gt(bear[i], bear1[i], price[i]),
        lambda i: falling_market(i) and gt(bull[i], 0, price[i]) and lt(bull[i], bull1[i], price[i]),
    )

    uo: Series = []
    for i in range(n):
        parts: list[float] = []
        for length in (7, 14, 28):
            window = range(i - length + 1, i + 1)
            if i < 28:
                continue
            ranges = math.fsum(max(h[j], c[j - 1]) - min(l[j], c[j - 1]) for j in window)
            if ranges > 0:
                parts.append(math.fsum(c[j] - min(l[j], c[j - 1]) for j in window) / ranges)
        uo.append(100 * (4 * parts[0] + 2 * parts[1] + parts[2]) / 7 if len(parts) == 3 else None)
    vote("uo", lambda i: every(i, uo), lambda i: gt(uo[i], 70, scale), lambda i: lt(uo[i], 30, scale))

    # ratings
    names = list(votes)
    averages = [name for name in names if name.startswith(("sma", "ema")) or name in {"hull9", "vwma20", "ichimoku"}]
    others = [name for name in names if name not in averages]

    def rating(group: list[str], i: int) -> Value:
        cast = [x for x in (votes[name][i] for name in group) if x is not None]
        return sum(cast) / len(cast) if cast else None

    ma = [rating(averages, i) for i in range(n)]
    other = [rating(others, i) for i in range(n)]
    every_all: Series = []
    for a, b in zip(ma, other, strict=True):
        if a is None or b is None:
            every_all.append(b if a is None else a)
        else:
            every_all.append(0.574 * a + 0.3914 * b if institutional else (a + b) / 2)
    return votes, {"recommend_ma": ma, "recommend_other": other, "recommend_all": every_all, "rsi": rsi, "adx": adx}
