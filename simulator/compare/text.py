"""A comparison in words: a table for the terminal, Markdown for a CI job, annotations for its log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simulator.compare.gate import change_text
from simulator.report.markdown import escaped, rows
from simulator.report.wording import ms, rate, share
from simulator.report.workflow import annotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.compare.comparison import Comparison
    from simulator.compare.effects import Effect
    from simulator.compare.verdict import Finding

HEAD = ("metric", "baseline", "run", "change", "95% interval", "would show", "verdict")
WORDS = {"better": "BETTER", "worse": "WORSE", "no evidence": "NO EVIDENCE"}
READING = (
    "interval: of each metric by itself; verdict: of all metrics together (Holm, 5%), so an interval beside 0 may still be no "
    "evidence; would show: the smallest change that would have been seen, four times in five"
)
_SIGNS = {"better": "✅", "worse": "❌", "no evidence": "➖"}  # noqa: RUF001  signs, no letters


def value_text(effect: Effect, value: float) -> str:
    """A value of a metric with its unit."""
    if effect.metric.is_time:
        return ms(value / 1e6)
    return share(value) if effect.metric.is_share else rate(value)


def row(finding: Finding) -> tuple[str, ...]:
    """The cells of HEAD."""
    effect = finding.effect
    difference = effect.run - effect.baseline
    absolute = (
        "" if effect.metric.is_share else f" ({'+' if difference >= 0 else '-'}{value_text(effect, abs(difference))})"
    )
    low, high = (change_text(effect, bound) if math.isfinite(bound) else "?" for bound in (finding.low, finding.high))
    smallest = change_text(effect, finding.smallest).lstrip("+") if math.isfinite(finding.smallest) else "nothing"
    return (
        effect.metric.label,
        value_text(effect, effect.baseline),
        value_text(effect, effect.run),
        change_text(effect, finding.change) + absolute,
        f"{low} … {high}",
        smallest,
        finding.word,
    )


def sentence(comparison: Comparison) -> str:
    """What it comes to in one line."""
    told = [f for f in comparison.findings if f.word != "no evidence"]
    told.sort(key=lambda finding: finding.word != "worse")
    names = ", ".join(f"{f.effect.metric.label} {change_text(f.effect, f.change)} ({f.word})" for f in told)
    if told:
        return f"{WORDS[comparison.word]}: {names}"
    return f"{WORDS['no evidence']} of a difference; {_could(comparison)}"


def _could(comparison: Comparison) -> str:
    """What would have been seen of the metric that people ask for first."""
    known = [f for f in comparison.findings if math.isfinite(f.smallest)]
    if not known:
        return "nothing could have been seen: there is too little of the runs"
    first = next((f for f in known if f.effect.metric.label == "response time p99"), known[0])
    text = change_text(first.effect, first.smallest).lstrip("+")
    return f"of the {first.effect.metric.label}, {text} or more would have shown four times in five"


def table(comparison: Comparison) -> str:
    """The comparison for a terminal: aligned columns, no colours."""
    body = [HEAD, *(row(finding) for finding in comparison.findings)]
    widths = [max(len(cells[at]) for cells in body) for at in range(len(HEAD))]
    lines = []
    for cells in body:
        aligned = [
            cell.ljust(width) if at in {0, len(HEAD) - 1} else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def text(comparisons: Sequence[Comparison]) -> str:
    """Everything that `sim compare` prints."""
    blocks = []
    for comparison in comparisons:
        lines = [f"{comparison.run.name} against {comparison.baseline.name}"]
        lines += [f"! {note}" for note in comparison.notes]
        lines += ["", table(comparison), "", sentence(comparison), f"({comparison.method})"]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, READING])


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The same for the page of a CI job."""
    parts = []
    for comparison in comparisons:
        parts.append(f"### {_SIGNS[comparison.word]} {escaped(sentence(comparison))}\n")
        parts.append(f"{escaped(comparison.run.name)} against {escaped(comparison.baseline.name)}\n")
        parts += [f"- ⚠️ {escaped(note)}" for note in comparison.notes]
        parts += [""] if comparison.notes else []
        parts.append(rows(HEAD, [tuple(map(escaped, row(finding))) for finding in comparison.findings]))
    return "\n".join([*parts, f"{escaped(READING)}\n"])


def workflow_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """An error for each run that is worse, a warning for what speaks against a comparison."""
    lines = []
    for comparison in comparisons:
        if comparison.word == "worse":
            lines.append(
                annotation("error", f"{comparison.run.name} against {comparison.baseline.name}", sentence(comparison))
            )
        lines += [annotation("warning", comparison.run.name, note) for note in comparison.notes]
    return lines
