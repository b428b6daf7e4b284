from __future__ import annotations

import json
import re
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
import sim_process
from socket_server import OK, Server

if TYPE_CHECKING:
    from pathlib import Path


def at(port: int, **more: str) -> list[str]:
    keys = "".join(f", {name}: {value}" for name, value in more.items())
    return sim_process.settings(
        "duration=500ms", "load.rate=400/s", f'backend={{http: {{targets: ["http://127.0.0.1:{port}"]{keys}}}}}'
    )


def says_ok(peer: socket.socket, request: bytes) -> None:
    peer.sendall(OK)


def test_every_transaction_is_sent_once_and_counted(tmp_path: Path) -> None:
    with Server(says_ok) as server:
        ended = sim_process.run(tmp_path / "run", "--quiet", *at(server.port, connections="8"))
    counts = ended.summary["counts"]
    assert counts["sent"] == counts["ok"] + counts["unknown"] > 100
    paid = [request for request in server.requests if request.startswith(b"POST /v1/")]
    assert len(paid) == counts["sent"]
    keys = {re.search(rb"Idempotency-Key: (\S+)", request).group(1) for request in paid}  # type: ignore[union-attr]  # each has one
    assert len(keys) == counts["sent"]


def test_what_finds_no_connection_in_time_is_dropped_and_was_never_sent(tmp_path: Path) -> None:
    release = threading.Event()

    def answer(peer: socket.socket, request: bytes) -> None:
        if request.startswith(b"POST"):
            release.wait(60)
        peer.sendall(OK)

    with Server(answer) as server:
        stuck = ["--set", "dispatcher.patience=100ms", "--set", "dispatcher.drain=200ms"]
        ended = sim_process.run(tmp_path / "run", "--quiet", *at(server.port, connections="3"), *stuck)
        release.set()
    counts = ended.summary["counts"]
    assert (counts["sent"], counts["unknown"]) == (3, 3)
    assert counts["dropped"] == counts["offered"] - 3 > 0
    assert ended.code == 120


def test_a_secret_reaches_the_server_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "hunter2-very-secret")
    headers = '{Authorization: "Bearer ${GATEWAY_TOKEN}", Idempotency-Key: "{key}"}'
    with Server(says_ok) as server:
        ended = sim_process.run(tmp_path / "run", "--quiet", *at(server.port, connections="2", headers=headers))
    assert any(b"Authorization: Bearer hunter2-very-secret" in request for request in server.requests)
    for file in ended.folder.rglob("*"):
        assert not file.is_file() or b"hunter2-very-secret" not in file.read_bytes(), file


def refused(tmp_path: Path, *settings: str, code: int) -> str:
    place = tmp_path / "empty"
    place.mkdir()
    path = sim_process.scenario(tmp_path / "run")
    ended = sim_process.call("run", str(path), *sim_process.settings("duration=500ms", *settings), cwd=place)
    assert ended.code == code, ended.err
    assert re.fullmatch(r"sim: .+\n", ended.err), ended.err
    assert list(place.iterdir()) == [] or list(place.rglob("summary.json")) == []
    return ended.err


def test_a_secret_that_is_not_set_is_named(tmp_path: Path) -> None:
    http = 'backend={http: {targets: ["http://127.0.0.1:9"], headers: {A: "${NO_SUCH_TOKEN}"}}}'
    assert "$NO_SUCH_TOKEN is not set in the environment" in refused(tmp_path, http, code=104)


def test_a_target_that_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = refused(tmp_path, f'backend={{http: {{targets: ["http://127.0.0.1:{port}"]}}}}', code=1)
    assert f"http://127.0.0.1:{port} cannot be reached: Connection refused" in said


def test_a_target_that_speaks_something_else_is_told_in_one_line(tmp_path: Path) -> None:
    def banner(peer: socket.socket, request: bytes) -> bool:
        peer.sendall(b"220 mail.example ESMTP\r\n")
        return False

    with Server(banner) as server:
        said = refused(tmp_path, f'backend={{http: {{targets: ["http://127.0.0.1:{server.port}"]}}}}', code=1)
    assert "does not speak HTTP/1: it said '220 mai" in said


def test_a_target_that_hangs_up_on_plain_http_is_asked_about(tmp_path: Path) -> None:
    def hangs_up(peer: socket.socket, request: bytes) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it is a reset
        peer.close()

    with Server(hangs_up) as server:
        said = refused(tmp_path, f'backend={{http: {{targets: ["http://127.0.0.1:{server.port}"]}}}}', code=1)
    assert "ended the connection unanswered; does it speak https?" in said


def test_a_target_elsewhere_needs_the_command_line(tmp_path: Path) -> None:
    said = refused(tmp_path, 'backend={http: {targets: ["http://192.0.2.7:80"]}}', code=2)
    assert "--allow-target 192.0.2.7:80" in said


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "100.100.100.200", "0.0.0.0"])  # noqa: S104  what must not be loaded
def test_metadata_and_link_local_addresses_are_never_loaded(tmp_path: Path, host: str) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    path = sim_process.scenario(tmp_path / "run")
    http = f'backend={{http: {{targets: ["http://{host}:80"]}}}}'
    ended = sim_process.call(
        "run", str(path), *sim_process.settings("duration=500ms", http), "--allow-target", f"{host}:80", cwd=place
    )
    assert ended.code == 2
    assert "are never loaded" in ended.err


def test_the_folder_of_a_run_over_http_has_everything(tmp_path: Path) -> None:
    with Server(says_ok) as server:
        ended = sim_process.run(tmp_path / "run", "--quiet", *at(server.port, connections="4"))
    assert all((ended.folder / name).is_file() for name in sim_process.FILES)
    assert json.loads((ended.folder / "audit.json").read_text("utf-8"))["verdict"] == "unknown"
