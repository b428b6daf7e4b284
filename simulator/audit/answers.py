"""Looks at what else clients were told: second answers to one id, and lookups.

A second answer is lawful if it says what the first said, or only that there was no room for one copy of what had been asked
again. A lookup must not answer with less than was acknowledged before it was asked (the history is in order: what stands before
the row of its asking was), nor with anything else than the transaction's own client was told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.audit.history import read_history
from simulator.audit.id_set import IdSet
from simulator.measure.recorder import ASKED, HISTORY, SECOND
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.audit.findings import Audit
    from simulator.audit.loss import PowerLosses

ROWS_MAX = 1 << 20  # second answers, and lookups, that are followed: the first so many of each

_WITHOUT_DECISION = (int(Reason.OVERFLOW), int(Reason.LIMIT))


class Answers:
    """Judges second answers and lookups; `frames` reads the records of all journals."""

    def __init__(
        self, run: Path, audit: Audit, losses: PowerLosses, frames: Callable[[], Iterable[NDArray[np.void]]]
    ) -> None:
        self._run = run
        self._audit = audit
        self._losses = losses
        self._frames = frames

    def check(self, lsn: NDArray[np.int64], remember: int) -> None:
        """`lsn` is the last position of each shard's log, `remember` how many ids a shard remembers (0: not known)."""
        second, asked, asked_at = self._other_rows()
        ids = np.unique(np.concatenate([second["id"], asked["id"], asked["fingerprint"]]))
        first, first_at = self._first_rows(IdSet(ids[ids != 0]))
        self._judge_second(second, first)
        self._judge_lookups(asked, asked_at, first, first_at, lsn, remember)

    def _other_rows(self) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.int64]]:
        """(second answers, lookups going out, where the latter stand in the history)."""
        second, asked, at = [], [], []
        row = 0
        for rows in read_history(self._run):
            second.append(rows[(rows["flags"] & SECOND) != 0])
            found = np.flatnonzero(rows["flags"] & ASKED)
            asked.append(rows[found])
            at.append(row + found)
            row += len(rows)
        every = np.concatenate(second), np.concatenate(asked), np.concatenate(at)
        if any(len(rows) > ROWS_MAX for rows in every):
            self._audit.reasons.append(f"of second answers and of lookups only the first {ROWS_MAX:,} were looked at")
        return every[0][:ROWS_MAX], every[1][:ROWS_MAX], every[2][:ROWS_MAX]

    def _first_rows(self, wanted: IdSet) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """(the rows in which transactions ended, sorted by id, and where each stands in the history)."""
        found, at = [np.zeros(0, HISTORY)], [np.zeros(0, np.int64)]
        row = 0
        for rows in read_history(self._run):
            mask = wanted.mask(rows) & ((rows["flags"] & (SECOND | ASKED)) == 0)
            found.append(rows[mask])
            at.append(row + np.flatnonzero(mask))
            row += len(rows)
        rows, where = np.concatenate(found), np.concatenate(at)
        order = np.argsort(rows["id"], kind="stable")
        return rows[order], where[order]

    def _judge_second(self, second: NDArray[np.void], first: NDArray[np.void]) -> None:
        second = second[~np.isin(second["kind_reason"] >> 3, _WITHOUT_DECISION)]
        if not len(second):
            return
        known = np.isin(second["id"], first["id"][first["status"] != Status.DROPPED])
        self._audit.find("unasked", *sorted(set(second["id"][~known].tolist())))
        second = second[known]
        told = first[np.searchsorted(first["id"], second["id"])]
        same = (
            (told["status"] == second["status"]) & (told["lsn"] == second["lsn"]) & (told["shard"] == second["shard"])
        )
        same &= told["kind_reason"] >> 3 == second["kind_reason"] >> 3
        settled: dict[int, Any] = {}  # of those that ended in doubt, the first answer that came after all
        broken = set()
        for answer, before in zip(second[~same], told[~same], strict=True):
            key = int(answer["id"])
            if before["kind_reason"] & 7 == Kind.LOOKUP or self._excused(answer, before):
                continue
            if before["status"] == Status.UNKNOWN:
                if _said(settled.setdefault(key, answer)) != _said(answer):
                    broken.add(key)
            else:
                broken.add(key)
        self._audit.find("idempotency", *sorted(broken))

    def _excused(self, *answers: Any) -> bool:  # noqa: ANN401  HISTORY rows
        """Whether a power loss took the place that one of them speaks of: the platform cannot know any more what it said."""
        return any(self._losses.took(row) for row in answers)

    def _judge_lookups(
        self, asked: NDArray[np.void], asked_at: NDArray[np.int64], first: NDArray[np.void],
        first_at: NDArray[np.int64], lsn: NDArray[np.int64], remember: int,
    ) -> None:  # fmt: skip
        """A lookup's answer against what the client of the transaction that it asks about was told."""
        if not len(asked) or not len(first):
            return
        mine, about = _find(first, asked["id"]), _find(first, asked["fingerprint"])
        both = (mine >= 0) & (about >= 0)
        asked, asked_at, mine, about = asked[both], asked_at[both], mine[both], about[both]
        answer, told = first[mine], first[about]
        decided = np.isin(told["status"], (Status.OK, Status.REJECTED, Status.FAILED)) & (told["lsn"] != 0)
        decided &= told["shard"] == answer["shard"]
        found = answer["lsn"] != 0
        other = (told["status"] != answer["status"]) | (told["lsn"] != answer["lsn"])
        wrong = decided & found & other
        nothing = ~found & (answer["kind_reason"] >> 3 == Reason.NOT_FOUND)
        # Forgetting is lawful, but not before `remember` more ids have come.
        in_window = told["lsn"].astype(np.int64) + remember > lsn[told["shard"]]
        missed = decided & nothing & in_window & (first_at[about] < asked_at)
        if missed.any():
            payers = self._payers(IdSet(np.unique(told["id"][missed])))
            # Who asks about somebody else's transaction is told that there is none.
            own = [
                payers.get(key) == payer for key, payer in zip(told["id"].tolist(), asked["lsn"].tolist(), strict=True)
            ]
            missed &= np.array(own, np.bool_)
        stale = wrong | missed
        named = [
            int(row["id"])
            for row, about_row in zip(answer[stale], told[stale], strict=True)
            if not self._excused(about_row)
        ]
        self._audit.find("stale_read", *sorted(named))

    def _payers(self, wanted: IdSet) -> dict[int, int]:
        found = [wanted.among(records) for records in self._frames()]
        return {int(r["id"]): int(r["payer"]) for records in found for r in records}


def _find(rows: NDArray[np.void], ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each id stands in rows sorted by id; -1: nowhere."""
    at = np.minimum(np.searchsorted(rows["id"], ids), len(rows) - 1)
    return np.where(rows["id"][at] == ids, at, -1)


def _said(row: Any) -> tuple[int, ...]:  # noqa: ANN401  a HISTORY row
    return int(row["status"]), int(row["kind_reason"]) >> 3, int(row["shard"]), int(row["lsn"])
