"""The run so far in Prometheus' text format, for whoever would rather scrape than look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.measure.histogram import Histogram
from simulator.measure.recorder import LAG, RESPONSE, SERVICE
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simulator.live.watched import Watched
    from simulator.report.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
_ENDED = (Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED)

Labels = dict[str, str]
Sample = tuple[str, Labels, float]  # what follows the family's name, labels, value


def text(watched: Watched, snapshot: Snapshot) -> str:
    """The exposition: every family with its help and type."""
    tallies, currency = watched.tallies, watched.currency
    totals = tallies.totals.copy()  # they are still counted into
    by_status = tallies.by_kind.sum(axis=0)
    offered, dropped = int(by_status[Status.PENDING]), int(by_status[Status.DROPPED])
    lines = [
        *_family("sim_run_info", "gauge", "The run; its value says nothing.",
                 [("", {"scenario": watched.name, "phase": snapshot.phase}, 1)]),
        *_family("sim_elapsed_seconds", "gauge", "Since the load began.", [("", {}, snapshot.elapsed_s)]),
        *_family("sim_duration_seconds", "gauge", "How long the load is to last.", [("", {}, snapshot.duration_s)]),
        *_family("sim_offered_total", "counter", "Transactions that were due.", [("", {}, offered)]),
        *_family("sim_sent_total", "counter", "Transactions sent: offered less dropped.", [("", {}, offered - dropped)]),
        *_family("sim_transactions_total", "counter", "Transactions ended, by kind and status.", [
            ("", {"kind": kind.name.lower(), "status": status.name.lower()}, int(tallies.by_kind[kind - 1, status]))
            for kind in Kind for status in _ENDED
        ]),
        *_family("sim_reasons_total", "counter", "Transactions that did not end ok, by status and reason.", [
            ("", {"status": status.name.lower(), "reason": reason.name.lower()}, int(tallies.by_reason[status, reason]))
            for status in _ENDED for reason in Reason if tallies.by_reason[status, reason] and reason is not Reason.NONE
        ]),
        *_family("sim_rate_per_second", "gauge", "In the last full second.", [
            ("", {"of": name}, values[-1])
            for name, values in (("offered", snapshot.offered_per_s), ("completed", snapshot.completed_per_s)) if values
        ]),
        *_family("sim_in_flight", "gauge", "Sent and not yet answered, by node.",
                 [("", {"node": str(node)}, n) for node, n in enumerate(tallies.in_flight.tolist())]),
        *_family("sim_node_sent_total", "counter", "Transactions sent, by node.",
                 [("", {"node": str(node)}, n) for node, n in enumerate(tallies.node_sent.sum(axis=0).tolist())]),
        *_family("sim_value_minor_total", "counter", "Money in minor units.", [
            ("", {"of": "offered", "currency": currency}, int(tallies.offered_minor.sum())),
            ("", {"of": "settled", "currency": currency}, int(tallies.settled_minor.sum())),
        ]),
        *_times("sim_response_time_seconds", "From the intended instant to the answer, of the run so far.",
                Histogram(totals[RESPONSE])),
        *_times("sim_service_time_seconds", "From sending to the answer, of the run so far.", Histogram(totals[SERVICE])),
        *_times("sim_schedule_lag_seconds", "From the intended instant to sending, of the run so far.",
                Histogram(totals[LAG])),
        *_family("sim_threshold_met", "gauge", "1: the threshold holds as of now.",
                 [("", {"threshold": what}, int(met)) for what, _, met in snapshot.thresholds]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _times(name: str, told: str, histogram: Histogram) -> list[str]:
    """A summary; its sum is exact to the histogram's resolution, one part in 1,024."""
    samples: list[Sample] = []
    for quantile in _QUANTILES:
        ns = histogram.percentile_ns(100 * quantile)
        if ns is not None:
            samples.append(("", {"quantile": f"{quantile:g}"}, ns / 1e9))
    total = histogram.total
    samples += [("_sum", {}, (histogram.mean_ns or 0.0) * total / 1e9), ("_count", {}, total)]
    return _family(name, "summary", told, samples)


def _family(name: str, kind: str, told: str, samples: Iterable[Sample]) -> list[str]:
    lines = [f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in samples]
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *lines] if lines else []


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _labels(labels: Labels) -> str:
    pairs: Sequence[str] = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
