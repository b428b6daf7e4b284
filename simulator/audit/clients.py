"""The audit of a run whose books are not here: what clients were told, held against itself.

Money is not audited: that takes books. What clients can tell without any is that each transaction ended once, that no answer came
to what was never sent, that nobody was told two things of one id, and, where answers say at which position they were booked,
that none was booked before what had been acknowledged when it was asked. The verdict is `anomalies` or `unknown`, never `clean`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.audit.answers import Answers
from simulator.audit.findings import Audit
from simulator.audit.history import add_history, history_path, read_history, sum_of_ids
from simulator.audit.loss import PowerLosses
from simulator.ledger.digest import BUCKETS
from simulator.measure.recorder import REORDERED

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.audit.findings import Books

_SHARDS = 256  # a history row's shard is a byte


def audit_clients(run: Path, books: Books) -> Audit:
    """Audits a run's folder by its history alone; `books` says who keeps them, and is not `HERE`."""
    audit = Audit(books=books)
    if not history_path(run).exists():
        audit.doubt("there is no history of what clients were told")
        return audit
    sums = np.zeros((BUCKETS, 2), np.uint64)  # nothing to hold them against
    statuses, ids, others = np.zeros(256, np.int64), np.zeros(1, np.uint64), np.zeros(1, np.int64)
    for rows in read_history(run):
        add_history(rows, sums, statuses, ids, others)
        audit.find("reordered", *rows["id"][(rows["flags"] & REORDERED) != 0].tolist())
    audit.transactions = int(statuses.sum())
    if ids[0] != sum_of_ids(audit.transactions):
        # Ids are 1, 2, 3 … in the order of intended time, and each ends once.
        audit.doubt("the history does not have one row for each of the transactions 1, 2, 3 …")
    if others[0]:
        nothing_lost = PowerLosses(run / "journal", lambda records: records)
        Answers(run, audit, nothing_lost, lambda: ()).check(np.zeros(_SHARDS, np.int64), 0)
    return audit
