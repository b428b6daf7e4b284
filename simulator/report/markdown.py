"""A run in Markdown, short enough for the page of a CI job: the verdict, the headline figures, the thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.report import wording
from simulator.report.wording import count, metric_name, ms, plain, rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simulator.report.wording import Summary

ROWS_MOST = 50  # thresholds of a run
RUNS_MOST = 100
_SIGNS = {"pass": "✅", "fail": "❌", "invalid": "⚠️"}
_SPECIAL = "\\`*_{}[]<>()#+!|~$@"


def markdown(runs: Sequence[tuple[str, Summary]]) -> str:
    """The summary of some runs.

    Args:
        runs: what to call each (the run's folder), and its summary.
    """
    if len(runs) > 1:
        parts = [_table(runs)]
        parts += [_one(name, summary) for name, summary in runs[:RUNS_MOST] if summary.get("verdict") != "pass"]
        return "\n".join(parts)
    return "\n".join(_one(name, summary) for name, summary in runs)


def escaped(text: object) -> str:
    """Text that is shown as it is: no name can become a link, an image, a mention or a tag."""
    return "".join(f"\\{character}" if character in _SPECIAL else character for character in plain(text))


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table of text that is escaped already; the first column is left-aligned, the others right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body]) + "\n"


def _one(name: str, summary: Summary) -> str:
    sign = _SIGNS.get(str(summary.get("verdict")), "")
    times, counts = summary.get("response_time_ms", {}), summary.get("counts", {})
    figures = rows(
        ("scenario", "goodput", "p50", "p99", "p99.9", "offered", "dropped", "audit"),
        [
            (
                escaped(summary.get("scenario", "")),
                rate(wording.goodput_per_s(summary)),
                *(ms(times.get(mark)) for mark in ("p50", "p99", "p99.9")),
                count(counts.get("offered")),
                count(counts.get("dropped")),
                escaped(wording.audit_word(summary.get("audit", {}))),
            )
        ],
    )
    thresholds = summary.get("thresholds", [])
    shown = sorted(thresholds, key=lambda item: bool(item.get("passed")))[:ROWS_MOST]  # the crossed ones first
    judged = rows(
        ("threshold", "observed", ""),
        [
            (
                f"{escaped(metric_name(item.get('metric', '')))} {escaped(item.get('expression', ''))}",
                escaped(wording.observed(item)),
                "✓" if item.get("passed") else "**✗**",
            )
            for item in shown
        ],
    )
    more = len(thresholds) - len(shown)
    parts = [f"### {sign} {escaped(wording.sentence(summary))}\n", figures]
    parts += [judged] if shown else []
    parts += [f"and {more} more thresholds\n"] if more else []
    return "\n".join([*parts, f"{escaped(name)}\n"])


def _table(runs: Sequence[tuple[str, Summary]]) -> str:
    body = [
        (
            escaped(name),
            f"{_SIGNS.get(str(summary.get('verdict')), '')} {escaped(summary.get('verdict', ''))}",
            rate(wording.goodput_per_s(summary)),
            ms(summary.get("response_time_ms", {}).get("p50")),
            ms(summary.get("response_time_ms", {}).get("p99")),
        )
        for name, summary in runs[:RUNS_MOST]
    ]
    return rows(("run", "verdict", "goodput", "p50", "p99"), body)
