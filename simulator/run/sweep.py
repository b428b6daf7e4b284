"""A sweep: every variant of a scenario, each a run in a folder of its own, and one page that holds them side by side.

On the virtual clock variants run in parallel, one process to a core; on the wall clock one after another, because each wants
the whole machine. A variant is a run like any other; what a sweep adds is `sweep.json`, the page and the table.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from simulator import __version__, process
from simulator.compare.sides import SEED
from simulator.errors import Exit, SimError
from simulator.report.export import write_json
from simulator.report.summary import exit_code
from simulator.report.sweep import render_sweep, row_of
from simulator.report.sweep_terminal import Standing, SweepView, open_sweep_view, print_sweep
from simulator.report.view import QuietView, open_view
from simulator.report.wording import metric_name, observed
from simulator.run.folder import new_folder, say, whoever_listens
from simulator.run.interrupts import Interrupts
from simulator.run.once import CLOCKS, carry_out, write_report
from simulator.run.outcome import GRAVEST, Wanted, held_together, reference_for, slim, tell, tell_growth
from simulator.shard.layout import shared_array

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.report.snapshot import Snapshot
    from simulator.report.wording import Summary
    from simulator.scenario.vary import Axis, Variant

_LOOK_S = 0.25
_PARTS = 1_000_000  # a variant's progress is told in millionths
_NOTHING_ELSE = Wanted()


@dataclass
class Sweep:
    """A sweep that is going on."""

    folder: Path
    axes: Sequence[Axis]
    variants: Sequence[Variant]
    started: datetime
    began: float
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # by the variant's number, as in sweep.json
    running: dict[int, _Worker] = field(default_factory=dict)
    summaries: dict[int, Summary] = field(default_factory=dict)  # of those that have one, without what is large
    baseline: dict[str, Any] | None = None  # what they show together, as outcome.held_together has it

    def note(self, variant: Variant, summary: dict[str, Any] | None, code: Exit, failure: str | None = None) -> None:
        """Keeps what became of a variant; None: it has no summary."""
        row = row_of(summary)
        if summary is not None:
            self.summaries[variant.number] = slim(summary)
        self.rows[variant.number] = {**self._named(variant), "exit_code": int(code), **row}
        if failure is not None:
            self.rows[variant.number]["failure"] = failure

    def _named(self, variant: Variant) -> dict[str, Any]:
        settings = dict(variant.settings)
        return {"number": variant.number, "name": variant.name, "folder": variant.folder, "settings": settings}

    def kill(self) -> None:
        """Ends every process of the sweep at once."""
        for worker in self.running.values():
            process.kill(worker.process)

    @property
    def code(self) -> Exit:
        """The gravest of the variants'; one that was never run counts as interrupted."""
        codes = {Exit(row["exit_code"]) for row in self.rows.values()}
        if len(self.rows) < len(self.variants):
            codes.add(Exit.INTERRUPTED)
        if self.baseline is not None:
            regressed = any(not item["passed"] for item in self.baseline["thresholds"])
            codes.add(Exit.REGRESSION if regressed else Exit.ERROR if "failure" in self.baseline else Exit.OK)
        return next((code for code in GRAVEST if code in codes), Exit.ERROR)

    def as_json(self) -> dict[str, Any]:
        """The contents of sweep.json; variants that were not run stand there without a verdict."""
        return {
            "schema": 1,
            "scenario": self.variants[0].scenario.name,
            "description": self.variants[0].scenario.description,
            "version": __version__,
            "started_at": self.started.isoformat(timespec="seconds"),
            "wall_s": round(time.monotonic() - self.began, 3),
            "interrupted": len(self.rows) < len(self.variants) or any(r["interrupted"] for r in self.rows.values()),
            "exit_code": int(self.code),
            "axes": [{"path": axis.path, "values": list(axis.values)} for axis in self.axes],
            "variants": [
                self.rows.get(v.number, {**self._named(v), "exit_code": None, **row_of(None)}) for v in self.variants
            ],
            **({"baseline": self.baseline} if self.baseline is not None else {}),
        }


@dataclass
class _Worker:
    """A process that runs one variant."""

    variant: Variant
    process: ForkProcess
    connection: Connection


class _Told:
    """`Asked` in a worker: the control process hears Ctrl-C and passes it on in a shared word."""

    def __init__(self, word: NDArray[np.int64]) -> None:
        self._word = word
        self.at_once: Callable[[], None] = lambda: None

    @property
    def count(self) -> int:
        """How often the user asked to end."""
        return int(self._word[0])


class _Meter(QuietView):
    """The view of a worker: notes how far the run is in a shared word."""

    def __init__(self, word: NDArray[np.int64]) -> None:
        self._word = word

    def update(self, snapshot: Snapshot) -> None:
        """Notes the progress, by transactions where some are known to come, else by time."""
        done, total = snapshot.counts.get("offered", 0), snapshot.target_total
        if total <= 0:
            done, total = snapshot.elapsed_s, snapshot.duration_s  # type: ignore[assignment] # only their ratio matters
        self._word[0] = int(_PARTS * min(done / total, 1.0)) if total > 0 else 0


def run_sweep(
    axes: Sequence[Axis], variants: Sequence[Variant], *, out: Path | None, quiet: bool, allowed: Collection[str] = (),
    wanted: Wanted = _NOTHING_ELSE, noun: str = "sweep",
) -> Exit:  # fmt: skip
    """Runs every variant (at least one), and writes sweep.json and the page; returns the gravest exit code.

    Args:
        axes: what is varied; of runs that are repeated the seed alone.
        variants: what to run.
        out: the folder; None: one below results/.
        quiet: print the verdict only.
        allowed: targets beyond this machine that may be loaded.
        wanted: what else is made of the runs. Thresholds on a baseline are judged only of repeated runs, all together.
        noun: what it is called in the folder's name.

    Raises:
        UsageError: the sweep's folder exists or cannot be made, or the baseline is not there.
        ScenarioError: a variant needs what is not there; nothing was run.
        InvalidRunError: the baseline's figures are not to be believed.
    """
    began = time.monotonic()
    wanted.check()
    repeated = [axis.path for axis in axes] == [SEED]
    reference = reference_for(variants[0].scenario, wanted) if repeated else None
    for variant in variants:
        CLOCKS[variant.scenario.clock].supported(variant.scenario)
    console = Console(highlight=False)
    for clock in dict.fromkeys(variant.scenario.clock for variant in variants):
        CLOCKS[clock].warm(None if quiet else lambda text: console.print(text, markup=False))
    started = datetime.now(UTC)
    folder = new_folder(f"{variants[0].scenario.name}-{noun}", out, started)
    sweep = Sweep(folder, axes, variants, started, began)
    with Interrupts() as interrupts:
        interrupts.at_once = sweep.kill
        try:
            _in_parallel(sweep, interrupts, open_sweep_view(console, quiet=quiet))
            _in_turn(sweep, interrupts, console, quiet=quiet, allowed=allowed)
        except BaseException:
            sweep.kill()
            raise
        ended = [(folder / v.folder, sweep.summaries[v.number]) for v in variants if v.number in sweep.summaries]
        sweep.baseline = held_together(folder, ended, reference)
        told = sweep.as_json()
        write_json(folder / "sweep.json", told)
        render_sweep(folder)
    with whoever_listens():
        print_sweep(console, told, folder, quiet=quiet)
        _print_baseline(console, sweep.baseline)
    tell(wanted, [*((str(path), summary) for path, summary in ended), *_all_together(sweep)])
    tell_growth(folder)
    return sweep.code


def _print_baseline(console: Console, found: Mapping[str, Any] | None) -> None:
    """What all runs together show against the baseline, a line for each threshold."""
    if found is None:
        return
    for item in found["thresholds"]:
        mark = "met" if item["passed"] else "NOT MET"
        told = f"{mark}: {metric_name(item['metric'])} {item['expression']}: {observed(item)} (all runs together)"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    if "failure" in found:
        console.print(
            f"not compared with the baseline: {found['failure']}", markup=False, highlight=False, soft_wrap=True
        )


def _all_together(sweep: Sweep) -> list[tuple[str, Summary]]:
    """What fails only of all runs together, as one more run for the job's files."""
    crossed = [item for item in (sweep.baseline or {"thresholds": []})["thresholds"] if not item["passed"]]
    if not crossed:
        return []
    first = sweep.variants[0].scenario.name
    sound = {"validity": {"verdict": "valid", "reasons": []}, "audit": {"verdict": "clean", "anomalies": {}}}
    return [
        (f"{sweep.folder} (all runs together)", {"scenario": first, "verdict": "fail", "thresholds": crossed, **sound})
    ]


def _in_parallel(sweep: Sweep, interrupts: Interrupts, opened: SweepView) -> None:
    """The variants on the virtual clock, as many at once as there are cores."""
    todo = deque(v for v in sweep.variants if v.scenario.clock == "virtual")
    if not todo:
        return
    cores = len(os.sched_getaffinity(0))
    progress = shared_array(len(sweep.variants) + 1, np.int64)
    stop = shared_array(1, np.int64)
    with opened as view:

        def end_at_once() -> None:
            sweep.kill()
            view.abandon()

        interrupts.at_once = end_at_once
        while (todo and not interrupts.count) or sweep.running:
            while todo and len(sweep.running) < cores and not interrupts.count:
                variant = todo.popleft()
                sweep.running[variant.number] = _start(sweep, variant, progress, stop)
            connections = [worker.connection for worker in sweep.running.values()]
            ready = wait([*connections, *(worker.process.sentinel for worker in sweep.running.values())], _LOOK_S)
            stop[0] = interrupts.count
            for worker in list(sweep.running.values()):
                if worker.connection in ready or worker.process.sentinel in ready:
                    _take(sweep, worker)
                    progress[worker.variant.number] = _PARTS
            with whoever_listens():
                view.update(_standing(sweep, progress))
    interrupts.at_once = sweep.kill


def _start(sweep: Sweep, variant: Variant, progress: NDArray[np.int64], stop: NDArray[np.int64]) -> _Worker:
    here, there = Pipe()
    word = progress[variant.number : variant.number + 1]
    started = process.start(
        f"variant {variant.number}", _one, variant, sweep.folder / variant.folder, word, stop, there
    )
    there.close()
    return _Worker(variant, started, here)


def _one(
    variant: Variant, folder: Path, progress: NDArray[np.int64], stop: NDArray[np.int64], connection: Connection
) -> None:
    """The body of a worker: one run, and its report; sends (summary, None, exit code) or (None, why, exit code)."""
    try:
        folder.mkdir()
        summary = carry_out(
            variant.scenario, folder, _Meter(progress), _Told(stop), started=datetime.now(UTC), began=time.monotonic()
        )
        write_report(folder)
        connection.send((summary, None, exit_code(summary)))
    except (SimError, OSError) as error:
        connection.send((None, str(error), error.exit_code if isinstance(error, SimError) else Exit.ERROR))


def _take(sweep: Sweep, worker: _Worker) -> None:
    """Keeps what a worker sent, or that it ended without a word."""
    try:
        summary, failure, code = worker.connection.recv() if worker.connection.poll() else (None, "", Exit.ERROR)
    except EOFError:
        summary, failure, code = None, "", Exit.ERROR
    worker.process.join()
    worker.connection.close()
    del sweep.running[worker.variant.number]
    if failure == "":
        failure = f"its process ended early (code {worker.process.exitcode})"
    sweep.note(worker.variant, summary, code, failure)


def _standing(sweep: Sweep, progress: NDArray[np.int64]) -> Standing:
    """Where the sweep stands, each variant weighed by the transactions it will take."""
    # A duration stands for the transactions of a trace, whose number only its file tells.
    weights = np.array([0.0, *(_weight(variant) for variant in sweep.variants)])
    done = float((weights * progress / _PARTS).sum() / weights.sum())
    return Standing(
        done=len(sweep.rows),
        total=len(sweep.variants),
        fraction=min(done, 1.0),
        elapsed_s=time.monotonic() - sweep.began,
        running=[(w.variant.name, progress[w.variant.number] / _PARTS) for w in sweep.running.values()],
        last=next(reversed(sweep.rows.values()), None),
    )


def _weight(variant: Variant) -> float:
    rate = variant.scenario.load.rate
    per_s = rate if isinstance(rate, float) else 1.0
    return per_s * (variant.scenario.duration_ns or 1)


def _in_turn(sweep: Sweep, interrupts: Interrupts, console: Console, *, quiet: bool, allowed: Collection[str]) -> None:
    """The variants on the wall clock, one after another."""
    for variant in sweep.variants:
        if variant.number in sweep.rows or variant.scenario.clock == "virtual":
            continue
        if interrupts.count:
            return
        if not quiet:
            say(f"variant {variant.number} of {len(sweep.variants)}: {variant.name}")
        folder = sweep.folder / variant.folder
        try:
            folder.mkdir()
            summary = carry_out(
                variant.scenario, folder, open_view(console, quiet), interrupts,
                started=datetime.now(UTC), began=time.monotonic(), allowed=allowed,
            )  # fmt: skip
        except SimError as error:
            sweep.note(variant, None, error.exit_code, str(error))
            continue
        finally:
            interrupts.at_once = sweep.kill
        write_report(folder)
        sweep.note(variant, summary, exit_code(summary))
