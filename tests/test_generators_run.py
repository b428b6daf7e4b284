"""Runs with several generators against real servers: what they send, how they stop, what is told of one that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from sim_process import Running
from socket_server import OK, Server

from simulator.audit.history import read_history
from simulator.bench.sink import Sink
from simulator.measure.recorder import HISTORY
from simulator.transaction import Status

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from sim_process import Ended

LEDGER = "ledger: {nodes: 1, shards: 4, remember: 16_384}"


def fleet(generators: int) -> str:
    return f"backend={{http: {{fleet: {{nodes: 2, {LEDGER}}}, connections: 24, generators: {generators}}}}}"


LONG = sim_process.settings("duration=10m", "dispatcher.drain=10m", "load.rate=600/s", fleet(2))


def says_ok(peer: socket.socket, request: bytes) -> None:
    peer.sendall(OK)


def run_against(server: Server, folder: Path, generators: int, *more: str) -> Ended:
    http = f'{{targets: ["http://127.0.0.1:{server.port}"], connections: 8, generators: {generators}}}'
    return sim_process.run(
        folder,
        "--quiet",
        *sim_process.settings("duration=500ms", "load.rate=400/s", f"backend={{http: {http}}}", *more),
    )


def asked(server: Server) -> Counter[bytes]:
    """What was asked for, whatever the run's own prefix of its keys."""
    key = rb"[0-9a-f]+-[0-9a-f]+-(\d+)"
    paid = [request for request in server.requests if request.startswith(b"POST /v1/")]
    return Counter(re.sub(key, rb"KEY-\1", request).replace(b"%d" % server.port, b"PORT") for request in paid)


def identities_hold(ended: Ended) -> dict[str, int]:
    counts: dict[str, int] = ended.summary["counts"]
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["ok"] + counts["rejected"] + counts["failed"] + counts["unknown"]
    for name in ("offered", "sent", "ok", "unknown", "dropped"):
        assert sum(ended.series[name]) == counts[name], name
        assert sum(kind["counts"][name] for kind in ended.summary["by_kind"].values()) == counts[name], name
    told = ended.summary["generators"]
    for name in ("offered", "sent", "dropped"):
        assert sum(own[name] for own in told) == counts[name]
    return counts


def rows_of(folder: Path) -> Any:  # noqa: ANN401  HISTORY rows
    return np.concatenate([np.zeros(0, HISTORY), *read_history(folder)])


def test_three_generators_ask_for_exactly_what_one_asks_for(tmp_path: Path) -> None:
    found = []
    for generators in (1, 3):
        with Server(says_ok) as server:
            folder = tmp_path / f"{generators}" / "run"
            ended = run_against(server, folder, generators, "dispatcher.patience=60s")
            found.append(asked(server))
            if generators > 1:
                assert server.connections <= 8 + 2  # the preflight's, and whether anybody listens
        assert ended.summary["counts"]["ok"] == sum(found[-1].values()) == ended.summary["counts"]["offered"] > 100
    assert found[0] == found[1]
    counts = identities_hold(ended)
    assert [own["generator"] for own in ended.summary["generators"]] == [0, 1, 2]
    assert all(own["offered"] > counts["offered"] / 6 for own in ended.summary["generators"])
    assert sorted(rows_of(folder)["id"].tolist()) == list(range(1, counts["offered"] + 1))
    times = ended.summary["response_time_ms"]
    assert times["p50"] <= times["p99"] <= times["max"]
    assert "The generators" in (folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("several") / "run"
    quick = ("duration=1500ms", "load.rate=400/s", "load.follow_up.after=300ms", "dispatcher.patience=20s")
    return sim_process.run(folder, *sim_process.settings(*quick, fleet(3), "backend.http.identify={header: X-Node}"))


def test_what_several_clients_were_told_is_held_against_the_ledger(audited: Ended) -> None:
    assert audited.summary["audit"]["verdict"] == "clean", (audited.out, audited.err)
    assert audited.code == 0, (audited.out, audited.err)
    counts = identities_hold(audited)
    found = json.loads((audited.folder / "audit.json").read_text("utf-8"))
    assert found["checked"]["transactions"] == counts["offered"] > 300
    by_kind = audited.summary["by_kind"]
    assert all(by_kind[kind]["counts"]["ok"] for kind in ("payment", "refund", "authorize", "post", "void"))


def test_who_answered_is_counted_over_all_generators(audited: Ended) -> None:
    told = audited.summary["answered_by"]
    assert sum(node["answered"] for node in told["nodes"]) == audited.summary["counts"]["sent"]
    sent = {f"gateway-{node['node']}": node["sent"] for node in audited.summary["nodes"]}
    assert {node["node"]: node["answered"] for node in told["nodes"]} == sent


def test_each_generators_part_stands_in_a_table(audited: Ended) -> None:
    assert re.search(r"^generator +sent +dropped +lag p99", audited.out, re.MULTILINE), audited.out
    for own in audited.summary["generators"]:
        assert re.search(rf"^{own['generator']} +{own['sent']:,} +{own['dropped']} ", audited.out, re.MULTILINE)


def generators_of(running: Running) -> list[int]:
    """The processes of its generators: the last that it started."""
    return sorted(sim_process.children(running.process.pid))[-2:]


def under_way(running: Running) -> None:
    sim_process.until(
        lambda: running.journal_bytes > 20_000 or running.process.poll() is not None, "transactions in the journals"
    )
    assert running.process.poll() is None, running.err.read_text("utf-8")


def nobody_is_left(running: Running, started: set[int]) -> None:
    assert started
    sim_process.until(lambda: not any(map(sim_process.alive, started)), f"the end of {sorted(started)}")
    sim_process.until(lambda: not sim_process.members(running.process.pid), "an empty session")


def test_a_history_that_cannot_be_written_ends_the_run_for_all_of_them_and_loses_no_row(tmp_path: Path) -> None:
    small = (
        "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (60_000,) * 2); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with Sink() as sink:
        http = f'{{targets: ["{sink.url}"], connections: 8, generators: 2}}'
        settings = sim_process.settings("duration=10m", "load.rate=2000/s", f"backend={{http: {http}}}")
        ended = sim_process.run(tmp_path / "run", "--quiet", *settings, prefix=(sys.executable, "-c", small))
    assert ended.summary["failure"] == "the history could not be written: File too large"
    counts = identities_hold(ended)
    assert sorted(rows_of(ended.folder)["id"].tolist()) == list(range(1, counts["offered"] + 1))
    assert counts["offered"] > 60_000 / HISTORY.itemsize


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_all_of_them_drain_and_ends_the_run_at_one_transaction(tmp_path: Path, number: int) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        under_way(running)
        started = sim_process.children(running.process.pid)
        running.process.send_signal(number)
        ended = running.end()
        nobody_is_left(running, started)
    assert ended.code == 105, ended.err
    counts = identities_hold(ended)
    assert counts["unknown"] == 0
    assert sorted(rows_of(ended.folder)["id"].tolist()) == list(range(1, counts["offered"] + 1))
    assert (ended.summary["audit"]["verdict"], ended.summary["stop_reason"]) == ("clean", "interrupted")


def test_a_generator_that_is_killed_ends_the_load_and_its_part_is_accounted_for(tmp_path: Path) -> None:
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        under_way(running)
        started = sim_process.children(running.process.pid)
        os.kill(generators_of(running)[1], signal.SIGKILL)
        ended = running.end()
        nobody_is_left(running, started)
    summary = ended.summary
    assert ended.code == 120, (ended.out, ended.err)
    assert (summary["verdict"], summary["validity"]["verdict"]) == ("invalid", "generator-limited")
    said = r"generator 1 of 2 was killed by signal 9 after [\d.]+ s: of its transactions [\d,]+ are in doubt and [\d,]+ were "
    assert re.match(said, summary["validity"]["reasons"][0])
    assert summary["stop_reason"].startswith("generator 1 of 2 was killed by signal 9")
    assert summary["interrupted"] is False
    counts = identities_hold(ended)
    rows = rows_of(ended.folder)
    assert sorted(rows["id"].tolist()) == list(range(1, counts["offered"] + 1))
    for status in (Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED):
        assert (rows["status"] == status).sum() == counts[status.name.lower()]
    # What was in doubt is looked up in the ledger, and nothing that anybody was told is missing there.
    assert summary["audit"]["verdict"] == "clean", (ended.folder / "audit.json").read_text("utf-8")
    assert summary["generators"][1]["lost"] == "was killed by signal 9"
    events = [json.loads(line)["event"] for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert events == ["started", "generator_lost", "drained"]


def test_a_run_that_is_killed_takes_its_generators_with_it(tmp_path: Path) -> None:
    before = sim_process.shared_memory()
    with Running(tmp_path / "run", "--quiet", *LONG) as running:
        under_way(running)
        started = sim_process.children(running.process.pid)
        assert len(started) == 5  # a node, two gateways, two generators
        os.kill(generators_of(running)[0], signal.SIGSTOP)
        running.process.kill()
        nobody_is_left(running, started)
    sim_process.until(lambda: sim_process.shared_memory() <= before, "an empty /dev/shm")
