"""The balancer's behaviour in words, for the report: the figures that a reader wants first; summary.json has all of them."""

from __future__ import annotations

from typing import Any

from simulator.report.wording import number

_FAULTS_SHOWN = 8
_SCALARS = (
    ("ejections", "ejections by the balancers"),
    ("readmissions", "re-admissions"),
    ("false_ejection_s", "healthy nodes ejected (node-seconds a balancer)"),
    ("panic_s", "in panic (seconds a balancer)"),
    ("staleness_regret", "staleness regret (requests more than at the least busy node)"),
    ("dead_picks", "picks of nodes that were down"),
    ("error_amplification", "errors of clients over errors injected"),
    ("efficiency", "efficiency (0: one queue for all, 1: random)"),
)
# What is told here, and nowhere else if it is not known.
BEHAVIOUR = frozenset(
    {*(key for key, _ in _SCALARS), "faults_in_all", "health_events"}
)  # what is told here, and nowhere else if it is not known


def behaviour_rows(balancer: dict[str, Any]) -> list[tuple[str, str]]:
    """Labels and values for what is known; nothing for what is not."""
    rows = _evenness(balancer.get("windows") or {})
    swing = balancer.get("herd") or {}
    if number(swing.get("amplitude")) is not None:
        period = number(swing.get("period_s"))
        text = f"{swing['amplitude']:.3f} of the average" + (f", every {period:.2f} s" if period is not None else "")
        rows.append(("swing of a node's load, peak to trough", text))
    for fault in (balancer.get("faults") or [])[:_FAULTS_SHOWN]:
        rows += _of_fault(fault)
    sick = number(balancer.get("faults_in_all"))
    if sick is not None and sick > _FAULTS_SHOWN:
        rows.append(("sick nodes in all", f"{sick:,.0f}; the first {_FAULTS_SHOWN} are shown"))
    if balancer.get("ejections") is None and balancer.get("health_events"):
        rows.append(
            (
                "ejections by the balancers",
                f"not known: {balancer['health_events']:,} health events happened, more than are kept",
            )
        )
    for key, label in _SCALARS:
        value = number(balancer.get(key))
        if value is not None:
            rows.append((label, f"{value:g}"))
    for tier, value in (balancer.get("amplification") or {}).items():
        if number(value) is not None:
            rows.append((f"attempts over requests, {tier}", f"{value:.3f}"))
    return rows + _of_trigger(balancer.get("metastability") or {}) + _of_churn(balancer.get("affinity_churn") or {})


def _of_trigger(found: dict[str, Any]) -> list[tuple[str, str]]:
    ratio = number(found.get("goodput_after_over_before"))
    if ratio is None:
        return []
    start, end = found.get("trigger_s") or (0.0, 0.0)
    recovered = number(found.get("recovered_s"))
    back = "never at 95 % again within the run" if recovered is None else f"95 % after {recovered:.2f} s"
    rows = [(f"goodput after the disturbance ({start:.1f} to {end:.1f} s) over before", f"{ratio:.3f}, {back}")]
    if found.get("feeds_itself") is not None:
        rows.append(
            ("by the fluid bound a collapse would feed itself", "yes: ρ₀(1 + r) ≥ 1" if found["feeds_itself"] else "no")
        )
    return rows


def _of_churn(found: dict[str, Any]) -> list[tuple[str, str]]:
    moved, least = number(found.get("moved")), number(found.get("optimum"))
    if moved is None or least is None:
        return []
    return [("keys that move when the node that died is left out", f"{100 * moved:.2f} % ({100 * least:.2f} % must)")]


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
