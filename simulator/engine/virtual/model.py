"""The model: a scenario's platform and clients as scalars and arrays that kernels take whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.balancer.backoff import JITTERS
from simulator.balancer.budget import open_budgets
from simulator.balancer.fleet import Rule
from simulator.balancer.policy import RING_LEAST, TABLE_SIZE, settings_from
from simulator.engine.virtual.client import retried_answers
from simulator.engine.virtual.guards import GuardSettings, guard_settings
from simulator.engine.virtual.records import FAULT, Faults
from simulator.engine.virtual.service import TIMES, Tables, compile_times
from simulator.fault.schedule import Fault, Schedule
from simulator.seeds import Stream, stream_key
from simulator.transaction import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.balancer.fleet import Settings
    from simulator.fault.schedule import Strike
    from simulator.scenario.balancing import Balancer
    from simulator.scenario.client import Client
    from simulator.scenario.fleet import Platform
    from simulator.scenario.model import Scenario

FCFS, LIFO, ADAPTIVE_LIFO, PRIORITY = 0, 1, 2, 3
DISCIPLINES = {"fcfs": FCFS, "lifo": LIFO, "adaptive_lifo": ADAPTIVE_LIFO, "priority": PRIORITY}
CLASSES = 6  # of priority: five kinds, and those that are not named

NODE_TIMES, SHARD_TIMES, CALL_TIMES = 0, 1, 2  # rows of `Model.times`


class Model(NamedTuple):
    """One unit, compiled. Times in ns; 0 stands for "none" where a field says so."""

    nodes: int
    workers: int
    queue: int
    discipline: int
    adaptive_ns: int
    client_ns: int  # network, one way
    shard_ns: int
    shards: int
    staged: int  # 1: there is a stage of shards (or a dependency) behind the nodes
    batched: int  # 1: shards commit in batches
    commit_ns: int
    record_ns: int
    depends: int  # 1: there is a dependency
    depends_share: float
    depends_kinds: int  # bits by Kind
    call_limit: int  # 0: none
    timeout_ns: int  # 0: none
    deadline_ns: int  # 0: none
    retries: int
    retry_on: int  # bits by Answer
    backoff_ns: float
    factor: float
    longest_ns: float
    jitter: int
    hedge_ns: int  # 0: no hedges
    hedges: int
    cancel: int
    units: int
    balancers: int
    talks: int  # 1: nodes tell balancers something, by reports or messages
    report_ns: int  # between two reports; 0: none
    delay_ns: int  # from a node to a balancer, of reports and idle messages
    hashes_payee: int
    mail_key: np.uint64
    node_key: np.uint64
    shard_key: np.uint64
    call_key: np.uint64
    depends_key: np.uint64
    backoff_key: np.uint64
    which_key: np.uint64
    balancer_key: np.uint64
    times: NDArray[np.void]  # (3,) TIMES
    tables: Tables
    classes: NDArray[np.int64]  # (8,) the class of a kind
    faults: NDArray[np.void]  # (F,) FAULT, in order


@dataclass(frozen=True)
class Setup:
    """All that a simulation of one unit starts from.

    Attributes:
        model: the unit.
        speed: of each node, (nodes,); its service times are divided by it.
        budgets: fresh ones, see `simulator.balancer.budget.open_budgets`.
        settings: the balancing policy.
        weights: what weighted policies are told, (nodes,).
        guards: what protects each node.
        in_flight: transactions at once; one more is dropped.
        drain_ns: how long after the last arrival answers are waited for.
    """

    model: Model
    speed: NDArray[np.float64]
    budgets: NDArray[np.float64]
    settings: Settings
    weights: NDArray[np.float64]
    guards: GuardSettings
    in_flight: int = 262_144
    drain_ns: int = 15_000_000_000
    seed: int = 1
    ring_least: int = RING_LEAST
    table_size: int = TABLE_SIZE
    attempts: int = field(default=0)  # rows; 0: half as many again as transactions

    @property
    def attempt_rows(self) -> int:
        """How many attempts there may be at once."""
        if self.attempts:
            return self.attempts
        spare = self.in_flight // 2 if self.model.retries or self.model.hedges else 0
        return self.in_flight + spare


def compile_unit(
    platform: Platform, client: Client, settings: Settings, *, seed: int, unit: int = 0, balancers: int = 1,
    balancer: Balancer | None = None,
    strikes: Sequence[Strike] = (), in_flight: int = 262_144, drain_ns: int = 15_000_000_000,
) -> Setup:  # fmt: skip
    """A unit of a platform, with its share of nodes and shards.

    Node n of unit u is node u × (nodes / units) + n of the platform; shard s of unit u is shard s × units + u, so that a payer's
    shard (account number modulo shards) is always of the payer's unit (account number modulo units).

    Args:
        platform: of the scenario.
        client: of the scenario.
        settings: the policy's.
        seed: of the run.
        unit: which of `platform.units`.
        balancers: independent ones in front of each unit.
        balancer: of the scenario: reports, weights, and what its tables need; None: nothing of these.
        strikes: the faults of the whole platform, as `fault.schedule.Schedule` expands them.
        in_flight: see `Setup`.
        drain_ns: see `Setup`.
    """
    nodes = platform.nodes // platform.units
    times, tables = compile_times(
        [
            platform.service,
            platform.shards.service,
            platform.dependency.latency if platform.dependency is not None else None,
        ]
    )
    commit, dependency = platform.shards.commit, platform.dependency
    kinds = [Kind[name.upper()] for name in dependency.kinds] if dependency is not None else []
    retries, hedge = client.retries, client.hedge
    classes = np.full(8, CLASSES - 1, np.int64)
    for place, name in enumerate(platform.priority):
        classes[Kind[name.upper()]] = place
    own = slice(unit * nodes, (unit + 1) * nodes)
    speed = np.array(platform.weights or np.ones(platform.nodes), np.float64)[own]
    told = balancer.weights if balancer is not None else ()
    weights = np.array(told, np.float64)[own] if told else speed
    report = balancer.report if balancer is not None else None
    idle = settings.rule == Rule.IDLE and settings.infer_idle == 0
    model = Model(
        nodes=nodes, workers=platform.workers, queue=platform.queue, discipline=DISCIPLINES[platform.discipline],
        adaptive_ns=platform.adaptive_after, client_ns=platform.network.client, shard_ns=platform.network.shard,
        shards=platform.shards.count // platform.units,
        staged=int(
            platform.shards.service is not None or commit is not None or dependency is not None
            or platform.network.shard > 0
        ),
        batched=int(commit is not None), commit_ns=commit.base if commit is not None else 0,
        record_ns=commit.per_record if commit is not None else 0,
        depends=int(dependency is not None), depends_share=float(dependency.share) if dependency is not None else 0.0,
        depends_kinds=sum(1 << int(kind) for kind in kinds) if kinds else 0xFF,
        call_limit=dependency.limit if dependency is not None else 0,
        timeout_ns=client.timeout or 0, deadline_ns=client.deadline or 0,
        retries=retries.max if retries is not None else 0, retry_on=retried_answers(client),
        backoff_ns=float(retries.backoff) if retries is not None else 0.0,
        factor=float(retries.factor) if retries is not None else 1.0,
        longest_ns=float(retries.longest) if retries is not None else 0.0,
        jitter=JITTERS[retries.jitter] if retries is not None else 0,
        hedge_ns=hedge.after if hedge is not None else 0, hedges=hedge.max if hedge is not None else 0,
        cancel=int(client.cancel), units=platform.units, balancers=balancers,
        talks=int(report is not None or idle or settings.rule == Rule.PROBES),
        report_ns=report.every if report is not None else 0,
        delay_ns=report.delay if report is not None else platform.network.client,
        hashes_payee=int(balancer is not None and balancer.hash.key == "payee"),
        mail_key=stream_key(seed, Stream.MAIL),
        node_key=stream_key(seed, Stream.NODE_SERVICE), shard_key=stream_key(seed, Stream.SHARD_SERVICE),
        call_key=stream_key(seed, Stream.DEPENDENCY), depends_key=stream_key(seed, Stream.DEPENDS),
        backoff_key=stream_key(seed, Stream.BACKOFF), which_key=stream_key(seed, Stream.WHICH_BALANCER),
        balancer_key=stream_key(seed, Stream.BALANCER),
        times=times, tables=tables, classes=classes, faults=fault_rows(strikes, unit, nodes),
    )  # fmt: skip
    return Setup(
        model=model, speed=speed, budgets=open_budgets(client), settings=settings, weights=weights,
        guards=guard_settings(platform),
        in_flight=in_flight, drain_ns=drain_ns, seed=seed,
        ring_least=balancer.hash.ring if balancer is not None else RING_LEAST,
        table_size=balancer.hash.table if balancer is not None else TABLE_SIZE,
    )  # fmt: skip


def fault_rows(strikes: Sequence[Strike], unit: int, nodes: int) -> NDArray[np.void]:
    """What happens to one unit, each beginning and each end a row (FAULT), in order of time."""
    rows: list[tuple[int, int, int, float]] = []

    def lasting(strike: Strike, node: int, begins: Faults, ends: Faults, value: float = 0.0) -> None:
        rows.append((strike.at_ns, int(begins), node, value))
        if strike.until_ns is not None:
            rows.append((strike.until_ns, int(ends), node, 0.0))

    for strike in strikes:
        own = [node - unit * nodes for node in strike.nodes if unit * nodes <= node < (unit + 1) * nodes]
        if strike.fault is Fault.UNIT_LOSS:
            own = list(range(nodes)) if strike.unit == unit else []
        for node in own:
            match strike.fault:
                case Fault.PAUSE:
                    until = float(strike.until_ns if strike.until_ns is not None else strike.at_ns)
                    lasting(strike, node, Faults.PAUSES, Faults.RESUMES, until)
                case Fault.SLOW:
                    lasting(strike, node, Faults.SLOWS, Faults.RECOVERS, strike.factor)
                case _:
                    lasting(strike, node, Faults.DIES, Faults.RETURNS)
        if strike.fault is Fault.DEPENDENCY:
            lasting(strike, -1, Faults.DEPENDENCY_OUT, Faults.DEPENDENCY_BACK, float(strike.hangs))
    ordered = sorted(rows, key=lambda row: row[0])  # stable: at one instant, in the order of the faults
    return np.array(ordered, FAULT) if ordered else np.zeros(0, FAULT)


def compile_scenario(scenario: Scenario, unit: int = 0) -> Setup:
    """A unit of a scenario's platform.

    Raises:
        ScenarioError: a histogram file cannot be read.
    """
    duration_ns = scenario.duration_ns or 2**62
    strikes = Schedule(
        scenario.faults, scenario.fleet.nodes, duration_ns, scenario.seed, restart_ns=scenario.fleet.restart
    ).strikes
    settings = settings_from(scenario.balancer, weights=scenario.fleet.weights, virtual=True)
    return compile_unit(
        scenario.fleet, scenario.client, settings, seed=scenario.seed, unit=unit,
        balancers=scenario.balancer.balancers, balancer=scenario.balancer,
        strikes=strikes, in_flight=scenario.dispatcher.in_flight, drain_ns=scenario.dispatcher.drain,
    )  # fmt: skip


__all__ = ["TIMES", "Model", "Setup", "compile_scenario", "compile_unit"]
