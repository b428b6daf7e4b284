"""Which bound a run reached first: what a planner has to raise, or to know of, before anything else.

A bound counts as reached by what it did (refusals, drops, transactions in doubt, work that took a whole second of a second), not
by how near a figure came to it. Of several the first in time is told; of those in one window the one nearer to the cause: what
the platform refuses comes before what the clients or the generator then suffer.

A fault is no limit. What ran out while one was at work (`fault_times`) says how the platform stands the fault, and is told apart,
with the fault's name, from what ran out without.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.report.asked import asked_in
from simulator.report.charts.queues import nodes_in
from simulator.report.charts.series import TimeSeries
from simulator.report.fault_times import overload_in, under_faults, without
from simulator.report.wording import count, ms, number, plain, rate, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from simulator.report.asked import Asked
    from simulator.report.charts.series import Floats

BUSY = 0.95  # of a core, over a sampled second: there is no time left. The same limit as for the generator's core
BUSY_SECONDS_MAX = 0.1  # of the seconds in which the generator's core may be busy, as in simulator.measure.validity
OVERLOADED_S = 1.0  # less than a second behind is a hiccup, not a rate that the platform cannot take
_NEARLY = 0.9  # of a bound: a sample a few times a second rarely meets the moment at which it was full

Summary = dict[str, Any]

_ITS_RATE = "the rate that the platform can take"
_NODE_SAYS = {
    "queue_full": "the queues of the nodes",
    "over_concurrency": "the nodes' concurrency limit",
    "not_admitted": "the nodes' admission control",
    "no_node": "the nodes that the balancer may pick",
}


@dataclass(frozen=True)
class Limit:
    """A bound that was reached.

    Attributes:
        what: which one: `shard 3's queue`.
        at_s: when first, in seconds of the run; None: not known.
        detail: how that shows, with figures.
    """

    what: str
    at_s: float | None
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return asdict(self)


@dataclass(frozen=True)
class InFault(Limit):
    """A bound that was reached while a fault was at work.

    Attributes:
        fault: which one: `kill node 1`.
    """

    fault: str


def first_limit(
    summary: Summary, series: TimeSeries, platform: TimeSeries, asked: Asked, events: Iterable[dict[str, Any]] = ()
) -> tuple[Limit | None, InFault | None]:
    """The bound that a run reached first without a fault's help, and the one that it reached first under a fault.

    Args:
        summary: the run's summary.
        series: its timeseries.csv.
        platform: its platform.csv; no rows if it has none.
        asked: what the scenario asked for.
        events: its events.jsonl.

    Returns:
        None: it reached none.
    """
    everything = _limits(summary, series, platform, asked)
    stretches = under_faults(events, series)
    if not stretches:
        return min(everything, key=_moment, default=None), None
    calm = without(series, stretches)
    without_spike = {**summary, "overload": overload_in(calm)}
    outside = [
        limit for limit in _limits(without_spike, calm, without(platform, stretches), asked) if limit.at_s is not None
    ]
    outside += [limit for limit in everything if limit.at_s is None]
    inside = [
        InFault(_what_was_left(limit.what), limit.at_s, limit.detail, one.label)
        for limit in everything
        for one in stretches
        if limit.at_s is not None and one.start_s <= limit.at_s < one.stop_s
    ]
    return min(outside, key=_moment, default=None), min(inside, key=_moment, default=None)


def _limits(summary: Summary, series: TimeSeries, platform: TimeSeries, asked: Asked) -> list[Limit]:
    """Every bound that was reached, causes before what follows from them."""
    return [
        *_platform_refuses(summary, series, platform, asked),
        *_busy_nodes(platform),
        *_simulated(summary, series),
        *_connections(summary, series, asked),
        *_generator(summary, series, asked),
        *_fell_behind(summary, platform, asked),
    ]


def _moment(limit: Limit) -> float:
    return np.inf if limit.at_s is None else limit.at_s


def _what_was_left(what: str) -> str:
    """Under a fault it was not the platform that fell behind, but what was left of it."""
    return "the rate that the rest of the platform can take" if what == _ITS_RATE else what


def with_first_limit(
    summary: Summary,
    series: dict[str, list[Any]],
    platform: dict[str, list[Any]],
    scenario: str,
    events: Iterable[dict[str, Any]] = (),
) -> Summary:
    """A summary with its `first_limit` and `first_limit_in_fault`, from the columns of its files, its events and its scenario."""
    found = first_limit(summary, TimeSeries.of(series), TimeSeries.of(platform), asked_in(scenario), events)
    return with_limits(summary, *found)


def with_limits(summary: Summary, limit: Limit | None, in_fault: InFault | None) -> Summary:
    """A summary that says which bounds were reached."""
    return {
        **summary,
        "first_limit": None if limit is None else limit.to_dict(),
        "first_limit_in_fault": None if in_fault is None else in_fault.to_dict(),
    }


def _platform_refuses(summary: Summary, series: TimeSeries, platform: TimeSeries, asked: Asked) -> Iterator[Limit]:
    reasons = (summary.get("reasons") or {}).get("rejected") or {}
    since = _first(series, "refused" if "refused" in series else "rejected")
    if full := number(reasons.get("overflow")):
        yield Limit(_fullest(summary, platform, asked, since), since, f"{count(full)} refused: overflow")
    if limited := number(reasons.get("limit")):
        what = "a bound of the ledger (open holds, log positions, what an account may hold)"
        yield Limit(what, since, f"{count(limited)} refused: limit")
    if circuit := number(reasons.get("circuit")):
        yield Limit("the balancer's circuit limits", since, f"{count(circuit)} refused: circuit")


def _fullest(summary: Summary, platform: TimeSeries, asked: Asked, since_s: float | None) -> str:
    """Whose queue: the shard's if one holds most of what waits, else the node's that refused, else all of them."""
    shard = _hottest_shard(summary, platform, since_s)
    if shard is not None:
        return f"shard {shard}'s queue"
    if asked.queue:
        full = [
            (at_s, node) for node in nodes_in(platform, "queue")
            if (at_s := _reached(platform, f"node{node}_queue", _NEARLY * asked.queue)) is not None
        ]  # fmt: skip
        if full:
            return f"node {min(full)[1]}'s queue"
    refused = [row.get("node") for row in summary.get("nodes") or [] if isinstance(row, dict) and row.get("refused")]
    return f"node {plain(refused[0])}'s queue" if len(refused) == 1 else "the queues of the nodes"


def _hottest_shard(summary: Summary, platform: TimeSeries, since_s: float | None) -> int | None:
    """The shard that held more than half of what was in flight when the refusals began; without samples, at its worst."""
    names = [name for name in platform.columns if name.startswith("shard") and name.endswith("_in_flight")]
    if names and since_s is not None and platform.rows:
        row = int(np.clip(np.searchsorted(platform.starts_s, since_s, side="right") - 1, 0, platform.rows - 1))
        held = {int(name[5 : -len("_in_flight")]): float(np.nan_to_num(platform.values(name)[row])) for name in names}
    else:
        rows = [row for row in summary.get("shards") or [] if isinstance(row, dict)]
        held = {int(number(row.get("shard")) or 0): number(row.get("queue_max")) or 0.0 for row in rows}
    if len(held) < 2:  # noqa: PLR2004  of one shard nothing can be said
        return None
    top = max(held, key=lambda shard: held[shard])
    return top if held[top] > sum(held.values()) / 2 else None


def _busy_nodes(platform: TimeSeries) -> Iterator[Limit]:
    """A node whose core had no time left in a sampled stretch, commits aside.

    Commits do not count: a node commits what came during the commit before, so under any load it is always in one, and takes
    more by larger batches. They are a limit once it falls behind, which `_fell_behind` looks at.
    """
    for node in nodes_in(platform, "busy"):
        commits, worked = _time_of(platform, node)
        rows = np.flatnonzero(worked - commits >= BUSY)
        if len(rows):
            detail = f"it worked {share(worked[rows[0]] - commits[rows[0]])} of a second, commits aside"
            yield Limit(f"node {node}'s core", float(platform.starts_s[rows[0]]), detail)


def _time_of(platform: TimeSeries, node: int) -> tuple[Floats, Floats]:
    """The shares of the time that went into a node's commits, and into all of its work."""
    commits, worked = (np.nan_to_num(platform.values(f"node{node}_{what}")) for what in ("commit_share", "busy"))
    return commits, worked


def _simulated(summary: Summary, series: TimeSeries) -> Iterator[Limit]:
    beyond = summary.get("over_capacity")
    if isinstance(beyond, dict) and (capacity := number(beyond.get("capacity_per_s"))):
        at_s = _over(series, capacity)
        yield Limit(
            f"the capacity of the {plain(beyond.get('stage', 'platform'))}", at_s,
            f"{rate(capacity)} can be taken, {rate(beyond.get('offered_per_s'))} were offered",
        )  # fmt: skip
    client = summary.get("client") or {}
    told = {name: n for name in _NODE_SAYS if (n := number(client.get(name)))}
    since = _first(series, "retries", "rejected") if told else None
    for name, n in told.items():
        yield Limit(_NODE_SAYS[name], since, f"{count(n)} attempts were refused")
    if over := number((summary.get("dependency") or {}).get("over_limit")):
        yield Limit(
            "the dependency's limit of calls", _first(series, "rejected"), f"{count(over)} calls found it reached"
        )


def _connections(summary: Summary, series: TimeSeries, asked: Asked) -> Iterator[Limit]:
    """Each connection carries one request at a time: as many in flight as there are connections is all of them."""
    if asked.connections and (at_s := _reached(series, "in_flight", asked.connections)) is not None:
        behind = (number((summary.get("schedule_lag_ms") or {}).get("max")) or 0.0) > 0
        if behind:
            ended = number((summary.get("client") or {}).get("connection_reset"))
            more = f"; {count(ended)} times the target ended one that was" if ended else ""
            yield Limit("the connections", at_s, f"all {count(asked.connections)} were in use{more}")


def _generator(summary: Summary, series: TimeSeries, asked: Asked) -> Iterator[Limit]:
    dropped = (summary.get("reasons") or {}).get("dropped") or {}
    since = _first(series, "dropped")
    if n := number(dropped.get("in_flight")):
        bound = "" if asked.in_flight is None else f" of {count(asked.in_flight)}"
        yield Limit(f"the in-flight limit{bound}", since, f"{count(n)} were not sent")
    if n := number(dropped.get("late")):
        yield Limit("the generator", since, f"{count(n)} were too late to be sent")
    lag = number((summary.get("schedule_lag_ms") or {}).get("p99"))
    if asked.lag_limit_ms is not None and lag is not None and lag > asked.lag_limit_ms:
        late = _reached(series, "lag_p99_ms", asked.lag_limit_ms)
        yield Limit(
            "the generator",
            late,
            f"1 % was sent {ms(lag)} late or more, up to {ms(asked.lag_limit_ms)} is on time",
        )
    if "generator_busy" in series:
        busy = series.values("generator_busy") > BUSY
        if busy.sum() > BUSY_SECONDS_MAX * series.rows:
            yield Limit(
                "the generator's core", float(series.starts_s[busy][0]), f"no time left in {busy.sum()} seconds"
            )


def _fell_behind(summary: Summary, platform: TimeSeries, asked: Asked) -> Iterator[Limit]:
    """A platform that decided less than was offered, for a second or more: for its disk, if that was what kept a node busy."""
    overload = summary.get("overload") or {}
    began, lasted = number(overload.get("spike_began_s")), number(overload.get("overloaded_s"))
    if began is None or lasted is None or lasted < OVERLOADED_S:
        return
    offered, held = number(overload.get("spike_offered_per_s")), number(overload.get("sustained_per_s"))
    detail = f"{rate(offered)} were offered, {rate(held)} went well"
    if asked.max_rate_per_s is not None:
        yield Limit(f"max_rate, {rate(asked.max_rate_per_s)} a node", began, detail)
        return
    stopped = number(overload.get("spike_ended_s")) or np.inf
    for node in nodes_in(platform, "busy"):
        commits, worked = _time_of(platform, node)
        during = (platform.starts_s + platform.lengths_s > began) & (platform.starts_s < stopped)
        if (during & (worked >= BUSY) & (commits > worked / 2)).any():
            most = share(float(commits[during].max()))
            yield Limit(f"node {node}'s disk", began, f"{most} of a second went into commits; {detail}")
            return
    yield Limit(_ITS_RATE, began, detail)


def _first(series: TimeSeries, *columns: str) -> float | None:
    """When any of some columns is first above nought."""
    moments = [_reached(series, column, 0.0, strictly=True) for column in columns]
    return min((at_s for at_s in moments if at_s is not None), default=None)


def _reached(series: TimeSeries, column: str, bound: float, *, strictly: bool = False) -> float | None:
    """When a column first reaches a bound; None: never."""
    if column not in series:
        return None
    values = np.nan_to_num(series.values(column))
    rows = np.flatnonzero(values > bound if strictly else values >= bound)
    return float(series.starts_s[rows[0]]) if len(rows) else None


def _over(series: TimeSeries, capacity: float) -> float | None:
    """When the rate offered over a second or more first exceeds a capacity: chance within a few milliseconds is no overload."""
    if "offered" not in series or not series.rows:
        return None
    offered, starts = np.nan_to_num(series.values("offered")), series.starts_s
    ends = starts + np.nan_to_num(series.lengths_s)
    sums: Floats = np.concatenate([[0.0], np.cumsum(offered)])
    stops = np.searchsorted(ends, starts + 1.0 - 1e-9, side="left")  # the window in which the second is full
    whole = np.flatnonzero(stops < series.rows)
    rates = (sums[stops[whole] + 1] - sums[whole]) / np.maximum(ends[stops[whole]] - starts[whole], 1e-9)
    over = whole[rates > capacity]
    return float(starts[over[0]]) if len(over) else None
