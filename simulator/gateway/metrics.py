"""What a gateway counts about itself, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper edges of the latency buckets, seconds: from a reply out of memory to a time-out, three to the decade.
EDGES = (0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counts of one gateway; bounded by routes × statuses."""

    def __init__(self, node: str) -> None:
        self._node = node.replace("\\", "\\\\").replace('"', '\\"')
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()

    def note(self, route: str, status: int, seconds: float) -> None:
        """Counts one answered request."""
        self._requests[route, status] += 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(EDGES) + 1)
        buckets[bisect_left(EDGES, seconds)] += 1
        self._sums[route] += seconds  # type: ignore[assignment]  # a Counter adds floats as well

    def text(self, gauges: dict[str, tuple[str, str, float]]) -> str:
        """The exposition; `gauges`: name → (type, help, value) of what others count."""
        node = f'node="{self._node}"'
        lines = [
            "# HELP gateway_requests_total Requests answered, by route and HTTP status.",
            "# TYPE gateway_requests_total counter",
        ]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'gateway_requests_total{{{node},route="{route}",status="{status}"}} {count}')
        name = "gateway_request_duration_seconds"
        lines += [f"# HELP {name} From the request's head to its answer.", f"# TYPE {name} histogram"]
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for edge, count in zip((*map(str, EDGES), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'{name}_bucket{{{node},route="{route}",le="{edge}"}} {total}')
            lines.append(f'{name}_sum{{{node},route="{route}"}} {float(self._sums[route]):.9f}')
            lines.append(f'{name}_count{{{node},route="{route}"}} {total}')
        for gauge, (kind, text, value) in gauges.items():
            lines += [f"# HELP {gauge} {text}", f"# TYPE {gauge} {kind}", f"{gauge}{{{node}}} {value:g}"]
        return "\n".join(lines) + "\n"
