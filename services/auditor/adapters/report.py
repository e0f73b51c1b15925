"""A run's report: one HTML file that opens from a folder, needs no network and runs no script.

It is made from the run's manifest, its coverage artifact and its ledger entries alone, so that the same run gives the
same bytes; the entry that records its hash comes after all that it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from services.auditor.adapters.report_pictures import coverage_matrix, sparkline, stage_bars
from services.auditor.domain.alerts import command_for, grouped
from services.auditor.domain.chain import Entry
from services.auditor.domain.coverage import Coverage, Gap
from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.telling import what_happened
from shared.clock import format_instant

_NAMED = 400
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class RatingChange:
    """One symbol's newest rating in this run, the one before it, and the way there; `source` says what `before` is."""

    symbol: str
    now: float
    before: float | None
    recent: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """Local ratings minus the screener's of the same closed bar, by symbol and feature; `badge` sums it up."""

    badge: str
    differences: Mapping[str, Mapping[str, float]]


def render(
    manifest: RunManifest,
    coverage: Coverage,
    entries: Sequence[Entry],
    *,
    ratings: Sequence[RatingChange] = (),
    parity: Parity | None = None,
) -> bytes:
    """The report as UTF-8 HTML. `entries` are the run's own, without those that record earlier reports."""
    decided = [entry for entry in entries if entry.kind == "decided"][-1]
    title = f"Run {manifest.run_id}"
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}: {decided.data['decision']}</title><style>{_css()}</style></head><body>",
        _head(manifest, coverage, decided, entries),
        _section(
            "Coverage", _legend(), stage_bars(coverage), "<br>", f"<div class=wide>{coverage_matrix(coverage)}</div>"
        ),
        _gaps(coverage),
        _waivers(coverage),
        _ratings(ratings),
        _parity(parity),
        _attempts(coverage),
        _warnings(coverage),
        _files(manifest, coverage),
        _proof(manifest, entries),
        "</body></html>\n",
    ]
    return "".join(parts).encode()


def _css() -> str:
    return resources.files("services.auditor.adapters").joinpath("report.css").read_text(encoding="utf-8")


def _head(manifest: RunManifest, coverage: Coverage, decided: Entry, entries: Sequence[Entry]) -> str:
    promoted = [entry for entry in entries if entry.kind == "promoted"]
    pair = ""
    if promoted:
        data = promoted[-1].data
        pair = f"<p>Features version {data['feature_version']}, catalog version {data['catalog_version']}.</p>"
    elif decided.data["decision"] == "blocked":
        pair = "<p class=soft>Nothing of this run is in the feature store; what was promoted before stays as it is.</p>"
    counts = coverage.counts
    figures = (
        (f"{counts['expected']:,}", "candidates"),
        (_share(coverage.covered), "covered"),
        (_share(coverage.covered_with_waivers), "covered with waivers"),
        (f"{counts['open_gaps']:,}", "open gaps"),
    )
    return (
        f"<h1>Run {escape(manifest.run_id)}</h1>"
        f"<p class=soft>profile {escape(manifest.profile)} · {escape(manifest.interval)} bars · rules "
        f"{escape(manifest.rules)} · as of {format_instant(manifest.as_of)} · asked by "
        f"{escape(manifest.requested_by or 'an event without a name')}</p>"
        f"<div class='verdict {decided.data['decision']}'><b>{decided.data['decision']}</b>"
        f"{escape(decided.data['reason'])}{pair}</div>"
        "<div class=figures>"
        + "".join(f"<div><strong>{value}</strong><span class=soft>{name}</span></div>" for value, name in figures)
        + "</div>"
        f"<p class=soft>Opened {format_instant(coverage.opened_at)}, closed {format_instant(coverage.closed_at)} "
        f"({_closed(coverage)}), deadline {format_instant(coverage.deadline_at)}. Started from features version "
        f"{coverage.base.features} and catalog version {coverage.base.catalog}.</p>"
    )


def _closed(coverage: Coverage) -> str:
    return {
        "complete": "every outcome was there",
        "deadline": "by its deadline",
        "strict": "strict: at the first failure",
        "promote": "with late results, when the gate was asked again",
    }[coverage.closed_by]


def _legend() -> str:
    names = (("ok", "ok"), ("failed", "gap"), ("waivedcell", "gap, waived"), ("skipped", "skipped after a gap"))
    return "<p class=legend>" + "".join(f"<span><i class={shade}></i>{name}</span>" for shade, name in names) + "</p>"


def _gaps(coverage: Coverage) -> str:
    if not coverage.gaps:
        return _section("Gaps", "<p>None: every candidate has its outcome in every stage.</p>")
    waived = {gap.symbol for gap in coverage.waived}
    open_first = sorted(grouped(coverage.gaps), key=lambda gaps: all(gap.symbol in waived for gap in gaps))
    return _section("Gaps", *(_cause(coverage, gaps, waived) for gaps in open_first))


def _cause(coverage: Coverage, gaps: list[Gap], waived: set[str]) -> str:
    first = gaps[0]
    is_open = [gap for gap in gaps if gap.symbol not in waived]
    causes = {gap.cause for gap in gaps}
    if len(causes) == 1:
        more = f" and {len(gaps) - _NAMED:,} more" if len(gaps) > _NAMED else ""
        body = (
            f"<p>{escape(first.cause)}</p><p class=mono>{escape(' '.join(g.symbol for g in gaps[:_NAMED]))}{more}</p>"
        )
    else:
        rows = [(gap.symbol, gap.cause) for gap in gaps[:_NAMED]]
        body = _table(("symbol", "cause"), rows)
    tries = max((gap.attempts or 0 for gap in gaps), default=0)
    facts = [f"{len(gaps):,} {'symbol' if len(gaps) == 1 else 'symbols'}"]
    facts += [
        f"{tries} attempts" if tries > 1 else "",
        "retrying may help" if first.retryable else "retrying cannot help",
    ]
    facts.append(f"since {format_instant(min(gap.since for gap in gaps))}")
    said = " · ".join(fact for fact in facts if fact)
    following = (
        f"<p class=next>Next: <code>{escape(command_for(coverage.run_id, is_open))}</code></p>"
        if is_open
        else "<p class=next>Waived: see below.</p>"
    )
    return (
        f"<div class='cause{'' if is_open else ' waived'}'><h3>{escape(first.stage)}: {escape(first.code)}</h3>"
        f"<p class=soft>{said}</p>{body}{following}</div>"
    )


def _waivers(coverage: Coverage) -> str:
    if not coverage.waived:
        return ""
    rows = [
        (
            gap.symbol,
            f"{gap.stage}: {gap.code}",
            gap.reason,
            ", ".join(gap.approvers) + ("" if gap.verified else " (not verified: no key)"),
            format_instant(gap.expires),
            gap.waiver,
        )
        for gap in coverage.waived
    ]
    return _section("Waivers", _table(("symbol", "gap", "reason", "signed by", "until", "waiver"), rows))


def _ratings(ratings: Sequence[RatingChange]) -> str:
    if not ratings:
        return ""
    rows = "".join(
        f"<tr><td class=mono>{escape(change.symbol)}</td><td class=n>{change.now:+.3f}</td>"
        f"<td class=n>{'' if change.before is None else f'{change.before:+.3f}'}</td>"
        f"<td class=n>{'' if change.before is None else f'{change.now - change.before:+.3f}'}</td>"
        f"<td>{sparkline(change.recent)}</td></tr>"
        for change in ratings
    )
    return _section(
        "Rating changes",
        "<p class=soft>Recommend.All of each symbol's newest bar against the bar before; largest changes first.</p>",
        "<table><tr><th>symbol<th class=n>now<th class=n>before<th class=n>change<th>recent bars</tr>",
        rows,
        "</table>",
    )


def _parity(parity: Parity | None) -> str:
    if parity is None:
        return ""
    names = sorted({name for by_name in parity.differences.values() for name in by_name})
    worst = sorted(parity.differences.items(), key=lambda item: (-max(map(abs, item[1].values()), default=0), item[0]))
    rows = [
        (symbol, *(f"{by_name[name]:+.6f}" if name in by_name else "–" for name in names))
        for symbol, by_name in worst[:_SHOWN]
    ]
    note = f"<p>{escape(parity.badge)}: symbols whose ratings are those that the screener showed of the same bar.</p>"
    return _section("Parity with the screener", note, _table(("local minus screener", *names), rows))


def _attempts(coverage: Coverage) -> str:
    rows = []
    for attempt in coverage.attempts:
        for kind, part in attempt.kinds.items():
            rows.append((str(attempt.idx), kind, f"{part.fetched:,}", f"{part.failed:,}", f"{part.duration_s:.2f} s"))
    if not rows:
        return ""
    return _section("Attempts at the upstreams", _table(("attempt", "kind", "fetched", "failed", "took"), rows))


def _warnings(coverage: Coverage) -> str:
    if not coverage.warnings:
        return ""
    rows = [(symbol, "; ".join(texts)) for symbol, texts in coverage.warnings.items()]
    count = f"{len(rows):,} {'symbol' if len(rows) == 1 else 'symbols'} with warnings"
    table = _table(("symbol", "warning"), rows)
    return _section("Warnings", f"<details><summary>{count}</summary>{table}</details>")


def _files(manifest: RunManifest, coverage: Coverage) -> str:
    refs = [manifest.candidates, *coverage.metadata_files, *coverage.staged]
    rows = [(ref.path, "" if ref.rows is None else f"{ref.rows:,}", ref.sha256) for ref in refs]
    return _section("Files", _table(("below the house", "rows", "sha256"), rows))


def _proof(manifest: RunManifest, entries: Sequence[Entry]) -> str:
    rows = [
        (str(entry.n), entry.time, entry.kind, what_happened(entry.kind, entry.data), entry.hash) for entry in entries
    ]
    last = entries[-1]
    return _section(
        "Proof",
        _table(("entry", "time", "kind", "what happened", "hash"), rows),
        f"<p>This report shows the ledger up to entry {last.n}, whose hash is <code>{last.hash}</code>. A later entry "
        "records the hash of this file.</p>",
        f"<p>To check the whole chain: <code>python3 docs/verify_ledger.py data/audit.jsonl --head {last.hash}</code>. "
        "This run's part alone: "
        f"<code>python3 docs/verify_ledger.py data/runs/{escape(manifest.run_id)}/audit.jsonl</code>.</p>",
    )


def _section(title: str, *body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(body)}</section>"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td class=mono>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _share(value: float) -> str:
    # Never rounded up to a full house.
    return "100 %" if value == 1 else f"{min(value * 100, 99.9):.1f} %"
