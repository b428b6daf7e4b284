"""Float and reserved money over time: read off journal frames, equal to a replay's own sums, and nought when all is quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.audit.held import HeldMoney
from simulator.audit.replay import Ledger, replay
from simulator.ledger.books import RESERVED
from simulator.ledger.digest import BUCKETS
from simulator.measure.grid import seconds_grid
from simulator.shard.journal import Frames
from simulator.shard.layout import NO_LIMIT, RECORD, Leg
from simulator.transaction import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sim_process import Ended

SHARDS = 2
FAR = (Leg.CREDIT, Leg.CONFIRMED, Leg.SEND_BACK)
# What a leg may be of, so that no account of it is nonsense: kinds and whether payer and payee share a shard.
LEGS = [
    (Leg.TRANSFER, Kind.PAYMENT, True), (Leg.TRANSFER, Kind.POST, True), (Leg.DEBIT, Kind.PAYMENT, False),
    (Leg.DEBIT, Kind.POST, False), (Leg.CREDIT, Kind.PAYMENT, False), (Leg.RESERVE, Kind.AUTHORIZE, True),
    (Leg.RELEASE, Kind.VOID, True), (Leg.EXPIRE, Kind.AUTHORIZE, True), (Leg.BEGIN, Kind.PAYMENT, False),
    (Leg.BEGIN, Kind.POST, False), (Leg.COMMIT, Kind.PAYMENT, False), (Leg.COMMIT, Kind.POST, False),
    (Leg.ABORT, Kind.PAYMENT, False), (Leg.ABORT, Kind.POST, False), (Leg.CONFIRMED, Kind.PAYMENT, False),
    (Leg.SEND_BACK, Kind.PAYMENT, False), (Leg.TAKE_BACK, Kind.PAYMENT, False), (Leg.NONE, Kind.PAYMENT, True),
]  # fmt: skip


def record(which: int, amount: int, lsn: int) -> NDArray[np.void]:
    leg, kind, together = LEGS[which]
    made = np.zeros(1, RECORD)
    made["id"], made["amount_minor"], made["lsn"] = lsn, amount, lsn
    made["payer"], made["payee"] = 0, 2 if together else 1
    made["shard"] = 1 if leg in FAR else 0
    made["kind"], made["leg"] = kind, leg
    return made


def frames(records: NDArray[np.void], counts: list[int], committed_s: list[float]) -> Frames:
    return Frames(0, (np.array(committed_s) * 1e9).astype(np.int64), np.array(counts, np.int64), records)


@settings(deadline=None)  # kernels compile, and machines are busy
@given(st.lists(st.tuples(st.integers(0, len(LEGS) - 1), st.integers(1, 10**12)), min_size=1, max_size=60))
def test_what_is_held_at_the_end_is_what_a_replay_says(legs: list[tuple[int, int]]) -> None:
    records = np.concatenate([record(which, amount, at + 1) for at, (which, amount) in enumerate(legs)])
    held = HeldMoney(seconds_grid(4))
    held.look(frames(records, [1] * len(records), np.linspace(0, 3.9, len(records)).tolist()))
    accounts = np.zeros((4, 2), np.int64)
    ledger = Ledger(
        accounts, np.zeros(SHARDS, np.int64), np.zeros((SHARDS, SHARDS), np.int64), np.zeros((SHARDS, SHARDS), np.int64),
        np.zeros((BUCKETS, 2), np.uint64), np.zeros((SHARDS, SHARDS), np.int64),
    )  # fmt: skip
    replay(
        records, accounts, ledger.lsn, ledger.transit_out, ledger.transit_in, ledger.dead, ledger.returned, ledger.finds,
        ledger.example_ids, np.ones(max(Leg) + 1, np.bool_), NO_LIMIT,
    )  # fmt: skip
    found = held.columns(4)
    assert found["reserved_minor"][-1] == accounts[:, RESERVED].sum()
    assert found["float_minor"][-1] == ledger.transit_out.sum() - ledger.transit_in.sum()


def test_a_debit_is_float_from_its_commit_until_the_credits() -> None:
    records = np.concatenate([record(2, 700, 1), record(2, 300, 2), record(4, 700, 1), record(4, 300, 2)])
    held = HeldMoney(seconds_grid(5))
    held.look(frames(records[:2], [2], [0.5]))
    held.look(frames(records[2:], [1, 1], [2.0, 3.2]))
    assert held.columns(5)["float_minor"].tolist() == [1000, 1000, 300, 0, 0]


def test_what_is_committed_after_the_last_row_counts_in_it() -> None:
    held = HeldMoney(seconds_grid(5))
    held.look(frames(record(2, 500, 1), [1], [0.5]))
    held.look(frames(record(4, 500, 1), [1], [99.0]))
    assert held.columns(2)["float_minor"][:2].tolist() == [500, 0]


def test_money_beyond_what_a_float_can_count_is_exact() -> None:
    records = np.concatenate([record(5, 2**60 + 1, 1), record(5, 2**60 + 1, 2)])
    held = HeldMoney(seconds_grid(1))
    held.look(frames(records, [2], [0.1]))
    assert int(held.columns(1)["reserved_minor"][0]) == 2**61 + 2


def test_a_run_ends_with_no_float_and_with_its_open_holds(small_run: Ended) -> None:
    assert small_run.series["float_minor"][-1] == 0
    assert max(small_run.series["reserved_minor"]) > 0
    assert min(small_run.series["reserved_minor"]) >= 0
    assert pytest.approx(0) == min(small_run.series["float_minor"])
