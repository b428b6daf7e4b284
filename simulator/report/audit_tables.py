"""Tables of the books: what the audit looked for and found, and what power losses took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.report import durability, wording
from simulator.report.blocks import Table, cut
from simulator.report.wording import count, metric_name, plain

if TYPE_CHECKING:
    from simulator.report.folder import RunFolder

ROWS_MAX = 200  # power losses in a table; summary.json has all


def audit_facts(run: RunFolder) -> list[tuple[str, str]]:
    """What the audit held against what: sums and counts."""
    audit, currency = run.audit, str(run.summary.get("value", {}).get("currency", "CNY"))
    drift = audit.get("conservation_minor")
    facts = [("money created or lost", "not audited" if drift is None else wording.money(drift, currency))]
    given_back = wording.returned(run.summary)
    facts += [("returned", given_back)] if given_back else []
    return facts + [(f"{metric_name(name)} checked", count(n)) for name, n in (audit.get("checked") or {}).items()]


def anomalies(audit: dict[str, Any]) -> Table:
    """Every anomaly that the audit looks for, what was found first."""
    examples = audit.get("examples") or {}
    found = audit.get("anomalies") or {}
    meanings = audit.get("looked_for") or {}
    rows = [
        (
            metric_name(name),
            plain(meanings.get(name, "")),
            ", ".join(map(plain, examples.get(name, []))),
            count(found.get(name, 0)),
        )
        for name in sorted({*meanings, *found}, key=lambda name: (-found.get(name, 0), name))
    ]
    head = ("anomaly", "meaning", "example transactions", "found")
    return Table("What the audit looked for", head, rows, words=frozenset({0, 1, 2}))


def power_losses(summary: dict[str, Any]) -> Table:
    """What each power loss might take and took."""
    head = (
        "at",
        "node",
        "time allowed",
        "time lost",
        "transactions not synced",
        "transactions lost",
        "records taken",
        "back after",
    )
    rows = durability.rows(summary.get("durability") or {})
    return Table(
        "Power losses: allowed against observed", head, rows[:ROWS_MAX], note=cut(rows, "power losses", ROWS_MAX)
    )
