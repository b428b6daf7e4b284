"""What viewers are sent: the moment in figures, and the report's own charts of the rows so far. Pure: from counts to JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from simulator.live.history import whole_run
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import LAG, RESPONSE, SERVICE
from simulator.report import wording
from simulator.report.asked import asked_in
from simulator.report.blocks import Tile
from simulator.report.charts import charts_of
from simulator.report.charts.axis import TimeAxis
from simulator.report.charts.series import TimeSeries
from simulator.report.folder import RunFolder
from simulator.report.html import chart_data
from simulator.report.wording import NO_DATA, count, duration, metric_name, ms, plain, rate

if TYPE_CHECKING:
    from simulator.live.history import History
    from simulator.live.watched import Watched
    from simulator.report.charts.chart import Chart
    from simulator.report.snapshot import Snapshot

LATER = frozenset({"held"})  # charts that only a finished run has: they are read off the journals
_MEASURES = (("response_time", RESPONSE), ("service_time", SERVICE), ("schedule_lag", LAG))
_PHASES = {
    "starting": "starting the platform",
    "running": "the load is on",
    "draining": "load over, waiting for answers",
    "auditing": "checking the books",
    "reporting": "writing the report",
}


def charts(watched: Watched, history: History, events: list[dict[str, Any]]) -> list[Chart]:
    """The charts of the report, of the rows that are whole; those without data yet are empty."""
    return charts_of(_so_far(watched, history, events))


def charts_json(watched: Watched, history: History, events: list[dict[str, Any]]) -> bytes:
    """The same for the page's script."""
    run = _so_far(watched, history, events)
    axis = TimeAxis.over(TimeSeries.of(run.series).without_the_last_moment())
    return _json(chart_data(charts_of(run), axis, events))


def _so_far(watched: Watched, history: History, events: list[dict[str, Any]]) -> RunFolder:
    measured = {tag: whole_run(watched.tallies.totals[at]) for tag, at in _MEASURES}
    applied = watched.platform.applied.tolist() if watched.platform else []
    return RunFolder(
        path=watched.folder,
        summary={
            "value": {"currency": watched.currency},
            "shards": [{"shard": shard, "applied": n} for shard, n in enumerate(applied)] if any(applied) else [],
        },
        series=history.columns(),
        latency={tag: found for tag, found in measured.items() if found is not None},
        audit={},
        environment={},
        events=events,
        scenario=watched.scenario,
        platform=history.platform_columns(),
        intervals={"response_time": history.intervals()},
        asked=asked_in(watched.scenario),
    )


def moment(snapshot: Snapshot, watched: Watched, *, stopping: bool) -> bytes:
    """The moment in figures, for the page's script."""
    left = max(snapshot.duration_s - snapshot.elapsed_s, 0)
    running = snapshot.phase == "running"
    told = _PHASES[snapshot.phase] + (f", {duration(left // 1)} left" if running else "")
    return _json(
        {
            "phase": snapshot.phase,
            "told": "stopping: no more is sent, what is under way is waited for" if stopping and running else told,
            "elapsed_s": round(snapshot.elapsed_s, 1),
            "duration_s": snapshot.duration_s,
            "stopping": stopping,
            "tiles": [asdict(tile) for tile in _tiles(snapshot, watched)],
            "thresholds": [
                {"what": metric_name(plain(what)), "now": plain(seen), "met": met}
                for what, seen, met in snapshot.thresholds
            ],
        }
    )


def end(sentence: str, verdict: str, *, report: bool, folder: str) -> bytes:
    """How the run ended, for the page's script; `verdict` gives the colour."""
    word, _, cause = sentence.partition(": ")
    return _json({"word": word, "cause": cause, "tone": verdict, "report": report, "folder": plain(folder)})


def _tiles(snapshot: Snapshot, watched: Watched) -> list[Tile]:
    counts, tallies = snapshot.counts, watched.tallies
    p50, p99, p999 = snapshot.response_ms or (None, None, None)
    histogram = Histogram(tallies.totals[RESPONSE].copy())  # it is still counted into
    whole = [None if ns is None else ns / 1e6 for ns in (histogram.percentile_ns(99), histogram.max_ns)]
    offered = rate(snapshot.offered_per_s[-1]) if snapshot.offered_per_s else NO_DATA
    completed = rate(snapshot.completed_per_s[-1]) if snapshot.completed_per_s else NO_DATA
    bad = sum(counts[name] for name in ("failed", "unknown"))
    dropped = counts["dropped"]
    offered_minor, settled_minor = (int(sums.sum()) for sums in (tallies.offered_minor, tallies.settled_minor))
    return [
        Tile("Offered", count(counts["offered"]), f"of about {snapshot.target_total:,.0f}"),
        Tile("Offered now", offered, "in the last full second"),
        Tile("Completed now", completed, "in the last full second"),
        Tile("In flight", count(snapshot.in_flight), "sent and not yet answered"),
        Tile("Dropped", count(dropped), "the generator cannot keep up" if dropped else "the generator keeps up",
             "warn" if dropped else "good"),
        Tile("Response p50", ms(p50), "last second: half were faster"),
        Tile("Response p99", ms(p99), f"last second; {ms(whole[0])} of the run so far"),
        Tile("Response p99.9", ms(p999), f"last second; slowest so far {ms(whole[1])}"),
        Tile("Succeeded", count(counts["ok"]),
             f"{count(counts['rejected'])} rejected, {count(counts['failed'])} failed, {count(counts['unknown'])} in doubt",
             "bad" if bad else ""),
        Tile("Value settled", wording.money_short(settled_minor, watched.currency),
             f"of {wording.money_short(offered_minor, watched.currency)} offered"),
    ]  # fmt: skip


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
