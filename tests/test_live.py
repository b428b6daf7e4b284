"""The live page's process: who is let in, what it tells, how it stops a run, and that it goes when the run goes."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import sim_process
from live_page import HOST, Address, LiveRun, Stream
from socket_server import OK, Server

from simulator.live.viewers import VIEWERS_MAX

if TYPE_CHECKING:
    from pathlib import Path


def refused(address: Address) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, address.port)) != 0


def test_a_viewer_sees_the_run_go_on_stops_it_and_gets_its_report(tmp_path: Path) -> None:
    with LiveRun(tmp_path / "run") as running:
        address = running.address()
        offered = charts = 0
        ended = None
        with Stream(address) as stream:
            for sort, data in stream.events():
                if sort == "now":
                    now = int(data["tiles"][0]["value"].replace(",", ""))
                    assert now >= offered
                    offered = now
                elif sort == "charts":
                    charts += 1
                    assert {"rate", "response", "heat", "percentiles", "shares", "shard-heat"} <= {
                        c["key"] for c in data["charts"]
                    }
                    if charts == 2:
                        samples = dict(
                            line.rsplit(" ", 1)
                            for line in address.ask("/metrics")[1].splitlines()
                            if not line.startswith("#")
                        )
                        assert float(samples["sim_offered_total"]) >= offered > 0
                        assert float(samples['sim_response_time_seconds{quantile="0.99"}']) > 0
                        assert address.ask("/report")[0] == 404  # not before the end
                        assert address.ask("/stop", "POST")[0] == 202
                        assert address.ask("/stop", "POST")[0] == 202  # as often as they like: it is not Ctrl-C twice
                else:
                    ended = data
        status, report = address.ask("/report")
        end = running.end()
        assert status == 200
        assert report == (end.folder / "report.html").read_text("utf-8")
    assert ended is not None
    assert ended["report"] is True
    assert (end.code, end.err) == (105, "")
    assert f"{ended['word']}: {ended['cause']}" in end.out
    assert end.summary["interrupted"] is True
    assert end.summary["audit"]["verdict"] == "clean"
    assert end.summary["counts"]["offered"] >= offered
    assert end.summary["duration_s"] < 59
    assert refused(address)


def test_the_page_of_several_generators_has_the_sums_of_all_and_stops_all(tmp_path: Path) -> None:
    def says_ok(peer: socket.socket, request: bytes) -> None:
        peer.sendall(OK)

    with Server(says_ok) as server:
        http = f'backend={{http: {{targets: ["http://127.0.0.1:{server.port}"], connections: 8, generators: 2}}}}'
        several = sim_process.settings(http, "load.rate=300/s", "books=elsewhere", "thresholds={}")
        with LiveRun(tmp_path / "run", *several) as running:
            address = running.address()
            offered, last = 0, ""
            with Stream(address) as stream:
                for sort, data in stream.events():
                    if sort == "now":
                        now = int(data["tiles"][0]["value"].replace(",", ""))
                        assert now >= offered
                        offered = now
                        if offered > 100:
                            assert address.ask("/stop", "POST")[0] == 202
                    elif sort == "end":
                        last = address.ask("/metrics")[1]
            address.ask("/report")
            ended = running.end()
    assert ended.code == 105, ended.err
    counts, parts = ended.summary["counts"], ended.summary["generators"]
    assert [part["offered"] > 0 for part in parts] == [True, True]
    assert sum(part["offered"] for part in parts) == counts["offered"] < 60 * 300
    samples = dict(line.rsplit(" ", 1) for line in last.splitlines() if not line.startswith("#"))
    assert int(float(samples["sim_offered_total"])) == counts["offered"]
    assert int(float(samples["sim_sent_total"])) == counts["sent"]


def test_nobody_is_let_in_without_the_token(tmp_path: Path) -> None:
    with LiveRun(tmp_path / "run") as running:
        address = running.address()
        for path in ("/", "/events", "/metrics", "/report", "/plotly.js", "/live.js", "/nowhere"):
            for token in ("", "wrong", address.token[:-1], address.token + "A", "%C3%BC"):
                assert address.ask(path, token=token)[0] == 403, (path, token)
        assert address.ask("/stop", "POST", token="")[0] == 403
        assert address.ask("/stop", "POST", token="wrong")[0] == 403  # noqa: S106  not one
        assert (
            address.ask("/", host="evil.example")[0] == 403
        )  # a name that somebody else's page resolves to this machine
        assert address.ask("/")[0] == 200
        assert address.ask("/nowhere")[0] == 404
        assert address.ask("/stop")[0] == 405
        with Stream(address) as stream:
            now = next(data for sort, data in stream.events() if sort == "now")
        assert now["stopping"] is False


def test_viewers_beyond_the_most_are_told_and_one_who_takes_nothing_holds_up_nobody(tmp_path: Path) -> None:
    with LiveRun(tmp_path / "run") as running:
        address = running.address()
        streams = [Stream(address) for _ in range(VIEWERS_MAX)]  # of whom all but one read nothing
        assert address.ask("/events")[0] == 503
        seen = 0
        for sort, _ in streams[-1].events():
            seen += sort == "charts"
            if seen == 3:
                break
        streams[0].close()
        # Its place is free as soon as its going is noticed, at the next thing that it is sent.
        sim_process.until(lambda: _lets_in(address), "a place for another viewer")
        for stream in streams[1:]:
            stream.close()


def _lets_in(address: Address) -> bool:
    with Stream(address) as stream:
        return stream.response.status == 200


def test_after_kill_9_of_the_run_neither_process_nor_port_is_left(tmp_path: Path) -> None:
    with LiveRun(tmp_path / "run") as running:
        address = running.address()
        running.wait_until_under_way()
        started = sim_process.children(running.process.pid)
        assert len(started) == 4  # two nodes, the engine, the page
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(sim_process.PATIENCE_S)
        sim_process.until(lambda: not any(map(sim_process.alive, started)), "the end of every process")
        assert refused(address)
    again = sim_process.run(tmp_path / "again", "--live", "--port", str(address.port), "--quiet")
    assert (again.code, again.err) == (0, "")


def test_a_page_that_is_killed_does_not_hurt_the_run(tmp_path: Path) -> None:
    with LiveRun(tmp_path / "run", "--quiet", duration="2s") as running:
        running.address()
        os.kill(min(sim_process.children(running.process.pid)), signal.SIGKILL)  # started first
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")


def test_a_run_that_nobody_watches_ends_at_once_and_prints_one_line_more(tmp_path: Path) -> None:
    ended = sim_process.run(tmp_path / "run", "--quiet", "--live")
    assert (ended.code, ended.err) == (0, "")
    live, verdict = ended.out.splitlines()
    assert live.startswith("live: http://127.0.0.1:")
    assert verdict.startswith("PASS: ")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--port", "0"], "sim: --port is the live page's; add --live\n"),
        (
            ["--live", "--vary", "seed=1,2"],
            "sim: --live shows one run, and --vary and --repeat make several; leave one of them out\n",
        ),
        (
            ["--live", "--clock", "virtual"],
            (
                "sim: --live shows a run on the wall clock; on the virtual clock there is nothing to watch but its progress, "
                "which the terminal has, and its report has all charts\n"
            ),
        ),
    ],
)
def test_what_cannot_be_shown_live_is_refused_before_anything_starts(
    tmp_path: Path, flags: list[str], line: str
) -> None:
    ended = sim_process.run(tmp_path / "run", *flags)
    assert (ended.code, ended.out, ended.err) == (2, "", line)
    assert not ended.folder.exists()


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        ended = sim_process.run(tmp_path / "run", "--live", "--port", str(port))
    line = f"sim: --port {port} is in use on 127.0.0.1; name another one, or leave --port out for any that is free\n"
    assert (ended.code, ended.out, ended.err) == (2, "", line)
    assert not ended.folder.exists()
