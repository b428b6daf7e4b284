"""One run, from a scenario to a folder of results, whatever the clock."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from simulator.doctor.facts import at_start, during
from simulator.doctor.machine import cpu_times
from simulator.errors import BackendError, Exit, SimError, UsageError
from simulator.report import render
from simulator.report.export import environment, write_json, write_text
from simulator.report.summary import exit_code
from simulator.report.terminal import print_summary
from simulator.report.view import View, open_view
from simulator.run import virtual, wall
from simulator.run.folder import new_folder, nothing_left, reserve, whoever_listens
from simulator.run.interrupts import Asked, Interrupts
from simulator.run.live import LivePage
from simulator.run.outcome import Wanted, held, reference_for, tell, tell_growth
from simulator.scenario.loader import dump_scenario
from simulator.warm import warm, warm_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from simulator.live.watched import Watched
    from simulator.scenario.model import Scenario


class Assembled(Protocol):
    """A run that is ready to begin: what `wall` and `virtual` make of a scenario."""

    def execute(self, interrupts: Asked, view: View) -> None:
        """Runs to the end, or to the first interrupt. What it raises leaves nothing behind."""
        ...

    def conclude(self, view: View, *, started: datetime, began: float) -> dict[str, Any]:
        """Audits, judges and writes the results; returns the summary. `began` is of `time.monotonic`."""
        ...

    def kill(self) -> None:
        """Ends every process of the run at once."""
        ...


@dataclass(frozen=True)
class Clock:
    """What a clock makes of a scenario."""

    supported: Callable[[Scenario], None]  # raises ScenarioError
    assemble: Callable[[Scenario, Path, Collection[str]], Assembled]  # the last: targets that may be loaded
    warm: Callable[[Callable[[str], None] | None], None]  # compiles what is not cached, and says so
    watched: Callable[[Any], Watched] | None = (
        None  # what the live page reads of what was assembled; None: there is no page
    )


CLOCKS = {
    "wall": Clock(wall.supported, wall.assemble, warm, wall.watched),
    "virtual": Clock(virtual.supported, virtual.assemble, warm_virtual),
}


_NOTHING_ELSE = Wanted()


def run_scenario(
    scenario: Scenario, *, out: Path | None, quiet: bool, allowed: Collection[str] = (), wanted: Wanted = _NOTHING_ELSE,
    live_port: int | None = None,
) -> Exit:  # fmt: skip
    """Runs a scenario and writes its folder; returns the process's exit code.

    With `live_port` a page shows the run on this port, 0: on any that is free.

    Raises UsageError for an output folder, a baseline or a port that cannot be used, ScenarioError for a scenario that needs
    what is not there, BackendError if the platform cannot start, InvalidRunError for a baseline that proves nothing. Then
    nothing is left behind.
    """
    began = time.monotonic()
    wanted.check()
    reference = reference_for(scenario, wanted)
    clock = CLOCKS[scenario.clock]
    clock.supported(scenario)
    if live_port is not None and clock.watched is None:
        raise UsageError(
            f"--live shows a run on the wall clock; on the {scenario.clock} clock there is nothing to watch but its "
            "progress, which the terminal has, and its report has all charts"
        )
    with nullcontext() if live_port is None else LivePage(live_port) as live:
        console = Console(highlight=False)
        clock.warm(None if quiet else lambda text: console.print(text, markup=False))
        started = datetime.now(UTC)
        folder = new_folder(scenario.name, out, started)
        with Interrupts() as interrupts:
            opened = open_view(console, quiet)
            summary = carry_out(
                scenario, folder, opened, interrupts, started=started, began=began, allowed=allowed, live=live
            )
        summary = held(summary, folder, reference)
        with whoever_listens():
            print_summary(console, summary, folder, quiet=quiet)
        rendered = write_report(folder)
        tell(wanted, [(str(folder), summary)])
        tell_growth(folder)
        if live is not None:
            live.end_of(summary, report=rendered)
    return exit_code(summary)


def carry_out(
    scenario: Scenario, folder: Path, opened: View, interrupts: Asked, *, started: datetime, began: float,
    allowed: Collection[str] = (), live: LivePage | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Runs a scenario into a folder that is there and empty, and writes everything but the report; returns the summary."""
    clock = CLOCKS[scenario.clock]
    with nothing_left(folder):
        run = clock.assemble(scenario, folder, allowed)
        interrupts.at_once = run.kill
        if live is not None and clock.watched is not None:
            # Before all other processes, and before the reserve is taken: it holds open nothing that others wait for.
            live.start(clock.watched(run))
            opened, interrupts = live.beside(opened), live.or_stop(interrupts)
        write_text(folder / "scenario.yaml", dump_scenario(scenario))
        facts = {
            **environment(folder), **at_start(started), "started_at": started.isoformat(timespec="seconds"),
        }  # fmt: skip
        before = cpu_times()
        write_json(folder / "environment.json", facts)
        reserved = reserve(folder)
    with opened as view:

        def end_at_once() -> None:
            run.kill()
            view.abandon()

        interrupts.at_once = end_at_once
        with nothing_left(folder, run.kill):
            run.execute(interrupts, view)
        os.close(reserved)
        try:
            summary = run.conclude(view, started=started, began=began)
            write_json(folder / "environment.json", {**facts, **during(before)})
        except OSError as error:
            kept = "journals and history are there" if scenario.clock == "wall" else "nothing of them was kept"
            text = f"{folder}: the results could not be written: {error.strerror}; {kept}"
            raise BackendError(text) from error
    return summary


def write_report(folder: Path) -> bool:
    """Renders the report, and says whether it is there; that it cannot be written is told, and no reason to fail a run."""
    try:
        render(folder)
    except (OSError, SimError) as error:
        sys.stderr.write(f"sim: the report could not be written: {error}; everything else is in {folder}\n")
        return False
    return True
