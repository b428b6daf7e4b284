"""`sim bench shards`: that it measures what it says, loses nothing, and leaves nothing behind. How fast is no test's business."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from sim_process import PATIENCE_S, SIM, children, environment, members, until

from simulator.bench import redis_streams, shards
from simulator.bench.interruption import Interruption
from simulator.bench.naive import DictLedger
from simulator.bench.premade import AS_THEY_COME, SAME_SHARD, premake
from simulator.bench.rig import BooksError, Rig, Workplace
from simulator.bench.saturation import Feeder, saturate
from simulator.cli import main
from simulator.errors import BackendError, Exit, UsageError
from simulator.shard.layout import RECORD, Durability
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = replace(
    shards.settings(0.2, quick=True, curve=True),
    customers=2_000, merchants=100, transactions=1 << 14, warm_up_s=0.05, baseline_s=0.2, light_s=0.2,
    curve_shards=(1, 4), curve_customers=(1_000, 2_000),
)  # fmt: skip


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def results(told: list[str], tmp_path_factory: pytest.TempPathFactory) -> shards.Results:
    folder = tmp_path_factory.mktemp("bench")
    before = children(os.getpid())
    found = shards.measure(SMALL, told.append, folder)
    assert list(folder.iterdir()) == []
    assert children(os.getpid()) <= before
    return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Workplace(tmp_path) as place, Rig(SMALL.shape(), Durability.OS, place) as made:
        yield made


def load(rig: Rig, **options: Any) -> Any:  # noqa: ANN401
    batches = premake(rig.shape, AS_THEY_COME, 1 << 12).by_node(rig.shape)
    with Interruption() as interruption:
        return saturate(
            rig, batches, interruption, **{"warm_up_s": 0.02, "seconds": 0.1, "disk_bytes": 10**9, **options}
        )


# ---- what is measured ----


def test_every_durability_is_measured_with_both_sorts_of_transfers(results: shards.Results) -> None:
    assert [(cell.durability, cell.transfers) for cell in results.cells] == [
        (durability, transfers)
        for durability in ("memory", "os", "interval", "group")
        for transfers in (SAME_SHARD, AS_THEY_COME)
    ]


def test_every_transaction_sent_is_answered_and_only_a_full_queue_turns_one_away(results: shards.Results) -> None:
    for cell in results.cells:
        assert cell.ok + cell.rejected == cell.sent > 0, cell
        assert set(cell.rejected_by_reason) <= {"overflow"}, cell
        assert sum(cell.rejected_by_reason.values()) == cell.rejected


def test_cells_have_figures_that_fit_one_another(results: shards.Results) -> None:
    for cell in results.cells:
        assert cell.ns_per_transaction == pytest.approx(1e9 / cell.transactions_per_s)
        assert cell.rounds_per_s == (cell.transactions_per_s,)
        assert cell.ratio_naive is not None
        assert cell.ratio_naive > 0
        assert cell.commit_ms_p50 is not None
        assert cell.commit_ms_p99 is not None
        assert 0 < cell.commit_ms_p50 <= cell.commit_ms_p99
        assert (cell.commit_records_mean or 0) >= 1
        assert not cell.stopped_early


def test_only_memory_writes_nothing(results: shards.Results) -> None:
    for cell in results.cells:
        per_transaction = cell.journal_bytes_per_s / cell.transactions_per_s
        if cell.durability == "memory":
            assert per_transaction == 0
        else:  # a record each, two where the shards differ; the window's edges are not sharp
            assert per_transaction > 0.5 * RECORD.itemsize


def test_the_baselines_stand_beside_them(results: shards.Results) -> None:
    naive = {each.transfers: each.transactions_per_s for each in results.baselines if each.name == "naive"}
    assert set(naive) == {SAME_SHARD, AS_THEY_COME}
    assert all(naive.values())
    (redis,) = (each for each in results.baselines if each.name == "redis streams")
    assert (redis.transactions_per_s is None) == (redis_streams.why_not() is not None)
    assert redis.note


def test_the_light_load_is_answered_whole(results: shards.Results) -> None:
    assert [light.durability for light in results.light_load] == ["memory", "group"]
    for light in results.light_load:
        assert light.answered == pytest.approx(light.rate_per_s * SMALL.light_s, abs=1)
        assert light.response_ms_p50 is not None
        assert light.response_ms_p50 > 0


def test_the_curve_has_a_best_point_that_the_others_are_held_against(results: shards.Results) -> None:
    assert {(point.shards, point.accounts) for point in results.curve} == {
        (count, accounts) for count in SMALL.curve_shards for accounts in SMALL.curve_customers
    }
    assert min(point.ratio_to_best or 0 for point in results.curve) == 1.0


def test_each_step_is_told_as_it_begins(results: shards.Results, told: list[str]) -> None:
    steps = [what for what in told if not what.startswith("compiling")]
    assert len(steps) == SMALL.steps()
    assert len(results.cells) < len(steps)


def test_rounds_are_told_apart_and_the_median_is_kept(results: shards.Results) -> None:
    cell = results.cells[0]
    rounds = [
        replace(cell, transactions_per_s=rate, ratio_naive=ratio)
        for rate, ratio in ((3.0, 9.0), (1.0, 7.0), (2.0, 8.0))
    ]
    median = shards._median_cell(rounds)  # noqa: SLF001  a law of its own
    assert (median.transactions_per_s, median.ratio_naive, median.rounds_per_s) == (2.0, 8.0, (3.0, 1.0, 2.0))


# ---- what it is measured with ----


def test_transfers_within_a_shard_pay_a_merchant_of_the_payers_shard() -> None:
    shape = SMALL.shape()
    made = premake(shape, SAME_SHARD, 5_000).transactions
    assert (made["payer"] % shape.shards == made["payee"] % shape.shards).all()
    assert made["payee"].min() >= shape.customers
    assert made["payee"].max() < shape.accounts


def test_a_nodes_transactions_are_those_of_its_own_payers() -> None:
    shape = SMALL.shape()
    premade = premake(shape, AS_THEY_COME, 5_000)
    parts = premade.by_node(shape)
    assert sum(len(part) for part in parts) == 5_000
    for node, part in enumerate(parts):
        assert (shape.owners()[part["payer"] % shape.shards] == node).all()


def test_fewer_merchants_than_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="16 shards needs a merchant; there are 15"):
        premake(replace(SMALL, merchants=15).shape(), SAME_SHARD, 10)


def test_the_dictionary_ledger_checks_funds_and_ids() -> None:
    ledger = DictLedger(customers=10, opening_minor=100)
    assert ledger.debit(1, 3, 12, 60) == (Status.OK, Reason.NONE, True)
    ledger.credit(12, 60)
    assert ledger.debit(1, 3, 12, 60) == (Status.OK, Reason.NONE, False)
    assert ledger.debit(1, 3, 12, 61) == (Status.REJECTED, Reason.DUPLICATE, False)
    assert ledger.debit(2, 3, 12, 60) == (Status.REJECTED, Reason.FUNDS, False)
    assert ledger.debit(3, 12, 3, 0) == (Status.REJECTED, Reason.AMOUNT, False)
    assert ledger.drift_minor() == 0


# ---- what must not pass unnoticed ----


def test_a_lost_answer_and_a_doubled_one_do_not_cancel() -> None:
    feeder = Feeder(cast("Rig", SimpleNamespace(wiring=None)), [])
    feeder.sent = 3
    feeder.tally[Status.OK] = 3
    feeder.tally[len(Status)] = 1 + 2 + 3
    assert feeder.complete()
    feeder.tally[len(Status)] = 1 + 2 + 2
    assert not feeder.complete()


@pytest.mark.parametrize("field", ["available_minor", "reserved_minor", "transit_in_minor"])
def test_books_that_do_not_add_up_are_no_result(rig: Rig, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    sheets = rig._sheets  # noqa: SLF001  planted here

    def planted() -> Iterator[dict[str, Any]]:
        for sheet in sheets():
            if sheet["shard"] == 3:
                sheet[field] = (
                    sheet[field] + 1 if isinstance(sheet[field], int) else [each + 1 for each in sheet[field]]
                )
            yield sheet

    monkeypatch.setattr(rig, "_sheets", planted)
    with pytest.raises(BooksError, match=r"books hold|between shards"):
        load(rig)


def test_a_node_that_dies_ends_the_cell(rig: Rig) -> None:
    os.kill(rig.pool.pids[1], signal.SIGKILL)
    with pytest.raises(BackendError, match="node 1: killed by signal 9"):
        load(rig, seconds=30.0)


def test_a_cell_ends_early_at_the_cap_of_the_disk(rig: Rig) -> None:
    found = load(rig, seconds=60.0, disk_bytes=2_000_000)
    assert found.stopped_early
    assert found.ok_in_all + found.rejected_in_all == found.sent_in_all


def test_a_folder_that_cannot_be_written_to_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written to"), Workplace(tmp_path / "gone"):
        pass


def test_a_commit_made_meanwhile_does_not_take_the_journals_along(tmp_path: Path) -> None:
    with Workplace(tmp_path) as place:
        assert (place / ".gitignore").read_text("utf-8") == "*\n"
    assert list(tmp_path.iterdir()) == []


# ---- the command line ----


def test_json_is_all_that_stands_on_the_output(
    results: shards.Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shards, "measure", lambda asked, step: step(f"{asked.seconds:.1f} s") or results)
    assert main(["bench", "shards", "--json", "--seconds", "0.2"]) == 0
    out, err = capsys.readouterr()
    assert err == "0.2 s\n"
    found = json.loads(out)
    assert found["schema"] == 1
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert len(found["cells"]) == len(found["ratios"]["naive"]) == 8
    assert found["cells"][0]["transactions_per_s"] == results.cells[0].transactions_per_s
    assert {"baselines", "light_load", "curve", "settings"} <= set(found)


def test_the_tables_fit_eighty_columns(
    results: shards.Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shards, "measure", lambda *_: results)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench", "shards"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    for word in ("memory", "interval", "as they come", "× naive", "light load", "redis streams", "4 shards"):
        assert word in out


def test_what_was_refused_is_told_under_the_table(
    results: shards.Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = replace(results.cells[0], sent=200, ok=150, rejected=50, rejected_by_reason={"overflow": 50})
    monkeypatch.setattr(shards, "measure", lambda *_: replace(results, cells=[cell]))
    assert main(["bench", "shards"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "memory, same shard: 25.0% of 200 refused (overflow 50), not in tx/s" in told


@pytest.mark.parametrize(
    "arguments", [(), ("bogus",), ("shards", "--seconds", "0"), ("shards", "--rounds", "0"), ("shards", "x")]
)
def test_wrong_use_ends_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == Exit.USAGE
    assert "Usage: sim bench" in "".join(capsys.readouterr())


@pytest.mark.parametrize("when", ["baseline", "cell"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, when: str) -> None:
    with subprocess.Popen(
        [*SIM, "bench", "shards", "--quick", "--seconds", "30"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True,
        env=environment(PYTHONUNBUFFERED="1"),
    ) as bench:  # fmt: skip
        try:
            if when == "baseline":
                until(lambda: len(children(bench.pid)) == 3 or bench.poll() is not None, "client and nodes")
            else:
                until(lambda: [*tmp_path.glob("*/*/*.journal")] or bench.poll() is not None, "journals")
            os.killpg(bench.pid, signal.SIGINT)
            out, err = bench.communicate(timeout=PATIENCE_S)
        finally:
            bench.kill()
    assert (bench.returncode, out) == (Exit.INTERRUPTED, "")
    assert err.endswith("sim: interrupted\n")
    assert list(tmp_path.glob(".sim-bench-*")) == []
    assert members(bench.pid) == set()


def test_every_cell_has_a_rate(results: shards.Results) -> None:
    assert results.cells
    assert np.isfinite([cell.transactions_per_s for cell in results.cells]).all()
