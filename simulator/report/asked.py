"""What the scenario of a finished run asked for, as far as the report needs it: the bounds that it set, the knots of its curve.

Read from the run's own `scenario.yaml`, which has every default, without the model: a file of an older version is read as far
as it says the same, and what it does not say is not known.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from simulator.arrivals.curves import CURVES
from simulator.report.wording import number
from simulator.scenario.units import NS_PER_S, parse_duration, parse_rate

KNOTS_MOST = 1_000  # of a curve; more are a line


@dataclass(frozen=True)
class Asked:
    """What was asked; None: not known, or there is no such bound.

    Attributes:
        in_flight: transactions that may wait for their answer.
        patience_s: a transaction later than this is dropped.
        lag_limit_ms: above this p99 of the schedule lag the run is generator-limited.
        queue: requests that may wait in front of a node.
        max_rate_per_s: what each node takes from its clients.
        connections: to all targets, of a run over HTTP.
        knots_s: when the curve's knots are, in the run's time.
    """

    in_flight: float | None = None
    patience_s: float | None = None
    lag_limit_ms: float | None = None
    queue: float | None = None
    max_rate_per_s: float | None = None
    connections: float | None = None
    knots_s: tuple[float, ...] = ()


def asked_in(text: str) -> Asked:
    """What a scenario's text says; nothing, if it cannot be read."""
    try:
        scenario = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return Asked()
    dispatcher, backend, platform = (_part(scenario, name) for name in ("dispatcher", "backend", "platform"))
    embedded, http = _part(backend, "embedded") or _part(backend, "ledger"), _part(backend, "http")
    lag_limit, patience = _seconds(dispatcher.get("lag_limit")), _seconds(dispatcher.get("patience"))
    virtual = isinstance(scenario, dict) and scenario.get("clock") == "virtual"
    return Asked(
        in_flight=number(dispatcher.get("in_flight")),
        patience_s=patience,
        lag_limit_ms=None if lag_limit is None else 1_000 * lag_limit,
        queue=number(platform.get("queue") if virtual and platform else embedded.get("queue")),
        max_rate_per_s=_rate(embedded.get("max_rate")),
        connections=number(http.get("connections")),
        knots_s=_knots(_part(_part(scenario, "load"), "rate")),
    )


def _part(of: Any, name: str) -> dict[str, Any]:  # noqa: ANN401  whatever YAML holds
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else {}


def _seconds(text: object) -> float | None:
    with suppress(ValueError):
        return parse_duration(text) / NS_PER_S
    return None


def _rate(text: object) -> float | None:
    with suppress(ValueError):
        return parse_rate(text)
    return None


def _knots(rate: dict[str, Any]) -> tuple[float, ...]:
    """The knots of a curve within its window, from the window's start; none for any other rate."""
    curve = rate.get("curve")
    if isinstance(curve, str) and curve in CURVES:
        knots: list[float | None] = list(CURVES[curve].knots_s)
    else:
        pairs = _part(rate, "curve").get("knots")
        knots = (
            [_seconds(pair[0]) for pair in pairs if isinstance(pair, list) and pair] if isinstance(pairs, list) else []
        )
    window = rate.get("window")
    first, last = (_seconds(edge) for edge in window) if isinstance(window, list) and len(window) == 2 else (0.0, None)  # noqa: PLR2004  from, to
    start, end = first or 0.0, float("inf") if last is None else last
    return tuple(knot - start for knot in knots if knot is not None and start <= knot <= end)[:KNOTS_MOST]
