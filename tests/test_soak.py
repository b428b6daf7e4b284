"""The second half of `make soak`, short: everything that tcc can meet at once, under kills and a power loss."""

from __future__ import annotations

from pathlib import Path

import sim_process
from test_recovery import events_of

from simulator.shard.journal import JournalReader, journal_path
from simulator.shard.layout import Leg

SOAK = Path(__file__).parent.parent / "scenarios" / "soak-tcc.yaml"


def test_a_short_soak_of_tcc_with_limits_expiry_shedding_and_snapshots_ends_clean(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = sim_process.call(
        "run", str(SOAK), "--out", str(folder), "--quiet",
        *sim_process.settings(
            "duration=16s", "load.rate=8000/s", "load.accounts=20000", "backend.embedded.remember=131072",
            "backend.embedded.balance_limit=15000 CNY",
            'faults=[{at: 2s, fault: kill, target: "node[*]", every: 2s, times: 6, spread: random},'
            " {at: 9s, fault: power_loss}]",
        ),
    )  # fmt: skip
    ended.folder = folder
    summary = ended.summary
    assert (summary["audit"]["verdict"], summary["audit"]["anomalies"]) == ("clean", {}), ended
    assert summary["counts"]["unknown"] == summary["counts"]["failed"] == 0
    # It met what it is there for: limits that are reached, holds that run out, snapshots, deaths of both sorts.
    assert summary["reasons"]["rejected"]["limit"] > 0
    journals = [JournalReader(journal_path(folder / "journal", node)) for node in range(2)]
    assert any((records["leg"] == Leg.EXPIRE).any() for journal in journals for records in journal.stretches())
    assert list(folder.glob("journal/node-*.snapshot"))
    assert {event["fault"] for event in events_of(ended, "fault")} == {"kill", "power_loss"}
