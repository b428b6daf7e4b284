"""The first screen of a report in words: headline figures and what was run."""

from __future__ import annotations

from typing import Any

from simulator.report import wording
from simulator.report.blocks import Tile
from simulator.report.wording import NO_DATA, count, ms, plain, rate

_CLOCKS = {"wall": "real processes on this machine", "virtual": "simulated time"}


def facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, when and for how long; what is not known is left out."""
    clock = str(summary.get("clock", ""))
    told = [
        ("scenario", plain(summary["scenario"])),
        ("clock", f"{clock} ({_CLOCKS[clock]})" if clock in _CLOCKS else clock),
        ("seed", str(summary.get("seed", ""))),
        ("started", str(summary.get("started_at", ""))),
        ("load lasted", wording.duration(wording.run_seconds(summary))),
        ("whole run took", wording.duration(summary.get("wall_s"))),
        ("stopped because", str(summary.get("stop_reason") or "")),
        ("version", str(summary.get("version", ""))),
    ]
    return [(label, plain(value)) for label, value in told if value and value != NO_DATA]


def tiles(summary: dict[str, Any]) -> list[Tile]:
    """The headline figures, coloured where something or somebody has an opinion about them."""
    counts, rates, times = summary["counts"], summary["rates"], summary["response_time_ms"]
    value, audit, validity = summary.get("value", {}), summary["audit"], summary["validity"]
    currency = str(value.get("currency", "CNY"))
    dropped = counts.get("dropped") or 0
    virtual = summary.get("clock") == "virtual"
    audit_tile = {
        "clean": Tile(
            "Audit", "clean", "each applied once, or not at all" if virtual else _clean_note(summary), "good"
        ),
        "anomalies": Tile("Audit", "anomalies", f"{count(sum(audit.get('anomalies', {}).values()))} found", "bad"),
        "unknown": _not_clean(audit),
    }
    validity_tile = {
        "valid": Tile("Measurement", "valid", "simulated to its end" if virtual else "the generator kept up", "good"),
        "generator-limited": Tile("Measurement", "generator-limited", "do not quote these figures", "bad"),
        "inconclusive": Tile("Measurement", "inconclusive", "quote these figures with care", "warn"),
    }
    return [
        Tile("Offered", count(counts.get("offered")), f"{count(dropped)} dropped", "warn" if dropped else ""),
        Tile(
            "Completed", rate(rates.get("completed_per_s")), f"on average; {rate(rates.get('offered_per_s'))} offered"
        ),
        Tile("Peak second", rate(rates.get("peak_offered_per_s")), "offered"),
        Tile(
            "Value settled",
            wording.money_short(value.get("settled_minor"), currency),
            f"{wording.as_answered(audit)}of {wording.money_short(value.get('offered_minor'), currency)} offered"
            f"{_what_settles_nothing(summary)}",
        ),
        audit_tile.get(str(audit.get("verdict")), Tile("Audit", NO_DATA)),
        Tile("Response p50", ms(times.get("p50")), "half were faster", _tone(summary, "p(50)")),
        Tile("Response p99", ms(times.get("p99")), "99 of 100 were faster", _tone(summary, "p(99)")),
        Tile("Response p99.9", ms(times.get("p99.9")), "999 of 1,000 were faster", _tone(summary, "p(99.9)")),
        Tile("Slowest", ms(times.get("max")), "response time, maximum", _tone(summary, "max")),
        validity_tile.get(str(validity.get("verdict")), Tile("Measurement", NO_DATA)),
    ]


def _what_settles_nothing(summary: dict[str, Any]) -> str:
    """Why less is settled than was offered though all was answered ok: a hold is settled when it is posted, by another."""
    kinds = summary.get("by_kind") or {}
    held = any(((kinds.get(kind) or {}).get("counts") or {}).get("ok") for kind in ("authorize", "void"))
    return "; holds and voids settle nothing" if held else ""


def _not_clean(audit: dict[str, Any]) -> Tile:
    """What the audit could not say, and whose matter that is."""
    unaudited = wording.not_audited(audit)
    if unaudited and not audit.get("doubts"):
        return Tile("Money", "not audited", unaudited.partition(": ")[2])
    if audit.get("books") == "undeclared":
        return Tile("Audit", "unknown", "this run keeps no books", "warn")
    return Tile("Audit", "unknown", "the books could not be checked", "warn")


def _clean_note(summary: dict[str, Any]) -> str:
    lost = (summary.get("durability") or {}).get("lost_allowed")
    return f"{count(lost)} lost with the power, as allowed" if lost else "every transaction is where it should be"


def _tone(summary: dict[str, Any], statistic: str) -> str:
    """Colour a response time only where the scenario has an opinion about it."""
    found = [
        item.get("passed")
        for item in summary["thresholds"]
        if item.get("metric") == "response_time" and str(item.get("expression", "")).startswith(statistic)
    ]
    return ("good" if all(found) else "bad") if found else ""
