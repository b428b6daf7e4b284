"""Charts of what waits: in flight, in the queues of the nodes, and in commits to the disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from simulator.report.charts.chart import Chart, Line, look, over_time
from simulator.report.wording import count, ms, plain

if TYPE_CHECKING:
    from simulator.report.charts.axis import TimeAxis
    from simulator.report.charts.series import TimeSeries

NODES_MAX = 12  # drawn one by one; more cannot be told apart
_OLDER = "it was not recorded in this run: older versions did not, and not every backend has it"


def in_flight(series: TimeSeries, axis: TimeAxis) -> Chart:
    """Sent and not yet answered, the most at once in each window."""
    return over_time(
        "in-flight", "Transactions in flight",
        "Sent and not yet answered, the most at once. Steady is good; a climb that does not come down means that more arrives "
        "than is served.",
        "transactions in flight", axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=count,
        lines=[Line("in flight", series.values("in_flight"), "blue")],
    )  # fmt: skip


def depth(series: TimeSeries, platform: TimeSeries, axis: TimeAxis) -> Chart:
    """What waits at the nodes: in their rings, looked at from outside; on the virtual clock the mean number, exactly."""
    title = "Queue depth at the nodes"
    if "waiting" in series:
        return over_time(
            "queues", title,
            "Transactions that wait at the nodes and are not yet served, on average over each window. The fullest node far above "
            "the average of all: the balancer sends it more than it can take, or it has become slow.",
            "transactions waiting", axis=axis, seconds=series.starts_s, widths=series.lengths_s, show=_number,
            lines=[
                Line("at the fullest node", series.values("waiting_max"), "orange"),
                Line("at a node on average", series.values("waiting"), "blue", "dash"),
            ],
        )  # fmt: skip
    nodes = nodes_in(platform, "queue")
    shown = nodes[:NODES_MAX]
    return over_time(
        "queues", title,
        "Requests that lie in front of a node and that it has not taken yet, as sampled a few times a second: short peaks fall "
        "between. A queue that stays up is a node that cannot keep up; at its bound the node refuses.",
        "requests waiting", axis=axis, seconds=platform.starts_s, widths=platform.lengths_s, show=count,
        lines=[Line(f"node {node}", platform.values(f"node{node}_queue"), *look(at)) for at, node in enumerate(shown)],
        missing=_OLDER,
    )  # fmt: skip


def commits(platform: TimeSeries, axis: TimeAxis) -> Chart:
    """How long commits to the journal took."""
    nodes = nodes_in(platform, "commit_p99_ms")
    return over_time(
        "commits", "Journal commits: how long they took",
        "A commit writes what a node has booked and, as the durability asks, waits for the disk. Nobody is answered before it: "
        "commits that take longer are response times that grow for everybody at that node.",
        "commit time (ms)", axis=axis, seconds=platform.starts_s, widths=platform.lengths_s, show=ms, log=True, floor=0.0001,
        lines=[
            Line("p50, all nodes", platform.values("commit_p50_ms"), "green"),
            Line("p99, all nodes", platform.values("commit_p99_ms"), "orange", width=3),
            Line("max, all nodes", platform.values("commit_max_ms"), "grey", "dot", 1.5),
            *(
                Line(f"p99, node {node}", platform.values(f"node{node}_commit_p99_ms"), look(at)[0], "dashdot", 1)
                for at, node in enumerate(nodes[:NODES_MAX]) if len(nodes) > 1
            ),
        ],
        missing="this backend keeps no journal, or an older version ran it and did not record them over time",
    )  # fmt: skip


def nodes_in(series: TimeSeries, what: str) -> list[int]:
    """The numbers of the nodes that have a column `node<n>_<what>`."""
    found = (re.fullmatch(rf"node(\d+)_{re.escape(what)}", name) for name in series.columns)
    return sorted(int(match[1]) for match in found if match)


def _number(value: object) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else plain(value)
