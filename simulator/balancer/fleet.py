"""What a balancer knows of its nodes: the settings of a policy, and the state of `K` independent balancers over `N` nodes.

Both are tuples of scalars and arrays, so that a kernel takes them whole. What every pick reads (requests in flight, who is
available) lies in arrays of its own, dense in the cache; what only some policies read of one node lies in one `VIEW` row.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.kernel import int64, kernel
from simulator.seeds import bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER_NS = 2**62


class Load(IntEnum):
    """What the load of a node means; see `simulator.balancer.load`."""

    IN_FLIGHT = 0  # this balancer's own requests in flight at the node
    PEAK_EWMA = 1  # peak-sensitive average of response times × (in flight + 1)
    REPORTED = 2  # what the node last said of itself
    C3 = 3  # C3's score of response time, service time and estimated queue


class Rule(IntEnum):
    """How a node is picked, given what load means; see the module named beside each."""

    RANDOM = 0  # draw
    ROUND_ROBIN = 1  # draw
    DRAWS = 2  # draw: `choices` with replacement
    DISTINCT = 3  # draw: two without replacement
    SCAN = 4  # draw: the least of all
    AFFINITY = 5  # the node that owns the payer
    SMOOTH = 6  # schedule: smooth weighted round robin
    DEADLINE = 7  # schedule: earliest deadline first
    IDLE = 8  # idle: a list of idle nodes
    RING = 9  # hashing
    MAGLEV = 10  # hashing
    PROBES = 11  # probes: hot-cold lexicographic


class Health(IntEnum):
    """What a health event says."""

    EJECTED_IN_A_ROW = 1  # for errors in a row
    EJECTED_BY_RATE = 2  # for a success rate far below the others'
    WITHDRAWN = 3  # by who runs the fleet: a health check, a deployment
    READMITTED = 4
    FIRST_SENT = 5  # the first request after a re-admission
    PANIC_BEGAN = 6  # node −1: of the balancer
    PANIC_ENDED = 7  # node −1


class Settings(NamedTuple):
    """A policy with its modifiers, as scalars: one compiled kernel serves them all. Times in ns, shares as fractions."""

    load: int  # Load
    rule: int  # Rule
    choices: int
    bias: float  # Envoy's active request bias
    weighted: int  # 1: nodes differ in weight
    # load: peak EWMA
    tau_ns: float
    start_ns: float  # what a node without history is taken to cost; 0: none, then `penalty_ns` while it has requests
    penalty_ns: float
    # load: C3
    clients: float  # how many balancers share the nodes
    smoothing: float  # weight of the old value in C3's averages
    # hashing
    load_factor: float  # bounded load: cap over mean; 0: no bound
    # idle list
    infer_idle: int  # 1: a node with none of this balancer's requests is idle; 0: only what nodes report counts
    # probes
    probes: float  # a query
    pool: int
    probe_age_ns: int
    removals: float  # a query
    hot_quantile: float
    spare_probes: float  # δ of the reuse budget
    # aperture
    aperture_ns: float  # smoothing window; 0: all nodes
    load_low: float
    load_high: float
    # ORCA
    update_ns: int  # 0: weights are as configured
    blackout_ns: int
    expiry_ns: int
    error_penalty: float
    # outlier ejection
    outlier: int  # 0: off
    errors_in_a_row: int
    interval_ns: int
    ejection_ns: int
    ejection_max_ns: int
    ejected_max: float
    rate_nodes: int
    rate_requests: int
    rate_deviations: float
    # panic, slow start, circuit limits
    panic: float  # fewer available than this share: all are used; 0: never
    slow_ns: int  # 0: off
    slow_floor: float
    slow_power: float  # 1 / aggression
    circuit_requests: int  # in flight of one balancer; 0: no limit
    circuit_node: int  # in flight of one balancer at one node; 0: no limit


VIEW = np.dtype(
    [
        ("cost_ns", "<f8"),  # peak EWMA
        ("stamp_ns", "<i8"),  # when it was last updated
        ("queue", "<f8"),  # reported: requests at the node
        ("reported_ns", "<i8"),  # when the last report came; −1: never
        ("service_ns", "<f8"),  # C3's averages
        ("response_ns", "<f8"),
        ("queue_average", "<f8"),
        ("weight", "<f8"),  # in force: configured, or from reports; without slow start
        ("reporting_since_ns", "<i8"),  # ORCA: the blackout counts from here; −1: not reporting
        ("current", "<f8"),  # smooth weighted round robin
        ("ejected_ns", "<i8"),  # when it was ejected last
        ("available_since_ns", "<i8"),  # slow start counts from here
        ("errors_in_a_row", "<i4"),
        ("good", "<i4"),  # answers since the last sweep
        ("answers", "<i4"),
        ("backoff", "<i4"),  # how many times the base ejection time it stays out
        ("offered_weight", "<f8"),  # ORCA: from the last report
        ("first", "<i4"),  # 1: nothing was sent to it since its re-admission
        ("idle", "<i4"),  # 1: it is in the idle list
    ]
)
assert VIEW.itemsize == 128, VIEW.itemsize  # noqa: PLR2004, S101  two cache lines: a wrong layout must not run

EVENT = np.dtype([("time_ns", "<i8"), ("balancer", "<i4"), ("node", "<i4"), ("what", "<i8")])  # what: Health

PROBE = np.dtype([("node", "<i8"), ("queue", "<f8"), ("latency_ns", "<f8"), ("came_ns", "<i8"), ("uses", "<f8")])


class Deadlines(NamedTuple):
    """Earliest deadline first: a binary heap of nodes for each balancer; (1, 1) where no weights can differ."""

    heap: NDArray[np.int32]  # (K, N)
    deadline: NDArray[np.float64]  # (K, N) of each node
    turn: NDArray[np.int64]  # (K, N) ties go to the node whose turn came first
    size: NDArray[np.int64]  # (K,)
    clock: NDArray[np.float64]  # (K,) the deadline that was served last
    turns: NDArray[np.int64]  # (K,)


class Idle(NamedTuple):
    """Lists of idle nodes, each a ring; (1, 1) for other rules."""

    ring: NDArray[np.int32]  # (K, N)
    head: NDArray[np.int64]  # (K,)
    held: NDArray[np.int64]  # (K,)


class Hashing(NamedTuple):
    """Consistent hashing."""

    point: NDArray[np.uint64]  # (P,) the ring's points in order; the same for all balancers
    owner: NDArray[np.int32]  # (P,) the node of each
    table: NDArray[np.int32]  # (K, M) Maglev's, of the nodes each balancer takes for available
    scratch: NDArray[np.int64]  # (3, N) for building it


class Probing(NamedTuple):
    """Prequal's pools of probes."""

    pool: NDArray[np.void]  # (K, pool) PROBE, the oldest first
    held: NDArray[np.int64]  # (K,)
    owed: NDArray[np.float64]  # (K, 2) fractions of probes and of removals carried over
    removals: NDArray[np.int64]  # (K,) done so far: they alternate
    recent: NDArray[np.float64]  # (K, RECENT) the queue lengths of the last replies, as they came
    ordered: NDArray[np.float64]  # (K, RECENT) the same, sorted
    replies: NDArray[np.int64]  # (K,)


class Fleet(NamedTuple):
    """`K` balancers over `N` nodes. Each balancer sees its own rows only.

    The available nodes of balancer b are `ready[b, :ready_count[b]]`, in no order; behind them stand the others. Picks are made
    among `ready[b, :span[b]]`: the available ones, or all in a panic. So sampling, ejection and re-admission are O(1).
    """

    in_flight: NDArray[np.int64]  # (K, N) this balancer's own requests
    total: NDArray[np.int64]  # (K,) their sums
    weight: NDArray[np.float64]  # (N,) as configured, mean 1
    ready: NDArray[np.int32]  # (K, N)
    place: NDArray[np.int32]  # (K, N) where each node stands in `ready`
    ready_count: NDArray[np.int64]  # (K,)
    span: NDArray[np.int64]  # (K,)
    cursor: NDArray[np.int64]  # (K,) round robin
    views: NDArray[np.void]  # (K, N) VIEW
    stale: NDArray[np.int64]  # (K,) 1: who is available or a weight has changed, and tables must be built again
    panicking: NDArray[np.int64]  # (K,) 1: too few are available, and all are used
    slow_until_ns: NDArray[np.int64]  # (K,) some node is in slow start until then
    next_sweep_ns: NDArray[np.int64]  # (K,) when `sweep` is due; NEVER_NS: never
    due_ns: NDArray[np.int64]  # (K, 2) the next outlier sweep, the next update of weights
    width: NDArray[np.int64]  # (K,) aperture: how many of `ready` are used
    smooth: NDArray[np.float64]  # (K, 2) aperture: requests in flight, smoothed, and as of when
    deadlines: Deadlines
    idle: Idle
    hashing: Hashing
    probing: Probing
    events: NDArray[np.void]  # (E,) EVENT: the first E
    event_count: NDArray[np.int64]  # (1,) all; those beyond E are counted and not kept


EVENTS = 65_536
RECENT = 64  # replies whose queue lengths make the distribution that "hot" is judged by


@kernel
def note_event(
    events: NDArray[np.void], event_count: NDArray[np.int64], b: int, node: int, what: int, now_ns: int
) -> None:
    """Logs a health event; when the log is full it is only counted."""
    at = event_count[0]
    event_count[0] += 1
    if at < events.shape[0]:
        row = events[at]
        row["time_ns"] = now_ns
        row["balancer"] = b
        row["node"] = node
        row["what"] = what


@kernel
def swap(ready: NDArray[np.int32], place: NDArray[np.int32], b: int, at: int, to: int) -> None:
    """Exchanges two places of `ready`."""
    one = ready[b, at]
    other = ready[b, to]
    ready[b, at] = other
    ready[b, to] = one
    place[b, one] = to
    place[b, other] = at


@kernel
def shuffle(ready: NDArray[np.int32], place: NDArray[np.int32], key: np.uint64) -> None:
    """Gives each balancer an order of its own (Fisher and Yates): apertures are to overlap by chance, not to coincide."""
    nodes = ready.shape[1]
    for b in range(ready.shape[0]):
        for at in range(nodes - 1, 0, -1):
            word = bits(key, b * nodes + at)
            swap(ready, place, b, at, int64(((word >> np.uint64(32)) * np.uint64(at + 1)) >> np.uint64(32)))
