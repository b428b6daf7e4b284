"""The auditor: a sound run is clean, and each planted anomaly is found, by its name and its transaction.

Where an anomaly leaves several traces, variants wipe out all but one: positions renumbered, so that no gap shows, and closing
sheets rewritten, so that the nodes' memory agrees with the journal. What finds it then is the digest.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plant import Books

from simulator.audit import auditor
from simulator.audit.auditor import audit_run
from simulator.audit.findings import ANOMALIES, Audit
from simulator.audit.life_cycle import LifeCycles
from simulator.cli import main
from simulator.measure.recorder import REORDERED, SECOND
from simulator.shard.layout import FILE_HEADER, Leg
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim_process import Ended

# These name neighbours, victims, originals and followers too.
_WITHOUT_ID = {"log_gap", "log_repeat", "overdraft", "orphan", "over_posted", "over_refunded"}


@pytest.fixture
def books(small_run: Ended, tmp_path: Path) -> Books:
    """A copy of a clean run's books, to plant something in."""
    return Books.copy(small_run.folder, tmp_path / "planted")


def found_in(books: Books) -> dict[str, Any]:
    return audit_run(books.folder).to_dict()


def named(found: dict[str, Any]) -> dict[str, list[int]]:
    """The transactions that are named, by what is wrong with each."""
    return {name: ids for name, ids in found["examples"].items() if name not in _WITHOUT_ID}


def in_two_shards(books: Books, kind: Kind = Kind.PAYMENT) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """(id, place of the debit, place of the credit) of a transfer between shards of two nodes."""
    for debit in np.concatenate([r[(r["leg"] == Leg.DEBIT) & (r["kind"] == kind)] for r in books.records])[50:]:
        places = books.places(int(debit["id"]))
        legs = {int(books.records[n][at]["leg"]): (n, at) for n, at in places}
        if legs[Leg.DEBIT][0] != legs[Leg.CREDIT][0]:
            return int(debit["id"]), legs[Leg.DEBIT], legs[Leg.CREDIT]
    raise AssertionError("the run has no transfer between two nodes")


# Sound books.


def test_the_untouched_run_is_clean(books: Books) -> None:
    found = found_in(books)
    assert (found["verdict"], found["anomalies"], found["examples"], found["reasons"]) == ("clean", {}, {}, [])
    assert found["checked"]["records"] == sum(len(records) for records in books.records)
    assert main(["audit", str(books.folder)]) == 0


def test_books_that_are_written_again_unchanged_are_clean(books: Books) -> None:
    books.save()
    assert found_in(books)["verdict"] == "clean"


def test_the_closing_sheets_are_what_the_journals_add_up_to(books: Books) -> None:
    for node in range(2):
        sheet = json.loads(books.sheet(node).read_text("utf-8"))
        assert sheet["shards"] == [books.sums(shard["shard"]) for shard in sheet["shards"]]


def test_books_in_which_nothing_stands_are_clean(books: Books) -> None:
    books.history = books.history[:0]
    books.records = [records[:0] for records in books.records]
    books.save(sheets=True)
    assert found_in(books)["verdict"] == "clean"


def test_a_torn_last_write_is_lawful_and_told(books: Books) -> None:
    books.save()
    journal = books.journal(1)
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[FILE_HEADER.itemsize : FILE_HEADER.itemsize + 100])
    found = found_in(books)
    assert found["verdict"] == "clean"
    assert [reason for reason in found["reasons"] if "torn write of 100 bytes" in reason]
    assert main(["audit", str(books.folder)]) == 0


# One record of one transaction.


@pytest.mark.parametrize("sheets", [False, True], ids=["sheets kept", "sheets agree"])
@pytest.mark.parametrize(
    ("leg", "kind"),
    [(Leg.TRANSFER, Kind.PAYMENT), (Leg.TRANSFER, Kind.POST), (Leg.TRANSFER, Kind.REFUND),
     (Leg.RESERVE, Kind.AUTHORIZE), (Leg.RELEASE, Kind.VOID)],
)  # fmt: skip
def test_a_dropped_record_is_lost_and_leaves_a_gap(books: Books, leg: Leg, kind: Kind, sheets: bool) -> None:  # noqa: FBT001  a parameter
    key = books.some(leg, kind, number=20)
    books.drop(*books.places(key)[0])
    books.save(sheets=sheets)
    found = found_in(books)
    assert named(found) == {"lost": [key]}
    assert (found["anomalies"]["lost"], found["anomalies"]["log_gap"]) == (1, 1)
    assert main(["audit", str(books.folder)]) == 122


def test_a_dropped_record_whose_place_was_taken_is_a_phantom(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    books.drop(*books.places(key)[0])
    books.renumber()
    books.save(sheets=True)
    found = found_in(books)
    assert found["anomalies"] == {"phantom": 1}
    assert named(found) == {"phantom": [key]}
    assert main(["audit", str(books.folder)]) == 122


def test_the_last_record_of_a_shard_is_missed_though_no_gap_can_show_it(books: Books) -> None:
    shard = 2
    records = books.records[0]
    alone = {int(i) for i in records["id"][records["leg"] == Leg.TRANSFER]}
    at = next(at for at in range(len(records) - 1, 0, -1) if records[at]["shard"] == shard)
    while (
        int(records[at]["id"]) not in alone
    ):  # what comes behind the last local transfer goes too, and is told as well
        at = next(before for before in range(at - 1, 0, -1) if records[before]["shard"] == shard)
    key = int(records[at]["id"])
    behind = {int(r["id"]) for r in records[at + 1 :] if r["shard"] == shard}
    books.records[0] = np.delete(records, [i for i in range(at, len(records)) if records[i]["shard"] == shard])
    books.save(sheets=True)
    found = found_in(books)
    assert "log_gap" not in found["anomalies"]
    assert key in named(found)["lost"]
    assert {i for ids in named(found).values() for i in ids} <= behind | {key}  # of each anomaly the first 20 are named
    assert sum(found["anomalies"][name] for name in named(found)) >= len(behind | {key})


@pytest.mark.parametrize("renumbered", [False, True], ids=["as it was", "renumbered"])
@pytest.mark.parametrize(
    ("leg", "kind"),
    [(Leg.TRANSFER, Kind.PAYMENT), (Leg.DEBIT, Kind.PAYMENT), (Leg.CREDIT, Kind.PAYMENT), (Leg.DEBIT, Kind.POST),
     (Leg.RESERVE, Kind.AUTHORIZE), (Leg.RELEASE, Kind.VOID)],
)  # fmt: skip
def test_a_repeated_record_is_a_duplicate(books: Books, leg: Leg, kind: Kind, renumbered: bool) -> None:  # noqa: FBT001  a parameter
    key = books.some(leg, kind, number=20)
    place = next(p for p in books.places(key) if books.records[p[0]][p[1]]["leg"] == leg)
    books.repeat(*place)
    if renumbered:
        books.renumber()
    books.save(sheets=renumbered)
    found = found_in(books)
    assert named(found) == {"duplicated": [key]}
    assert found["anomalies"]["duplicated"] == 1
    assert ("log_repeat" in found["anomalies"]) != renumbered
    assert main(["audit", str(books.folder)]) == 122


@pytest.mark.parametrize("changed", ["one leg", "both legs", "the only leg"])
@pytest.mark.parametrize("field", ["amount_minor", "related", "payer", "payee"])
def test_a_leg_with_other_parties_or_amount_than_asked_for_is_altered(books: Books, changed: str, field: str) -> None:
    if changed == "the only leg":
        key = books.some(Leg.TRANSFER)
        places = books.places(key)
    else:
        key, debit, credit = in_two_shards(books)
        places = [credit] if changed == "one leg" else [debit, credit]
    # A neighbour in the same shard, so that the shards stay right.
    more = books.shards if field in ("payer", "payee") else 1
    for node, at in places:
        books.records[node][field][at] += more
    books.save(sheets=True)
    found = found_in(books)
    assert named(found) == {"altered": [key]}
    assert main(["audit", str(books.folder)]) == 122


@pytest.mark.parametrize("missing", ["debit", "credit"])
@pytest.mark.parametrize("renumbered", [False, True], ids=["as it was", "renumbered"])
def test_a_transfer_cut_in_half_is_torn(books: Books, missing: str, renumbered: bool) -> None:  # noqa: FBT001  a parameter
    key, debit, credit = in_two_shards(books)
    books.drop(*(debit if missing == "debit" else credit))
    if renumbered:
        books.renumber()
    books.save(sheets=renumbered)
    found = found_in(books)
    assert named(found) == {"torn": [key]}
    assert found["anomalies"].get("log_gap", 0) == (0 if renumbered else 1)
    assert [reason for reason in found["reasons"] if reason.startswith("transit from shard")]
    assert main(["audit", str(books.folder)]) == 122


def test_a_debit_that_also_pays_the_far_side_cannot_stand_in_for_both_legs(books: Books) -> None:
    # As sums of sides, a transfer is a debit and a credit: only where the money went tells the two apart.
    key, debit, credit = in_two_shards(books)
    books.records[debit[0]]["leg"][debit[1]] = Leg.TRANSFER
    books.drop(*credit)
    books.renumber()
    books.save(sheets=True)
    found = found_in(books)
    assert found["verdict"] == "anomalies"
    assert main(["audit", str(books.folder)]) == 122
    assert key in {i for ids in found["examples"].values() for i in ids}


@pytest.mark.parametrize("leg", [Leg.TRANSFER, Leg.DEBIT, Leg.RESERVE, Leg.RELEASE])
def test_a_record_that_nobody_asked_for_is_invented(books: Books, leg: Leg) -> None:
    kind = {Leg.RESERVE: Kind.AUTHORIZE, Leg.RELEASE: Kind.VOID}.get(leg, Kind.PAYMENT)
    payer = 6
    payee = payer + (1 if leg == Leg.DEBIT else books.shards)
    record = books.new_record(leg, kind, payer=payer, payee=payee, amount=1)
    books.append(record)
    books.save(sheets=True)
    found = found_in(books)
    assert named(found) == {"invented": [int(record["id"][0])]}
    assert main(["audit", str(books.folder)]) == 122


def test_money_that_an_account_does_not_have_is_an_overdraft(books: Books) -> None:
    worth = int(books.header["opening_minor"]) * int(books.header["customers"])
    record = books.new_record(Leg.TRANSFER, Kind.PAYMENT, payer=6, payee=6 + books.shards, amount=worth)
    key = int(record["id"][0])
    books.append(record)
    books.save(sheets=True)
    found = found_in(books)
    assert found["anomalies"] == {"invented": 1, "overdraft": 1}
    assert found["examples"] == {"invented": [key], "overdraft": [key]}
    assert main(["audit", str(books.folder)]) == 122


def test_a_hold_that_takes_more_than_is_there_is_an_overdraft_though_no_money_left(books: Books) -> None:
    worth = int(books.header["opening_minor"]) * int(books.header["customers"])
    record = books.new_record(Leg.RESERVE, Kind.AUTHORIZE, payer=6, payee=7, amount=worth)
    books.append(record)
    books.save(sheets=True)
    assert found_in(books)["examples"]["overdraft"] == [int(record["id"][0])]


# What clients were told.


@pytest.mark.parametrize("status", [Status.REJECTED, Status.FAILED, Status.DROPPED])
@pytest.mark.parametrize("leg", [Leg.TRANSFER, Leg.DEBIT])
def test_what_was_refused_and_yet_applied_is_named(books: Books, status: Status, leg: Leg) -> None:
    key = books.some(leg)
    books.tell(key, status)
    books.save()
    found = found_in(books)
    assert found["anomalies"] == {"failed_but_applied": 1}
    assert named(found) == {"failed_but_applied": [key]}
    assert main(["audit", str(books.folder)]) == 122


def test_what_was_in_doubt_and_applied_in_full_is_lawful_and_counted(books: Books) -> None:
    for key in (books.some(Leg.TRANSFER), books.some(Leg.DEBIT)):
        books.tell(key, Status.UNKNOWN)
    books.save()
    found = found_in(books)
    assert (found["verdict"], found["unknown_but_applied"]) == ("clean", 2)


def test_what_was_in_doubt_and_applied_by_half_is_torn(books: Books) -> None:
    key, _, credit = in_two_shards(books)
    books.tell(key, Status.UNKNOWN)
    books.drop(*credit)
    books.renumber()
    books.save(sheets=True)
    assert named(found_in(books)) == {"torn": [key]}


@pytest.mark.parametrize("leg", [Leg.TRANSFER, Leg.DEBIT])
def test_what_was_in_doubt_and_applied_twice_is_a_duplicate(books: Books, leg: Leg) -> None:
    key = books.some(leg)
    books.tell(key, Status.UNKNOWN)
    books.repeat(*books.places(key)[0])
    books.renumber()
    books.save(sheets=True)
    assert named(found_in(books)) == {"duplicated": [key]}


def test_what_was_in_doubt_and_applied_with_another_amount_is_altered(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    books.tell(key, Status.UNKNOWN)
    ((node, at),) = books.places(key)
    books.records[node]["amount_minor"][at] += 1
    books.save(sheets=True)
    assert named(found_in(books)) == {"altered": [key]}


def test_two_different_answers_for_one_id_are_a_breach_of_idempotency(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    again = books.history[books.history["id"] == key].copy()
    again["lsn"] += 1
    books.history = np.concatenate([books.history, again])
    books.save()
    assert named(found_in(books)) == {"idempotency": [key]}


def test_an_acknowledgement_of_what_never_was_is_named(books: Books) -> None:
    row = books.history[:1].copy()
    row["id"] = int(books.history["id"].max()) + 1_000
    row["lsn"] = books.last_lsn(int(row["shard"][0])) + 1
    books.history = np.concatenate([books.history, row])
    books.save()
    assert named(found_in(books)) == {"lost": [int(row["id"][0])]}


def test_an_acknowledgement_at_a_place_that_holds_something_else_is_a_phantom(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    other = books.some(Leg.TRANSFER, number=200)
    rows = books.history["id"] == key
    books.history["lsn"][rows] = books.history["lsn"][books.history["id"] == other]
    books.history["shard"][rows] = books.history["shard"][books.history["id"] == other]
    books.save()
    found = found_in(books)
    assert found["verdict"] == "anomalies"
    assert named(found) == {"phantom": [key]}


def test_a_loss_and_a_duplicate_at_once_are_both_found(books: Books) -> None:
    lost, twice = books.some(Leg.TRANSFER, number=10), books.some(Leg.TRANSFER, number=300)
    books.repeat(*books.places(twice)[0])
    books.drop(*books.places(lost)[0])
    books.renumber()
    books.save(sheets=True)
    assert named(found_in(books)) == {"duplicated": [twice], "phantom": [lost]}


def test_many_losses_are_counted_one_by_one(books: Books) -> None:
    keys = sorted({books.some(Leg.TRANSFER, number=number) for number in range(0, 500, 7)})
    for key in keys:
        books.drop(*books.places(key)[0])
    books.save()
    found = found_in(books)
    assert found["anomalies"]["lost"] == len(keys)
    assert set(found["examples"]["lost"]) < set(keys)


def test_an_ok_that_was_flagged_by_the_dispatcher_is_reordered(books: Books) -> None:
    # That the dispatcher flags it, and when: tests/test_dispatcher.py.
    key = books.some(Leg.TRANSFER)
    books.history["flags"][books.history["id"] == key] = REORDERED
    books.save()
    found = found_in(books)
    assert (found["anomalies"], named(found)) == ({"reordered": 1}, {"reordered": [key]})
    assert main(["audit", str(books.folder)]) == 122


def test_a_difference_that_no_single_transaction_explains_is_an_anomaly_all_the_same(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is known that only the sums would see; so the look at single transactions is blinded.
    books.tell(books.some(Leg.TRANSFER), Status.REJECTED)
    books.save()
    monkeypatch.setattr(auditor, "wrong", lambda *_: "")
    assert found_in(books)["anomalies"] == {"unexplained": 1}


def test_every_anomaly_stands_in_the_catalogue_with_a_test_that_exists() -> None:
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    catalogue = (Path(__file__).parents[1] / "docs" / "audit.md").read_text("utf-8")
    rows = [line.split(" | ") for line in catalogue.splitlines() if re.match(r"\| `[a-z_]+` \| .* \| `test_", line)]
    assert {row[0].strip("| `") for row in rows} == set(ANOMALIES)
    planted = {row[-1].strip("| `") for row in rows}
    assert len(planted) >= len(ANOMALIES) - 3  # a few leave two traces
    assert not {name for name in planted if f"def {name}(" not in tests}


# Idempotency: one id, one decision.


def test_a_second_answer_like_the_first_is_lawful(books: Books) -> None:
    books.answer_again(books.refuse())
    for leg in (Leg.TRANSFER, Leg.DEBIT, Leg.RESERVE):
        books.answer_again(books.some(leg, Kind.AUTHORIZE if leg == Leg.RESERVE else Kind.PAYMENT))
    books.save(sheets=True)
    assert found_in(books)["verdict"] == "clean"


@pytest.mark.parametrize(
    "changed",
    [
        {"status": Status.REJECTED, "kind_reason": Reason.FUNDS << 3},
        {"lsn": 1 << 31},
        {"status": Status.FAILED},
        {"shard": 3},
    ],
    ids=["no", "another position", "failed", "another shard"],
)
def test_a_second_answer_that_says_something_else_is_a_breach_of_idempotency(
    books: Books, changed: dict[str, int]
) -> None:
    key = next(k for k in range(1, 500) if books.row(k)["status"] == Status.OK and books.row(k)["shard"] != 3)
    books.answer_again(key, **changed)
    books.save()
    found = found_in(books)
    assert (found["anomalies"], named(found)) == ({"idempotency": 1}, {"idempotency": [key]})
    assert main(["audit", str(books.folder)]) == 122


def test_a_copy_that_found_no_room_does_not_contradict_the_one_that_was_booked(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    books.answer_again(key, status=Status.REJECTED, lsn=0, kind_reason=Reason.OVERFLOW << 3)
    books.save()
    assert found_in(books)["verdict"] == "clean"


def test_an_answer_that_comes_after_all_contradicts_no_doubt_but_two_of_them_may_contradict_each_other(
    books: Books,
) -> None:
    late, both = books.some(Leg.TRANSFER, number=10), books.some(Leg.TRANSFER, number=30)
    for key in (late, both):
        books.answer_again(key)
        books.tell(key, Status.UNKNOWN)
        books.history["status"][(books.history["id"] == key) & (books.history["flags"] != 0)] = Status.OK
    books.save()
    assert found_in(books)["verdict"] == "clean"
    books.answer_again(both, status=Status.REJECTED, lsn=0, kind_reason=Reason.FUNDS << 3)
    books.save()
    assert named(found_in(books)) == {"idempotency": [both]}


def test_an_answer_to_what_was_never_sent_is_unasked(books: Books) -> None:
    row = books.row(1)
    row["id"], row["flags"] = books.next_id() + 5, SECOND
    books.history = np.concatenate([books.history, row])
    books.save()
    assert named(found_in(books)) == {"unasked": [int(row["id"][0])]}


def test_one_id_applied_again_with_other_parameters_is_a_breach_of_idempotency(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    ((node, at),) = books.places(key)
    again = books.records[node][at : at + 1].copy()
    again["amount_minor"] += 1
    books.append(again)
    books.save(sheets=True)
    assert named(found_in(books)) == {"idempotency": [key]}


@pytest.mark.parametrize("refused", ["before", "after"])
def test_one_id_both_refused_and_applied_is_a_breach_of_idempotency(books: Books, refused: str) -> None:
    # Both sides say that it was applied, once: only the logged refusal shows that a failed key has succeeded.
    key = books.some(Leg.TRANSFER)
    ((node, at),) = books.places(key)
    no = books.records[node][at : at + 1].copy()
    no["leg"], no["reason"] = Leg.NONE, Reason.FUNDS
    books.records[node] = np.insert(books.records[node], at if refused == "before" else at + 1, no[0])
    books.renumber()
    applied = books.record(key, Leg.TRANSFER)
    books.history["lsn"][books.history["id"] == key] = applied["lsn"]
    books.save(sheets=True)
    found = found_in(books)
    assert (found["anomalies"], named(found)) == ({"idempotency": 1}, {"idempotency": [key]})


def test_a_refusal_that_was_told_and_is_not_in_the_log_is_lost_for_its_id_could_succeed_later(books: Books) -> None:
    key = books.refuse()
    books.save(sheets=True)
    assert found_in(books)["verdict"] == "clean"
    books.drop(*books.places(key)[0])
    books.save(sheets=True)
    assert named(found_in(books)) == {"lost": [key]}


def test_a_refusal_that_is_logged_but_was_told_as_undecided_is_a_breach_of_idempotency(books: Books) -> None:
    key = books.refuse()
    books.history["lsn"][books.history["id"] == key] = 0
    books.save(sheets=True)
    assert named(found_in(books)) == {"idempotency": [key]}


def test_a_refusal_logged_twice_is_a_duplicate_and_one_of_something_else_is_altered(books: Books) -> None:
    twice, other = books.refuse(), books.refuse()
    books.repeat(*books.places(twice)[0])
    books.renumber()
    for node, at in books.places(other):
        books.records[node]["amount_minor"][at] += 1
    books.save(sheets=True)
    assert named(found_in(books)) == {"duplicated": [twice], "altered": [other]}


# Lookups.


def test_a_lookup_that_tells_what_was_acknowledged_is_lawful(books: Books) -> None:
    for key in (books.some(Leg.TRANSFER), books.some(Leg.DEBIT), books.refuse()):
        row = books.row(key)[0]
        payer = int(books.record(key, Leg.TRANSFER, Leg.DEBIT, Leg.NONE)["payer"])
        books.look_up(
            key, payer=payer, asked_at=len(books.history), status=int(row["status"]), lsn=int(row["lsn"]),
            kind_reason=(int(row["kind_reason"]) & 0xF8) | Kind.LOOKUP,
        )  # fmt: skip
    books.save(sheets=True)
    assert found_in(books)["verdict"] == "clean"


_NOT_FOUND = {"status": int(Status.REJECTED), "lsn": 0, "kind_reason": (Reason.NOT_FOUND << 3) | Kind.LOOKUP}


def test_a_lookup_that_misses_what_was_acknowledged_before_it_was_asked_is_a_stale_read(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    payer = int(books.record(key, Leg.TRANSFER)["payer"])
    known_at = int(np.flatnonzero(books.history["id"] == key)[0])
    books.look_up(key, payer=payer, asked_at=known_at, **_NOT_FOUND)  # asked before: it may miss it
    other = books.look_up(key, payer=payer + books.shards, asked_at=len(books.history), **_NOT_FOUND)  # not its own
    books.save()
    assert found_in(books)["verdict"] == "clean"
    stale = books.look_up(key, payer=payer, asked_at=known_at + 2, **_NOT_FOUND)
    books.save()
    found = found_in(books)
    assert (found["anomalies"], named(found)) == ({"stale_read": 1}, {"stale_read": [stale]})
    assert stale != other
    assert main(["audit", str(books.folder)]) == 122


def test_a_lookup_that_misses_what_its_shard_may_have_forgotten_is_lawful(books: Books) -> None:
    key = next(k for k in range(1, 100) if len(books.places(k)) == 1 and books.row(k)["status"] == Status.OK)
    payer = int(books.record(key, Leg.TRANSFER, Leg.RESERVE)["payer"])
    books.look_up(key, payer=payer, asked_at=len(books.history), **_NOT_FOUND)
    books.save()
    assert found_in(books)["verdict"] == "anomalies"
    books.set_header(remember=16)
    books.save()
    assert found_in(books)["verdict"] == "clean"


@pytest.mark.parametrize("changed", [{"lsn": 1}, {"status": int(Status.REJECTED)}])
def test_a_lookup_that_tells_something_else_than_was_acknowledged_is_a_stale_read(
    books: Books, changed: dict[str, int]
) -> None:
    key = books.some(Leg.TRANSFER)
    told = {"status": int(Status.OK), "lsn": int(books.row(key)["lsn"][0]), "kind_reason": int(Kind.LOOKUP)}
    payer = int(books.record(key, Leg.TRANSFER)["payer"])
    stale = books.look_up(key, payer=payer, asked_at=0, **(told | changed))
    books.save()
    assert named(found_in(books)) == {"stale_read": [stale]}


# Life-cycles. What is planted here was asked for, acknowledged and booked alike: nothing else can find it.


def paid_between_neighbours(books: Books) -> Any:  # noqa: ANN401  one RECORD
    """The record of a payment within a shard that nobody has refunded, by somebody who could pay again."""
    every = np.concatenate(books.records)
    related = set(every["related"].tolist())
    paid = every[(every["leg"] == Leg.TRANSFER) & (every["kind"] == Kind.PAYMENT)]
    return next(r for r in paid[20:] if int(r["id"]) not in related)


def test_refunds_up_to_their_original_are_lawful_and_one_fen_more_is_over_refunded(books: Books) -> None:
    paid = paid_between_neighbours(books)
    back: dict[str, int] = {"payer": int(paid["payee"]), "payee": int(paid["payer"]), "related": int(paid["id"])}
    amount = int(paid["amount_minor"])
    books.book(Leg.TRANSFER, Kind.REFUND, amount=amount - 1, **back)
    books.book(Leg.TRANSFER, Kind.REFUND, amount=1, **back)
    books.save(sheets=True)
    assert found_in(books)["verdict"] == "clean"
    books.book(Leg.TRANSFER, Kind.REFUND, amount=1, **back)
    books.save(sheets=True)
    found = found_in(books)
    assert (found["anomalies"], found["examples"]) == ({"over_refunded": 1}, {"over_refunded": [int(paid["id"])]})
    assert main(["audit", str(books.folder)]) == 122


@pytest.mark.parametrize(
    ("leg", "kind"), [(Leg.TRANSFER, Kind.POST), (Leg.RELEASE, Kind.VOID), (Leg.EXPIRE, Kind.AUTHORIZE)]
)
def test_posts_voids_and_expiries_beyond_their_hold_are_over_posted(books: Books, leg: Leg, kind: Kind) -> None:
    payer, payee, other = 6, 6 + books.shards, 6 + 2 * books.shards
    hold = books.book(Leg.RESERVE, Kind.AUTHORIZE, payer=payer, payee=payee, amount=100)
    books.book(Leg.RESERVE, Kind.AUTHORIZE, payer=payer, payee=other, amount=50)  # so that there is something to take
    books.book(Leg.TRANSFER, Kind.POST, payer=payer, payee=payee, amount=60, related=hold)
    if leg == Leg.EXPIRE:
        record = books.new_record(leg, kind, payer=payer, payee=payee, amount=40)
        record["id"] = hold
        books.append(record.copy())
        more = books.new_record(leg, kind, payer=payer, payee=payee, amount=1)
        more["id"] = hold
    else:
        books.book(leg, kind, payer=payer, payee=payee, amount=40, related=hold)
    books.save(sheets=True)
    assert found_in(books)["verdict"] == "clean"
    if leg == Leg.EXPIRE:
        books.append(more)
    else:
        books.book(leg, kind, payer=payer, payee=payee, amount=1, related=hold)
    books.save(sheets=True)
    found = found_in(books)
    assert (found["anomalies"], found["examples"]) == ({"over_posted": 1}, {"over_posted": [hold]})


@pytest.mark.parametrize("why", ["no original", "other parties", "a hold", "a refund", "behind it"])
def test_a_refund_without_an_original_that_it_could_be_of_is_an_orphan(books: Books, why: str) -> None:
    paid = paid_between_neighbours(books)
    payer, payee = int(paid["payee"]), int(paid["payer"])
    related = int(paid["id"])
    if why == "no original":
        related = books.next_id() + 100
    elif why == "other parties":
        payee += books.shards
    elif why == "a hold":
        related = books.book(Leg.RESERVE, Kind.AUTHORIZE, payer=payee, payee=payer, amount=10)
    elif why == "a refund":
        books.book(Leg.TRANSFER, Kind.REFUND, payer=payer, payee=payee, amount=5, related=related)
        related = books.next_id() - 1
        payer, payee = payee, payer
    else:
        related = books.next_id() + 1
    key = books.book(Leg.TRANSFER, Kind.REFUND, payer=payer, payee=payee, amount=1, related=related)
    if why == "behind it":
        assert books.book(Leg.TRANSFER, Kind.PAYMENT, payer=payee, payee=payer, amount=9) == related
    books.save(sheets=True)
    found = found_in(books)
    assert (found["anomalies"], found["examples"]) == ({"orphan": 1}, {"orphan": [key]})
    assert main(["audit", str(books.folder)]) == 122


@pytest.mark.parametrize(("leg", "kind"), [(Leg.TRANSFER, Kind.POST), (Leg.RELEASE, Kind.VOID)])
def test_a_post_or_void_of_no_hold_is_an_orphan(books: Books, leg: Leg, kind: Kind) -> None:
    payer, payee = 6, 6 + books.shards
    books.book(Leg.RESERVE, Kind.AUTHORIZE, payer=payer, payee=payee, amount=50)
    paid = paid_between_neighbours(books)
    key = books.book(leg, kind, payer=payer, payee=payee, amount=1, related=int(paid["id"]))
    books.save(sheets=True)
    assert found_in(books)["examples"] == {"orphan": [key]}


def test_life_cycles_are_followed_alike_in_one_sweep_and_in_many(books: Books) -> None:
    paid = paid_between_neighbours(books)
    over = {"payer": int(paid["payee"]), "payee": int(paid["payer"]), "related": int(paid["id"])}
    books.book(Leg.TRANSFER, Kind.REFUND, amount=int(paid["amount_minor"]), **over)
    books.book(Leg.TRANSFER, Kind.REFUND, amount=1, **over)
    orphan = books.book(Leg.TRANSFER, Kind.REFUND, amount=1, **(over | {"related": books.next_id() + 100}))
    for most in (1 << 20, 50):
        audit = Audit()
        cycles = LifeCycles(most)
        for records in books.records:
            cycles.add(records)
        cycles.check(lambda: books.records, audit)
        assert audit.to_dict()["examples"] == {"over_refunded": [int(paid["id"])], "orphan": [orphan]}
        assert audit.anomalies.total() == 2


# Damage, and what is missing.


def test_a_damaged_byte_in_the_middle_is_damage_and_says_where(books: Books) -> None:
    books.save()
    journal = books.journal(0)
    raw = bytearray(journal.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    journal.write_bytes(raw)
    found = found_in(books)
    assert (found["verdict"], found["anomalies"]["damaged"]) == ("anomalies", 1)
    assert [reason for reason in found["reasons"] if "node-0.journal: damaged at byte" in reason]
    assert main(["audit", str(books.folder)]) == 122


def test_a_damaged_header_is_damage(books: Books) -> None:
    journal = books.journal(1)
    raw = bytearray(journal.read_bytes())
    raw[20] ^= 1
    journal.write_bytes(raw)
    assert found_in(books)["anomalies"] == {"damaged": 1}
    assert main(["audit", str(books.folder)]) == 122


def test_a_closing_sheet_with_one_fen_more_is_not_conserved(books: Books) -> None:
    sheet = json.loads(books.sheet(0).read_text("utf-8"))
    sheet["shards"][0]["available_minor"] += 1
    books.sheet(0).write_text(json.dumps(sheet), "utf-8")
    found = found_in(books)
    assert found["anomalies"] == {"not_conserved": 1}
    assert found["conservation_minor"] == 1
    assert main(["audit", str(books.folder)]) == 122


def test_a_fen_that_moved_within_a_closing_sheet_is_not_conserved(books: Books) -> None:
    sheet = json.loads(books.sheet(0).read_text("utf-8"))
    sheet["shards"][0]["available_minor"] += 1
    sheet["shards"][1]["available_minor"] -= 1
    books.sheet(0).write_text(json.dumps(sheet), "utf-8")
    found = found_in(books)
    assert (found["anomalies"], found["conservation_minor"]) == ({"not_conserved": 2}, 0)


def remove_sheet(books: Books) -> None:
    books.sheet(1).unlink()


def spoil_sheet(books: Books) -> None:
    books.sheet(1).write_text('{"node": 1', "utf-8")


def remove_history(books: Books) -> None:
    (books.folder / "history.bin").unlink()


def remove_journal(books: Books) -> None:
    books.journal(1).unlink()


def remove_journals(books: Books) -> None:
    for node in range(2):
        books.journal(node).unlink()


@pytest.mark.parametrize("missing", [remove_sheet, spoil_sheet, remove_history, remove_journal, remove_journals])
def test_without_what_a_judgement_needs_the_verdict_is_unknown(books: Books, missing: Callable[[Books], None]) -> None:
    missing(books)
    found = found_in(books)
    assert (found["verdict"], found["anomalies"]) == ("unknown", {})
    assert found["reasons"]
    assert main(["audit", str(books.folder)]) == 1


def test_an_anomaly_outranks_a_doubt(books: Books) -> None:
    key = books.some(Leg.TRANSFER)
    books.drop(*books.places(key)[0])
    books.save()
    books.sheet(1).unlink()
    found = found_in(books)
    assert (found["verdict"], named(found)) == ("anomalies", {"lost": [key]})


def test_a_folder_that_is_no_run_is_a_wrong_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path)]) == 2
    assert "summary.json" in capsys.readouterr().err


def test_the_printed_audit_names_the_anomaly_and_its_transaction(
    books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    key = books.some(Leg.TRANSFER)
    books.drop(*books.places(key)[0])
    books.save()
    capsys.readouterr()
    assert main(["audit", str(books.folder)]) == 122
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "audit: anomalies"
    assert [line for line in lines if "lost: 1" in line and str(key) in line]


# Anywhere.


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_single_loss_repeat_or_wrong_amount_is_found_wherever_it_is(small_run: Ended, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        books = Books.copy(small_run.folder, Path(name) / "planted")
        node = data.draw(st.integers(0, len(books.records) - 1), "node")
        at = data.draw(st.integers(0, len(books.records[node]) - 1), "record")
        what = data.draw(st.sampled_from(["loss", "repeat", "amount"]), "what")
        key, leg = int(books.records[node][at]["id"]), int(books.records[node][at]["leg"])
        alone = leg in (Leg.NONE, Leg.TRANSFER, Leg.RESERVE, Leg.RELEASE)
        if what == "loss":
            books.drop(node, at)
            expected = {"lost", "phantom"} if alone else {"torn"}
        elif what == "repeat":
            books.repeat(node, at)
            expected = {"duplicated"}
        else:
            books.records[node]["amount_minor"][at] += data.draw(st.sampled_from([-1, 1, 100]), "more")
            expected = {"altered"}
        if data.draw(st.booleans(), "renumbered"):
            books.renumber()
        books.save(sheets=data.draw(st.booleans(), "sheets"))
        found = found_in(books)
    assert found["verdict"] == "anomalies"
    assert set(named(found)) <= expected
    assert list(named(found).values()) == [[key]]
