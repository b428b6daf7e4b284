"""A run on the wall clock: real processes, watched to their end, audited and summed up."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator import __version__
from simulator.arrivals.build import build_rate
from simulator.audit import auditor, history
from simulator.audit.credit_lag import CreditLagSampler
from simulator.audit.findings import Books
from simulator.audit.held import HeldMoney
from simulator.audit.keys import write_keys
from simulator.backend.backend import Backend, NoopBackend
from simulator.backend.embedded import EmbeddedBackend
from simulator.backend.http.backend import HttpBackend
from simulator.backend.http.build import build_http, check_descriptors
from simulator.backend.http.preflight import preflight
from simulator.balancer.behaviour import describe
from simulator.clock import WallClock
from simulator.dispatcher import Dispatcher, WhenFull
from simulator.engine.generators import GeneratorEngine, PartDispatcher, PartSource
from simulator.engine.wall import Ended, Stop, WallEngine
from simulator.errors import BackendError
from simulator.fault.inject import Injector
from simulator.fault.schedule import Schedule
from simulator.gateway.proxy import program_of
from simulator.live.watched import Platform, Watched
from simulator.measure import validity
from simulator.measure.answerers import Answerers
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import Recorder, Tallies, open_tallies
from simulator.measure.samples import PlatformSamples
from simulator.report import attempts, durability
from simulator.report.answerers import LISTED
from simulator.report.events import health_events
from simulator.report.export import write_events, write_hlog, write_json, write_series
from simulator.report.first_limit import with_first_limit
from simulator.report.observe import Observations
from simulator.report.snapshot import SECONDS_SHOWN, Phase, Snapshot
from simulator.report.summary import Results, rows_of, series_columns, summarise
from simulator.report.thresholds import judge
from simulator.retries import retry_policy
from simulator.run.abort import EarlyJudge
from simulator.run.balance import recorded_of
from simulator.run.folder import whoever_listens
from simulator.run.gateways import LocalFleet, answered_by, answers_by_second, of_targets
from simulator.run.generators import Due, Generators, Place
from simulator.run.memory import rss_bytes
from simulator.run.trip import Tripped, Watch, answers_and_errors
from simulator.scenario.http_safety import MOST_REQUESTS, Trip, refuse_beyond_caps
from simulator.scenario.loader import dump_scenario
from simulator.scenario.platform import PLUGIN_GROUP
from simulator.scenario.rebalance import PlannedMove, by_load
from simulator.shard.dead_letters import dead_letters_path
from simulator.shard.layout import NO_LIMIT, Durability, Protocol, Shape, shared_array
from simulator.shard.poison import PoisonRules
from simulator.shard.pool import Pool
from simulator.shard.rebalance import ByLoad, Order
from simulator.shard.split import unsplit
from simulator.transaction import Status
from simulator.workload.build import build_source
from simulator.workload.hot_keys import Popular, hot_keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.arrivals.rate import Rate
    from simulator.balancer.behaviour import Recorded
    from simulator.report.thresholds import Judgement
    from simulator.report.view import View
    from simulator.retries import RetryPolicy
    from simulator.run.interrupts import Asked
    from simulator.scenario.model import Scenario
    from simulator.scenario.platform import Embedded
    from simulator.shard.journal import Frames
    from simulator.shard.split import Split

_NS_PER_S = 1_000_000_000
_START_NS = 50_000_000  # from "all ready" to the first possible arrival …
_START_EACH_NS = 5_000_000  # … and for each generator beyond the first: all are to be awake by then
_LOOK_S = 0.25  # how often the control process looks at the run
_UNSETTLED_LOOK_S = 0.02  # the same while a node is coming back or a shard moves, so that these are timed well
_STOP_S = 30.0  # how long the nodes may take to settle what is between them


@dataclass
class Run:
    """The moving parts of a run on the wall clock."""

    scenario: Scenario
    folder: Path
    generators: Generators
    duration_s: float
    expected: float
    seconds: int
    clock: WallClock
    stop: NDArray[np.int64]
    pool: Pool | None
    backend: Backend
    target: NDArray[np.float64]  # transactions that the rate asks for in each second
    popular: Popular
    events: list[dict[str, Any]] = field(default_factory=list)
    injector: Injector | None = None
    failure: str | None = None
    trip: Watch | None = None
    tripped: Tripped | None = None
    interrupted: bool = False
    rss_peak_bytes: int = 0
    released_s: float = 0.0
    ended: Ended | None = None
    fleet: LocalFleet | None = None
    answerers: tuple[Answerers, ...] = ()  # of each generator, where anybody asks
    told_dead: dict[int, tuple[int, int]] = field(default_factory=dict)  # by node: dead letters told of, and when
    samples: PlatformSamples | None = None  # None: there is no platform of our own to look at
    early: EarlyJudge | None = None  # of thresholds that may stop the run
    aborted: tuple[int, Judgement] | None = None  # the one that did, with its number

    @property
    def tallies(self) -> Tallies:
        """What all generators counted."""
        return self.generators.tallies

    def event(self, name: str, **details: Any) -> None:  # noqa: ANN401  whatever is worth noting
        """Notes that something happened now."""
        self.events.append({"t_s": round(self.clock.now_ns() / 1e9, 6), "event": name, **details})

    def look_s(self) -> float:
        """How long to wait before the next look: until the next fault or move at the latest."""
        moments = [self.injector.next_ns() if self.injector else None, self.pool.next_ns() if self.pool else None]
        moments.append(self.fleet.next_ns() if self.fleet else None)
        due = min((moment for moment in moments if moment is not None), default=None)
        unsettled = (self.pool is not None and self.pool.unsettled) or (self.fleet is not None and self.fleet.unsettled)
        longest = min(_UNSETTLED_LOOK_S if unsettled else _LOOK_S, self.generators.look_s)
        shortest = 0.001  # a move that is due waits for the one before, or for a node that is coming back
        return longest if due is None else min(max((due - self.clock.now_ns()) / 1e9, shortest), longest)

    def execute(self, interrupts: Asked, view: View) -> None:
        """Starts everything and watches it to its end. Raises BackendError if a process that must not end does."""
        self.ended = _execute(self, interrupts, view)

    def conclude(self, view: View, *, started: datetime, began: float) -> dict[str, Any]:
        """Audits, judges and writes the results; returns the summary. `began` is of `time.monotonic`."""
        if self.ended is None:
            raise RuntimeError("a run is executed before it is concluded")
        _write_spilled(self, self.ended)
        return _conclude(self, view, self.ended, started=started, wall_s=time.monotonic() - began)

    def kill(self) -> None:
        """Ends every process of the run at once."""
        self.generators.kill()
        if self.fleet is not None:
            self.fleet.kill()
        if self.pool is not None:
            self.pool.kill()

    def make_engine(self, write: Any) -> tuple[Recorder, WallEngine]:  # noqa: ANN401  a callable; see MakeEngine
        """Builds the engine; called in its own process."""
        scenario = self.scenario
        recorder = Recorder(self.seconds, self.backend.nodes, self.folder)
        dispatcher = Dispatcher(
            self.backend, scenario.balancer, scenario.seed, self.tallies, recorder, write=write,
            in_flight=scenario.dispatcher.in_flight, **self._rules(),
        )  # fmt: skip
        source = build_source(scenario)
        return recorder, WallEngine(dispatcher, source, self.clock, self.stop, drain_ns=scenario.dispatcher.drain)

    def make_part(self, place: Place, write: Any) -> tuple[Recorder, WallEngine]:  # noqa: ANN401  as above
        """Builds the engine of one of several generators; called in its own process."""
        scenario, share, backend = self.scenario, place.share, self.backend
        if not isinstance(backend, HttpBackend):
            raise TypeError("this backend cannot be divided among generators")  # the scenario has seen to that
        backend = backend.part(share.of_limit, self.answerers[share.number] if self.answerers else None)
        recorder = Recorder(self.seconds, backend.nodes, self.folder)
        dispatcher = PartDispatcher(
            place.shared, backend, scenario.balancer, share.seed(scenario.seed), place.shared.tallies, recorder, write=write,
            in_flight=share.of_limit(scenario.dispatcher.in_flight), **self._rules(),
        )  # fmt: skip
        engine = GeneratorEngine(
            dispatcher, PartSource(build_source(scenario), share), self.clock, self.stop,
            drain_ns=scenario.dispatcher.drain, words=place.shared.words, before=place.before, may_open=place.may_open,
        )  # fmt: skip
        return recorder, engine

    def _rules(self) -> dict[str, Any]:
        """What dispatchers are told, however many there are."""
        scenario = self.scenario
        return {
            "patience_ns": _patience_ns(scenario), "when_full": _when_full(scenario), "split": self.split,
            "hot": self.popular.hot, "retry": _retry(scenario, receipts=self.pool is not None),
        }  # fmt: skip

    @property
    def split(self) -> Split:
        """Which accounts the backend splits."""
        return self.pool.shape.split if self.pool is not None else unsplit(len(self.backend.owners()))


def _when_full(scenario: Scenario) -> WhenFull:
    if scenario.backend.http is not None:
        return WhenFull.WAIT
    held = scenario.backend.embedded is not None and scenario.backend.embedded.overflow != "refuse"
    return WhenFull.HOLD if held else WhenFull.REFUSE


def _retry(scenario: Scenario, *, receipts: bool) -> RetryPolicy | None:
    """What is tried again; only over HTTP: clients of the other backends wait without end."""
    http = scenario.backend.http
    if http is None:
        return None
    return retry_policy(
        scenario.client, scenario.seed, receipts=receipts, requests_max=MOST_REQUESTS, parts=http.generators
    )


def _patience_ns(scenario: Scenario) -> int:
    """Nobody sends for a client who has gone."""
    patience, deadline = scenario.dispatcher.patience, scenario.client.deadline
    return patience if scenario.backend.http is None or deadline is None else min(patience, deadline)


def supported(scenario: Scenario) -> None:
    """Raises ScenarioError for what cannot be run on this clock."""
    http = scenario.backend.http
    if http is not None:
        rate = build_rate(scenario)
        refuse_beyond_caps(rate.peak()[0], rate.total)
        check_descriptors(http)
        if http.fleet is not None and http.fleet.proxy is not None:
            program_of(http.fleet.proxy)


def assemble(scenario: Scenario, folder: Path, allowed: Collection[str]) -> Run:
    """Everything a run shares between its processes, and its backend; no process yet. `allowed`: see `build_http`."""
    (folder / "journal").mkdir()
    rate = build_rate(scenario)
    dispatcher = scenario.dispatcher
    seconds = int(np.ceil(rate.duration_s + (dispatcher.drain + dispatcher.patience) / 1e9)) + 2
    pool: Pool | None = None
    fleet: LocalFleet | None = None
    answerers: tuple[Answerers, ...] = ()
    generators = 1
    backend: Backend
    epoch = shared_array(1, np.int64)
    if scenario.backend.embedded is not None:
        pool = _pool(scenario, scenario.backend.embedded, folder)
        backend = EmbeddedBackend(pool.shape, pool.wiring, pool.board)
        epoch = pool.board.epoch_ns
    elif (http := scenario.backend.http) is not None:
        name = f"{scenario.seed:x}-{time.time_ns():x}"
        ledger = scenario.backend.ledger
        if http.fleet is not None and ledger is not None:
            pool = _pool(scenario, ledger, folder, doors=http.fleet.nodes)
            epoch = pool.board.epoch_ns
            fleet = LocalFleet(scenario, http.fleet, pool, folder, int(rate.duration_s * 1e9))
            write_keys(folder, f"{name}-")
        generators = http.generators
        if http.identify_header is not None:
            answerers = tuple(Answerers(seconds) for _ in range(generators))
        backend = build_http(
            http, currency=scenario.currency, run=name, allowed=allowed, environ=os.environ,
            now_ns=WallClock(epoch).now_ns, answerers=answerers[0] if answerers else None,
            targets=fleet.targets if fleet else (), shards=pool.shape.shards if pool else 0, client=scenario.client,
        )  # fmt: skip
        for target in backend.targets if fleet is None else ():
            preflight(target, http.connect_timeout / 1e9)
    else:
        backend = NoopBackend() if scenario.backend.noop is not None else _plugin(scenario)
    shards, clock, stop = len(backend.owners()), WallClock(epoch), shared_array(1, np.int64)
    run = Run(
        scenario, folder,
        Generators(
            generators, lambda: open_tallies(seconds_grid(seconds), backend.nodes, shards, fine=True), folder, clock, stop,
            rate.total,
        ),
        rate.duration_s, rate.total, seconds, clock, stop, pool, backend, _target_per_second(rate), hot_keys_of(scenario),
        fleet=fleet, answerers=answerers, trip=_trip(scenario),
        samples=PlatformSamples(rate.duration_s, pool.shape.nodes, shards) if pool else None,
    )  # fmt: skip
    run.early = EarlyJudge(scenario.threshold_list, run.tallies)
    struck = [fault for fault in scenario.faults if not fault.strikes_gateway]
    if pool is not None and struck:
        schedule = Schedule(struck, pool.shape.nodes, int(rate.duration_s * 1e9), scenario.seed)
        run.injector = Injector(schedule, pool, folder / "journal", scenario.seed)
    return run


def _trip(scenario: Scenario) -> Watch | None:
    http = scenario.backend.http
    return Watch(http.trip) if http is not None and isinstance(http.trip, Trip) else None


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


def _pool(scenario: Scenario, embedded: Embedded, folder: Path, doors: int = 0) -> Pool:
    load = scenario.load
    hot = embedded.hot_account
    shape = Shape(
        embedded.nodes, embedded.shards, load.accounts, load.merchants.count, load.balance, embedded.remember,
        hot_accounts=hot.accounts if hot else 0, hot_split=hot.split if hot else 1,
        protocol=Protocol[embedded.protocol.upper()],
        balance_limit_minor=NO_LIMIT if embedded.balance_limit is None else embedded.balance_limit,
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
        poison=PoisonRules(embedded.poison.tries, embedded.poison.wait, embedded.poison.dead_letters),
        max_rate=None if embedded.max_rate is None else int(embedded.max_rate),
        rebalance=_moves(embedded), doors=doors,
    )  # fmt: skip


def _moves(embedded: Embedded) -> list[Order] | ByLoad | None:
    """Which shards move, as the pool wants to be told."""
    rebalance = embedded.rebalance
    if rebalance is None:
        return None
    figures = by_load(rebalance)
    if figures is not None:
        return ByLoad(figures.every, figures.imbalance, figures.moves)
    return [Order(move.at, move.shard, move.node) for move in rebalance if isinstance(move, PlannedMove)]


def _target_per_second(rate: Rate) -> NDArray[np.float64]:
    """What the curve asks for in each second."""
    edges = np.minimum(np.arange(int(np.ceil(rate.duration_s)) + 1, dtype=np.float64), rate.duration_s)
    return np.diff(rate.cumulative(edges))


# ---- during ----


def _execute(run: Run, interrupts: Asked, view: View) -> Ended:
    """Starts everything, watches it to its end, and stops the platform. Raises BackendError if the engine dies."""
    if run.pool is not None:
        run.pool.start()
    if run.fleet is not None:
        run.fleet.start()
    generators = run.generators
    generators.start(run.make_engine, run.make_part)
    generators.make_ready()
    run.clock.start(_START_NS + (generators.count - 1) * _START_EACH_NS)
    generators.go()
    several = {"generator_pids": generators.pids} if generators.count > 1 else {}
    node_pids = run.pool.pids if run.pool else []
    run.event("started", engine_pid=generators.pids[0], node_pids=node_pids, **several)
    while not (_all_over(run) or _interrupts_seen(run, interrupts) or _crossed(run)):
        _watch(run, view, "running")
        wait([*generators.awaited, *(run.pool.sentinels if run.pool else [])], run.look_s())
    run.released_s = min(run.duration_s, run.clock.now_ns() / 1e9)
    while not _all_over(run):
        _interrupts_seen(run, interrupts)
        _watch(run, view, "draining")
        wait([*generators.awaited, *(run.pool.sentinels if run.pool else [])], run.look_s())
    ended = generators.gather(Due(lambda: build_source(run.scenario), run.split, run.popular.hot))
    _watch(run, view, "draining")
    run.event("drained", in_doubt=int(run.tallies.answered[:, Status.UNKNOWN].sum()))
    if run.injector is not None:
        run.injector.release()
    if ended.history_errno:
        run.failure = run.failure or f"the history could not be written: {os.strerror(ended.history_errno)}"
    if run.fleet is not None and not run.fleet.stop() and run.failure is None:
        run.failure = "a gateway did not answer in time what it had"
    if run.pool is not None and not run.pool.stop(_STOP_S) and run.failure is None:
        run.failure = f"the nodes did not settle within {_STOP_S:.0f} s what was under way between them"
    return ended


def _interrupts_seen(run: Run, interrupts: Asked) -> bool:
    """Passes a first interrupt on to the engine; True once there was one, or the platform has failed, or the trip has struck."""
    if interrupts.count and not run.interrupted and run.stop[0] == Stop.RUN:
        run.interrupted = True
        run.stop[0] = Stop.DRAIN
        run.event("interrupted")
    if run.trip is not None and run.released_s == 0.0 and run.stop[0] == Stop.RUN:
        run.tripped = run.trip.look(run.clock.now_ns(), *answers_and_errors(run.tallies))
        if run.tripped is not None:
            run.stop[0] = Stop.DRAIN
            run.event("tripped", **run.tripped.to_dict())
    return run.interrupted or run.failure is not None or run.stop[0] != Stop.RUN


def _all_over(run: Run) -> bool:
    """Looks after the generators; True once all have ended."""
    for event in run.generators.look():
        run.event(event.pop("event"), **event)
    return run.generators.over


def _crossed(run: Run) -> bool:
    """Lets the engine drain once a threshold that may stop the run is crossed; True from then on."""
    if run.early is not None and run.aborted is None and run.stop[0] == Stop.RUN:
        run.aborted = run.early.crossed(run.clock.now_ns())
        if run.aborted is not None:
            found = run.aborted[1]
            run.stop[0] = Stop.DRAIN
            run.event("aborted", threshold=f"{found.metric} {found.expression}", observed=found.observed)
    return run.aborted is not None


def _watch(run: Run, view: View, phase: Phase) -> None:
    """One look at a run: what breaks now, has a node stopped, how much memory is in use, what does the user see."""
    if run.pool is not None and run.failure is None:
        for event in run.injector.act(run.clock.now_ns()) if run.injector else []:
            run.event(event.pop("event"), **event)
        for notice in run.pool.supervise():
            run.event(notice.event, node=notice.node, **notice.details)
        for event in run.fleet.act(run.clock.now_ns()) if run.fleet else []:
            run.event(event.pop("event"), **event)
        _tell_dead_letters(run, run.pool)
        if run.samples is not None:
            board, flight = run.pool.board, run.tallies.shard_in_flight
            run.samples.look(run.clock.now_ns(), run.pool.waiting(), flight, board.commits, board.nodes["busy_ns"])
        failures = run.pool.failures()
        if failures:
            run.failure = "; ".join(f"node {f.node} stopped: {f.reason}" for f in failures)
            run.stop[0] = Stop.GIVE_UP
            for f in failures:
                run.event("node_stopped", node=f.node, pid=f.pid, reason=f.reason)
        gone = run.fleet.failures() if run.fleet else []
        if gone and run.failure is None:
            run.failure = "; ".join(gone)
            run.stop[0] = Stop.GIVE_UP
    run.generators.refresh()
    pids = [os.getpid(), *(run.pool.pids if run.pool else []), *run.generators.pids]
    pids += run.fleet.pids if run.fleet else []
    run.rss_peak_bytes = max(run.rss_peak_bytes, sum(rss_bytes(pid) for pid in pids))
    with whoever_listens():
        view.update(_snapshot(run, phase))


def _tell_dead_letters(run: Run, pool: Pool) -> None:
    """An event for each node that has new dead letters, at most one a second: as many as a run has seconds."""
    now_ns = run.clock.now_ns()
    dead = pool.board.nodes["dead_requests"] + pool.board.nodes["dead_credits"]
    for node in np.flatnonzero(dead).tolist():
        told, when_ns = run.told_dead.get(node, (0, -_NS_PER_S))
        if dead[node] > told and now_ns - when_ns >= _NS_PER_S:
            run.told_dead[node] = int(dead[node]), now_ns
            run.event("dead_letters", node=node, count=int(dead[node]), new=int(dead[node]) - told)


def _snapshot(run: Run, phase: Phase) -> Snapshot:
    tallies = run.tallies
    elapsed = max(run.clock.now_ns(), 0) / 1e9
    second = min(int(elapsed), run.seconds - 1)
    first = max(0, second - SECONDS_SHOWN)
    answered = tallies.answered[first:second]
    node_sent = tallies.node_sent.sum(axis=0)
    by_status = tallies.by_kind.sum(axis=0)
    counts = {status.name.lower(): int(by_status[status]) for status in Status if status is not Status.PENDING}
    observe = Observations(tallies, min(elapsed, run.duration_s), None)
    live = [t for t in run.scenario.threshold_list if t.window_ns is None]  # of a stretch, times are known at the end
    judged = [j for j in judge(live, observe) if j.value is not None]
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


def watched(run: Run) -> Watched:
    """What the live page reads of a run, in a process forked from this one: shared memory alone."""
    scenario, pool = run.scenario, run.pool
    platform: Platform | None = None
    if pool is not None:
        platform = Platform(pool.waiting, pool.board.commits, pool.board.nodes["busy_ns"], pool.board.applied)
    return Watched(
        scenario.name, scenario.description, dump_scenario(scenario), scenario.currency, run.folder, run.clock, run.tallies,
        run.target, run.duration_s, lambda phase: _snapshot(run, phase), run.events, platform,
    )  # fmt: skip


# ---- after ----


def _write_spilled(run: Run, ended: Ended) -> None:
    """Keeps the history rows that found no room in their file, in another one: the reserve has been given back by now."""
    if ended.spilled:
        history.history_rest_path(run.folder).write_bytes(ended.spilled)


def _conclude(run: Run, view: View, ended: Ended, *, started: datetime, wall_s: float) -> dict[str, Any]:
    """Audits, judges and writes everything; returns the summary."""
    with whoever_listens():
        view.update(_snapshot(run, "auditing"))
    began = time.monotonic()
    lags = _credit_lags(run)
    held = HeldMoney(run.tallies.grid_ns) if run.pool and run.pool.durability is not Durability.MEMORY else None
    lookers = [looker.look for looker in (lags, held) if looker is not None]
    audit = auditor.audit_run(run.folder, _shown_to(lookers) if lookers else None, books=_books(run)).to_dict()
    audited_s = time.monotonic() - began
    with whoever_listens():
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
            interrupted=run.interrupted, lost=run.generators.lost,
        ),
        audit=audit, owners=run.backend.owners().tolist(),
        applied=(run.pool.board.applied if run.pool else run.tallies.shard_ok.sum(axis=0)).tolist(),
        node_details=_node_details(run), journal=_journal(run), dead_letters=_dead_letters(run),
        popular=run.popular, credit_lag=lags.measured() if lags else None,
        rebalance=run.pool.rebalancer.summary() if run.pool and run.pool.rebalancer else {},
        durability=durability.with_recovery(audit["durability"], run.events),
        answered_by=_answered_by(run),
        resources={
            "rss_peak_bytes": run.rss_peak_bytes,
            "cpu_s": round(ended.cpu_s + sum(int(run.pool.row(n)["cpu_ns"]) for n in range(run.pool.shape.nodes)) / 1e9, 3)
            if run.pool
            else round(ended.cpu_s, 3),
            "engine_cpu_s": round(ended.cpu_s, 3),
            "audit_s": round(audited_s, 3),
        },
        interrupted=run.interrupted, stop_reason=_stop_reason(run), failure=run.failure, aborted=run.aborted,
        protocol=scenario.backend.embedded.protocol if scenario.backend.embedded is not None else None,
        behaviour=describe(_recorded(run, ended)), tripped=run.tripped.to_dict() if run.tripped is not None else None,
        extra=_extra(run), extra_series=_attempts_by_second(run),
    )  # fmt: skip
    seen: dict[str, NDArray[Any]] = {
        "refused": run.tallies.refused,
        "generator_busy": (run.tallies.cpu_ns / 1e9).round(3),
    }
    results = replace(
        results, extra_series=results.extra_series | seen | (held.columns(rows_of(results)) if held else {})
    )
    columns, platform = series_columns(results, run.target), _platform_columns(run)
    events = run.events + health_events((int(e["time_ns"]), int(e["node"]), int(e["what"])) for e in ended.health)
    events.sort(key=lambda event: event["t_s"])  # some are told late
    summary = with_first_limit(summarise(results), columns, platform, dump_scenario(scenario), events)
    folder = run.folder
    if platform:
        write_series(folder / "platform.csv", platform)
    write_json(folder / "audit.json", audit)
    write_series(folder / "timeseries.csv", columns)
    write_hlog(folder / "latency.hlog", ended.measured, run.tallies.grid_ns, started.timestamp())
    write_events(folder / "events.jsonl", events)
    write_json(folder / "summary.json", summary)
    return summary


def _books(run: Run) -> Books:
    """Who keeps the books."""
    if run.pool is not None:
        return Books.HERE
    if run.scenario.backend.noop is not None:
        return Books.NONE
    return Books.UNDECLARED if run.scenario.books is None else Books.ELSEWHERE


def _recorded(run: Run, ended: Ended) -> Recorded:
    owners = run.backend.owners()
    return recorded_of(run.scenario, run.tallies, _of_targets(run), ended, run.released_s, owners, run.generators.count)


def _extra(run: Run) -> dict[str, Any]:
    """Keys of the summary that not every run has: its generators, and what clients did beyond asking once."""
    several = {"generators": run.generators.summary()} if run.generators.count > 1 else {}
    return several | ({"client": attempts.client(run.tallies)} if run.scenario.backend.http is not None else {})


def _attempts_by_second(run: Run) -> dict[str, Any]:
    if run.scenario.backend.http is None:
        return {}
    return {
        "attempts": run.tallies.sent + run.tallies.retried,
        "retries": run.tallies.retried,
        **_answers_by_second(run),
    }


def _shown_to(lookers: Sequence[Callable[[Frames], None]]) -> Callable[[Frames], None]:
    """Shows the same frames to each looker."""

    def look(frames: Frames) -> None:
        for one in lookers:
            one(frames)

    return look


def _platform_columns(run: Run) -> dict[str, list[Any]]:
    """The columns of platform.csv; none where there was no platform of our own to look at."""
    if run.samples is None or run.pool is None:
        return {}
    ended_ns = int(run.tallies.settled_ns[0])  # what came later is the way down
    return run.samples.finish(ended_ns, run.pool.board.commits, run.pool.board.nodes["busy_ns"])


def _credit_lags(run: Run) -> CreditLagSampler | None:
    """What reads credit lags off the journals while they are audited; None where nothing keeps a journal."""
    if run.pool is None:
        return None
    shape = run.pool.shape
    return CreditLagSampler(int(run.tallies.offered.sum()), shape.shards, shape.split, run.popular.hot)


def _of_targets(run: Run) -> list[dict[str, Any]]:
    """The events of the nodes that the balancer picks from: behind a fleet its gateways, behind a proxy nobody."""
    return run.events if run.fleet is None else of_targets(run.events, proxied=run.fleet.proxy is not None)


def _answerers(run: Run) -> Answerers:
    """What all generators saw of who answered; at least one of them was asked."""
    return run.answerers[0] if len(run.answerers) == 1 else Answerers.merged(run.answerers)


def _answered_by(run: Run) -> dict[str, Any]:
    if not run.answerers:
        return {}
    return answered_by(_answerers(run), run.fleet.spells if run.fleet else [], run.fleet.names if run.fleet else [])


def _answers_by_second(run: Run) -> dict[str, Any]:
    """A column for each of the first who answered, in the order of `answered_by`."""
    if not run.answerers:
        return {}
    by_second = answers_by_second(_answerers(run))
    return {f"answerer{at}_answered": by_second[:, at] for at in range(min(by_second.shape[1], LISTED))}


def _stop_reason(run: Run) -> str:
    if run.failure is not None:
        return run.failure
    if run.tripped is not None:
        return run.tripped.sentence
    if run.interrupted:
        return "interrupted"
    if run.aborted is not None:
        return f"threshold: {run.aborted[1].metric} {run.aborted[1].expression}"
    return run.generators.lost[0].partition(":")[0] if run.generators.lost else "duration"


def _commit_ms(histogram: Histogram) -> dict[str, float | None]:
    def ms(ns: int | None) -> float | None:
        return None if ns is None else round(ns / 1e6, 6)

    return {"p50": ms(histogram.percentile_ns(50)), "p99": ms(histogram.percentile_ns(99)), "max": ms(histogram.max_ns)}


def _node_details(run: Run) -> list[dict[str, Any]]:
    if run.scenario.backend.http is not None:  # who was sent to are gateways
        return attempts.by_node(run.tallies)
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


def _dead_letters(run: Run) -> dict[str, Any]:
    if run.pool is None:
        return {}
    rows = run.pool.board.nodes
    paths = [dead_letters_path(run.folder / "journal", node) for node in range(len(rows))]
    return {
        "count": int(rows["dead_requests"].sum() + rows["dead_credits"].sum()),
        "requests": int(rows["dead_requests"].sum()),
        "credits": int(rows["dead_credits"].sum()),
        "set_aside": int(rows["set_aside"].sum()),
        "retried": int(rows["retried"].sum()),
        "healed": int(rows["healed"].sum()),
        "unwritten": int(rows["dead_unwritten"].sum()),
        "files": [str(path.relative_to(run.folder)) for path in paths if path.exists()],
    }


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
