"""What the terminal shows of a sweep: how far it is, and a table of its variants when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.table import Table
from rich.text import Text

from simulator.report.live_text import HEIGHT, WIDTH, bar
from simulator.report.screen import Screen, redrawable
from simulator.report.sweep import COLUMNS, TERMINAL_COLUMNS, cells_of
from simulator.report.wording import duration, plain

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from rich.console import Console

_ROWS_MOST = 40  # in the table; the page has all
_BAR = 40
_MIN_FRACTION = 0.01  # below it an estimate is a guess


@dataclass(frozen=True)
class Standing:
    """Where a sweep stands."""

    done: int
    total: int
    fraction: float  # of the whole work
    elapsed_s: float
    running: list[tuple[str, float]]  # name and fraction of each
    last: dict[str, Any] | None  # the variant that ended last, as in sweep.json

    @property
    def left_s(self) -> float | None:
        """How long it will take yet, if it goes on as it did; None: too early to tell."""
        if self.fraction < _MIN_FRACTION:
            return None
        return self.elapsed_s * (1 - self.fraction) / self.fraction


class SweepView:
    """Shows nothing; the views below show something."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, standing: Standing) -> None:
        """Show nothing."""

    def abandon(self) -> None:
        """Leave the terminal as it was, from a signal's handler."""


class SweepLines(SweepView):
    """Where there is no terminal: a line for each variant that has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done = 0

    def update(self, standing: Standing) -> None:
        """Print a line, if another variant has ended."""
        if standing.done == self._done or standing.last is None:
            return
        self._done = standing.done
        told = f"{_told(standing)}: {plain(standing.last['name'])}: {plain(standing.last['sentence'])}"
        self._console.print(told, soft_wrap=True, markup=False, highlight=False)


class SweepLive(SweepView):
    """A terminal's other screen: a bar, and those that run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._screen = Screen(console)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    def update(self, standing: Standing) -> None:
        """Draw again."""
        self._screen.show(live_sweep(standing, *self._console.size))

    def abandon(self) -> None:
        """Leave the screen at once."""
        self._screen.abandon()


def live_sweep(standing: Standing, width: int = WIDTH, height: int = HEIGHT) -> Text:
    """The live view of a sweep: at most `height` lines, none longer than `width` columns."""
    lines = [Text.assemble(_bar(standing.fraction, width), f" {_told(standing)}")]
    lines += [
        Text.assemble(_bar(fraction, width), f" {fraction:4.0%}", (f"  {plain(name)}", "dim"))
        for name, fraction in standing.running
    ]
    if standing.last is not None:
        lines += [Text(), Text(f"last: {plain(standing.last['name'])}: {plain(standing.last['sentence'])}", "dim")]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines[:height])


def _bar(fraction: float, width: int) -> tuple[str, str]:
    return bar(fraction, max(min(_BAR, width // 3), 5)).replace(" ", "─"), "cyan"


def _told(standing: Standing) -> str:
    left = "" if standing.left_s is None or standing.done == standing.total else f", {_left(standing.left_s)}"
    return f"{standing.done} of {standing.total} variants{left}"


def _left(seconds: float) -> str:
    return f"about {duration(max(1, round(seconds)))} left"


def open_sweep_view(console: Console, *, quiet: bool) -> SweepView:
    """Pick the view that suits `console`."""
    if quiet:
        return SweepView()
    return SweepLive(console) if redrawable(console) else SweepLines(console)


def print_sweep(console: Console, sweep: dict[str, Any], folder: Path, *, quiet: bool) -> None:
    """Print what a finished sweep came to; if `quiet`, a line for each variant alone."""
    variants = sweep["variants"]
    if quiet:
        for row in variants:
            told = f"{plain(row['name'])}: {plain(row['sentence'])}"
            console.print(told, soft_wrap=True, markup=False, highlight=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("variant", overflow="fold")
    for _, head in COLUMNS[:TERMINAL_COLUMNS]:
        table.add_column(head, justify="left" if head == "verdict" else "right", no_wrap=True)
    styles = {"pass": "green", "fail": "bold red", "invalid": "bold yellow"}
    for row in variants[:_ROWS_MOST]:
        first, *rest = cells_of(row)[:TERMINAL_COLUMNS]
        verdict = Text(first, styles.get(str(row["verdict"]), "bold"))
        table.add_row(Text(plain(row["name"])), verdict, *map(Text, rest))
    console.print()
    console.print(table)
    if len(variants) > _ROWS_MOST:
        console.print(f"the first {_ROWS_MOST} of {len(variants)}; the report has all", markup=False, highlight=False)
    console.print()
    console.print(f"report      {folder / 'report.html'}", soft_wrap=True, markup=False, highlight=False)
