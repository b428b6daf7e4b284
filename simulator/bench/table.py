"""What `sim bench` shows: progress on the error stream, the tables on the output."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from simulator.report.wording import NO_DATA, count, ms, plain, share, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from simulator.bench.shards import Cell, Results

_WHOLE = 100  # from here a ratio or a mean is read without decimals


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Gives what is told of each step as it begins: a bar on a terminal, a line each elsewhere.

    No thread refreshes it: the process that shows it forks others.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda what: console.print(what, soft_wrap=True, markup=False)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    bar = Progress(
        *columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    with bar:
        task = bar.add_task("", total=steps)
        begun = -1  # the first word is of the kernels, which is no step

        def step(what: str) -> None:
            nonlocal begun
            begun += 0 if what.startswith("compiling") else 1
            bar.update(task, completed=max(begun, 0), description=what, refresh=True)

        yield step


def show(results: Results) -> None:
    """Prints the tables."""
    console = Console(highlight=False)
    console.print(_all(results), width=max(console.width, 80))


def _all(results: Results) -> RenderableType:
    asked, machine = results.settings, results.machine
    parts: list[RenderableType] = [
        Text(
            f"{asked.nodes} nodes, {asked.shards} shards, {count(asked.customers)} accounts; {machine['cores']} cores, "
            f"{plain(machine['cpu_model'])}, {plain(machine['file_system'])}",
            "dim",
        ),
        Text(),
        _cells(results),
        Text(),
        Text("ns/tx: wall clock. p50, p99: of one commit. batch: journal records a commit.", "dim"),
    ]
    if any(cell.stopped_early for cell in results.cells):
        parts.append(Text(f"*: ended early, its journals had reached {size(results.disk_cap_bytes)}", "dim"))
    parts += [_refused(cell) for cell in results.cells if cell.rejected]
    parts += [Text(), _baselines(results), Text(), _light(results)]
    if results.curve:
        parts += [Text(), _curve(results)]
    return Group(*parts)


def _grid(*head: str, left: int = 1) -> Table:
    """A table without lines; the first `left` columns are words, the others figures."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for at, title in enumerate(head):
        table.add_column(title, justify="left" if at < left else "right", no_wrap=True)
    return table


def _millions(per_s: float | None) -> str:
    return NO_DATA if per_s is None else f"{per_s / 1e6:.2f}" if per_s >= 1e5 else f"{per_s / 1e6:.3f}"  # noqa: PLR2004  two digits at least


def _short(number: int) -> str:
    """A round number as people say it: 10 k, 10 M."""
    for unit, scale in (("M", 10**6), ("k", 10**3)):
        if number >= scale and number % scale == 0:
            return f"{number // scale} {unit}"
    return count(number)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= _WHOLE else f"{value:.1f}"


def _ms(value: float | None) -> str:
    return "" if value is None else ms(value).removesuffix(" ms")


def _cells(results: Results) -> Table:
    table = _grid("durability", "transfers", "M tx/s", "ns/tx", "p50 ms", "p99 ms", "batch", "MB/s", "× naive", left=2)
    for cell in results.cells:
        table.add_row(
            cell.durability + ("*" if cell.stopped_early else ""),
            cell.transfers,
            _millions(cell.transactions_per_s),
            _figure(cell.ns_per_transaction),
            _ms(cell.commit_ms_p50),
            _ms(cell.commit_ms_p99),
            "" if cell.commit_records_mean is None else f"{cell.commit_records_mean:,.0f}",
            f"{cell.journal_bytes_per_s / 1e6:,.0f}" if cell.journal_bytes_per_s else "",
            _figure(cell.ratio_naive),
        )
    return table


def _baselines(results: Results) -> Table:
    table = _grid("baseline", "transfers", "M tx/s", "ns/tx", left=2)
    table.add_column("")
    for baseline in results.baselines:
        per_s = baseline.transactions_per_s
        table.add_row(
            baseline.name,
            baseline.transfers,
            "" if per_s is None else _millions(per_s),
            f"{1e9 / per_s:,.0f}" if per_s else "",
            Text(baseline.note, "dim"),
        )
    return table


def _refused(cell: Cell) -> Text:
    """Says what a cell's rate leaves out: what was answered, but with a no."""
    why = ", ".join(f"{reason} {count(number)}" for reason, number in cell.rejected_by_reason.items())
    return Text(
        f"{cell.durability}, {cell.transfers}: {share(cell.rejected / cell.sent)} of {count(cell.sent)} refused ({why}), "
        "not in tx/s",
        "yellow",
    )


def _light(results: Results) -> Table:
    table = _grid("light load", "tx/s", "response p50", "p99", "schedule lag p99")
    for light in results.light_load:
        table.add_row(
            light.durability,
            count(light.rate_per_s),
            ms(light.response_ms_p50),
            ms(light.response_ms_p99),
            ms(light.schedule_lag_ms_p99),
        )
    return table


def _curve(results: Results) -> RenderableType:
    shards, accounts = results.settings.curve_shards, results.settings.curve_customers
    points = {(point.shards, point.accounts): point for point in results.curve}
    table = _grid("ns/tx (×)", *(f"{_short(each)} accounts" for each in accounts))
    for each in shards:
        row = [points[each, customers] for customers in accounts]
        table.add_row(
            f"{each} shard{'s' if each > 1 else ''}",
            *(f"{_figure(point.ns_per_transaction)} ({point.ratio_to_best or 0:.2f})" for point in row),
        )
    return Group(table, Text("one node, memory, as they come; in brackets: times the best", "dim"))
