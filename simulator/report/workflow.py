"""GitHub's workflow commands: what went wrong in a run, as lines that a workflow's log turns into annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.report import wording
from simulator.report.wording import metric_name, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from simulator.report.wording import Summary

MOST = 10  # of one step are shown, says GitHub; the sentence comes first


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether this runs in a workflow of GitHub's."""
    return bool(environ.get("GITHUB_ACTIONS"))


def annotation(level: str, title: str, message: str) -> str:
    """One line: `::error title=…::…`; `level` is error, warning or notice."""
    return f"::{level} title={_property(title)}::{_data(message)}"


def of_runs(summaries: Iterable[Summary]) -> list[str]:
    """An error for each run that did not pass and each threshold that it crossed; a warning where nothing was compared."""
    lines = []
    for summary in summaries:
        name = plain(summary.get("scenario", ""))
        if summary.get("verdict") != "pass":
            lines.append(annotation("error", name, wording.sentence(summary)))
        for item in summary.get("thresholds", []):
            told = (
                f"{metric_name(item.get('metric', ''))} {plain(item.get('expression', ''))}: {wording.observed(item)}"
            )
            if not item.get("passed"):
                lines.append(annotation("error", f"{name}: threshold", told))
            elif "baseline" in item and item["baseline"] is None:
                lines.append(annotation("warning", f"{name}: no baseline", told))
    return lines[:MOST]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
