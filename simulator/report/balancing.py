"""The balancer's behaviour in words, for the report: the figures that a reader wants first; summary.json has all of them."""

from __future__ import annotations

from typing import Any

from simulator.report.wording import number

_SCALARS = (
    ("ejections", "ejections by the balancers"),
    ("false_ejection_s", "healthy nodes ejected (node-seconds a balancer)"),
    ("panic_s", "in panic (seconds a balancer)"),
    ("staleness_regret", "staleness regret (requests more than at the least busy node)"),
    ("error_amplification", "errors of clients over errors injected"),
    ("efficiency", "efficiency (0: one queue for all, 1: random)"),
)
BEHAVIOUR = frozenset(key for key, _ in _SCALARS)  # what is told here, and nowhere else if it is not known


def behaviour_rows(balancer: dict[str, Any]) -> list[tuple[str, str]]:
    """Labels and values for what is known; nothing for what is not."""
    rows = _evenness(balancer.get("windows") or {})
    swing = balancer.get("herd") or {}
    if number(swing.get("amplitude")) is not None:
        period = number(swing.get("period_s"))
        text = f"{swing['amplitude']:.3f} of the average" + (f", every {period:.2f} s" if period is not None else "")
        rows.append(("swing of a node's load, peak to trough", text))
    for fault in balancer.get("faults") or []:
        rows += _of_fault(fault)
    for key, label in _SCALARS:
        value = number(balancer.get(key))
        if value is not None:
            rows.append((label, f"{value:g}"))
    for tier, value in (balancer.get("amplification") or {}).items():
        if number(value) is not None:
            rows.append((f"attempts over requests, {tier}", f"{value:.3f}"))
    return rows


def _evenness(windows: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for load, grids in windows.items():
        for window, found in (grids or {}).items():
            both = (found or {}).get("imbalance_max_over_mean")
            if isinstance(both, dict):
                label = f"busiest node over the average, {load.replace('_', ' ')}, per {window}"
                rows.append((label, f"{both['p50']:.3f} (median), {both['p99']:.3f} (p99)"))
    excess = number(((windows.get("requests") or {}).get("run") or {}).get("excess"))
    if excess is not None:
        rows.append(("unevenness beyond chance (coefficient of variation)", f"{excess:.4f}"))
    return rows


def _of_fault(fault: dict[str, Any]) -> list[tuple[str, str]]:
    where = f"node {fault['node']}, sick {fault['start_s']:.1f} to {fault['end_s']:.1f} s"
    rows = []
    shares = {name: value for name, value in fault["traffic_over_fair"].items() if value is not None}
    if shares:
        rows.append(
            (f"{where}: traffic over its fair share", ", ".join(f"{v:.2f} {name}" for name, v in shares.items()))
        )
    seen = fault.get("detection") or {}
    if seen.get("detected"):
        rows.append(
            (
                f"{where}: ejected after",
                f"{seen['p50_s']:.2f} s (median), by {seen['detected']} of {seen['balancers']} balancers",
            )
        )
    back = (fault.get("readmission") or {}).get("fair_share_s")
    if back is not None:
        rows.append((f"{where}: back at 90 % of its share after", f"{back:.2f} s"))
    return rows
