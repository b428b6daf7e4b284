"""A run's metrics for an OpenTelemetry collector: OTLP over HTTP with protobuf bodies, one data point a window.

Names follow OpenTelemetry's conventions for metrics: dots between words, a unit of its own, seconds for times. Times are
those of the run (on the virtual clock: of the simulated time, from when the run began), so a run can be sent long after.
"""

from __future__ import annotations

import http.client
from bisect import bisect_right
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from simulator.errors import SimError, UsageError
from simulator.exports.windows import started_ns, window_edges_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.report.folder import RunFolder

PATH = "/v1/metrics"  # OTLP/HTTP's default
_OUTCOMES = ("ok", "rejected", "failed", "unknown", "dropped")
# Upper bounds of the buckets of times, seconds: three a decade from 100 µs to 100 s.
BOUNDS_S = [float(f"{digit}e{power}") for power in range(-4, 2) for digit in (1, 2, 5)] + [100.0]
_POINTS_MAX = 2_000  # windows a request: a body stays below a megabyte or two, which collectors take by default
_TIMEOUT_S = 10.0
_NS = 1e9


def send(run: RunFolder, endpoint: str) -> int:
    """Sends the metrics of a run to a collector; returns how many requests that took.

    Redirects are not followed and proxy variables are not looked at: it goes to the host that was named or nowhere.

    Args:
        run: a finished run.
        endpoint: such as http://127.0.0.1:4318; without a path, /v1/metrics.

    Raises:
        UsageError: the endpoint is no http or https address.
        SimError: OpenTelemetry's messages are not installed, the run has no series, or the collector did not take it.
    """
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError(f"--otlp: {endpoint!r} is no address of a collector; write for example http://127.0.0.1:4318")
    try:
        port = address.port
    except ValueError as error:
        raise UsageError(f"--otlp: {endpoint!r}: {error}") from error
    requests = 0
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    for message in messages(run):
        with closing(kind(address.hostname, port, timeout=_TIMEOUT_S)) as connection:
            try:
                connection.request(
                    "POST",
                    address.path or PATH,
                    message.SerializeToString(),
                    {"Content-Type": "application/x-protobuf"},
                )
                answer = connection.getresponse()
                status, said = answer.status, answer.read(200)
            except (OSError, http.client.HTTPException) as error:
                raise SimError(f"the collector at {endpoint} cannot be reached: {error}") from error
        if status != http.client.OK:
            raise SimError(f"the collector at {endpoint} answered {status}: {said.decode('utf-8', 'replace').strip()}")
        requests += 1
    return requests


def messages(run: RunFolder) -> Iterator[Any]:
    """The run's metrics as ExportMetricsServiceRequest messages of at most some thousand windows each."""
    try:
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415  an extra
    except ImportError as error:
        raise SimError(
            "sending by OTLP needs opentelemetry-proto: pip install 'transaction-load-simulator[otlp]'"
        ) from error
    edges, began = window_edges_ns(run), started_ns(run)
    times = _intervals(run, began)
    sums: dict[str, int] = {}
    for first in range(0, len(edges), _POINTS_MAX):
        request = metrics_service_pb2.ExportMetricsServiceRequest()
        of_resource = request.resource_metrics.add()
        summary = run.summary
        for name, value in (
            ("service.name", "transaction-load-simulator"), ("service.version", str(summary.get("version"))),
            ("sim.scenario", summary["scenario"]), ("sim.run", run.path.name), ("sim.clock", str(summary.get("clock"))),
            ("sim.verdict", summary["verdict"]),
        ):  # fmt: skip
            _attribute(of_resource.resource.attributes, name, value)
        scope = of_resource.scope_metrics.add()
        scope.scope.name = "simulator"
        here = range(first, min(first + _POINTS_MAX, len(edges)))
        _add_sums(scope, run, edges, here, began, sums)
        _add_gauge(scope, run, edges, here)
        _add_times(scope, times, edges, here)
        yield request


def _attribute(attributes: Any, name: str, value: str) -> None:  # noqa: ANN401  a repeated protobuf field
    found = attributes.add()
    found.key = name
    found.value.string_value = value


def _add_sums(
    scope: Any, run: RunFolder, edges: list[tuple[int, int]], here: range, began: int, sums: dict[str, int]  # noqa: ANN401
) -> None:  # fmt: skip
    """Counters, cumulative from the begin of the run: what Prometheus-like stores behind a collector expect."""
    currency = str(run.summary.get("value", {}).get("currency", ""))
    for name, unit, columns in (
        ("sim.transactions", "{transaction}", {outcome: outcome for outcome in _OUTCOMES}),
        ("sim.transactions.offered", "{transaction}", {"": "offered"}),
        ("sim.transactions.sent", "{transaction}", {"": "sent"}),
        ("sim.value.offered", f"{{{currency} minor}}", {"": "offered_minor"}),
        ("sim.value.settled", f"{{{currency} minor}}", {"": "settled_minor"}),
    ):
        metric = scope.metrics.add()
        metric.name, metric.unit = name, unit
        metric.sum.aggregation_temporality = 2  # cumulative
        metric.sum.is_monotonic = True
        for outcome, column in columns.items():
            cells = run.series.get(column, [])
            for at in here if cells else ():
                sums[column] = sums.get(column, 0) + int(cells[at] or 0)
                point = metric.sum.data_points.add()
                point.start_time_unix_nano, point.time_unix_nano = began, edges[at][1]
                point.as_int = sums[column]
                if outcome:
                    _attribute(point.attributes, "outcome", outcome)


def _add_gauge(scope: Any, run: RunFolder, edges: list[tuple[int, int]], here: range) -> None:  # noqa: ANN401
    metric = scope.metrics.add()
    metric.name, metric.unit = "sim.transactions.in_flight", "{transaction}"
    cells = run.series.get("in_flight", [])
    for at in here if cells else ():
        if cells[at] is not None:
            point = metric.gauge.data_points.add()
            point.time_unix_nano, point.as_int = edges[at][1], int(cells[at] or 0)


def _add_times(
    scope: Any, times: dict[str, dict[int, HdrHistogram]], edges: list[tuple[int, int]], here: range  # noqa: ANN401
) -> None:  # fmt: skip
    """Histograms of each window by itself (delta), from latency.hlog, in seconds."""
    for name, intervals in times.items():
        metric = scope.metrics.add()
        metric.name, metric.unit = f"sim.{name}", "s"
        metric.histogram.aggregation_temporality = 1  # delta
        for at in here:
            found = intervals.get(edges[at][0])
            if found is None:
                continue
            point = metric.histogram.data_points.add()
            point.start_time_unix_nano, point.time_unix_nano = edges[at]
            counts = [0] * (len(BOUNDS_S) + 1)
            total = 0.0
            for step in found.get_recorded_iterator():
                value_s = step.value_iterated_to / _NS
                counts[bisect_right(BOUNDS_S, value_s)] += step.count_added_in_this_iter_step
                total += value_s * step.count_added_in_this_iter_step
            point.count, point.sum, point.max = sum(counts), total, found.get_max_value() / _NS
            point.explicit_bounds.extend(BOUNDS_S)
            point.bucket_counts.extend(counts)


def _intervals(run: RunFolder, began: int) -> dict[str, dict[int, HdrHistogram]]:
    """By measure: the histogram of each window that has one, by its begin (ns since 1970, as `window_edges_ns` has it)."""
    path = run.path / "latency.hlog"
    if not path.exists():
        return {}
    found: dict[str, dict[int, HdrHistogram]] = {}
    begin_by_ms = {round((begin - began) / 1e6): begin for begin, _ in window_edges_ns(run)}
    with closing(HistogramLogReader(str(path), HdrHistogram(1, 2, 1))) as log:
        while (interval := log.get_next_interval_histogram()) is not None:
            since_ms = round(interval.get_start_time_stamp() - log.get_start_time_sec() * 1e3)
            if (begin := begin_by_ms.get(since_ms)) is not None:
                found.setdefault(interval.get_tag() or "response_time", {})[begin] = interval
    return found
