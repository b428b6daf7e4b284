"""The HTML report: one file that needs no network, rendered from a run's folder as often as wanted, always the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulator.report import (
    answerers,
    audit_tables,
    durability,
    folder,
    generators,
    headline,
    platform_tables,
    simulated_page,
    surroundings,
    transaction_tables,
    wording,
)
from simulator.report.charts import charts_of
from simulator.report.charts.axis import TimeAxis
from simulator.report.charts.marks import drawn, marks_of
from simulator.report.charts.series import TimeSeries
from simulator.report.first_limit import first_limit, with_limits
from simulator.report.page import render_page, write_page
from simulator.report.wording import metric_name, plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from simulator.report.charts.chart import Chart
    from simulator.report.folder import RunFolder
    from simulator.report.hlog import Curve


def render(run: Path, baseline: Path | None = None) -> Path:
    """Write `report.html` into a run's folder, from the files that are there, and return its path.

    Args:
        run: its folder.
        baseline: another run's, whose response times are laid over the percentile plot.

    Raises:
        SimError: one of them is no run's folder, is half-written, or cannot be written to.
    """
    read = folder.read(run)
    if baseline is not None:
        read = replace(read, overlays=[*read.overlays, *_overlay(baseline)])
    return write_page(run / "report.html", _page(read))


def _overlay(baseline: Path) -> list[tuple[str, Curve]]:
    read = folder.read(baseline)
    curve = read.latency.get("response_time")
    return [(f"baseline {plain(baseline.resolve().name)}", curve)] if curve else []


def chart_data(charts: Sequence[Chart], axis: TimeAxis, events: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What the script of a page needs to draw its charts; also of a run that is still going on."""
    return {
        "charts": [chart.figure() for chart in charts if not chart.empty],
        "marks": drawn(*marks_of(events), axis),
        "span": axis.span(),
        "clock": axis.clock,
    }


def _page(run: RunFolder) -> str:
    charts = charts_of(run)
    axis = TimeAxis.over(TimeSeries.of(run.series).without_the_last_moment())
    return render_page(
        "report.html.jinja", chart_data(charts, axis, run.events), **_words(run),
        figures={chart.key: chart for chart in charts}, axis=axis,
    )  # fmt: skip


def _words(run: RunFolder) -> dict[str, Any]:
    summary = _with_limit(run)
    word, _, cause = wording.sentence(summary).partition(": ")
    return {
        "name": plain(summary.get("name") or summary["scenario"]),
        "description": str(summary.get("description") or ""),
        "verdict": summary["verdict"],
        "word": word,
        "cause": cause,
        "limit": wording.limit_detail(summary),
        "facts": headline.facts(summary),
        "virtual": summary.get("clock") == "virtual",
        "statement": simulated_page.statement(summary),
        "over_capacity": simulated_page.over_capacity(summary),
        "stages": simulated_page.stages(summary),
        "stations": simulated_page.stations(summary),
        "client": simulated_page.client(summary),
        "dependency": simulated_page.dependency(summary),
        "tiles": headline.tiles(summary),
        "thresholds": [
            (item.get("passed"), metric_name(item.get("metric", "")), item.get("expression"), wording.observed(item))
            for item in summary["thresholds"]
        ],
        "outcomes": transaction_tables.outcomes(summary),
        "latency": transaction_tables.latency(summary),
        "kinds": transaction_tables.kinds(summary),
        "balancer": platform_tables.balancer(summary),
        "nodes": platform_tables.nodes(summary),
        "shards": platform_tables.shards(summary),
        "hot_facts": platform_tables.hot_facts(summary),
        "hot_keys": platform_tables.hot_keys(summary),
        "hot_accounts": platform_tables.hot_accounts(run),
        "rebalance": platform_tables.rebalance(summary),
        "one_target": platform_tables.has_one_target(summary),
        "answerer_facts": answerers.facts(summary),
        "answered_by": platform_tables.answered("Who answered, by their own names", answerers.nodes(summary)),
        "sick": platform_tables.answered("What became of a sick node's part", answerers.faults(summary)),
        "generators": platform_tables.answered("The generators", generators.rows(summary)),
        "audit": run.audit,
        "not_audited": wording.not_audited(run.audit),
        "power": durability.sentence(summary.get("durability") or {}),
        "power_losses": audit_tables.power_losses(summary),
        "audit_facts": audit_tables.audit_facts(run),
        "anomalies": audit_tables.anomalies(run.audit),
        "validity": summary["validity"],
        "journal": platform_tables.journal(summary),
        "dead_letters": platform_tables.dead_letters(summary),
        "overload": platform_tables.overload(summary),
        "events": surroundings.events(run),
        "environment": surroundings.environment(run),
        "scenario_text": run.scenario,
        "notes": run.notes,
    }


def _with_limit(run: RunFolder) -> dict[str, Any]:
    """The summary, with the first limit; that of an older version did not know it, and it is found from what is there."""
    if "first_limit" in run.summary or not run.series:
        return run.summary
    series, platform = TimeSeries.of(run.series), TimeSeries.of(run.platform)
    return with_limits(run.summary, *first_limit(run.summary, series, platform, run.asked, run.events))
