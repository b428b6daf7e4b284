"""A sweep's page: its variants side by side, in a table and as curves over one another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from simulator.errors import SimError, UsageError
from simulator.report import folder, html, wording
from simulator.report.blocks import Table, Tile
from simulator.report.charts import latency, load
from simulator.report.charts.axis import TimeAxis
from simulator.report.charts.chart import look
from simulator.report.charts.series import TimeSeries
from simulator.report.html import chart_data
from simulator.report.page import render_page, write_page
from simulator.report.wording import NO_DATA, count, ms, number, plain, rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from simulator.report.charts.chart import Chart
    from simulator.report.hlog import Curve

LINES_MOST = 24  # six colours in four dashes; beyond, no line can be told from the next
SWEEP_SCHEMA = 1
_POINTS_MOST = 6_000  # of a chart in all, so that many variants make no page that is slow to draw

# What a variant is compared by: where it stands in a row of sweep.json, and the head of its column.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("verdict", "verdict"),
    ("offered_per_s", "offered"),
    ("goodput_per_s", "goodput"),
    ("p50", "p50"),
    ("p99", "p99"),
    ("p99.9", "p99.9"),
    ("imbalance", "imbalance"),
    ("staleness_regret", "regret"),
    ("sick_share", "sick node"),
    ("detection_s", "detected"),
    ("ejections", "ejections"),
)
TERMINAL_COLUMNS = 7  # the first so many fit a terminal's line


def row_of(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """What sweep.json tells of a variant, from its summary.json; None: it has none, because it was not run or failed."""
    if summary is None:
        return {
            "verdict": None, "sentence": "not run", "interrupted": False, "failure": None, "offered": None,
            "offered_per_s": None, "completed_per_s": None, "goodput_per_s": None, "ok_share": None,
            "response_time_ms": {}, "imbalance": None, "amplification": None, **_behaviour({}),
        }  # fmt: skip
    counts, rates = summary["counts"], summary["rates"]
    seconds = number(summary.get("duration_s"))
    return {
        "verdict": summary["verdict"],
        "sentence": wording.sentence(dict(summary)),
        "interrupted": bool(summary.get("interrupted")),
        "failure": summary.get("failure"),
        "offered": counts["offered"],
        "offered_per_s": rates["offered_per_s"],
        "completed_per_s": rates["completed_per_s"],
        "goodput_per_s": round(counts["ok"] / seconds, 3) if seconds else None,
        "ok_share": round(counts["ok"] / counts["offered"], 6) if counts["offered"] else None,
        "response_time_ms": summary["response_time_ms"],
        "imbalance": summary["balancer"].get("imbalance_max_over_mean"),
        "amplification": (summary.get("client") or {}).get("amplification"),
        **_behaviour(summary["balancer"]),
    }


def _behaviour(balancer: Mapping[str, Any]) -> dict[str, Any]:
    """What tells balancers apart; of sick nodes the first one."""
    fault: dict[str, Any] = next(iter(balancer.get("faults") or []), {})
    return {
        "staleness_regret": balancer.get("staleness_regret"),
        "sick_share": (fault.get("traffic_over_fair") or {}).get("during"),
        "detection_s": (fault.get("detection") or {}).get("p50_s"),
        "ejections": balancer.get("ejections"),
    }


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """The texts of a row, in the order of COLUMNS."""
    times = row.get("response_time_ms") or {}
    imbalance = number(row.get("imbalance"))
    word = wording.WORDS.get(str(row.get("verdict")), "failed" if row.get("failure") else "not run")
    return [
        word + (" (interrupted)" if row.get("interrupted") else ""),
        rate(row.get("offered_per_s")),
        rate(row.get("goodput_per_s")),
        *(ms(times.get(mark)) for mark in ("p50", "p99", "p99.9")),
        NO_DATA if imbalance is None else f"{imbalance:.3f}",
        _decimal(row.get("staleness_regret"), ""),
        _decimal(row.get("sick_share"), ""),
        _decimal(row.get("detection_s"), " s"),
        count(row.get("ejections")),
    ]


def _decimal(value: object, unit: str) -> str:
    known = number(value)
    return NO_DATA if known is None else f"{known:.3f}{unit}"


def render(path: Path, baseline: Path | None = None) -> Path:
    """Writes the report of a run's folder, or of a sweep's, and returns its path; see `render_sweep` and `html.render`."""
    if not (path / "sweep.json").is_file():
        return html.render(path, baseline)
    if baseline is not None:
        raise UsageError(f"{path} is a sweep's folder; a baseline is laid over one run: name a variant's folder")
    return render_sweep(path)


def render_sweep(path: Path) -> Path:
    """Writes `report.html` into a sweep's folder, from sweep.json and its variants' folders, and returns its path.

    Raises:
        SimError: it is no sweep's folder, or cannot be written to.
    """
    sweep = _read(path)
    variants = sweep["variants"]
    shown = [row for row in variants if row.get("verdict") is not None][:LINES_MOST]
    notes: list[str] = []
    read = [(plain(row["name"]), *_files(path / str(row["folder"]), notes)) for row in shown]
    axis = TimeAxis(max((series.end_s for _, series, _ in read), default=1.0))
    charts = _charts(read, axis)
    left_out = sum(row.get("verdict") is not None for row in variants) - len(shown)
    page = render_page(
        "sweep.html.jinja", chart_data(charts, axis),
        name=plain(sweep["scenario"]),
        description=str(sweep.get("description") or ""),
        word=_headline(sweep),
        cause="",
        tone=_tone(sweep),
        tiles=_tiles(variants),
        table=_table(sweep),
        links=[(plain(row["name"]), f"{row['folder']}/report.html", plain(row["sentence"])) for row in variants],
        facts=_facts(sweep),
        figures=charts,
        axis=axis,
        left_out=f"The first {LINES_MOST} variants are drawn; the table has all." if left_out else "",
        notes=notes,
    )  # fmt: skip
    return write_page(path / "report.html", page)


def _read(path: Path) -> dict[str, Any]:
    file = path / "sweep.json"
    try:
        sweep = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} is not a sweep's folder: it has no sweep.json") from None
    except (OSError, ValueError) as error:
        raise SimError(f"{file}: cannot be read as JSON, the sweep may not have finished: {error}") from None
    if not isinstance(sweep, dict) or not isinstance(sweep.get("variants"), list) or "axes" not in sweep:
        raise SimError(f"{file}: is incomplete: axes or variants missing or of the wrong type")
    if sweep.get("schema") != SWEEP_SCHEMA:
        raise SimError(f"{file}: has schema {sweep.get('schema')}; this version reads schema {SWEEP_SCHEMA}")
    return sweep


def _files(run: Path, notes: list[str]) -> tuple[TimeSeries, Curve]:
    missing: list[str] = []
    series, curves = folder.read_series(run / "timeseries.csv", missing), folder.read_latency(run, missing)
    notes += [f"{run.name}: {note}" for note in missing]
    return TimeSeries.of(series).without_the_last_moment(), curves.get("response_time", [])


def _charts(variants: Sequence[tuple[str, TimeSeries, Curve]], axis: TimeAxis) -> list[Chart]:
    limit = max(200, _POINTS_MOST // max(len(variants), 1))
    series = [(name, columns) for name, columns, _ in variants]
    return [
        latency.quantile_chart(
            "percentiles", "How slow were the slowest? Response time by percentile",
            "One line a variant; the lower the better. Go right for ever rarer, slower transactions: at 99.9% only one in 1,000 "
            "took longer. Click a name to hide its line.",
            "response time (ms)",
            [(name, curve, *look(at), 2.0) for at, (name, _, curve) in enumerate(variants) if curve],
        ),
        latency.times_of_many(
            "Response time p99 over time", "Flat and low is good; a line that climbs is a queue that grows.",
            series, "response_p99_ms", axis, limit,
        ),
        latency.times_of_many(
            "Response time p50 over time", "What every second customer met.", series, "response_p50_ms", axis, limit
        ),
        load.goodputs(series, axis, limit),
    ]  # fmt: skip


def _table(sweep: Mapping[str, Any]) -> Table:
    paths = [str(axis["path"]) for axis in sweep["axes"]]
    rows = [
        (*(plain((row.get("settings") or {}).get(path, "")) for path in paths), *cells_of(row))
        for row in sweep["variants"]
    ]
    heads = (*paths, *(head for _, head in COLUMNS))
    # What no variant knows (of sick nodes, where none was) only makes the table wider than the page.
    known = [at for at in range(len(heads)) if at <= len(paths) or any(row[at] != NO_DATA for row in rows)]
    return Table(
        caption="Variants side by side",
        head=tuple(heads[at] for at in known),
        rows=[tuple(row[at] for at in known) for row in rows],
        words=frozenset(range(len(paths) + 1)),
        note="; ".join(told for head, told in _MEANINGS if head in {heads[at] for at in known}) + ".",
    )


_MEANINGS = (
    ("goodput", "goodput: transactions that succeeded, per second"),
    ("p50", "p50, p99, p99.9: response times"),
    ("imbalance", "imbalance: load of the busiest node over the mean, 1 is even"),
    ("regret", "regret: requests more at the node chosen than at the least busy"),
    ("sick node", "sick node: the first sick node's traffic while it was sick, over its fair share"),
    ("detected", "detected: from its fault until half of the balancers that noticed had left it out"),
    ("ejections", "ejections: in all"),
)


def _headline(sweep: Mapping[str, Any]) -> str:
    variants = sweep["variants"]
    passed = sum(row.get("verdict") == "pass" for row in variants)
    told = f"{passed} of {len(variants)} variants pass"
    missing = sum(row.get("verdict") is None for row in variants)
    if missing:
        told += f"; {missing} {'were' if missing > 1 else 'was'} not run"
    return told + ("; interrupted" if sweep.get("interrupted") else "")


def _tone(sweep: Mapping[str, Any]) -> str:
    verdicts = {row.get("verdict") for row in sweep["variants"]}
    return "pass" if verdicts == {"pass"} else "fail" if "fail" in verdicts else "invalid"


def _tiles(variants: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """The best of each: what a planner looks for first."""
    found = []
    for label, key, best, show in (
        ("Lowest p50", "p50", min, ms),
        ("Lowest p99", "p99", min, ms),
        ("Lowest p99.9", "p99.9", min, ms),
        ("Highest goodput", "goodput_per_s", max, rate),
        ("Most even", "imbalance", min, lambda value: f"{value:.3f}"),
    ):
        known = [(_value(row, key), plain(row["name"])) for row in variants]
        values = [(value, name) for value, name in known if value is not None]
        if values:
            value, name = best(values, key=lambda pair: pair[0])
            found.append(Tile(label, show(value), name))
    return found


def _value(row: Mapping[str, Any], key: str) -> float | None:
    return number(row[key] if key in row else (row.get("response_time_ms") or {}).get(key))


def _facts(sweep: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("scenario", plain(sweep["scenario"])),
        ("variants", count(len(sweep["variants"]))),
        ("started", plain(sweep.get("started_at", ""))),
        ("whole sweep took", wording.duration(sweep.get("wall_s"))),
        ("version", plain(sweep.get("version", ""))),
    ]
