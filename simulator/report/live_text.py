"""The live view in characters, for a terminal of any size: pure, from a moment of a run to lines.

A small terminal loses gaps and details, never a count or a crossed threshold; a large one has higher charts, every node and
every threshold. Nothing is told by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from simulator.report.wording import NO_DATA, count, duration, ms, plain, rate, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simulator.report.snapshot import Pace, Snapshot

WIDTH = 80  # columns and …
HEIGHT = 24  # … lines: the narrowest terminal that everything here fits

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LABEL = 12
_FIGURE = 14  # columns of a rate in front of its chart
_NODES_FIRST = 4  # shown before there are gaps to spare
_THRESHOLDS_FIRST = 4
_CHART_MOST = 8  # lines
_HINT = "Ctrl-C ends the load, drains, and writes the report"


@dataclass(frozen=True)
class _Plan:
    """How many lines each part gets."""

    chart: int = 1  # for each of the two rates
    nodes: int = 0  # bars
    thresholds: int = 0
    gaps: bool = False
    page: int = 0
    hint: bool = False


def live_text(snapshot: Snapshot, width: int = WIDTH, height: int = HEIGHT) -> Text:
    """Return the live view: at most `height` lines, none longer than `width` columns."""
    lines = _simulated(snapshot, snapshot.pace, width) if snapshot.pace is not None else _real(snapshot, width, height)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines[:height])


def line_text(snapshot: Snapshot) -> str:
    """Return a moment as one line, for a log."""
    parts = [f"{duration(snapshot.elapsed_s // 1)} of {duration(snapshot.duration_s)}", snapshot.phase]
    if snapshot.pace is not None:
        parts[0] += " simulated"
        parts += [f"{count(snapshot.counts.get('offered', 0))} offered", f"{rate(snapshot.pace.per_s)} of real time"]
        if snapshot.phase == "running" and snapshot.pace.left_s is not None:
            parts.append(f"about {duration(round(snapshot.pace.left_s))} left")
        return ", ".join(parts)
    if snapshot.offered_per_s:
        parts.append(f"offered {rate(snapshot.offered_per_s[-1])}")
    if snapshot.completed_per_s:
        parts.append(f"completed {rate(snapshot.completed_per_s[-1])}")
    if snapshot.response_ms is not None:
        parts.append(f"p99 {ms(snapshot.response_ms[1])}")
    parts += [f"in flight {count(snapshot.in_flight)}", f"dropped {count(snapshot.counts.get('dropped', 0))}"]
    crossed = sum(not passed for *_, passed in snapshot.thresholds)
    return ", ".join(parts) + (f", {crossed} threshold{'s' if crossed > 1 else ''} crossed" if crossed else "")


def sparkline(values: Sequence[int], top: int) -> str:
    """Return one block character a value, from nothing (a dot) to full height at `top`."""
    return chart_lines(values, top, 1)[0]


def chart_lines(values: Sequence[int], top: int, height: int) -> list[str]:
    """Return `height` lines of one column a value, the highest line first; nothing is a dot, what is not nothing shows."""
    full = len(_BLOCKS)
    eighths = [0 if value <= 0 else max(value * full * height // max(top, 1), 1) for value in values]
    return [
        "".join(_cell(eighth - full * below, lowest=below == 0) for eighth in eighths)
        for below in range(height - 1, -1, -1)
    ]


def _cell(eighths: int, *, lowest: bool) -> str:
    if eighths <= 0:
        return "·" if lowest else " "
    return _BLOCKS[min(eighths, len(_BLOCKS)) - 1]


def _real(snapshot: Snapshot, width: int, height: int) -> list[Text]:
    """The live view of a run on the wall clock."""
    response, counts, page = _response(snapshot, width), _counts(snapshot, width), _page(snapshot.page, width)
    plan = _planned(snapshot, len(page), height - 1 - len(response) - len(counts))
    top = max([*snapshot.offered_per_s, *snapshot.completed_per_s], default=0)  # one scale: what falls behind is lower
    sections = [
        [_progress(snapshot, width)],
        [
            *_chart("offered", snapshot.offered_per_s, top, width, plan.chart),
            *_chart("completed", snapshot.completed_per_s, top, width, plan.chart),
            *response,
        ],
        counts,
        list(_nodes(snapshot.node_share, width, plan.nodes)),
        list(_thresholds(snapshot.thresholds, plan.thresholds)),
        [*page[: plan.page], *([Text(_HINT, "dim")] if plan.hint else [])],
    ]
    lines: list[Text] = []
    for section in filter(None, sections):
        lines += [Text(), *section] if plan.gaps and lines else section
    return lines


def _planned(snapshot: Snapshot, page: int, room: int) -> _Plan:
    """What fits in `room` lines beside what is always shown: the wishes are granted in their order, while there is room."""
    nodes, thresholds = len(snapshot.node_share), len(snapshot.thresholds)
    crossed = sum(not passed for *_, passed in snapshot.thresholds)
    wishes: list[dict[str, Any]] = [
        {"page": page},
        {"gaps": True},
        {"nodes": min(nodes, _NODES_FIRST)},
        {"thresholds": max(crossed, min(thresholds, _THRESHOLDS_FIRST))},
        {"hint": snapshot.phase == "running"},
        {"chart": 2},
        {"thresholds": thresholds},
        {"nodes": nodes},
        *({"chart": lines} for lines in range(3, _CHART_MOST + 1)),
    ]
    plan = _Plan()
    plan = replace(plan, thresholds=min(crossed, max(room - _lines(plan, nodes, thresholds), 0)))
    for wish in wishes:
        wished = replace(plan, **wish)
        if _lines(wished, nodes, thresholds) <= room:
            plan = wished
    # What is left goes to the longest of the lists, so that a thousand nodes fill a screen but do not overflow it.
    spare = room - _lines(plan, nodes, thresholds)
    if spare > 0 and plan.thresholds < thresholds:
        plan = replace(plan, thresholds=min(thresholds, plan.thresholds + spare))
        spare = room - _lines(plan, nodes, thresholds)
    return replace(plan, nodes=min(nodes, plan.nodes + spare)) if spare > 0 and plan.nodes else plan


def _lines(plan: _Plan, nodes: int, thresholds: int) -> int:
    """How many lines a plan takes, without what is always shown."""
    of_nodes = plan.nodes + (nodes > plan.nodes)  # a line tells of those that are not shown
    of_thresholds = plan.thresholds + (thresholds > plan.thresholds)
    foot = plan.page + plan.hint
    gaps = 2 + (of_nodes > 0) + (of_thresholds > 0) + (foot > 0) if plan.gaps else 0
    return 2 * plan.chart + of_nodes + of_thresholds + foot + gaps


def _simulated(snapshot: Snapshot, pace: Pace, width: int) -> list[Text]:
    """The live view of a simulation: how far, how fast, how long yet."""
    return [
        _progress(snapshot, width),
        Text(),
        _labelled("simulated", f"{_clock(snapshot.elapsed_s)} of {_clock(snapshot.duration_s)}"),
        _labelled("offered", f"{count(snapshot.counts.get('offered', 0))} of about {snapshot.target_total:,.0f}"),
        _labelled("in flight", count(snapshot.in_flight)),
        _labelled("speed", f"{rate(pace.per_s)} of real time"),
    ]


def _clock(seconds: float) -> str:
    return duration(seconds if seconds < 10 else seconds // 1)  # noqa: PLR2004  below ten seconds a tenth can be seen


def bar(fraction: float, width: int) -> str:
    """Return a bar of `width` columns, full to `fraction` of it, to an eighth of a column."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _labelled(label: str, value: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "dim"), value)


def _packed(label: str, parts: Sequence[str], width: int) -> list[Text]:
    """Parts side by side, on as many lines as they need: none is cut off, or left out."""
    rows = [parts[0]]
    for part in parts[1:]:
        if _LABEL + len(rows[-1]) + 3 + len(part) <= width:
            rows[-1] += f"   {part}"
        else:
            rows.append(part)
    return [_labelled(label if not at else "", row) for at, row in enumerate(rows)]


def _progress(snapshot: Snapshot, width: int) -> Text:
    pace = snapshot.pace
    fraction = min(snapshot.elapsed_s / snapshot.duration_s, 1.0) if snapshot.duration_s > 0 else 0.0
    left = duration(max(snapshot.duration_s - snapshot.elapsed_s, 0) // 1)
    running = f"{fraction:4.0%}  {left} left of {duration(snapshot.duration_s)}"
    if pace is not None:
        fraction = min(snapshot.counts.get("offered", 0) / snapshot.target_total, 1.0) if snapshot.target_total else 0.0
        running = f"{fraction:4.0%}" + ("" if pace.left_s is None else f"  about {duration(round(pace.left_s))} left")
    told = {
        "starting": "starting the platform",
        "running": running,
        "draining": "load over, waiting for answers",
        "auditing": "checking the books",
        "reporting": "writing the report",
    }[snapshot.phase]
    room = width - _LABEL - len(told) - 3
    drawn = bar(fraction, max(room, 5)).replace(" ", "─")
    return Text.assemble(
        (f"{snapshot.phase:<{_LABEL}}", "bold"), ("│", "dim"), (drawn, "cyan"), ("│", "dim"), f" {told}"
    )


def _chart(label: str, values: list[int], top: int, width: int, height: int) -> Iterator[Text]:
    last = rate(values[-1]) if values else NO_DATA
    shown = values[-max(width - _LABEL - _FIGURE, 10) :]
    heads = [(label, last), *([("", f"of {rate(top)}" if top else "")] if height > 1 else [])]
    for at, line in enumerate(chart_lines(shown, top, height)):
        name, figure = heads[at] if at < len(heads) else ("", "")
        yield Text.assemble((f"{name:<{_LABEL}}", "dim"), (f"{figure:<{_FIGURE}}", "dim" if at else ""), (line, "cyan"))


def _response(snapshot: Snapshot, width: int) -> list[Text]:
    if snapshot.response_ms is None:
        return [_labelled("response", NO_DATA)]
    p50, p99, p999 = snapshot.response_ms
    lines = _packed("response", [f"p50 {ms(p50)}", f"p99 {ms(p99)}", f"p99.9 {ms(p999)}"], width)
    of_when = "   (the last second)"
    if len(lines[-1]) + len(of_when) <= width:
        lines[-1].append(of_when, "dim")
    return lines


def _counts(snapshot: Snapshot, width: int) -> list[Text]:
    counts = snapshot.counts
    answered = [f"{name} {count(counts.get(name, 0))}" for name in ("ok", "rejected", "failed", "unknown")]
    return [
        _labelled("in flight", count(snapshot.in_flight)),
        _labelled("offered", f"{count(counts.get('offered', 0))} of about {snapshot.target_total:,.0f}"),
        *_packed("answered", answered, width),
        _dropped(counts.get("dropped", 0)),
    ]


def _page(address: str, width: int) -> list[Text]:
    """The address whole, on as many lines as that takes: half of it opens nothing."""
    room = max(width - _LABEL, 1)
    parts = [address[at : at + room] for at in range(0, len(address), room)]
    return [_labelled("" if at else "live page", part) for at, part in enumerate(parts)]


def _dropped(dropped: int) -> Text:
    if not dropped:
        return _labelled("dropped", "0")
    return Text.assemble(
        (f"{'dropped':<{_LABEL}}", "dim"), (f"{count(dropped)}  the generator cannot keep up", "bold yellow")
    )


def _nodes(shares: list[float], width: int, shown: int) -> Iterator[Text]:
    room = max(min(60, width - _LABEL - 10), 5)
    for node, part in enumerate(shares[:shown]):
        yield Text.assemble((f"{f'node {node}':<{_LABEL}}", "dim"), (bar(part, room), "cyan"), f" {share(part)}")
    if len(shares) > shown:
        yield _labelled("all nodes", f"{len(shares)}: {share(min(shares))} to {share(max(shares))} each")


def _thresholds(thresholds: list[tuple[str, str, bool]], shown: int) -> Iterator[Text]:
    ordered = sorted(thresholds, key=lambda threshold: threshold[2])  # the crossed ones first
    for what, seen, passed in ordered[:shown]:
        yield Text.assemble(
            ("✓ " if passed else "✗ ", "green" if passed else "bold red"), f"{plain(what)}   now {plain(seen)}"
        )
    hidden = ordered[shown:]
    if hidden:
        crossed = sum(not passed for *_, passed in hidden)
        noun = f"threshold{'s' if len(hidden) > 1 else ''}"
        state = f"{crossed} crossed" if crossed else ("met" if len(hidden) == 1 else "all met")
        yield Text(f"  {'and ' if shown else ''}{len(hidden)} {'more' if shown else noun}, {state}", "dim")
