"""A comparison as a page: what is concluded, the intervals, and both runs' times over one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from simulator.compare.effects import estimate
from simulator.compare.metric import Metric
from simulator.compare.samples import merged
from simulator.compare.text import HEAD, READING, row, sentence
from simulator.report import drawn, svg
from simulator.report.blocks import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.compare.comparison import Comparison
    from simulator.compare.samples import Sample
    from simulator.compare.sides import Side

_TONES = {"better": "good", "worse": "bad", "no evidence": "grey"}
_POINTS_MOST = 480
_STEPS_PER_DECADE = 10
_CUT = 1_000.0  # percent: a chart of what is larger shows nothing of the rest


def page(comparisons: Sequence[Comparison]) -> str:
    """The page for some runs against one baseline, at least one run."""
    baseline = comparisons[0].baseline
    words = {comparison.word for comparison in comparisons}
    worst = "worse" if "worse" in words else "better" if "better" in words else "no evidence"
    word, _, cause = sentence(comparisons[0]).partition(": ")
    if len(comparisons) > 1:
        word, cause = worst.upper(), "; ".join(f"{one.run.name}: {one.word}" for one in comparisons)
    parts = [_part(at, comparison, several=len(comparisons) > 1) for at, comparison in enumerate(comparisons)]
    return drawn.page(
        kind="Comparison with a baseline",
        heading=f"{', '.join(one.run.name for one in comparisons)} against {baseline.name}",
        word=word,
        cause=cause,
        tone={"worse": "fail", "better": "pass"}.get(worst, ""),
        parts=[*parts, _curves([baseline, *(one.run for one in comparisons)])],
    )


def _part(at: int, comparison: Comparison, *, several: bool) -> drawn.Part:
    return drawn.Part(
        key=f"run{at}",
        heading=comparison.run.name,
        notes=[*comparison.notes, f"Compared: {comparison.method}."],
        tables=[
            Table(
                caption="What differs, and how sure that is" + (f": {comparison.run.name}" if several else ""),
                head=HEAD,
                rows=[row(finding) for finding in comparison.findings],
                words=frozenset({0, len(HEAD) - 1}),
                note=READING,
            )
        ],
        figures=_intervals(comparison),
    )


def _intervals(comparison: Comparison) -> list[drawn.Drawing]:
    shown = []
    for finding in comparison.findings:
        if finding.effect.metric.is_share:
            continue  # points and percent have no common axis
        low, change, high = (100 * value for value in (finding.low, finding.change, finding.high))
        colour = _TONES[finding.word]
        if math.isfinite(low) and abs(change) <= _CUT:
            shown.append((finding.effect.metric.label, low, change, min(high, _CUT), colour))
    if not shown:
        return []
    return [
        drawn.Drawing(
            "Changes against the baseline, with their intervals",
            "A bar that holds the line at 0 is what chance alone may do. The dot is what was measured. Green is better, red is "
            "worse, grey is no evidence.",
            svg.intervals("Changes in percent with 95 % intervals", shown, "change (%)"),
        )
    ]


def _curves(sides: Sequence[Side]) -> drawn.Part:
    together = [(side.name, merged(samples, side.name)[0], samples) for side in sides if (samples := side.samples())]
    timed = [entry for entry in together if "response_time" in entry[1].times]
    return drawn.Part(
        key="curves",
        heading="Both over one another",
        figures=[
            _quantiles([(name, sample) for name, sample, _ in timed]),
            _over_time([(n, s[0]) for n, _, s in timed]),
        ]
        if timed
        else [],
    )


def _quantiles(runs: Sequence[tuple[str, Sample]]) -> drawn.Drawing:
    lines, all_y = [], [1.0]
    most = 1.0
    for name, sample in runs:
        total = max(sample.times["response_time"].total, 2)
        inverses = [10 ** (step / _STEPS_PER_DECADE) for step in range(int(_STEPS_PER_DECADE * math.log10(total)) + 1)]
        everything = np.ones((1, sample.slices))
        y = [
            float(estimate(sample, Metric("response_time", "p", 100 * (1 - 1 / inverse)), everything)[0]) / 1e6
            for inverse in inverses
        ]
        lines.append(svg.Line(name, inverses, y))
        all_y += y
        most = max(most, inverses[-1])
    ticks = tuple(
        (10.0**k, f"{100 * (1 - 10.0**-k):.{max(k - 2, 0)}f}%") for k in range(math.ceil(math.log10(most)) + 1)
    )
    x = svg.Axis(1.0, max(10.0 ** math.ceil(math.log10(most)), 10.0), log=True, ticks=ticks)
    drawing = svg.chart(
        "Response time by percentile",
        lines,
        x,
        svg.logarithmic(all_y[1:]),
        "percentile (% of transactions)",
        "response time (ms)",
    )
    return drawn.Drawing(
        "Response time by percentile",
        "The lower line is the quicker run. Go right for ever rarer, slower transactions; repeated runs are one line, all of "
        "their times together.",
        drawing,
    )


def _over_time(runs: Sequence[tuple[str, Sample]]) -> drawn.Drawing:
    lines, all_y, end = [], [], 1.0
    for name, sample in runs:
        step = -(-sample.slices // _POINTS_MOST)
        starts = np.concatenate([[0.0], np.cumsum(sample.seconds)[:-1]])[::step]
        weights = np.zeros((len(starts), sample.slices))
        for at in range(len(starts)):
            weights[at, at * step : (at + 1) * step] = 1.0
        counted = weights @ sample.times["response_time"].counts.sum(axis=1)
        found = estimate(sample, Metric("response_time", "p", 99.0), weights) / 1e6
        y = [float(value) if n else None for value, n in zip(found, counted, strict=True)]
        lines.append(svg.Line(name, starts.tolist(), y))
        all_y += [value for value in y if value is not None]
        end = max(end, sample.duration_s)
    drawing = svg.chart(
        "Response time p99 over time",
        lines,
        svg.linear([end]),
        svg.logarithmic(all_y),
        "seconds since the start",
        "response time p99 (ms)",
    )
    return drawn.Drawing(
        "Response time p99 over time",
        "Lines that lie apart all the time are a difference; lines that part in one place had one disturbance. Of "
        "repeated runs the first is drawn.",
        drawing,
    )
