"""What power losses and restarts came to: allowed against observed, for a planner who thinks in RPO and RTO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.report.wording import count, duration, ms, number, plain

if TYPE_CHECKING:
    from collections.abc import Iterable


def with_recovery(durability: dict[str, Any], events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The audit's `durability` with how long nodes were away, as the run's events tell.

    Adds `recovery_s` to each power loss (None: the node did not come back) and `restarts: {count, recovery_s_max}`.
    Empty if there was nothing to audit.
    """
    if not durability:
        return {}
    back = [event for event in events if event.get("event") == "node_ready"]
    times = [event["recovery_s"] for event in back]
    losses = [
        {
            **loss,
            "recovery_s": next(
                (e["recovery_s"] for e in back if e.get("node") == loss["node"] and e["t_s"] >= loss["at_s"]), None
            ),
        }
        for loss in durability["power_losses"]
    ]
    return {
        **durability,
        "power_losses": losses,
        "restarts": {"count": len(times), "recovery_s_max": max(times, default=None)},
    }


def sentence(durability: dict[str, Any]) -> str:
    """Power losses in one line, allowed against observed (RPO) and how long nodes were away (RTO); "" if there was none."""
    losses = durability.get("power_losses") or []
    if not losses:
        return ""
    times = len({loss["at_s"] for loss in losses})
    told = f"power lost {'once' if times == 1 else f'{times} times'}: "
    away = [number(loss.get("recovery_s")) for loss in losses]
    back = [seconds for seconds in away if seconds is not None]
    mode = plain(durability.get("mode"))
    allowed, beyond = durability.get("lost_allowed") or 0, durability.get("lost_beyond") or 0
    observed_ms = [number(loss["observed"]["ms"]) for loss in losses]
    if mode == "memory":
        told += f"{count(allowed)} acknowledged transactions lost, all there were, as memory allows"
    elif mode == "group":
        told += "nothing acknowledged may be lost, and " + ("nothing was" if not beyond else f"{count(beyond)} were")
        told += " (RPO 0)"
    else:
        worst = max((value for value in observed_ms if value is not None), default=0.0)
        might = sum(loss["allowed"]["transactions"] for loss in losses)
        told += (
            f"at most {ms(worst)} of acknowledged work lost at once, {ms(losses[0]['allowed']['ms'])} allowed (RPO); "
        )
        told += f"{count(allowed)} transactions, of {count(might)} that were not synced; "
        told += f"{count(beyond)} beyond what {mode} allows" if beyond else "none beyond"
    if len(back) < len(losses):
        return f"{told}; {len(losses) - len(back)} of {len(losses)} nodes did not come back"
    return f"{told}; back within {_seconds(max(back))} (RTO)"


def _seconds(value: float) -> str:
    return ms(1000 * value) if value < 1 else duration(value)


def rows(durability: dict[str, Any]) -> list[tuple[str, ...]]:
    """A table's rows: when, which node, allowed and observed in time and transactions, records taken, how long away."""

    def either(value: object, show: Any) -> str:  # noqa: ANN401  a function of wording
        return "all" if value is None else str(show(value))

    return [
        (
            f"{loss['at_s']:.3f} s",
            plain(loss["node"]),
            either(loss["allowed"]["ms"], ms),
            either(loss["observed"]["ms"], ms),
            either(loss["allowed"]["transactions"], count),
            either(loss["observed"]["transactions"], count),
            count(loss["observed"]["records"]),
            "did not come back" if loss.get("recovery_s") is None else _seconds(loss["recovery_s"]),
        )
        for loss in durability.get("power_losses") or []
    ]
