"""`summary.json`: the contract that other programs read, put together from what was measured, audited and judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.audit.findings import Books
from simulator.balancer.behaviour import spread
from simulator.errors import Exit
from simulator.measure import grid
from simulator.measure.overload import Counted, Overload
from simulator.measure.overload import measure as measure_overload
from simulator.report.hot_keys import hot_and_cold, shard_details, shard_imbalance
from simulator.report.observe import Observations, counts_of
from simulator.report.thresholds import Judgement, judge
from simulator.report.times import times_ms
from simulator.transaction import Kind, Reason, Status
from simulator.workload.hot_keys import NO_HOT_KEYS, Popular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.audit.credit_lag import CreditLag
    from simulator.measure.recorder import Measured, Tallies
    from simulator.measure.validity import Validity
    from simulator.scenario.threshold import Threshold

NODE_COLUMNS, SHARD_COLUMNS = 64, 256  # in timeseries.csv; the built-in platform never has more
SHARD_GROUPS = 64  # of more shards, so many groups of neighbours are told apart
_COUNTED = (Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED)


@dataclass(frozen=True)
class Results:
    """Everything that a summary is made of."""

    scenario: str
    description: str
    clock: str
    seed: int
    currency: str
    policy: str
    thresholds: tuple[Threshold, ...]
    version: str
    started_at: str
    wall_s: float
    duration_s: float  # how long transactions were released
    tallies: Tallies
    measured: Measured
    validity: Validity
    audit: dict[str, Any]  # as in audit.json
    owners: list[int]  # the node of each shard, at the end
    applied: list[int]  # records in the log of each shard; where there is no log, answers `ok` by the payer's shard
    node_details: list[dict[str, Any]] = field(default_factory=list)  # pid, commit_ms, handed_on … of each node
    journal: dict[str, Any] = field(default_factory=dict)
    dead_letters: dict[str, Any] = field(default_factory=dict)
    rebalance: dict[str, Any] = field(default_factory=dict)  # shards that moved; empty where none may
    durability: dict[str, Any] = field(default_factory=dict)  # as simulator.report.durability.with_recovery has it
    answered_by: dict[str, Any] = field(default_factory=dict)  # who answered, by a header; empty where nobody asked
    resources: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    stop_reason: str = "duration"
    aborted: tuple[int, Judgement] | None = None  # the threshold (its number) that stopped the run, if one did
    failure: str | None = None  # what stopped the platform, if it did
    tripped: dict[str, Any] | None = None  # the error-rate trip, if it stopped the load
    behaviour: dict[str, Any] = field(default_factory=dict)  # of the balancer, as balancer.behaviour.describe tells it
    popular: Popular = Popular(NO_HOT_KEYS)  # noqa: RUF009  frozen
    credit_lag: CreditLag | None = None  # None: nobody kept a journal
    node_times: list[dict[str, float | None]] | None = None  # of each node, where `measured` is not by node
    extra: dict[str, Any] = field(default_factory=dict)  # keys that only runs on this clock have
    extra_series: dict[str, Any] = field(default_factory=dict)  # and columns, numbers of shape (windows,)
    protocol: str | None = None  # between shards of two nodes; None: not the embedded platform


def judge_thresholds(results: Results) -> list[Judgement]:
    """Every threshold of the scenario against the finished run."""
    anomalies = sum(results.audit["anomalies"].values())
    known = results.audit["verdict"] != "unknown"
    observe = Observations(results.tallies, results.duration_s, anomalies if known else None, results.measured)
    judged = judge(results.thresholds, observe)
    if results.aborted is not None:
        at, found = results.aborted
        judged[at] = found
    return judged


def undeclared(audit: Mapping[str, Any]) -> bool:
    """Whether the run keeps no books and its scenario does not say who does: such a run proves nothing, and may not pass."""
    return str(audit.get("books", Books.HERE)) == Books.UNDECLARED


def unsettled(audit: Mapping[str, Any]) -> bool:
    """Whether the audit left open what it was to settle; that money is the target's matter, as was said, leaves nothing open."""
    if audit["verdict"] == "clean":
        return False
    others = audit.get("books", Books.HERE) in (Books.ELSEWHERE, Books.NONE)
    return audit["verdict"] == "anomalies" or not others or bool(audit.get("doubts"))


def exit_code(summary: Mapping[str, Any]) -> Exit:  # noqa: PLR0911  one for each thing that can go wrong
    """The gravest of what went wrong.

    Anomalies, the platform stopped, an interruption, a run that is invalid or proves nothing, an audit that could not tell, a
    threshold or the trip, a regression against the baseline.
    """
    audit = summary["audit"]
    if audit["verdict"] == "anomalies":
        return Exit.ANOMALIES
    if summary["failure"] is not None:
        return Exit.ERROR
    if summary["interrupted"]:
        return Exit.INTERRUPTED
    if summary["validity"]["verdict"] != "valid" or undeclared(audit):
        return Exit.INVALID_RUN
    if unsettled(audit):
        return Exit.ERROR
    if summary.get("tripped"):
        return Exit.THRESHOLDS
    crossed = [item for item in summary["thresholds"] if not item["passed"]]
    # A limit that the run itself is past is certain; that it became worse is a conclusion, if a sound one.
    regressed = bool(crossed) and all("baseline" in item for item in crossed)
    return Exit.REGRESSION if regressed else Exit.THRESHOLDS if crossed else Exit.OK


def verdict_of(audit: Mapping[str, Any], validity: str, failure: str | None, *, passed: bool) -> str:
    """`pass`, `fail` or `invalid`.

    Args:
        audit: what it found, as in the summary.
        validity: its verdict.
        failure: why the platform stopped, if it did.
        passed: whether all thresholds were met, and the trip did not stop the load.
    """
    if audit["verdict"] == "anomalies" or failure is not None:
        return "fail"
    if validity != "valid" or undeclared(audit):
        return "invalid"
    return "pass" if passed and not unsettled(audit) else "fail"


def overload_of(results: Results) -> Overload:
    """Goodput against offered, and the drain after the spike."""
    tallies = results.tallies
    ended = [Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN]
    # Its noise is that of a second: within a finer window every answer on its way would pass for overload.
    firsts = grid.seconds_or_longer(tallies.grid_ns, len(tallies.offered))
    edges = np.append(tallies.grid_ns[firsts], tallies.grid_ns[-1])
    counts = (
        tallies.offered, tallies.sent, tallies.answered[:, Status.OK], tallies.refused,
        tallies.answered[:, ended].sum(axis=1),
    )  # fmt: skip
    counted = Counted(edges, *(np.add.reduceat(count, firsts) for count in counts))
    return measure_overload(counted, duration_s=results.duration_s, settled_s=int(tallies.settled_ns[0]) / 1e9)


def summarise(results: Results) -> dict[str, Any]:
    """The summary as a dict, ready for JSON."""
    tallies = results.tallies
    judged = judge_thresholds(results)
    counts = counts_of(tallies.by_kind.sum(axis=0))
    duration = max(results.duration_s, 1e-9)
    completed = counts["ok"] + counts["rejected"] + counts["failed"]
    load = tallies.node_sent.sum(axis=0)
    evenness = spread(load)
    handed_on = sum(int(node.get("handed_on", 0)) for node in results.node_details)
    return {
        "schema": 1,
        "scenario": results.scenario,
        "name": results.scenario,
        "description": results.description,
        "clock": results.clock,
        "seed": results.seed,
        "started_at": results.started_at,
        "wall_s": round(results.wall_s, 3),
        "duration_s": round(results.duration_s, 3),
        "version": results.version,
        "interrupted": results.interrupted,
        "stop_reason": results.stop_reason,
        "failure": results.failure,
        "tripped": results.tripped,
        "protocol": results.protocol,
        "verdict": verdict_of(
            results.audit,
            results.validity.verdict,
            results.failure,
            passed=all(j.passed for j in judged) and results.tripped is None,
        ),
        "validity": {"verdict": results.validity.verdict, "reasons": results.validity.reasons},
        "counts": counts,
        "reasons": {
            status.name.lower(): {
                reason.name.lower(): int(tallies.by_reason[status, reason])
                for reason in Reason
                if tallies.by_reason[status, reason] and reason is not Reason.NONE
            }
            for status in (Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED)
        },
        # Lawful: answered ok, refused at the payee's shard, and given back. They are among the ok ones.
        "returned": {
            "transactions": int(results.audit.get("returned", 0)),
            "value_minor": int(results.audit.get("returned_minor", 0)),
        },
        "rates": {
            "offered_per_s": round(counts["offered"] / duration, 3),
            "completed_per_s": round(completed / max(duration, int(tallies.settled_ns[0]) / 1e9), 3),
            "goodput_per_s": round(counts["ok"] / max(duration, int(tallies.settled_ns[0]) / 1e9), 3),
            "peak_offered_per_s": _peak(tallies),
        },
        "overload": overload_of(results).to_dict(),
        "value": {
            "offered_minor": int(tallies.offered_minor.sum()),
            # Money that was given back has not changed hands; where a client was left in doubt, it was not counted either.
            "settled_minor": max(0, int(tallies.settled_minor.sum()) - int(results.audit.get("returned_minor", 0))),
            "currency": results.currency,
        },
        "response_time_ms": times_ms(results.measured.response.total()),
        "service_time_ms": times_ms(results.measured.service.total()),
        "schedule_lag_ms": times_ms(results.measured.lag.total()),
        "by_kind": {
            kind.name.lower(): {
                "counts": counts_of(tallies.by_kind[kind - 1]),
                "response_time_ms": times_ms(results.measured.response.by_kind(kind - 1)),
            }
            for kind in Kind
            if tallies.by_kind[kind - 1].any()
        },
        "nodes": [
            {
                "node": node,
                "sent": int(load[node]),
                "share": round(float(evenness.share[node]), 6) if evenness else None,
                "in_flight_max": int(tallies.in_flight_max[node]),
                "response_time_ms": results.node_times[node]
                if results.node_times is not None
                else times_ms(results.measured.response.by_node(node)),
                **(results.node_details[node] if results.node_details else {}),
            }
            for node in range(len(load))
        ],
        "shards": [
            {
                "shard": shard,
                "node": owner,
                "applied": results.applied[shard],
                "queue_max": int(tallies.shard_in_flight_max[shard]),
                **details,
            }
            for (shard, owner), details in zip(
                enumerate(results.owners), shard_details(tallies, results.applied, results.credit_lag), strict=True
            )
        ],
        "shard_imbalance_max_over_mean": shard_imbalance(np.array(results.applied, np.int64)),
        **hot_and_cold(tallies, results.popular, results.credit_lag),
        "balancer": {
            "policy": results.policy,
            "imbalance_max_over_mean": round(evenness.imbalance_max_over_mean, 6) if evenness else None,
            "jain": round(evenness.jain, 6) if evenness else None,
            "cv": round(evenness.cv, 6) if evenness else None,
            "noise_floor": round(evenness.noise_floor, 6) if evenness else None,
            "handed_on": handed_on,
            **results.behaviour,
        },
        "audit": {
            "verdict": results.audit["verdict"],
            "books": results.audit.get("books", Books.HERE),
            "doubts": results.audit.get("doubts", 0),
            "anomalies": results.audit["anomalies"],
            "conservation_minor": results.audit["conservation_minor"],
        },
        "thresholds": [found.as_json() for found in judged],
        **({"rebalance": results.rebalance} if results.rebalance else {}),
        "durability": results.durability,
        **({"answered_by": results.answered_by} if results.answered_by else {}),
        "journal": results.journal,
        "dead_letters": results.dead_letters,
        "resources": results.resources,
        **results.extra,
    }


def _peak(tallies: Tallies) -> int | float:
    """Offered in the busiest second, or per second in the busiest window if those are longer."""
    rates = grid.per_second(tallies.grid_ns, tallies.offered, len(tallies.offered))
    highest = float(rates.max(initial=0))
    return int(highest) if highest.is_integer() else round(highest, 3)


def rows_of(results: Results) -> int:
    """How many windows a run's series has: from the start to its end and to the last answer, at least one."""
    tallies = results.tallies
    end_ns = max(int(np.ceil(results.duration_s * grid.NS_PER_S)), int(tallies.settled_ns[0]) + 1, 1)
    return min(int(np.searchsorted(tallies.grid_ns, end_ns, side="left")), len(tallies.offered))


def series_columns(results: Results, target: Any) -> dict[str, list[Any]]:  # noqa: ANN401  a float array, one entry a window
    """The columns of timeseries.csv, one row a window, from the start to the window of the last answer.

    `second` is where a window starts; `window_s`, how long it is, is left out where every one is a second. All but the
    times are counts of the window. Beyond 64 nodes or 256 shards only the extremes and the mean of each window are given, and the
    busiest shard of each of 64 groups of neighbours.
    """
    tallies = results.tallies
    last = rows_of(results)
    seen = {name: values[:last].tolist() for name, values in results.extra_series.items()}
    columns = load_columns(tallies, target, last, seen)
    wanted: tuple[tuple[str, Any, tuple[tuple[str, float], ...]], ...] = (
        (
            "response",
            results.measured.response,
            (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0)),
        ),
        ("service", results.measured.service, (("p50", 50.0), ("p99", 99.0))),
        ("lag", results.measured.lag, (("p50", 50.0), ("p99", 99.0))),
    )
    for name, sparse, percents in wanted:
        found = sparse.percentiles_by_window([percent for _, percent in percents])
        for column, (label, _) in enumerate(percents):
            values = found[:last, column].tolist()
            columns[f"{name}_{label}_ms"] = ["" if v < 0 else round(v / 1e6, 6) for v in values]
    return columns | spread_columns(tallies, last)


def load_columns(
    tallies: Tallies,
    target: Any,  # noqa: ANN401  as above
    last: int,
    seen: dict[str, list[Any]] | None = None,
) -> dict[str, list[Any]]:
    """The columns of the first `last` windows that count what was asked and answered; `seen` are more of them, given a place."""
    answered = tallies.answered[:last]
    uniform = grid.is_seconds(tallies.grid_ns)
    return {
        "second": list(range(last)) if uniform else grid.starts_s(tallies.grid_ns)[:last].tolist(),
        **({} if uniform else {"window_s": grid.lengths_s(tallies.grid_ns)[:last].tolist()}),
        "target": [round(float(target[i]), 3) if i < len(target) else 0.0 for i in range(last)],
        "offered": tallies.offered[:last].tolist(),
        "sent": tallies.sent[:last].tolist(),
        "completed": answered[:, [Status.OK, Status.REJECTED, Status.FAILED]].sum(axis=1).tolist(),
        **{status.name.lower(): answered[:, status].tolist() for status in _COUNTED},
        **(seen or {}),
        "in_flight": tallies.in_flight_top[:last].tolist(),
        "offered_minor": tallies.offered_minor[:last].tolist(),
        "settled_minor": tallies.settled_minor[:last].tolist(),
    }


def spread_columns(tallies: Tallies, last: int) -> dict[str, list[Any]]:
    """The columns of the first `last` windows that count by node and by shard."""
    return {
        **_each("node", "sent", tallies.node_sent[:last], NODE_COLUMNS),
        **_each("shard", "ok", tallies.shard_ok[:last], SHARD_COLUMNS),
        **_groups("shard", "ok", tallies.shard_ok[:last], SHARD_COLUMNS),
    }


def _each(noun: str, what: str, counts: Any, most: int) -> dict[str, list[Any]]:  # noqa: ANN401  (windows, nodes or shards)
    """A column for each node or shard; of more than `most` the least, the mean and the most in each window."""
    if counts.shape[1] <= most:
        return {f"{noun}{at}_{what}": counts[:, at].tolist() for at in range(counts.shape[1])}
    return {
        f"{noun}_min_{what}": counts.min(axis=1).tolist(),
        f"{noun}_mean_{what}": [round(x, 3) for x in counts.mean(axis=1).tolist()],
        f"{noun}_max_{what}": counts.max(axis=1).tolist(),
    }


def _groups(noun: str, what: str, counts: Any, most: int) -> dict[str, list[Any]]:  # noqa: ANN401  as in _each
    """Of more than `most` shards the busiest one of each group of neighbours in each window: where a hot one is still shows."""
    if counts.shape[1] <= most:
        return {}
    bounds = [counts.shape[1] * at // SHARD_GROUPS for at in range(SHARD_GROUPS + 1)]
    return {
        f"{noun}{start}to{stop - 1}_max_{what}": counts[:, start:stop].max(axis=1).tolist()
        for start, stop in pairwise(bounds)
    }
