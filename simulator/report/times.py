"""A distribution of times in the words of `summary.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.measure.histogram import Histogram

PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9))


def times_ms(histogram: Histogram) -> dict[str, float | None]:
    """A distribution in the contract's words; null where nothing was measured."""

    def ms(ns: float | None) -> float | None:
        return None if ns is None else round(ns / 1e6, 6)

    return {
        "mean": ms(histogram.mean_ns),
        **{name: ms(histogram.percentile_ns(percent)) for name, percent in PERCENTILES},
        "max": ms(histogram.max_ns),
    }
