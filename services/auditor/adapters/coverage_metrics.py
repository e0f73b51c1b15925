"""Coverage at /metrics: of the run that was decided last. Until there is one, nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.auditor.domain.coverage import Figures


class CoverageMetrics(Collector):
    """`newest` gives what to show, or None. Every stage has its figure, so that 0 gaps is a statement."""

    def __init__(self, newest: Callable[[], Figures | None]) -> None:
        self._newest = newest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._newest()
        if figures is None:
            return
        yield GaugeMetricFamily("asof_coverage_ratio", "share of candidates covered", value=figures.covered)
        yield GaugeMetricFamily(
            "asof_coverage_with_waivers_ratio",
            "share of candidates covered or waived",
            value=figures.covered_with_waivers,
        )
        gaps = GaugeMetricFamily("asof_coverage_gaps", "candidates with a gap, waived ones included", labels=["stage"])
        for stage, count in figures.gaps.items():
            gaps.add_metric([stage], count)
        yield gaps
