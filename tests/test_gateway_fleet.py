from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from hypothesis import given
from hypothesis import strategies as st
from plant import Books
from pydantic import ValidationError

from simulator.audit.auditor import audit_run
from simulator.audit.keys import KeyMap, read_keys, write_keys
from simulator.backend.http import receipt
from simulator.balancer.sickness import sickness
from simulator.gateway import problems
from simulator.gateway.keys import id_of
from simulator.gateway.ledger_client import Decision
from simulator.gateway.proxy import haproxy_config, nginx_config
from simulator.gateway.server import Listen
from simulator.measure.answerers import NAMES_MAX, Answerers
from simulator.measure.recorder import HISTORY
from simulator.run.gateways import of_targets
from simulator.scenario.gateway_fleet import Proxy
from simulator.scenario.model import Scenario
from simulator.shard.layout import RECORD, Leg
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim_process import Ended

SMALL = ("duration=1500ms", "load.rate=400/s", "load.follow_up.after=300ms", "dispatcher.patience=20s")
FLEET = "backend={http: {fleet: {nodes: 3, ledger: {nodes: 2, shards: 4, remember: 16_384}}, connections: 24}}"


def fleet_run(folder: Path, *settings: str) -> Ended:
    return sim_process.run(folder, "--quiet", *sim_process.settings(*SMALL, *settings))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return fleet_run(tmp_path_factory.mktemp("fleet") / "run", FLEET, "backend.http.identify={header: X-Node}")


# ---- the audit ----


def test_a_healthy_run_over_http_is_audited_clean(healthy: Ended) -> None:
    assert healthy.summary["audit"]["verdict"] == "clean", healthy.err
    assert healthy.code == 0, (healthy.out, healthy.err)
    counts = healthy.summary["counts"]
    assert counts["ok"] > 300
    found = json.loads((healthy.folder / "audit.json").read_text("utf-8"))
    assert found["checked"]["transactions"] == counts["offered"]
    assert found["checked"]["records"] > counts["ok"] / 2
    by_kind = healthy.summary["by_kind"]
    assert all(by_kind[kind]["counts"]["ok"] for kind in ("payment", "refund", "authorize", "post", "void"))


def test_every_gateway_took_its_part_and_says_so(healthy: Ended) -> None:
    told = healthy.summary["answered_by"]
    assert {node["node"] for node in told["nodes"]} == {"gateway-0", "gateway-1", "gateway-2"}
    assert sum(node["answered"] for node in told["nodes"]) == healthy.summary["counts"]["sent"]
    # With the balancer before them, who was sent to is who answered.
    sent = {f"gateway-{node['node']}": node["sent"] for node in healthy.summary["nodes"]}
    assert {node["node"]: node["answered"] for node in told["nodes"]} == sent
    page = (healthy.folder / "report.html").read_text("utf-8")
    assert "Who answered, by their own names" in page


@pytest.fixture
def books(healthy: Ended, tmp_path: Path) -> Books:
    copied = Books.copy(healthy.folder, tmp_path / "planted")
    shutil.copy(healthy.folder / "keys.json", copied.folder / "keys.json")
    return copied


def paid(books: Books) -> tuple[int, int]:
    """(number, id in the ledger) of a payment within one shard that its client was told is done."""
    prefix = json.loads((books.folder / "keys.json").read_text("utf-8"))["prefix"]
    within = set(np.concatenate([r[r["leg"] == Leg.TRANSFER]["id"] for r in books.records]).tolist())
    for row in books.history[len(books.history) // 2 :]:
        key = id_of(f"{prefix}{row['id']}")
        if row["status"] == Status.OK and key in within:
            return int(row["id"]), key
    raise AssertionError("no such payment")


def anomalies(books: Books) -> dict[str, int]:
    return dict(audit_run(books.folder).to_dict()["anomalies"])


def test_an_untouched_copy_is_clean(books: Books) -> None:
    books.save()
    assert anomalies(books) == {}


def test_a_payment_that_the_ledger_lost_is_named_by_its_number(books: Books) -> None:
    number, key = paid(books)
    ((node, at),) = books.places(key)
    books.drop(node, at)
    books.save(sheets=True)
    found = audit_run(books.folder).to_dict()
    assert found["anomalies"]["lost"] == 1
    assert found["examples"]["lost"] == [number]


def test_a_payment_that_was_booked_twice_is_found(books: Books) -> None:
    number, key = paid(books)
    ((node, at),) = books.places(key)
    books.append(books.records[node][at : at + 1].copy())
    books.save(sheets=True)
    found = audit_run(books.folder).to_dict()
    assert found["examples"]["duplicated"] == [number]


def test_a_payment_with_another_amount_is_found(books: Books) -> None:
    number, key = paid(books)
    ((node, at),) = books.places(key)
    books.records[node]["amount_minor"][at] += 1
    books.save(sheets=True)
    assert audit_run(books.folder).to_dict()["examples"]["altered"] == [number]


def test_what_was_booked_although_the_client_was_told_no_is_found(books: Books) -> None:
    number, _ = paid(books)
    books.tell(number, Status.REJECTED)
    books.save()
    assert audit_run(books.folder).to_dict()["examples"]["failed_but_applied"] == [number]


def test_what_nobody_asked_for_is_found(books: Books) -> None:
    _, key = paid(books)
    ((node, at),) = books.places(key)
    record = books.records[node][at : at + 1].copy()
    record["id"] = id_of("somebody-else's")
    books.append(record)
    books.save(sheets=True)
    assert audit_run(books.folder).to_dict()["examples"]["invented"] == [id_of("somebody-else's")]


def test_a_payment_in_doubt_that_was_booked_is_lawful_and_counted(books: Books) -> None:
    number, _ = paid(books)
    books.tell(number, Status.UNKNOWN)
    books.save()
    found = audit_run(books.folder).to_dict()
    assert (found["verdict"], found["unknown_but_applied"]) == ("clean", 1)


def test_without_its_keys_file_nothing_can_be_reconciled(books: Books) -> None:
    (books.folder / "keys.json").write_text("{}", "utf-8")
    books.save()
    assert audit_run(books.folder).to_dict()["verdict"] == "unknown"


@given(st.integers(1, 300), st.lists(st.integers(1, 2**63 - 1), max_size=20))
def test_a_ledger_id_and_its_number_are_one_to_one(count: int, strangers: list[int]) -> None:
    ids = np.array([id_of(f"p-{n}") for n in range(1, count + 1)], np.uint64)
    known = KeyMap("p-", count)
    assert known.numbers(ids).tolist() == list(range(1, count + 1))
    others = np.array([s for s in strangers if s not in set(ids.tolist())], np.uint64)
    assert known.numbers(others).tolist() == others.tolist()


def test_records_are_read_in_the_words_of_the_client(tmp_path: Path) -> None:
    write_keys(tmp_path, "r-")
    records = np.zeros(2, RECORD)
    records["id"], records["related"] = [id_of("r-1"), id_of("r-2")], [0, id_of("r-1")]
    history = np.zeros(2, HISTORY)
    history["id"] = [1, 2]
    history.tofile(tmp_path / "history.bin")
    known = read_keys(tmp_path)
    assert known is not None
    told = known.in_clients_words(records)
    assert (told["id"].tolist(), told["related"].tolist()) == ([1, 2], [0, 1])


# ---- faults ----


def test_a_gateway_that_is_slowed_and_one_that_is_killed_are_told_and_lose_nothing(tmp_path: Path) -> None:
    faults = (
        "faults=[{at: 200ms, for: 600ms, fault: slow, delay: 40ms, target: 'gateway[1]'},"
        "{at: 400ms, for: 200ms, fault: kill, target: 'gateway[2]'}, {at: 300ms, fault: kill, target: 'node[0]'}]"
    )
    ended = fleet_run(tmp_path / "run", FLEET, "backend.http.identify={header: X-Node}", faults)
    assert ended.summary["audit"]["verdict"] == "clean", ended.out
    events = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]
    names = [(event["event"], event.get("gateway"), event.get("node")) for event in events]
    for expected in (
        ("fault", 1, None), ("fault_over", 1, None), ("fault", 2, None), ("gateway_died", 2, None),
        ("gateway_restarted", 2, None), ("gateway_ready", 2, None), ("fault", None, 0), ("node_ready", None, 0),
    ):  # fmt: skip
        assert expected in names, names
    sick = {(fault["fault"], fault["node"]) for fault in ended.summary["answered_by"]["faults"]}
    assert sick == {("slow", "gateway-1"), ("kill", "gateway-2")}


def test_what_happens_to_the_ledgers_nodes_is_not_taken_for_what_happens_to_targets() -> None:
    events: list[dict[str, Any]] = [
        {"event": "fault", "node": 0}, {"event": "fault", "gateway": 2}, {"event": "node_ready", "node": 0},
        {"event": "gateway_ready", "gateway": 2},
    ]  # fmt: skip
    told = [(event["event"], event["node"]) for event in of_targets(events, proxied=False)]
    assert told == [("fault", 2), ("node_ready", 2)]
    assert of_targets(events, proxied=True) == []


def test_a_run_that_is_killed_leaves_no_gateway_behind(tmp_path: Path) -> None:
    with sim_process.Running(
        tmp_path / "run", *sim_process.settings("load.rate=300/s", "duration=60s", FLEET)
    ) as running:
        running.wait_until_under_way()
        session = running.process.pid
        assert len(sim_process.members(session)) == 7  # the run, two nodes, three gateways, the engine
        running.process.kill()
        running.process.wait()
        sim_process.until(lambda: not sim_process.members(session), "children to die with their parent")


# ---- a balancer of the field in between ----


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
def test_a_real_balancer_in_between_is_seen_through_and_audited(tmp_path: Path, program: str) -> None:
    if shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    ended = fleet_run(
        tmp_path / "run", FLEET, f"backend.http.fleet.proxy={{program: {program}, retry_after: 100ms}}",
        "faults=[{at: 300ms, for: 300ms, fault: kill, target: 'gateway[0]'}]",
    )  # fmt: skip
    assert ended.summary["audit"]["verdict"] == "clean", (ended.out, ended.err)
    told = ended.summary["answered_by"]
    assert {node["node"] for node in told["nodes"]} == {"gateway-0", "gateway-1", "gateway-2"}
    assert [fault["node"] for fault in told["faults"]] == ["gateway-0"]
    assert len(ended.summary["nodes"]) == 1
    assert (ended.folder / program / f"{program}.conf").is_file()
    assert not list((ended.folder / program).glob("*_temp"))


def test_a_balancer_that_is_not_installed_is_told_in_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "bin"
    nowhere.mkdir()
    path = sim_process.scenario(tmp_path / "run")
    code = (
        "import sys, simulator.gateway.proxy as proxy; proxy._PLACES = ();"
        "from simulator.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "run", str(path), "--out", str(tmp_path / "run"),
        *sim_process.settings(FLEET, "backend.http.fleet.proxy={program: haproxy}"),
    ]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
        env=sim_process.environment(PATH=str(nowhere)),
    )  # fmt: skip
    assert ended.returncode == 104
    assert ended.stderr == (
        "sim: backend.http.fleet.proxy: haproxy is not installed; on Debian or Ubuntu: apt-get install haproxy\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("policy", ["round_robin", "least_connections", "random"])
def test_a_balancer_is_told_to_listen_on_loopback_and_never_to_send_a_payment_twice(
    tmp_path: Path, policy: str
) -> None:
    gateways = [Listen("127.0.0.1", 4_001), Listen("127.0.0.1", 4_002)]
    asked = Proxy.model_validate({"program": "nginx", "policy": policy, "retry_after": "1500ms"})
    nginx = nginx_config(asked, Listen("127.0.0.1", 4_000), gateways, tmp_path, 64)
    haproxy = haproxy_config(asked, Listen("127.0.0.1", 4_000), gateways, 64)
    assert "listen 127.0.0.1:4000 reuseport" in nginx
    assert "bind 127.0.0.1:4000\n" in haproxy
    assert nginx.count("fail_timeout=2s") == haproxy.count("check inter 1500ms") == 2
    assert "non_idempotent" not in nginx
    assert "retry-on conn-failure\n" in haproxy


# ---- what an answer tells ----


def test_a_receipt_tells_the_place_and_the_reason() -> None:
    ok = b'{"id":"tx_00000000000000a1","status":"ok","shard":3,"lsn":17}'
    assert receipt.read(ok, Status.OK, Reason.NONE) == (3, 17, Status.OK, Reason.NONE)
    for reason in (Reason.FUNDS, Reason.EXCEEDS, Reason.LIMIT, Reason.ACCOUNT):
        decision = Decision(Status.REJECTED, reason, 2, 9)
        body = problems.body_of(problems.of_decision(decision), outcome="rejected", shard=2, lsn=9)
        assert receipt.read(body, Status.REJECTED, Reason.HTTP) == (2, 9, Status.REJECTED, reason)
    dead = problems.body_of("poison", outcome="failed", shard=1, lsn=4)
    assert receipt.read(dead, Status.UNKNOWN, Reason.HTTP) == (1, 4, Status.FAILED, Reason.POISON)
    for name in ("busy", "stopping", "rate-limit"):
        told = receipt.read(problems.body_of(name), Status.REJECTED, Reason.OVERFLOW)
        assert told == (0, 0, Status.REJECTED, Reason.OVERFLOW)
    assert receipt.read(problems.body_of("in-doubt"), Status.UNKNOWN, Reason.HTTP).status is Status.UNKNOWN
    assert receipt.read(b"<html>502</html>", Status.UNKNOWN, Reason.HTTP) == (0, 0, Status.UNKNOWN, Reason.HTTP)


def test_names_beyond_the_bound_count_together() -> None:
    counted = Answerers(1)
    for number in range(NAMES_MAX + 10):
        counted.note(b"n%d" % number, number, 1_000)
    counted.note(b"", 0, 1_000)
    assert counted.names[-1] == "others"
    assert counted.by_window.sum() == NAMES_MAX + 10
    assert int(counted.by_window[:, -1].sum()) == 10
    assert counted.nobody.sum() == 1


def steady(windows: int, nodes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.full((windows, nodes), 20, np.int64)


def test_a_sick_node_is_left_out_and_comes_back() -> None:
    answers = steady(50, 3)
    answers[12:34, 1] = 1
    found = sickness(answers, 100_000_000, 1, 1_000_000_000, 3_000_000_000)
    assert found.detection_s == pytest.approx(0.2)
    assert found.readmission_s == pytest.approx(0.4)
    assert found.share == pytest.approx(58 / (58 + 800))


def test_a_sick_node_that_nobody_notices_is_never_left_out_and_so_never_comes_back() -> None:
    found = sickness(steady(50, 3), 100_000_000, 1, 1_000_000_000, 3_000_000_000)
    assert found.share == pytest.approx(1 / 3)
    assert (found.detection_s, found.readmission_s) == (None, None)


def test_one_low_window_and_windows_without_traffic_are_no_detection() -> None:
    answers = steady(50, 3)
    answers[15, 1] = 0
    answers[20:22] = 0
    assert sickness(answers, 100_000_000, 1, 1_000_000_000, 3_000_000_000).detection_s is None


# ---- the scenario ----


def complaint(**keys: Any) -> str:  # noqa: ANN401  whatever a scenario may say
    data = {
        "name": "x", "duration": "5s", "load": {"rate": "10/s", "accounts": 100},
        "backend": {"http": {"fleet": {"nodes": 2, "ledger": {"shards": 4}}}}, **keys,
    }  # fmt: skip
    with pytest.raises(ValidationError) as caught:
        Scenario.from_data(data)
    return str(caught.value)


def http(**keys: Any) -> dict[str, Any]:  # noqa: ANN401  as above
    return {"http": keys}


def strikes(**keys: Any) -> list[dict[str, Any]]:  # noqa: ANN401  as above
    return [{"at": "1s", **keys}]


def wrong() -> Iterator[tuple[dict[str, Any], str]]:
    here = ["http://127.0.0.1:1"]
    yield {"backend": http()}, "are missing; name one or a fleet"
    yield {"backend": http(targets=here, fleet={})}, "and a fleet are both named"
    yield {"backend": http(fleet={"nodes": 17})}, "less than or equal to 16"
    yield {"backend": http(fleet={"nodes": 4}, connections=3)}, "write at least 4"
    yield {"backend": http(fleet={"ledger": {"nodes": 8, "shards": 4}})}, "leave some of 8 nodes without one"
    yield {"backend": http(fleet={"ledger": {"shards": 128}})}, "more than the 100 accounts"
    yield {"backend": http(fleet={"ledger": {"durability": "memory"}})}, "'os' or 'group'"
    yield {"backend": http(fleet={"ledger": {"remember": 5_000}})}, "not a power of two"
    yield {"backend": http(fleet={"proxy": {"program": "squid"}})}, "'nginx' or 'haproxy'"
    yield {"faults": strikes(fault="kill", target="gateway[2]")}, "there is no gateway[2]; the last of 2 is gateway[1]"
    yield {"faults": strikes(fault="kill", target="node[1]")}, "there is no node[1]; the only one is node[0]"
    yield {"faults": strikes(fault="pause", target="gateway[0]")}, "does not happen to a gateway"
    yield {"faults": strikes(fault="power_loss")}, "is not available with a fleet yet"
    yield {"faults": strikes(fault="slow", target="node[0]")}, "happens on the virtual clock only"
    yield {"faults": strikes(fault="kill", target="gateway[0]", delay="1s")}, "only to slow of a gateway"
    embedded = {"embedded": {"nodes": 1, "shards": 4}}
    yield {"backend": embedded, "faults": strikes(fault="kill", target="gateway[0]")}, "has no gateways"


@pytest.mark.parametrize(("keys", "says"), list(wrong()))
def test_what_does_not_fit_a_fleet_is_told(keys: dict[str, Any], says: str) -> None:
    assert says in complaint(**keys)


@pytest.mark.parametrize("name", ["lb-nginx", "lb-haproxy"])
def test_the_scenarios_that_come_with_it_are_sound(name: str) -> None:
    ended = sim_process.call("check", f"scenarios/{name}.yaml")
    assert ended.code == 0, ended.err
    assert "slow gateway 1 by 50ms for 4s at 5s" in ended.out
