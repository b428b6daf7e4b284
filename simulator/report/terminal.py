"""What the terminal shows of a run that has ended: read in ten seconds, and its last line is the verdict's sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from simulator.report import answerers, durability, generators, simulated_page, wording
from simulator.report.live_text import WIDTH
from simulator.report.wording import NO_DATA, count, metric_name, ms, plain, rate, share

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_LABEL = 10  # columns, and two between
_DRAIN_TOLD_S = 0.5  # a shorter one is a hiccup, and the report has it
_NODES_LISTED = 8  # beyond, their range says more
_STYLES = {"pass": "bold green", "fail": "bold red", "invalid": "bold yellow"}


def print_summary(console: Console, summary: dict[str, Any], run_folder: Path, *, quiet: bool = False) -> None:
    """Print what a finished run came to, its verdict's sentence at the end; if `quiet`, that alone, on one line.

    A log is searched, not looked at: the sentence stands on one line there.
    """
    if not quiet:
        told = summary_text(summary, ascii_only=console.options.ascii_only)
        console.print(told, width=WIDTH, crop=False)
        # A path is for copying: whoever breaks it, it must not be a line of ours.
        path = f"{run_folder / 'report.html'}\n"
        console.print(Text.assemble((f"{'report':<{_LABEL + 2}}", "dim"), path), soft_wrap=True)
    if quiet or not console.file.isatty():
        console.print(wording.sentence(summary), soft_wrap=True, markup=False, highlight=False)
        return
    word, _, cause = wording.sentence(summary).partition(": ")
    style = _STYLES.get(str(summary.get("verdict")), "bold")
    console.print(Text.assemble((word, style), f": {cause}", overflow="fold"))


def summary_text(summary: dict[str, Any], *, ascii_only: bool = False) -> RenderableType:
    """Return all but the report's path and the verdict's sentence, at most 80 columns wide.

    With `ascii_only` for a terminal without ✓ and ✗.
    """
    blocks: list[RenderableType] = [
        _thresholds(summary, ascii_only=ascii_only),
        _counts(summary),
        _times(summary),
        _nodes(summary),
        *(_rows(found) for found in _tables(summary) if found is not None),
        *_simulation(summary),
        _closing(summary),
    ]
    spaced: list[RenderableType] = []
    for block in blocks:
        spaced += [Text(), block]
    return Group(*spaced)


class _Grid(Table):
    """A table without lines that keeps its columns: where they do not fit, the terminal breaks its lines."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = Measurement.get(console, options.update_width(WIDTH), self).maximum
        yield from super().__rich_console__(console, options.update_width(max(options.max_width, needed)))


def _grid(*head: str, left: int = 1) -> Table:
    """Make a table without lines; the first `left` columns are words, the others figures."""
    table = _Grid(box=None, padding=(0, 2, 0, 0), show_header=bool(head), header_style="dim", pad_edge=False)
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


def _closing(summary: dict[str, Any]) -> Table:
    audit, validity, value = summary.get("audit", {}), summary.get("validity", {}), summary.get("value", {})
    currency = str(value.get("currency", "CNY"))
    found = ", ".join(f"{metric_name(name)} {count(n)}" for name, n in audit.get("anomalies", {}).items() if n)
    checked = audit.get("verdict") == "clean"
    drift = wording.money(audit.get("conservation_minor"), currency) if checked else "not known"
    books = f"{plain(audit.get('verdict', NO_DATA))}{f' ({found})' if found else ''}, money created or lost: {drift}"
    unaudited = wording.not_audited(audit)
    if unaudited:
        books = f"{plain(audit.get('verdict'))} ({found}); {unaudited}" if found else unaudited
    settled = wording.money(value.get("settled_minor"), currency)
    rows = [
        *([("hot keys", hot)] if (hot := _hot_keys(summary)) else []),
        (
            "settled",
            f"{settled} {wording.as_answered(audit)}of {wording.money(value.get('offered_minor'), currency)} offered",
        ),
        *((("returned", wording.returned(summary)),) if wording.returned(summary) else ()),
        ("audit", books),
        *([("attempts", _attempts(summary.get("client") or {}))] if _tried_again(summary) else []),
        *_overload(summary.get("overload") or {}),
        *_dead_letters(summary.get("dead_letters") or {}),
        *(("power", lost) for lost in [durability.sentence(summary.get("durability") or {})] if lost),
        ("validity", plain(validity.get("verdict", NO_DATA))),
        *(("", plain(reason)) for reason in validity.get("reasons", [])),
        *([("moved", wording.moves(summary["rebalance"]))] if summary.get("rebalance") else []),
    ]
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="dim", min_width=_LABEL, no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    return table


def _hot_keys(summary: dict[str, Any]) -> str:
    """One line where the scenario has hot keys, else nothing."""
    hot, cold = summary.get("hot_keys") or {}, summary.get("cold_keys") or {}
    if not (hot.get("accounts") and hot.get("offered")):
        return ""
    p99 = [ms((keys.get("response_time_ms") or {}).get("p99")) for keys in (hot, cold)]
    told = f"{wording.accounts(hot['accounts'])}: {share(hot.get('share'))}, p99 {p99[0]} (cold {p99[1]})"
    busiest = wording.number(hot.get("credited_max_over_mean"))
    return told if busiest is None else f"{told}, top shard {busiest:.1f}x mean"
