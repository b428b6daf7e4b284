"""One run, from a scenario to a folder of results: the only module that knows all the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import entry_points
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from rich.console import Console

from simulator import __version__, process
from simulator.arrivals.build import build_rate
from simulator.audit import auditor, history
from simulator.backend.backend import Backend, NoopBackend
from simulator.backend.embedded import EmbeddedBackend
from simulator.balancer.policy import Policy
from simulator.clock import WallClock
from simulator.dispatcher import Dispatcher
from simulator.engine.wall import Ended, Stop, WallEngine, drive
from simulator.errors import BackendError, Exit, ScenarioError, SimError, UsageError
from simulator.fault.inject import Injector
from simulator.fault.schedule import Schedule
from simulator.measure import validity
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import HISTORY, Recorder, Tallies, open_tallies
from simulator.report import render
from simulator.report.export import environment, write_events, write_hlog, write_json, write_series, write_text
from simulator.report.summary import Observations, Results, exit_code, series_columns, summarise
from simulator.report.terminal import Phase, Snapshot, View, open_view, print_summary
from simulator.report.thresholds import judge
from simulator.scenario.loader import dump_scenario
from simulator.scenario.platform import PLUGIN_GROUP
from simulator.shard.layout import Durability, Shape, shared_array
from simulator.shard.pool import Pool
from simulator.transaction import Status
from simulator.warm import warm
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.context import ForkProcess
    from types import FrameType

    from numpy.typing import NDArray

    from simulator.scenario.model import Scenario
    from simulator.scenario.platform import Embedded

_START_NS = 50_000_000  # from "all ready" to the first possible arrival
_LOOK_S = 0.25  # how often the control process looks at the run
_RECOVERING_LOOK_S = 0.02  # the same while a node is coming back, so that its recovery is timed well
_RESERVE_BYTES = 16 << 20  # kept free for the reports of a run that fills its disk
_REASONS_TOLD = 10  # lines of detail that `sim audit` prints; audit.json has all
_STOP_S = 30.0  # how long the nodes may take to settle what is between them


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: the first asks the run to drain, the second ends everything at once."""

    def __init__(self) -> None:
        self.count = 0
        self.at_once: Callable[[], None] = lambda: None  # what a second one ends first
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the signature of a handler
        self.count += 1
        if self.count > 1:
            self.at_once()
            shown = b"\x1b[?25h\r\n" if os.isatty(2) else b""  # the live view hides the cursor
            os.write(2, shown + b"sim: stopped at once; the run's folder is incomplete\n")
            os._exit(Exit.INTERRUPTED)


@dataclass
class Run:
    """The moving parts of a run on the wall clock."""

    scenario: Scenario
    folder: Path
    tallies: Tallies
    duration_s: float
    expected: float
    seconds: int
    clock: WallClock
    stop: NDArray[np.int64]
    pool: Pool | None
    backend: Backend
    events: list[dict[str, Any]] = field(default_factory=list)
    injector: Injector | None = None
    engine: ForkProcess | None = None
    failure: str | None = None
    interrupted: bool = False
    rss_peak_bytes: int = 0
    released_s: float = 0.0

    def event(self, name: str, **details: Any) -> None:  # noqa: ANN401  whatever is worth noting
        """Notes that something happened now."""
        self.events.append({"t_s": round(self.clock.now_ns() / 1e9, 6), "event": name, **details})

    def look_s(self) -> float:
        """How long to wait before the next look: until the next fault at the latest."""
        due = self.injector.next_ns() if self.injector else None
        longest = _RECOVERING_LOOK_S if self.pool is not None and self.pool.recovering else _LOOK_S
        return longest if due is None else min(max((due - self.clock.now_ns()) / 1e9, 0.0), longest)

    def kill(self) -> None:
        """Ends every process of the run at once."""
        if self.engine is not None:
            process.kill(self.engine)
        if self.pool is not None:
            self.pool.kill()

    def make_engine(self, write: Any) -> tuple[Recorder, WallEngine]:  # noqa: ANN401  a callable; see MakeEngine
        """Builds the engine; called in its own process."""
        scenario = self.scenario
        recorder = Recorder(self.seconds, self.backend.nodes)
        dispatcher = Dispatcher(
            self.backend, Policy[scenario.balancer.policy.upper()], scenario.seed, self.tallies, recorder,
            in_flight=scenario.dispatcher.in_flight, patience_ns=scenario.dispatcher.patience, write=write,
            hold_back=scenario.backend.embedded is not None and scenario.backend.embedded.overflow != "refuse",
        )  # fmt: skip
        source = build_source(scenario)
        return recorder, WallEngine(dispatcher, source, self.clock, self.stop, drain_ns=scenario.dispatcher.drain)


def run_scenario(scenario: Scenario, *, out: Path | None, quiet: bool) -> Exit:
    """Runs a scenario and writes its folder; returns the process's exit code.

    Raises UsageError for an output folder that cannot be used, ScenarioError for a scenario that needs what is not there,
    BackendError if the platform cannot start. Then nothing is left behind.
    """
    began = time.monotonic()
    _supported(scenario)
    console = Console(highlight=False)
    warm(None if quiet else lambda text: console.print(text, markup=False))
    started = datetime.now(UTC)
    folder = _new_folder(scenario, out, started)
    with Interrupts() as interrupts:
        with _nothing_left(folder):
            run = _assemble(scenario, folder)
            interrupts.at_once = run.kill
            target = _target_per_second(scenario, run)
            write_text(folder / "scenario.yaml", dump_scenario(scenario))
            facts = {**environment(folder), "started_at": started.isoformat(timespec="seconds")}
            write_json(folder / "environment.json", facts)
            reserve = _reserve(folder)
        with open_view(console, quiet) as view:
            with _nothing_left(folder, run):
                ended = _execute(run, interrupts, view)
            os.close(reserve)
            try:
                _write_spilled(run, ended)
                summary = _conclude(run, view, ended, started=started, wall_s=time.monotonic() - began, target=target)
            except OSError as error:
                text = f"{folder}: the results could not be written: {error.strerror}; journals and history are there"
                raise BackendError(text) from error
    with _whoever_listens():
        print_summary(console, summary, folder, quiet=quiet)
    try:
        render(folder)
    except (OSError, SimError) as error:
        (folder / "report.html.part").unlink(missing_ok=True)
        sys.stderr.write(f"sim: the report could not be written: {error}; everything else is in {folder}\n")
    return exit_code(summary)


@contextlib.contextmanager
def _whoever_listens() -> Iterator[None]:
    """Output to somebody who has gone (`| head`), or to a full disk, is no reason to end a run."""
    try:
        yield
        sys.stdout.flush()
    except (OSError, SystemExit):  # rich turns a broken pipe into the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with _whoever_listens():
        sys.stdout.write(text + "\n")


@contextlib.contextmanager
def _nothing_left(folder: Path, run: Run | None = None) -> Iterator[None]:
    """If what is inside fails, neither a process nor the folder stays; an error of the disk becomes one clear line."""
    try:
        yield
    except BaseException as error:
        if run is not None:
            run.kill()
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise BackendError(f"{folder} cannot be written: {error.strerror}; nothing of the run was kept") from error
        raise


def audit_run(run: Path) -> Exit:
    """Audits a finished run again from its files, prints what was found, and returns the exit code."""
    if not (run / "summary.json").is_file():
        raise UsageError(f"{run} is not a run's folder: it has no summary.json")
    found = auditor.audit_run(run).to_dict()
    lines = [f"audit: {found['verdict']}"]
    for name, count in found["anomalies"].items():
        examples = ", ".join(map(str, found["examples"].get(name, [])))
        lines.append(f"  {name}: {count}" + (f", for example {examples}" if examples else ""))
    lines += [f"  {reason}" for reason in found["reasons"][:_REASONS_TOLD]]
    if len(found["reasons"]) > _REASONS_TOLD:
        lines.append(f"  … and {len(found['reasons']) - _REASONS_TOLD} more such lines")
    lines.append("  checked " + ", ".join(f"{count:,} {what}" for what, count in found["checked"].items()))
    if found["verdict"] == "clean":
        lines.append("  money created or lost: 0")
    _say("\n".join(lines))
    return {"clean": Exit.OK, "anomalies": Exit.ANOMALIES}.get(found["verdict"], Exit.ERROR)


# ---- before ----


def _supported(scenario: Scenario) -> None:
    if scenario.clock == "virtual":
        raise ScenarioError("clock: virtual is not available yet; leave it out, or write wall")
    if scenario.backend.http is not None:
        raise ScenarioError("backend: http cannot be run yet; embedded, noop and plug-ins can")


def _made(folder: Path, *, again: bool) -> Path:
    """Makes a folder; with `again` a taken name gets -2, -3 … (runs that begin in the same second)."""
    wanted = folder
    for number in range(2, 100):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not again:
                raise
            folder = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return folder
    raise FileExistsError(wanted)


def _new_folder(scenario: Scenario, out: Path | None, started: datetime) -> Path:
    """Makes the run's folder, which must not exist: results are never overwritten."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in scenario.name).strip(".") or "run"
    folder = out or Path("results") / f"{name}-{started.strftime('%Y%m%dT%H%M%SZ')}"
    try:
        folder = _made(folder, again=out is None)
        (folder / "journal").mkdir()
    except FileExistsError:
        raise UsageError(
            f"{folder} exists already, and results are never overwritten; name another folder with --out"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; name another folder with --out") from error
    return folder


def _assemble(scenario: Scenario, folder: Path) -> Run:
    """Everything a run shares between its processes, and its backend; no process yet."""
    rate = build_rate(scenario)
    dispatcher = scenario.dispatcher
    seconds = int(np.ceil(rate.duration_s + (dispatcher.drain + dispatcher.patience) / 1e9)) + 2
    pool: Pool | None = None
    backend: Backend
    if scenario.backend.embedded is not None:
        pool = _pool(scenario, scenario.backend.embedded, folder)
        backend = EmbeddedBackend(pool.shape, pool.wiring, pool.board)
        epoch = pool.board.epoch_ns
    else:
        backend = NoopBackend() if scenario.backend.noop is not None else _plugin(scenario)
        epoch = shared_array(1, np.int64)
    tallies = open_tallies(seconds_grid(seconds), backend.nodes, len(backend.owners()))
    run = Run(
        scenario, folder, tallies, rate.duration_s, rate.total, seconds, WallClock(epoch),
        shared_array(1, np.int64), pool, backend,
    )  # fmt: skip
    if pool is not None and scenario.faults:
        schedule = Schedule(scenario.faults, pool.shape.nodes, int(rate.duration_s * 1e9), scenario.seed)
        run.injector = Injector(schedule, pool, folder / "journal", scenario.seed)
    return run


def _plugin(scenario: Scenario) -> Backend:
    """A third party's backend: what its entry point names is called with the scenario's options for it."""
    name = scenario.backend.name
    (point,) = entry_points(group=PLUGIN_GROUP, name=name)
    try:
        made: Backend = point.load()(**scenario.backend.plugin_options)
    except Exception as error:  # a plug-in may raise anything
        raise BackendError(f"the backend {name} ({point.value}) could not be made: {error}") from error
    lacking = [name for name in ("nodes", "owners", "offer", "poll", "returned", "wait") if not hasattr(made, name)]
    if lacking:
        raise BackendError(
            f"the backend {name} ({point.value}) lacks {', '.join(lacking)}; see simulator/backend/backend.py"
        )
    return made


def _pool(scenario: Scenario, embedded: Embedded, folder: Path) -> Pool:
    load = scenario.load
    shape = Shape(
        embedded.nodes, embedded.shards, load.accounts, load.merchants.count, load.balance, embedded.remember
    )  # fmt: skip
    durability = embedded.durability
    return Pool(
        shape, folder / "journal",
        durability=Durability[durability.upper()] if isinstance(durability, str) else Durability.INTERVAL,
        interval_ns=0 if isinstance(durability, str) else durability.interval,
        queue=embedded.queue, run=scenario.seed, restarts=embedded.restarts,
        hold_term_ns=embedded.hold_expiry,
        drop_oldest=embedded.overflow == "drop_oldest",
        snapshot_records=embedded.snapshot_records,
    )  # fmt: skip


def _target_per_second(scenario: Scenario, run: Run) -> NDArray[np.float64]:
    """What the curve asks for in each second."""
    rate = build_rate(scenario)
    edges = np.minimum(np.arange(int(np.ceil(run.duration_s)) + 1, dtype=np.float64), rate.duration_s)
    return np.diff(rate.cumulative(edges))


def _reserve(folder: Path) -> int:
    """Takes disk space that is given back (by closing) before results are written, so that a full disk still gets a verdict.

    The file has no name, so it goes with this process however that ends.
    """
    path = folder / ".reserve"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    path.unlink()
    with contextlib.suppress(OSError):
        os.posix_fallocate(fd, 0, _RESERVE_BYTES)
        os.fsync(fd)
    return fd


# ---- during ----


def _execute(run: Run, interrupts: Interrupts, view: View) -> Ended:
    """Starts everything, watches it to its end, and stops the platform. Raises BackendError if the engine dies."""
    if run.pool is not None:
        run.pool.start()
    here, there = Pipe()
    rows = int(run.expected + 6 * np.sqrt(run.expected) + 1)
    run.engine = process.start(
        "engine", drive, there, run.make_engine, history.history_path(run.folder), rows * HISTORY.itemsize
    )
    there.close()
    _receive(here, run)  # "ready"
    run.clock.start(_START_NS)
    here.send("go")
    run.event("started", engine_pid=run.engine.pid, node_pids=run.pool.pids if run.pool else [])
    while not (here.poll() or interrupts_seen(run, interrupts)):
        _watch(run, view, "running")
        wait([here, run.engine.sentinel, *(run.pool.sentinels if run.pool else [])], run.look_s())
    run.released_s = min(run.duration_s, run.clock.now_ns() / 1e9)
    while not here.poll():
        interrupts_seen(run, interrupts)
        _watch(run, view, "draining")
        wait([here, run.engine.sentinel, *(run.pool.sentinels if run.pool else [])], run.look_s())
    ended: Ended = _receive(here, run)
    run.engine.join()
    _watch(run, view, "draining")
    run.event("drained", in_doubt=int(run.tallies.answered[:, Status.UNKNOWN].sum()))
    if run.injector is not None:
        run.injector.release()
    if ended.history_errno:
        run.failure = run.failure or f"the history could not be written: {os.strerror(ended.history_errno)}"
    if run.pool is not None and not run.pool.stop(_STOP_S) and run.failure is None:
        run.failure = f"the nodes did not settle within {_STOP_S:.0f} s what was under way between them"
    return ended


def interrupts_seen(run: Run, interrupts: Interrupts) -> bool:
    """Passes a first interrupt on to the engine; True once there was one, or the platform has failed."""
    if interrupts.count and not run.interrupted and run.stop[0] == Stop.RUN:
        run.interrupted = True
        run.stop[0] = Stop.DRAIN
        run.event("interrupted")
    return run.interrupted or run.failure is not None


def _receive(connection: Connection, run: Run) -> Any:  # noqa: ANN401  what the engine sends
    try:
        return connection.recv()
    except EOFError:
        code = run.engine.exitcode if run.engine else None
        raise BackendError(f"the process that generates the load ended early (code {code})") from None


def _watch(run: Run, view: View, phase: Phase) -> None:
    """One look at a run: what breaks now, has a node stopped, how much memory is in use, what does the user see."""
    if run.pool is not None and run.failure is None:
        for event in run.injector.act(run.clock.now_ns()) if run.injector else []:
            run.event(event.pop("event"), **event)
        for notice in run.pool.supervise():
            run.event(notice.event, node=notice.node, **notice.details)
        failures = run.pool.failures()
        if failures:
            run.failure = "; ".join(f"node {f.node} stopped: {f.reason}" for f in failures)
            run.stop[0] = Stop.GIVE_UP
            for f in failures:
                run.event("node_stopped", node=f.node, pid=f.pid, reason=f.reason)
    pids = [os.getpid(), *(run.pool.pids if run.pool else []), *([run.engine.pid or 0] if run.engine else [])]
    run.rss_peak_bytes = max(run.rss_peak_bytes, sum(_rss_bytes(pid) for pid in pids))
    with _whoever_listens():
        view.update(_snapshot(run, phase))


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _snapshot(run: Run, phase: Phase) -> Snapshot:
    tallies = run.tallies
    elapsed = max(run.clock.now_ns(), 0) / 1e9
    second = min(int(elapsed), run.seconds - 1)
    first = max(0, second - 60)
    answered = tallies.answered[first:second]
    node_sent = tallies.node_sent.sum(axis=0)
    by_status = tallies.by_kind.sum(axis=0)
    counts = {status.name.lower(): int(by_status[status]) for status in Status if status is not Status.PENDING}
    observe = Observations(tallies, min(elapsed, run.duration_s), None)
    judged = [j for j in judge(run.scenario.threshold_list, observe) if j.value is not None]
    p50, p99, p999, known = (int(x) for x in tallies.last_second_ns)
    return Snapshot(
        phase=phase,
        elapsed_s=elapsed,
        duration_s=run.duration_s,
        counts={
            "offered": int(by_status[Status.PENDING]),
            "sent": int(by_status[Status.PENDING]) - counts["dropped"],
            **counts,
        },
        in_flight=int(tallies.in_flight.sum()),
        offered_per_s=tallies.offered[first:second].tolist(),
        completed_per_s=answered[:, [Status.OK, Status.REJECTED, Status.FAILED]].sum(axis=1).tolist(),
        target_total=run.expected,
        response_ms=(p50 / 1e6, p99 / 1e6, p999 / 1e6) if known else None,
        node_share=(node_sent / max(int(node_sent.sum()), 1)).tolist(),
        thresholds=[(f"{j.metric} {j.expression}", j.observed, j.passed) for j in judged],
    )


# ---- after ----


def _write_spilled(run: Run, ended: Ended) -> None:
    """Keeps the history rows that found no room in their file, in another one: the reserve has been given back by now."""
    if ended.spilled:
        history.history_rest_path(run.folder).write_bytes(ended.spilled)


def _conclude(
    run: Run, view: View, ended: Ended, *, started: datetime, wall_s: float, target: NDArray[np.float64]
) -> dict[str, Any]:
    """Audits, judges and writes everything; returns the summary."""
    with _whoever_listens():
        view.update(_snapshot(run, "auditing"))
    began = time.monotonic()
    audit = auditor.audit_run(run.folder).to_dict()
    audited_s = time.monotonic() - began
    with _whoever_listens():
        view.update(_snapshot(run, "reporting"))
    lag = Histogram(run.tallies.totals[2])
    scenario = run.scenario
    results = Results(
        scenario=scenario.name, description=scenario.description, clock=scenario.clock, seed=scenario.seed,
        currency=scenario.currency, policy=scenario.balancer.policy, thresholds=scenario.threshold_list,
        version=__version__, started_at=started.isoformat(timespec="seconds"), wall_s=wall_s + audited_s,
        duration_s=run.released_s, tallies=run.tallies, measured=ended.measured,
        validity=validity.judge(
            run.tallies, lag, seconds=int(run.released_s), lag_limit_ns=scenario.dispatcher.lag_limit,
            interrupted=run.interrupted, without_books=run.pool is None,
        ),
        audit=audit, owners=run.backend.owners().tolist(),
        applied=(run.pool.board.applied if run.pool else run.tallies.shard_ok.sum(axis=0)).tolist(),
        node_details=_node_details(run), journal=_journal(run),
        resources={
            "rss_peak_bytes": run.rss_peak_bytes,
            "cpu_s": round(ended.cpu_s + sum(int(run.pool.row(n)["cpu_ns"]) for n in range(run.backend.nodes)) / 1e9, 3)
            if run.pool
            else round(ended.cpu_s, 3),
            "engine_cpu_s": round(ended.cpu_s, 3),
            "audit_s": round(audited_s, 3),
        },
        interrupted=run.interrupted, stop_reason=_stop_reason(run), failure=run.failure,
    )  # fmt: skip
    summary = summarise(results)
    folder = run.folder
    write_json(folder / "audit.json", audit)
    write_series(folder / "timeseries.csv", series_columns(results, target))
    write_hlog(folder / "latency.hlog", ended.measured, run.tallies.grid_ns, started.timestamp())
    write_events(folder / "events.jsonl", run.events)
    write_json(folder / "summary.json", summary)
    return summary


def _stop_reason(run: Run) -> str:
    if run.failure is not None:
        return run.failure
    return "interrupted" if run.interrupted else "duration"


def _commit_ms(histogram: Histogram) -> dict[str, float | None]:
    def ms(ns: int | None) -> float | None:
        return None if ns is None else round(ns / 1e6, 6)

    return {"p50": ms(histogram.percentile_ns(50)), "p99": ms(histogram.percentile_ns(99)), "max": ms(histogram.max_ns)}


def _node_details(run: Run) -> list[dict[str, Any]]:
    if run.pool is None:
        return []
    return [
        {
            "pid": int(row["pid"]),
            "handed_on": int(row["handed_on"]),
            "refused": int(row["refused"]),
            "cpu_s": round(int(row["cpu_ns"]) / 1e9, 3),
            "outbox_max": int(row["outbox_max"]),
            "commits": int(row["frames"]),
            "commit_ms": _commit_ms(Histogram(run.pool.board.commits[node])),
        }
        for node, row in ((n, run.pool.row(n)) for n in range(run.backend.nodes))
    ]


def _journal(run: Run) -> dict[str, Any]:
    if run.pool is None:
        return {}
    board = run.pool.board
    return {
        "commits": int(board.nodes["frames"].sum()),
        "records": int(board.nodes["records"].sum()),
        "bytes": int(board.nodes["bytes"].sum()),
        "restarts": int(board.nodes["incarnation"].sum()),
        "replayed_records": int(board.nodes["replayed"].sum()),
        "replay_s": round(int(board.nodes["replay_ns"].sum()) / 1e9, 6),
        "expired_holds": int(board.nodes["expired"].sum()),
        "stray_answers": int(run.tallies.stray[0]),  # second answers to what was asked again
        "commit_ms": _commit_ms(Histogram(board.commits.sum(axis=0))),
    }
