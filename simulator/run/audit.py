"""`sim audit`: the books of a finished run again, from its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from simulator.audit import auditor
from simulator.audit.findings import Books
from simulator.errors import Exit, SimError
from simulator.report import durability, wording
from simulator.report.folder import read_events, refuse_unfinished
from simulator.report.summary import unsettled
from simulator.run.folder import say

if TYPE_CHECKING:
    from pathlib import Path

_REASONS_TOLD = 10  # lines of detail that `sim audit` prints; audit.json has all


def audit_run(run: Path) -> Exit:
    """Audits a finished run again from its files, prints what was found, and returns the exit code."""
    refuse_unfinished(run)
    found = _found(run)
    lines = [f"audit: {wording.audit_word(found)}"]
    unaudited = wording.not_audited(found)
    lines += [f"  {unaudited}; what clients were told was held against itself"] if unaudited else []
    lost = durability.sentence(durability.with_recovery(found.get("durability") or {}, read_events(run)))
    lines += [f"  {lost}"] if lost else []
    for name, count in found["anomalies"].items():
        examples = ", ".join(map(str, found["examples"].get(name, [])))
        lines.append(f"  {name}: {count}" + (f", for example {examples}" if examples else ""))
    lines += [f"  {reason}" for reason in found["reasons"][:_REASONS_TOLD]]
    if len(found["reasons"]) > _REASONS_TOLD:
        lines.append(f"  … and {len(found['reasons']) - _REASONS_TOLD} more such lines")
    lines.append("  checked " + ", ".join(f"{count:,} {what}" for what, count in found["checked"].items()))
    if found["verdict"] == "clean":
        lines.append("  money created or lost: 0")
    say("\n".join(lines))
    if found["verdict"] == "anomalies":
        return Exit.ANOMALIES
    return Exit.ERROR if unsettled(found) else Exit.OK


def _books(summary: dict[str, Any]) -> Books:
    """Who kept the books of a finished run; one of an older version did not say."""
    audit = summary.get("audit")
    told = audit.get("books") if isinstance(audit, dict) else None
    return Books(told) if told in set(Books) else Books.HERE


def _found(run: Path) -> dict[str, Any]:
    """What the auditor finds; of a simulated run, which leaves no journal to read, what it found at the end of it."""
    try:
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        if summary.get("clock") != "virtual":
            return auditor.audit_run(run, books=_books(summary)).to_dict()
        found: dict[str, Any] = json.loads((run / "audit.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SimError(f"{run}: summary.json or audit.json cannot be read: {error}") from None
    say("simulated: there are no journals to read again; what was found at the end of the run:")
    return found
