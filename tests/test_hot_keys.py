"""Hot keys: which merchants are, what is measured of them apart, and what journals and audit say of split ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from hypothesis import given, settings
from hypothesis import strategies as st
from plant import Books

from simulator.audit.auditor import audit_run
from simulator.audit.credit_lag import SAMPLES, CreditLagSampler
from simulator.backend.backend import NoopBackend
from simulator.dispatcher import Dispatcher
from simulator.measure.grid import seconds_grid
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import RESPONSE, Recorder, open_tallies
from simulator.report import folder as run_folder
from simulator.report import render
from simulator.report.hot_keys import hot_and_cold
from simulator.report.terminal import summary_text
from simulator.scenario.balancing import Balancer
from simulator.scenario.loader import load
from simulator.shard.journal import Frames, JournalReader, journal_path
from simulator.shard.layout import RECORD, Leg
from simulator.shard.split import Split, as_asked, client_account, parts_of, split_of, unsplit
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Status
from simulator.workload.hot_keys import HotKeys, Popular, hot_keys_of
from simulator.workload.popularity import zipf_shares

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from sim_process import Ended

law = settings(deadline=None, max_examples=40)

SPLIT = ("backend.embedded.hot_account.split=3", "backend.embedded.hot_account.accounts=2", "load.merchants.zipf=1.5")
CUSTOMERS, MERCHANTS = 2_000, 50  # of sim_process.SCENARIO


# ---- which, and what is expected ----


@pytest.mark.parametrize(("merchants", "zipf"), [(1, 1.0), (10, 0.0), (1_000, 1.05), (50, 2.0)])
def test_shares_fall_with_the_rank_by_zipfs_law_and_sum_to_one(merchants: int, zipf: float) -> None:
    shares = zipf_shares(merchants, zipf, merchants)
    assert shares.sum() == pytest.approx(1.0)
    assert np.allclose(shares, shares[0] * np.arange(1, merchants + 1) ** -zipf)
    assert (zipf_shares(merchants, zipf, 5) == shares[:5]).all()


def _scenario(tmp_path: Path, *overrides: str) -> Popular:
    return hot_keys_of(load(sim_process.scenario(tmp_path / "run"), overrides))


def test_hot_is_who_gets_one_percent_of_the_payments_or_is_split(tmp_path: Path) -> None:
    shares = zipf_shares(100_000, 1.05, 100)
    found = _scenario(tmp_path, "load.merchants.count=100000", "load.merchants.zipf=1.05")
    assert found.hot == HotKeys(CUSTOMERS, 9)
    assert shares[8] >= 0.01 > shares[9]
    assert found.share == pytest.approx(shares[:9].sum())
    many = ("load.merchants.count=100000", "load.merchants.zipf=0")
    assert _scenario(tmp_path, *many).hot.accounts == 0
    split = _scenario(
        tmp_path, *many, "backend.embedded.hot_account.split=2", "backend.embedded.hot_account.accounts=200"
    )
    assert (split.hot.accounts, len(split.shares)) == (200, 200)


def test_the_busiest_shard_is_expected_by_the_formula_and_splitting_divides_its_share(tmp_path: Path) -> None:
    steep = ("load.merchants.count=1000000", "load.merchants.zipf=1")
    p = zipf_shares(1_000_000, 1.0, 3)
    found = _scenario(tmp_path, *steep)
    for shards, known in ((16, 2.0), (64, 5.4), (256, 18.7)):  # the figures of the literature, to their digits
        assert found.expected_imbalance(shards) == pytest.approx(shards * p[0] + 1 - p[0])
        assert found.expected_imbalance(shards) == pytest.approx(known, rel=0.03)
    split = _scenario(tmp_path, *steep, "backend.embedded.hot_account.split=4")
    assert split.largest_account_share == pytest.approx(max(p[0] / 4, p[1]))


def test_a_trace_has_no_law_and_only_what_is_split_is_hot(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp,amount,payer,payee\n0,1.00,1,1\n1,1.00,2,2\n", "utf-8")
    path = sim_process.scenario(tmp_path / "run")
    text = path.read_text("utf-8").replace("rate: 5000/s", "rate: {trace: t.csv}").replace("duration: 2s\n", "")
    path.write_text(text, "utf-8")
    assert hot_keys_of(load(path)).hot.accounts == 0
    found = hot_keys_of(load(path, ["backend.embedded.hot_account.split=2"]))
    assert (found.hot.accounts, found.share, found.expected_imbalance(4)) == (1, None, None)


# ---- measured apart ----


@law
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 10**9), st.booleans()), max_size=40),
    st.integers(0, 5),
)
def test_hot_and_cold_together_are_the_whole_exactly(asked: list[tuple[int, int, int, bool]], hot: int) -> None:
    tallies = open_tallies(seconds_grid(4), 1, 4)
    keys = HotKeys(8, hot)
    backend = NoopBackend(1, 4)
    dispatcher = Dispatcher(
        backend, Balancer(policy="round_robin"), 1, tallies, Recorder(4, 1),
        in_flight=64, patience_ns=10**10, write=lambda _: None, hot=keys,
    )  # fmt: skip
    batch = np.zeros(len(asked), TRANSACTION)
    batch["id"] = np.arange(1, len(asked) + 1)
    batch["kind"], batch["amount_minor"] = Kind.PAYMENT, 1
    apart: dict[bool, list[int]] = {True: [], False: []}
    for row, (payer, payee, _, _) in zip(batch, asked, strict=True):
        row["payer"], row["payee"] = payer, payee
    dispatcher.release(batch, 0)
    outcomes = np.zeros(64, OUTCOME)
    answers = outcomes[: backend.poll(outcomes)]
    for answer, (payer, payee, took, refused) in zip(answers, asked, strict=True):
        if refused:
            answer["status"] = Status.REJECTED
        else:
            apart[8 <= payer < 8 + hot or 8 <= payee < 8 + hot].append(took)
        dispatcher.settle(np.array([answer], OUTCOME), took)
    found = Histogram(tallies.hot_response)
    assert (found.counts == Histogram.of(np.array(apart[True], np.int64)).counts).all()
    cold = Histogram(tallies.totals[RESPONSE] - tallies.hot_response)
    assert (cold.counts == Histogram.of(np.array(apart[False], np.int64)).counts).all()
    assert ((found + cold).counts == tallies.totals[RESPONSE]).all()
    told = hot_and_cold(tallies, Popular(keys, (0.5,) * hot), None)
    parts = (told["hot_keys"]["offered"], told["cold_keys"]["offered"])
    assert sum(parts) == len(asked)
    assert tallies.shard_credited.sum() == len(apart[True]) + len(apart[False])


# ---- credit lag ----


def _frames(legs: list[tuple[int, Leg, int, int]]) -> Frames:
    """One frame a leg: (id, leg, payee, when its commit began)."""
    records = np.zeros(len(legs), RECORD)
    for record, (key, leg, payee, _) in zip(records, legs, strict=True):
        record["id"], record["leg"], record["payee"], record["kind"] = key, leg, payee, Kind.PAYMENT
        record["shard"] = payee % 4 if leg == Leg.CREDIT else 0
    return Frames(0, np.array([at for *_, at in legs], np.int64), np.ones(len(legs), np.int64), records)


def test_the_credit_lag_is_from_the_debits_commit_to_the_credits_whichever_file_is_read_first() -> None:
    debits = _frames(
        [(1, Leg.DEBIT, 101, 1_000), (2, Leg.DEBIT, 102, 2_000), (3, Leg.TRANSFER, 100, 9), (4, Leg.DEBIT, 103, 5)]
    )
    credits_ = _frames([(2, Leg.CREDIT, 102, 2_700), (1, Leg.CREDIT, 101, 1_200), (9, Leg.CREDIT, 101, 3)])
    for order in ((debits, credits_), (credits_, debits)):
        sampler = CreditLagSampler(9, 4, unsplit(4), HotKeys(101, 1))
        for frames in order:
            sampler.look(frames)
        found = sampler.measured()
        assert found is not None
        assert (found.one_in, found.same_commit) == (1, 1)
        assert (found.hot.total, found.hot.max_ns) == (1, 200)
        assert (found.cold.total, found.cold.max_ns, found.cold.percentile_ns(50)) == (2, 700, 0)
        assert [h.total for h in found.shards] == [1, 1, 1, 0]


def test_refunds_and_other_legs_have_no_credit_lag() -> None:
    frames = _frames([(1, Leg.DEBIT, 101, 1), (1, Leg.CREDIT, 101, 2), (2, Leg.RESERVE, 101, 3), (3, Leg.NONE, 101, 3)])
    frames.records["kind"][:2] = Kind.REFUND
    sampler = CreditLagSampler(3, 4, unsplit(4), HotKeys(101, 1))
    sampler.look(frames)
    assert sampler.measured() is None


def test_a_long_run_is_sampled_by_id_in_bounded_memory() -> None:
    count = 3 * SAMPLES
    sampler = CreditLagSampler(count, 4, unsplit(4), HotKeys(0, 0))
    for first in range(1, count, 1 << 16):
        records = np.zeros(1 << 16, RECORD)
        records["id"] = np.arange(first, first + len(records))
        records["kind"] = Kind.PAYMENT
        for leg, at in ((Leg.DEBIT, 10), (Leg.CREDIT, 30)):
            records["leg"] = leg
            sampler.look(Frames(0, np.array([at]), np.array([len(records)]), records))
    found = sampler.measured()
    assert found is not None
    assert found.one_in == 4
    assert abs(found.cold.total - count / 4) < 6 * np.sqrt(count / 4)
    assert (found.cold.percentile_ns(0), found.cold.max_ns) == (20, 20)


# ---- a run with a split, from the scenario to the audit ----


@pytest.fixture(scope="module")
def split_run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The small run with two merchants split in three; a node is killed in the middle. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("split") / "run"
    path = sim_process.scenario(folder)
    text = path.read_text("utf-8") + "faults: [{at: 1s, fault: kill, target: 'node[1]'}]\n"
    path.write_text(text, "utf-8")
    ended = sim_process.call(
        "run", str(path), "--out", str(folder), "--quiet", *sim_process.settings(*SPLIT, "dispatcher.in_flight=8192")
    )
    ended.folder = folder
    assert (ended.code, ended.err) == (0, ""), ended
    return ended


@pytest.fixture
def books(split_run: Ended, tmp_path: Path) -> Books:
    """A copy of its books, to plant something in."""
    return Books.copy(split_run.folder, tmp_path / "planted")


def _records(run: Path) -> NDArray[np.void]:
    return np.concatenate(
        [part for n in (0, 1) for part in JournalReader(journal_path(run / "journal", n)).stretches()]
    )


def _split() -> Split:
    return split_of(CUSTOMERS, MERCHANTS, 4, 2, 2, 3)


def test_a_split_run_with_a_killed_node_is_clean_and_its_merged_balances_are_what_clients_paid(
    split_run: Ended,
) -> None:
    assert split_run.summary["journal"]["restarts"] == 1
    audit = json.loads((split_run.folder / "audit.json").read_text("utf-8"))
    assert audit["verdict"] == "clean"
    split = _split()
    records = as_asked(_records(split_run.folder), split)
    arrives = (records["leg"] == Leg.TRANSFER) | (records["leg"] == Leg.CREDIT)
    leaves = (records["leg"] == Leg.TRANSFER) | (records["leg"] == Leg.DEBIT)
    for rank, told in enumerate(audit["hot_accounts"]):
        merchant = CUSTOMERS + rank
        paid = int(records["amount_minor"][arrives & (records["payee"] == merchant)].sum())
        gave = int(records["amount_minor"][leaves & (records["payer"] == merchant)].sum())
        assert gave > 0
        assert (told["merchant"], told["balance_minor"], told["reserved_minor"]) == (merchant, paid - gave, 0)
        assert [part["account"] for part in told["parts"]] == list(parts_of(split, rank))
        assert all(part["balance_minor"] > 0 for part in told["parts"])
        assert sum(part["balance_minor"] for part in told["parts"]) == told["balance_minor"]
    assert len(audit["hot_accounts"]) == 2
    assert audit_run(split_run.folder).to_dict() == audit  # again, from the folder alone


def test_no_refund_of_a_split_merchant_is_refused_for_funds(split_run: Ended) -> None:
    assert split_run.summary["by_kind"]["refund"]["counts"]["ok"] > 100
    assert "funds" not in split_run.summary["reasons"]["rejected"]


def test_the_summary_tells_hot_from_cold_and_how_uneven_the_shards_are(split_run: Ended) -> None:
    found = split_run.summary
    hot, cold = found["hot_keys"], found["cold_keys"]
    assert (hot["split"], hot["split_accounts"], hot["first_account"]) == (3, 2, CUSTOMERS)
    assert hot["offered"] + cold["offered"] == found["counts"]["offered"]
    assert hot["share"] > hot["payments_share_expected"] - 0.05
    assert max(hot["response_time_ms"]["max"], cold["response_time_ms"]["max"]) == found["response_time_ms"]["max"]
    assert cold["credit_lag_ms"]["max"] > 0
    assert found["shard_imbalance_max_over_mean"] >= 1
    assert hot["credited_max_over_mean"] >= 1
    kinds = found["by_kind"]
    assert sum(shard["credited"] for shard in found["shards"]) == sum(
        kinds[k]["counts"]["ok"] for k in ("payment", "post")
    )
    assert sum(shard["share"] for shard in found["shards"]) == pytest.approx(1, abs=1e-5)


def test_report_and_terminal_show_hot_keys_where_there_are_any(split_run: Ended, tmp_path: Path) -> None:
    page = (split_run.folder / "report.html").read_text("utf-8")
    assert '<h2 id="hot">Hot keys</h2>' in page
    assert "2 accounts, 3 parts each" in page
    assert "Split accounts: the sum of the parts, as audited" in page
    from rich.console import Console  # noqa: PLC0415  only here

    console = Console(width=80)
    with console.capture() as shown:
        console.print(summary_text(split_run.summary))
    (line,) = (text for text in shown.get().splitlines() if text.startswith("hot keys"))
    assert "p99" in line
    assert "cold" in line
    cold = {**split_run.summary, "hot_keys": {**split_run.summary["hot_keys"], "accounts": 0}}
    with console.capture() as shown:
        console.print(summary_text(cold))
    assert "hot keys" not in shown.get()
    for path in split_run.folder.iterdir():
        if path.is_file() and path.name not in ("report.html", "summary.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps(cold), "utf-8")
    assert run_folder.read(tmp_path).summary["hot_keys"]["accounts"] == 0
    assert '<h2 id="hot">' not in render(tmp_path).read_text("utf-8")


def _found(books: Books) -> dict[str, Any]:
    return audit_run(books.folder).to_dict()


def test_the_untouched_split_run_is_clean_when_written_again(books: Books) -> None:
    books.save()
    assert _found(books)["verdict"] == "clean"


def test_a_sub_account_that_its_node_remembers_otherwise_is_found_and_named(books: Books) -> None:
    # Within one shard and one merchant sum: neither shard totals nor the merchant's total show it.
    split = _split()
    sheet = json.loads(books.sheet(0).read_text("utf-8"))
    first, second = sheet["hot_accounts"][:2]
    first["available_minor"] += 5
    second["available_minor"] -= 5
    books.sheet(0).write_text(json.dumps(sheet), "utf-8")
    found = _found(books)
    assert found["anomalies"] == {"not_conserved": 2}
    assert f"sub-account {first['account']} of merchant {first['merchant']}" in " ".join(found["reasons"])
    assert client_account(split, first["account"]) == first["merchant"]


def test_a_sub_account_missing_from_the_sheets_is_found(books: Books) -> None:
    sheet = json.loads(books.sheet(1).read_text("utf-8"))
    gone = sheet["hot_accounts"].pop()
    books.sheet(1).write_text(json.dumps(sheet), "utf-8")
    found = _found(books)
    assert found["anomalies"] == {"not_conserved": 1}
    assert any(
        f"sub-account {gone['account']}" in reason and "no such account" in reason for reason in found["reasons"]
    )


@pytest.mark.parametrize("sheets", [False, True], ids=["sheets kept", "sheets agree"])
def test_a_payment_booked_on_another_merchants_sub_account_is_altered(books: Books, sheets: bool) -> None:  # noqa: FBT001  a parameter
    split = _split()
    for node, found in enumerate(books.records):
        for at in np.flatnonzero((found["leg"] == Leg.TRANSFER) & (found["kind"] == Kind.PAYMENT)):
            mine = int(found["payee"][at])
            others = [a for a in parts_of(split, 1) if a % 4 == mine % 4]
            if mine in parts_of(split, 0) and others:
                books.records[node]["payee"][at] = others[0]
                key = int(found["id"][at])
                books.save(sheets=sheets)
                named = _found(books)
                assert named["anomalies"]["altered"] >= 1
                assert key in named["examples"]["altered"]
                return
    raise AssertionError("no payment to move")


def test_a_credit_booked_on_another_part_of_the_same_merchant_is_found(books: Books) -> None:
    # The client's words are the same; only the law of the split tells that this is the wrong part.
    split = _split()
    found = books.records[0]
    parts = {part % 4: part for part in parts_of(split, 0)}
    for at in np.flatnonzero((found["leg"] == Leg.CREDIT) & np.isin(found["payee"], parts_of(split, 0))):
        wrong = [part for shard, part in parts.items() if shard % 2 == 0 and part != int(found["payee"][at])]
        if wrong:
            found["payee"][at] = wrong[0]
            found["shard"][at] = wrong[0] % 4
            books.renumber()
            books.save(sheets=True)
            named = _found(books)
            assert int(found["id"][at]) in named["examples"]["altered"]
            assert "another sub-account than their parties say" in " ".join(named["reasons"])
            return
    raise AssertionError("no credit to move")


def test_the_split_of_the_run_is_in_the_journals_and_headers_that_differ_are_no_one_run(books: Books) -> None:
    header = books.header
    assert (int(header["hot_accounts"]), int(header["hot_split"])) == (2, 3)
    assert int(header["accounts"]) == CUSTOMERS + MERCHANTS + 6
    (books.folder / "summary.json").unlink()
    assert not (books.folder / "scenario.yaml").exists()
    assert _found(books)["verdict"] == "clean"  # journals and history are enough


def test_without_the_split_a_run_has_no_split_accounts_and_no_trace_of_them(small_run: Ended) -> None:
    audit = json.loads((small_run.folder / "audit.json").read_text("utf-8"))
    assert "hot_accounts" not in audit
    assert small_run.summary["hot_keys"]["split_accounts"] == 0
    sheet = json.loads((small_run.folder / "journal" / "node-0.closing.json").read_text("utf-8"))
    assert "hot_accounts" not in sheet


def test_in_memory_durability_a_split_run_is_clean_and_states_the_balances_of_the_nodes(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(*SPLIT, "backend.embedded.durability=memory", "duration=500ms", "load.follow_up.after=50ms"),
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, ""), ended
    audit = json.loads((tmp_path / "run" / "audit.json").read_text("utf-8"))
    assert audit["verdict"] == "clean"
    assert all(found["balance_minor"] > 0 for found in audit["hot_accounts"])
    assert ended.summary["hot_keys"]["credit_lag_ms"] is None


# ---- the scenario ----

REFUSED = {
    "more parts than shards": (
        ("backend.embedded.hot_account.split=5",),
        "split: ",
        "5 sub-accounts need as many shards",
    ),
    "more split merchants than merchants": (
        ("backend.embedded.hot_account.split=2", "backend.embedded.hot_account.accounts=51"),
        "hot_account.accounts: ",
        "51 merchants cannot be split, there are 50",
    ),
    "no parts": (("backend.embedded.hot_account.split=0",), "split: ", "the least is 1"),
    "accounts without a split": (("backend.embedded.hot_account.accounts=2",), "hot_account.split", "is missing"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_split_that_cannot_be_is_refused(case: tuple[tuple[str, ...], str, str], tmp_path: Path) -> None:
    overrides, where, why = case
    ended = sim_process.call("check", str(sim_process.scenario(tmp_path / "run")), *sim_process.settings(*overrides))
    assert ended.code == 104
    assert where in ended.err
    assert why in ended.err


def test_the_plan_tells_hot_keys_and_the_busiest_shard_before_the_run(tmp_path: Path) -> None:
    path = str(sim_process.scenario(tmp_path / "run"))
    told = sim_process.call("check", path, *sim_process.settings(*SPLIT)).out
    (line,) = (text for text in told.splitlines() if text.startswith("hot keys"))
    assert "split in 3" in line
    assert "busiest shard" in line
