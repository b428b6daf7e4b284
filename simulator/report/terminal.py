"""What the terminal shows: a live view while the run lasts, and a summary that is read in ten seconds when it ends.

No view starts a thread: the process that shows it forks the platform's workers, and a forked lock is a lock for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from simulator.report import answerers, durability, generators, simulated_page, wording
from simulator.report.wording import NO_DATA, count, duration, metric_name, ms, plain, rate, share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from rich.console import Console, RenderableType

WIDTH = 80  # columns: the narrowest terminal that everything here fits
SECONDS_BETWEEN_LINES = 5.0  # of the run's clock, where there is no terminal: a log is read, not watched

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LABEL = 12
_NODES_SHOWN = 4
_THRESHOLDS_SHOWN = 4  # with these two a view of everything is 22 lines high
_DRAIN_TOLD_S = 0.5  # a shorter one is a hiccup, and the report has it
_NODES_LISTED = 8  # in the summary; beyond, their range says more
_STYLES = {"pass": "bold green", "fail": "bold red", "invalid": "bold yellow"}


@dataclass(frozen=True)
class Pace:
    """How fast a simulation goes, in real time."""

    real_s: float  # since it began
    per_s: float  # transactions
    left_s: float | None  # at this pace; None: too early to tell


Phase = Literal["starting", "running", "draining", "auditing", "reporting"]


@dataclass(frozen=True)
class Snapshot:
    """A moment of a run, as the live view shows it."""

    phase: Phase
    elapsed_s: float
    duration_s: float
    counts: dict[str, int]  # offered, sent, ok, rejected, failed, unknown, dropped
    in_flight: int
    offered_per_s: list[int]  # the last full seconds, at most sixty, the newest last
    completed_per_s: list[int]
    target_total: float  # transactions that the whole curve asks for
    response_ms: tuple[float, float, float] | None  # p50, p99, p99.9 of the last full second
    node_share: list[float]  # fractions of one, by node
    thresholds: list[tuple[str, str, bool]]  # metric and expression, observed, passed
    pace: Pace | None = None  # of a run on the virtual clock; None: the run's clock is the real one


class View(Protocol):
    """What a run shows itself on: entered once, updated as often as wanted, left at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, snapshot: Snapshot) -> None:
        """Show `snapshot`."""


class QuietView:
    """Shows nothing; the seam's no-op."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class LineView(QuietView):
    """Where there is no terminal: one line every five seconds, and one when the phase changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._due_s = 0.0

    def update(self, snapshot: Snapshot) -> None:
        """Print a line, if one is due."""
        real_s = snapshot.elapsed_s if snapshot.pace is None else snapshot.pace.real_s
        if snapshot.phase == self._phase and real_s < self._due_s:
            return
        self._phase = snapshot.phase
        self._due_s = real_s + SECONDS_BETWEEN_LINES
        # A log's line is one line however long, and a name in it is text, not markup.
        self._console.print(_line(snapshot), soft_wrap=True, markup=False, highlight=False)


class LiveView:
    """A terminal: redrawn in place at each update, gone at the end, when the summary takes its room."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # The streams stay as they are: forked workers would inherit a redirection that draws.
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._live.update(live_text(snapshot, self._console.width), refresh=True)


def open_view(console: Console, quiet: bool) -> View:  # noqa: FBT001  a command-line flag, passed on as it is
    """Pick the view that suits `console`: nothing if `quiet`, lines if it is no terminal or cannot show blocks."""
    if quiet:
        return QuietView()
    if console.is_terminal and not console.is_dumb_terminal and not console.options.ascii_only:
        return LiveView(console)
    return LineView(console)


def live_text(snapshot: Snapshot, width: int = WIDTH) -> Text:
    """Return the live view: at most 22 lines, none longer than `width` columns."""
    if snapshot.pace is not None:
        return _simulated(snapshot, snapshot.pace, width)
    # One scale for both lines: what falls behind must look lower.
    top = max([*snapshot.offered_per_s, *snapshot.completed_per_s], default=0)
    lines = [
        _progress(snapshot, width),
        Text(),
        _spark("offered", snapshot.offered_per_s, top, width),
        _spark("completed", snapshot.completed_per_s, top, width),
        _labelled("response", _response(snapshot)),
        Text(),
        _labelled("in flight", count(snapshot.in_flight)),
        _labelled("offered", f"{count(snapshot.counts.get('offered', 0))} of about {snapshot.target_total:,.0f}"),
        _labelled("answered", _counted(snapshot.counts, ("ok", "rejected", "failed", "unknown"))),
        _dropped(snapshot.counts.get("dropped", 0)),
        *_node_bars(snapshot.node_share, width),
        *_threshold_lines(snapshot.thresholds),
    ]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def _simulated(snapshot: Snapshot, pace: Pace, width: int) -> Text:
    """The live view of a simulation: how far, how fast, how long yet."""
    lines = [
        _progress(snapshot, width),
        Text(),
        _labelled("simulated", f"{_clock(snapshot.elapsed_s)} of {_clock(snapshot.duration_s)}"),
        _labelled("offered", f"{count(snapshot.counts.get('offered', 0))} of about {snapshot.target_total:,.0f}"),
        _labelled("in flight", count(snapshot.in_flight)),
        _labelled("speed", f"{rate(pace.per_s)} of real time"),
    ]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def _clock(seconds: float) -> str:
    return duration(seconds if seconds < 10 else seconds // 1)  # noqa: PLR2004  below ten seconds a tenth can be seen


def sparkline(values: Sequence[int], top: int) -> str:
    """Return one block character a value, from nothing (a dot) to full height at `top`."""
    return "".join(
        "·" if value <= 0 else _BLOCKS[min(len(_BLOCKS) - 1, (value * len(_BLOCKS) - 1) // max(top, 1))]
        for value in values
    )


def _bar(fraction: float, width: int) -> str:
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _labelled(label: str, value: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "dim"), value)


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
    room = width - _LABEL - len(told) - 4
    bar = _bar(fraction, max(room, 5)).replace(" ", "─")
    return Text.assemble((f"{snapshot.phase:<{_LABEL}}", "bold"), ("│", "dim"), (bar, "cyan"), ("│", "dim"), f" {told}")


def _spark(label: str, values: list[int], top: int, width: int) -> Text:
    last = rate(values[-1]) if values else NO_DATA
    shown = values[-max(width - _LABEL - 14, 10) :]
    return Text.assemble((f"{label:<{_LABEL}}", "dim"), f"{last:<13} ", (sparkline(shown, top), "cyan"))


def _response(snapshot: Snapshot) -> str:
    if snapshot.response_ms is None:
        return NO_DATA
    p50, p99, p999 = snapshot.response_ms
    return f"p50 {ms(p50)}   p99 {ms(p99)}   p99.9 {ms(p999)}   (the last second)"


def _counted(counts: dict[str, int], names: tuple[str, ...]) -> str:
    return "   ".join(f"{name} {count(counts.get(name, 0))}" for name in names)


def _dropped(dropped: int) -> Text:
    if not dropped:
        return _labelled("dropped", "0")
    return Text.assemble(
        (f"{'dropped':<{_LABEL}}", "dim"), (f"{count(dropped)}  the generator cannot keep up", "bold yellow")
    )


def _node_bars(shares: list[float], width: int) -> list[Text]:
    room = min(40, width - _LABEL - 10)
    lines = [
        Text.assemble((f"node {node:<{_LABEL - 5}}", "dim"), (_bar(part, room), "cyan"), f" {share(part)}")
        for node, part in enumerate(shares[:_NODES_SHOWN])
    ]
    if len(shares) > _NODES_SHOWN:
        lines.append(_labelled("all nodes", f"{len(shares)}: {share(min(shares))} to {share(max(shares))} each"))
    return [Text(), *lines] if lines else []


def _threshold_lines(thresholds: list[tuple[str, str, bool]]) -> list[Text]:
    shown = sorted(thresholds, key=lambda threshold: threshold[2])[:_THRESHOLDS_SHOWN]  # the crossed ones first
    lines = [
        Text.assemble(
            ("✓ " if passed else "✗ ", "green" if passed else "bold red"), f"{plain(what)}   now {plain(seen)}"
        )
        for what, seen, passed in shown
    ]
    more = len(thresholds) - len(shown)
    if more:
        met = sum(passed for _, _, passed in thresholds) == len(thresholds) - sum(not passed for *_, passed in shown)
        lines.append(Text(f"  and {more} more{', all met' if met else ''}", "dim"))
    return [Text(), *lines] if lines else []


def _line(snapshot: Snapshot) -> str:
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


def print_summary(console: Console, summary: dict[str, Any], run_folder: Path, *, quiet: bool = False) -> None:
    """Print what a finished run came to; if `quiet`, its verdict's sentence alone, on one line."""
    if quiet:
        console.print(wording.sentence(summary), soft_wrap=True, markup=False, highlight=False)
        return
    if not console.is_terminal:
        # A log is searched, not looked at: the sentence stands on one line there.
        console.print()
        console.print(wording.sentence(summary), soft_wrap=True, markup=False, highlight=False)
    told = summary_text(summary, run_folder, ascii_only=console.options.ascii_only, with_sentence=console.is_terminal)
    console.print(told, width=min(console.width, WIDTH))


def summary_text(
    summary: dict[str, Any], run_folder: Path, *, ascii_only: bool = False, with_sentence: bool = True
) -> RenderableType:
    """Return what a finished run came to, at most 80 columns wide; `ascii_only` for a terminal without ✓ and ✗."""
    word, _, cause = wording.sentence(summary).partition(": ")
    style = _STYLES.get(str(summary.get("verdict")), "bold")
    blocks: list[RenderableType] = [
        *([Text.assemble((word, style), f": {cause}", overflow="fold")] if with_sentence else []),
        _thresholds(summary, ascii_only=ascii_only),
        _counts(summary),
        _times(summary),
        _nodes(summary),
        *(_rows(found) for found in _tables(summary) if found is not None),
        *_simulation(summary),
        _closing(summary, run_folder),
    ]
    spaced: list[RenderableType] = []
    for block in blocks:
        spaced += [block, Text()]
    return Group(Text(), *spaced[:-1])


def _grid(*head: str, left: int = 1) -> Table:
    """Make a table without lines; the first `left` columns are words, the others figures."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(head), header_style="dim", pad_edge=False)
    for at, title in enumerate(head):
        table.add_column(title, justify="left" if at < left else "right", overflow="fold", no_wrap=at >= left)
    return table


def _thresholds(summary: dict[str, Any], *, ascii_only: bool) -> RenderableType:
    thresholds = summary.get("thresholds", [])
    if not thresholds:
        return Text("no thresholds set", "dim")
    met, crossed = ("ok", "NO") if ascii_only else ("✓", "✗")
    table = _grid("", "threshold", "observed", left=2)
    for item in thresholds:
        mark = Text(met, "green") if item.get("passed") else Text(crossed, "bold red")
        what = f"{metric_name(item.get('metric', ''))} {plain(item.get('expression', ''))}"
        table.add_row(mark, Text(what), Text(wording.seen(item)))
        if item.get("note"):
            table.add_row("", Text(f"  {plain(item['note'])}", "dim"), "")
    return table


def _counts(summary: dict[str, Any]) -> Table:
    counts, reasons = summary.get("counts", {}), summary.get("reasons", {})
    table = _grid("transactions", "count", "", left=1)
    table.columns[2].justify, table.columns[2].no_wrap = "left", False
    for name in ("offered", "sent", "ok", "rejected", "failed", "unknown", "dropped"):
        n = counts.get(name)
        if not n and name in {"failed", "unknown"}:
            continue  # nothing to tell; `dropped` says so even when it is nought
        why = ", ".join(f"{metric_name(reason)} {count(k)}" for reason, k in (reasons.get(name) or {}).items() if k)
        table.add_row(Text(name), Text(count(n), "bold yellow" if n and name == "dropped" else ""), Text(why))
    return table


def _times(summary: dict[str, Any]) -> Table:
    columns = ("p50", "p90", "p99", "p99.9", "max")
    table = _grid("time", *columns)
    for label, key in (("response", "response_time_ms"), ("service", "service_time_ms"), ("lag", "schedule_lag_ms")):
        table.add_row(Text(label), *(Text(ms(summary.get(key, {}).get(column))) for column in columns))
    return table


def _tables(summary: dict[str, Any]) -> tuple[answerers.Rows | None, ...]:
    return answerers.nodes(summary), answerers.faults(summary), generators.rows(summary)


def _rows(found: answerers.Rows) -> RenderableType:
    table = _grid(*found.head)
    for row in found.rows:
        table.add_row(*map(Text, row))
    return table


def _nodes(summary: dict[str, Any]) -> RenderableType:
    nodes = summary.get("nodes", [])
    if len(nodes) > _NODES_LISTED:
        shares = [node.get("share") or 0.0 for node in nodes]
        slowest = max((node.get("response_time_ms", {}).get("p99") or 0.0 for node in nodes), default=None)
        told = f"share {share(min(shares))} to {share(max(shares))} each, highest p99 {ms(slowest)}"
        return Text.assemble((f"{len(nodes)} nodes: ", "dim"), told)
    table = _grid("node", "share", "sent", "in flight max", "p99")
    for node in nodes:
        table.add_row(
            Text(plain(node.get("node", ""))),
            Text(share(node.get("share"))),
            Text(count(node.get("sent"))),
            Text(count(node.get("in_flight_max"))),
            Text(ms(node.get("response_time_ms", {}).get("p99"))),
        )
    return table


def _overload(found: dict[str, Any]) -> list[tuple[str, str]]:
    """One line, if a spike was too much: some of it was refused, or took a while to drain."""
    drain_s = found.get("drain_s")
    if found.get("spike_began_s") is None or not (found.get("refused") or drain_s is None or drain_s >= _DRAIN_TOLD_S):
        return []
    told = (
        f"goodput {rate(found.get('sustained_per_s'))} of {rate(found.get('spike_offered_per_s'))} offered in the spike"
    )
    return [("overload", f"{told}, {count(found.get('refused'))} refused, drained in {wording.drain(drain_s)}")]


def _dead_letters(found: dict[str, Any]) -> list[tuple[str, str]]:
    """One line, if anything could not be booked."""
    if not found.get("count") and not found.get("set_aside"):
        return []
    healed = f"{count(found.get('healed'))} succeeded at a later try"
    files = ", ".join(plain(name) for name in found.get("files") or [])
    return [("poison", f"{count(found.get('count'))} dead letters, {healed}{f'; {files}' if files else ''}")]


def _simulation(summary: dict[str, Any]) -> list[RenderableType]:
    """Of what, how fast, and whether it was offered more than it can take."""
    if summary.get("clock") != "virtual":
        return []
    told: list[RenderableType] = [Text(simulated_page.statement(summary))]
    beyond = simulated_page.over_capacity(summary)
    if beyond:
        told.append(Text(beyond, "yellow"))
    attempts = _attempts(summary.get("client") or {})
    if attempts:
        told.append(Text(attempts))
    return [Group(*told)]


def _attempts(client: dict[str, Any]) -> str:
    """One line, if anything was sent more than once."""
    amplification = wording.number(client.get("amplification"))
    if amplification is None or amplification <= 1:
        return ""
    hedges = f"{count(client['hedges'])} hedges, " if "hedges" in client else ""
    told = f"{amplification:.3f} attempts a transaction: {count(client.get('retries'))} retries, {hedges}"
    return f"{told}{count(client.get('timeouts'))} time-outs"


def _tried_again(summary: dict[str, Any]) -> bool:
    return summary.get("clock") != "virtual" and bool(_attempts(summary.get("client") or {}))


def _closing(summary: dict[str, Any], run_folder: Path) -> Text:
    audit, validity, value = summary.get("audit", {}), summary.get("validity", {}), summary.get("value", {})
    currency = str(value.get("currency", "CNY"))
    found = ", ".join(f"{metric_name(name)} {count(n)}" for name, n in audit.get("anomalies", {}).items() if n)
    books = f"{plain(audit.get('verdict', NO_DATA))}{f' ({found})' if found else ''}"
    checked = audit.get("verdict") == "clean"
    drift = wording.money(audit.get("conservation_minor"), currency) if checked else "not known"
    settled = wording.money(value.get("settled_minor"), currency)
    rows = [
        *([("hot keys", hot)] if (hot := _hot_keys(summary)) else []),
        ("settled", f"{settled} of {wording.money(value.get('offered_minor'), currency)} offered"),
        *((("returned", wording.returned(summary)),) if wording.returned(summary) else ()),
        ("audit", f"{books}, money created or lost: {drift}"),
        *([("attempts", _attempts(summary.get("client") or {}))] if _tried_again(summary) else []),
        *_overload(summary.get("overload") or {}),
        *_dead_letters(summary.get("dead_letters") or {}),
        *(("power", lost) for lost in [durability.sentence(summary.get("durability") or {})] if lost),
        ("validity", plain(validity.get("verdict", NO_DATA))),
        *(("", plain(reason)) for reason in validity.get("reasons", [])),
        *([("moved", wording.moves(summary["rebalance"]))] if summary.get("rebalance") else []),
        ("report", str(run_folder / "report.html")),
    ]
    return Text("\n", overflow="fold").join(_labelled(label, value) for label, value in rows)


def _hot_keys(summary: dict[str, Any]) -> str:
    """One line where the scenario has hot keys, else nothing."""
    hot, cold = summary.get("hot_keys") or {}, summary.get("cold_keys") or {}
    if not (hot.get("accounts") and hot.get("offered")):
        return ""
    p99 = [ms((keys.get("response_time_ms") or {}).get("p99")) for keys in (hot, cold)]
    told = f"{wording.accounts(hot['accounts'])}: {share(hot.get('share'))}, p99 {p99[0]} (cold {p99[1]})"
    busiest = wording.number(hot.get("credited_max_over_mean"))
    return told if busiest is None else f"{told}, top shard {busiest:.1f}x mean"
