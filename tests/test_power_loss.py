"""A power loss takes at most what the durability allows, and the audit tells what it took, to the last transaction."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from plant import Books
from test_recovery import SHAPE, Platform, transactions

from simulator.audit.auditor import audit_run
from simulator.cli import main
from simulator.fault import inject
from simulator.fault.loss import losses_path, read_losses, read_tail, record_loss, tail_frames
from simulator.report.durability import sentence, with_recovery
from simulator.shard.journal import JournalReader, journal_path
from simulator.shard.layout import FILE_HEADER, FRAME, RECORD, Durability, Leg, NodeState
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim_process import Ended

MODES = {"os": "os", "interval": "{interval: 20ms}", "group": "group", "tcc": "{interval: 20ms}"}
ALLOWED_MS = {"os": 100, "interval": 20, "group": 0, "tcc": 20}


def with_power_losses(to: Path, durability: str, *more: str) -> Ended:
    return sim_process.run(
        to, "--quiet",
        *sim_process.settings(
            "duration=3s", "load.rate=20000/s", "load.accounts=20000", f"backend.embedded.durability={durability}",
            "backend.embedded.remember=131072", "load.follow_up.after=100ms",
            "faults=[{at: 500ms, fault: power_loss, every: 700ms, times: 3, spread: random}]", *more,
        ),
    )  # fmt: skip


def acknowledged_and_gone(run: Path) -> set[int]:
    """The ids whose clients were told ok and of which the journals have nothing that their account was charged."""
    books = Books.read(run)
    rows = books.history[books.history["flags"] == 0]
    told = rows["id"][(rows["status"] == Status.OK) & (rows["kind_reason"] & 7 != Kind.LOOKUP)]
    every = np.concatenate(books.records)
    applied = every["id"][np.isin(every["leg"], (Leg.TRANSFER, Leg.DEBIT, Leg.COMMIT, Leg.RESERVE, Leg.RELEASE))]
    return set(told.tolist()) - set(applied.tolist())


def refused_and_gone(run: Path) -> set[int]:
    """The ids whose clients were told no at a position, and of which the journals have no refusal."""
    books = Books.read(run)
    rows = books.history[books.history["flags"] == 0]
    told = rows["id"][(rows["status"] == Status.REJECTED) & (rows["lsn"] != 0)]
    every = np.concatenate(books.records)
    return set(told.tolist()) - set(every["id"][every["leg"] == Leg.NONE].tolist())


def dropped_ids(run: Path) -> set[int]:
    """The ids of all records that power losses took, from their evidence."""
    return {
        key
        for loss in read_losses(run / "journal")
        for end, _, records in read_tail(run / "journal", loss)
        if end > loss.cut_bytes
        for key in records["id"].tolist()
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ended]:
    """A run with three power losses under load, by its durability."""
    made: dict[str, Ended] = {}

    def run(mode: str) -> Ended:
        if mode not in made:
            more = ("backend.embedded.protocol=tcc",) if mode == "tcc" else ()
            made[mode] = with_power_losses(tmp_path_factory.mktemp(mode) / "run", MODES[mode], *more)
        return made[mode]

    return run


@pytest.mark.parametrize("mode", MODES)
def test_what_a_power_loss_takes_is_within_what_the_durability_allows(runs: Callable[[str], Ended], mode: str) -> None:
    ended = runs(mode)
    gone = acknowledged_and_gone(ended.folder)
    audit, found = ended.summary["audit"], ended.summary["durability"]
    assert (audit["verdict"], audit["anomalies"]) == ("clean", {})
    assert ended.summary["counts"]["unknown"] == 0
    assert (found["mode"], found["lost_allowed"], found["lost_beyond"]) == (
        mode.replace("tcc", "interval"),
        len(gone),
        0,
    )
    assert gone <= dropped_ids(ended.folder)
    assert len(found["power_losses"]) == 6
    allowed_ms = ALLOWED_MS[mode]
    for loss in found["power_losses"]:
        assert loss["allowed"]["ms"] == allowed_ms
        assert 0 <= loss["observed"]["ms"] <= allowed_ms
        for what in ("transactions", "bytes"):
            assert 0 <= loss["observed"][what] <= loss["allowed"][what]
        assert loss["recovery_s"] > 0
    assert sum(loss["observed"]["transactions"] for loss in found["power_losses"]) == len(gone)
    assert 2 <= found["restarts"]["count"] <= 6  # the power may go again before a node is back
    if mode == "group":
        assert not gone


def test_something_was_at_stake_or_the_others_prove_nothing(runs: Callable[[str], Ended]) -> None:
    taken = [loss["observed"]["records"] for mode in MODES for loss in runs(mode).summary["durability"]["power_losses"]]
    assert sum(taken) > 0
    assert acknowledged_and_gone(runs("os").folder)


@pytest.mark.parametrize("mode", MODES)
def test_no_transfer_is_torn_by_a_lawful_loss(runs: Callable[[str], Ended], mode: str) -> None:
    every = np.concatenate(Books.read(runs(mode).folder).records)
    sides = ((Leg.DEBIT, Leg.COMMIT), (Leg.CREDIT, Leg.CONFIRMED))
    debits, credits_ = (set(every["id"][np.isin(every["leg"], legs)].tolist()) for legs in sides)
    assert debits == credits_
    begun, ended = (
        set(every["id"][np.isin(every["leg"], legs)].tolist()) for legs in ((Leg.BEGIN,), (Leg.COMMIT, Leg.ABORT))
    )
    assert begun == ended
    assert bool(begun) == (mode == "tcc")
    assert len(debits) > 1_000


@pytest.mark.parametrize("mode", MODES)
def test_allowed_against_observed_stands_in_the_report_and_in_the_audit_in_one_line(
    runs: Callable[[str], Ended], mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = runs(mode)
    told = sentence(ended.summary["durability"])
    assert "power lost 3 times" in told
    assert "RPO" in told
    assert "RTO" in told
    assert main(["audit", str(ended.folder)]) == 0
    assert f"  {told}" in capsys.readouterr().out.splitlines()
    page = (ended.folder / "report.html").read_text("utf-8")
    assert told[1:] in page
    assert "Power losses: allowed against observed" in page
    audit = json.loads((ended.folder / "audit.json").read_text("utf-8"))
    assert audit["lost_allowed"] == ended.summary["durability"]["lost_allowed"]


@pytest.mark.parametrize("mode", ["group", "interval"])
def test_a_disk_that_had_not_kept_what_it_said_is_found_out_with_exact_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Six frames that were synced go too: in group all of them were acknowledged, in interval before the last sync."""
    honest = inject.synced_bytes
    beyond: set[int] = set()

    def lying(pool: Any, journals: Path, node: int) -> int:  # noqa: ANN401  a Pool
        synced = honest(pool, journals, node)
        end = FILE_HEADER.itemsize
        frames = []
        for _, records in JournalReader(journal_path(journals, node)):
            end += FRAME.itemsize + len(records) * RECORD.itemsize
            frames.append((end, set(records["id"].tolist())))
        sound = [frame for frame in frames if frame[0] <= synced]
        beyond.update(*(ids for _, ids in sound[-6:]))
        return sound[-7][0]

    monkeypatch.setattr(inject, "synced_bytes", lying)
    monkeypatch.setattr(inject, "bits", lambda *_: np.uint64(0))  # the cut falls right there
    run = tmp_path / "run"
    # One node, so that both sides of a transfer stand in one frame, and slow enough that six frames are few transactions.
    code = main([
        "run", str(sim_process.scenario(run)), "--out", str(run), "--quiet",
        *sim_process.settings(
            "duration=1500ms", "load.rate=300/s", "backend.embedded.nodes=1", "load.mix={payment: 1}",
            "backend.embedded.remember=131072",
            f"backend.embedded.durability={MODES[mode]}", "faults=[{at: 1s, fault: power_loss}]",
        ),
    ])  # fmt: skip
    assert code == 122
    gone = acknowledged_and_gone(run)
    expected = gone & beyond
    found = json.loads((run / "audit.json").read_text("utf-8"))
    assert expected
    assert found["anomalies"] == {"lost": len(expected)}
    assert set(found["examples"]["lost"]) == expected
    assert found["lost_allowed"] == len(gone - expected)
    (loss,) = found["durability"]["power_losses"]
    assert loss["observed"]["transactions"] == len(gone)
    assert loss["observed"]["transactions"] > loss["allowed"]["transactions"]
    assert loss["observed"]["ms"] > 0
    assert found["durability"]["lost_beyond"] == len(expected)


def test_memory_loses_all_and_the_audit_says_that_it_may(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "backend.embedded.durability=memory", "backend.embedded.remember=131072", "faults=[{at: 1s, fault: power_loss}]"
        ),
    )  # fmt: skip
    assert ended.code == 1
    assert "stopped: killed by signal 9" in ended.summary["failure"]
    assert (ended.summary["audit"]["verdict"], ended.summary["audit"]["anomalies"]) == ("unknown", {})
    found = ended.summary["durability"]
    assert found["lost_allowed"] == ended.summary["counts"]["ok"] > 0
    assert [loss["allowed"]["transactions"] for loss in found["power_losses"]] == [None, None]
    assert "as memory allows" in sentence(found)
    assert "2 of 2 nodes did not come back" in sentence(found)


# The evidence.


@pytest.fixture
def copy(runs: Callable[[str], Ended], tmp_path: Path) -> Path:
    """A copy of what an audit needs of the run with an interval."""
    ended = runs("interval")
    run = tmp_path / "copy"
    run.mkdir()
    shutil.copytree(ended.folder / "journal", run / "journal")
    for name in ("history.bin", "summary.json"):
        shutil.copy(ended.folder / name, run / name)
    return run


def change_losses(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = losses_path(run / "journal")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_what_was_lost_beyond_a_shorter_interval_is_lost(copy: Path) -> None:
    change_losses(copy, lambda loss: loss.update(unsynced_ns_max=0))
    found = audit_run(copy).to_dict()
    gone = acknowledged_and_gone(copy)
    refused = refused_and_gone(copy)
    assert set(found["anomalies"]) <= {"lost"}
    # Beside them perhaps some that were asked again and stand at another place than they were acknowledged at.
    assert len(gone | refused) <= found["anomalies"].get("lost", 0) <= len(dropped_ids(copy))
    assert set(found["examples"].get("lost", [])) <= dropped_ids(copy)
    assert found["lost_allowed"] == 0


def test_without_its_record_what_a_power_loss_took_is_lost_or_a_phantom(copy: Path) -> None:
    gone = acknowledged_and_gone(copy)
    losses_path(copy / "journal").unlink()
    found = audit_run(copy).to_dict()
    named = {key for name in ("lost", "phantom") for key in found["examples"].get(name, [])}
    # So many buckets differ that not every one is listed; what is named is right, and nothing is excused.
    assert bool(gone) == bool(named) == (found["verdict"] == "anomalies")
    assert named <= gone
    assert found["lost_allowed"] == 0


@pytest.mark.parametrize("harm", ["changed", "gone", "no record", "a path out of the folder"])
def test_evidence_that_is_not_sound_leaves_the_audit_in_doubt(copy: Path, harm: str) -> None:
    tail = copy / "journal" / read_losses(copy / "journal")[0].tail
    if harm == "changed":
        raw = bytearray(tail.read_bytes())
        raw[-1] ^= 1
        tail.write_bytes(raw)
    elif harm == "gone":
        tail.unlink()
    elif harm == "no record":
        losses_path(copy / "journal").write_text('{"number": 1}\n', "utf-8")
    else:
        change_losses(copy, lambda loss: loss.update(tail="../history.bin"))
    found = audit_run(copy).to_dict()
    assert (found["verdict"], found["anomalies"]) == ("unknown", {})
    assert found["reasons"]


def test_a_transaction_that_vanished_besides_what_the_power_took_is_still_lost(copy: Path) -> None:
    books = Books.read(copy)
    books.folder = copy
    key = books.some(Leg.TRANSFER)
    books.drop(*books.places(key)[0])
    books.save()
    assert audit_run(copy).to_dict()["examples"]["lost"] == [key]


def test_the_record_names_what_lies_behind_the_cut_and_where_each_shard_stands(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    for part in np.split(transactions(800), 8):
        platform.offer(part)
        platform.settle()
    journal = journal_path(tmp_path, 0)
    frames = list(tail_frames(journal, FILE_HEADER.itemsize))
    synced, kept = frames[2][0], frames[4][0] + 11  # the cut falls into a frame
    before = journal.read_bytes()
    loss = record_loss(
        tmp_path,
        1,
        0,
        77,
        durability=Durability.OS,
        unsynced_ns_max=5,
        synced_bytes=synced,
        synced_ns=3,
        kept_bytes=kept,
    )
    platform.close()
    assert journal.read_bytes() == before  # recording cuts nothing
    assert (loss.cut_bytes, loss.written_bytes) == (frames[4][0], len(before))
    taken = np.concatenate([records for end, _, records in frames if end > kept])
    assert loss.dropped_records == len(taken)
    for shard in np.unique(taken["shard"]).tolist():
        lsn = taken["lsn"][taken["shard"] == shard]
        assert loss.positions[str(shard)] == [int(lsn[0]) - 1, int(lsn[-1])]
    assert read_losses(tmp_path) == [loss]
    again = list(read_tail(tmp_path, loss))
    assert [end for end, _, _ in again] == [end for end, _, _ in frames if end > synced]


@pytest.mark.parametrize("seed", range(6))
def test_wherever_the_power_goes_between_two_nodes_no_money_is_torn(tmp_path: Path, seed: int) -> None:
    """Two nodes are turned by hand and cut at random behind what each has synced, again and again."""
    chance = np.random.default_rng(seed)
    platform = Platform(tmp_path)
    for node in platform.nodes:
        node.interval_ns = 10**15  # a sync comes when the test says so
    for part in np.split(transactions(1_200, seed), 24):
        platform.offer(part)
        for _ in range(int(chance.integers(1, 5))):
            node = platform.nodes[int(chance.integers(2))]
            node.synced_ns = 0 if chance.random() < 0.3 else node.now_ns()
            node.turn()
        if chance.random() < 0.4:
            for number in range(2):
                path = journal_path(tmp_path, number)
                synced, size = int(platform.board.nodes["synced_bytes"][number]), path.stat().st_size
                assert synced <= size
                with path.open("r+b") as file:
                    file.truncate(int(chance.integers(synced, size + 1)))
            platform.board.nodes["state"] = NodeState.RECOVERED
            for number in chance.permutation(2):
                platform.restart(int(number))
                platform.nodes[int(number)].interval_ns = 10**15
    for node in platform.nodes:
        node.interval_ns = 0
    platform.settle()
    assert platform.transit_is_level()
    held = sum(int(node.books.accounts.sum()) for node in platform.nodes)
    assert held == SHAPE.customers * SHAPE.opening_minor
    platform.close()


# In words.


def told(losses: list[dict[str, Any]], mode: str, beyond: int = 0, ready: tuple[float, ...] = (0.25,)) -> str:
    durability = {"mode": mode, "power_losses": losses, "lost_allowed": 7, "lost_beyond": beyond}
    events = [
        {"t_s": 2.0 + i, "event": "node_ready", "node": 0, "recovery_s": seconds} for i, seconds in enumerate(ready)
    ]
    return sentence(with_recovery(durability, events))


def one_loss(allowed_ms: float, observed_ms: float) -> dict[str, Any]:
    return {
        "at_s": 1.0, "node": 0, "allowed": {"ms": allowed_ms, "transactions": 12, "records": 20, "bytes": 900},
        "observed": {"ms": observed_ms, "transactions": 7, "records": 9, "bytes": 400},
    }  # fmt: skip


def test_the_line_is_one_that_a_planner_understands() -> None:
    assert told([one_loss(20.0, 4.2)], "interval") == (
        "power lost once: at most 4.2 ms of acknowledged work lost at once, 20 ms allowed (RPO); "
        "7 transactions, of 12 that were not synced; none beyond; back within 250 ms (RTO)"
    )
    assert told([one_loss(0.0, 0.0)], "group") == (
        "power lost once: nothing acknowledged may be lost, and nothing was (RPO 0); back within 250 ms (RTO)"
    )
    assert "and 3 were (RPO 0)" in told([one_loss(0.0, 5.0)], "group", beyond=3)
    assert "3 beyond what interval allows" in told([one_loss(20.0, 40.0)], "interval", beyond=3)
    assert "1 of 1 nodes did not come back" in told([one_loss(20.0, 4.2)], "interval", ready=())
    assert told([], "os") == ""
    assert with_recovery({}, []) == {}
