"""A finished run in the forms that other programs read."""

from __future__ import annotations

import csv
import json
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Self

import fake_run
import pyarrow as pa
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from pyarrow import parquet

from simulator.cli import main
from simulator.errors import Exit
from simulator.exports import otlp
from simulator.report.folder import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 12


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = fake_run.write(tmp_path / "run", seconds=SECONDS)
    summary = fake_run.summary(folder)
    fake_run.write_json(folder / "summary.json", {**summary, "started_at": "2019-11-11T00:00:00+00:00"})
    return folder


class Collector:
    """A real HTTP server that keeps what it is sent."""

    def __init__(self, status: int = 200) -> None:
        taken: list[tuple[str, str, bytes]] = []
        self.taken = taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append((self.path, self.headers["Content-Type"], body))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"well")

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def metrics(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for _, _, body in self.taken:
            request = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)
            for metric in request.resource_metrics[0].scope_metrics[0].metrics:
                found.setdefault(metric.name, []).append(metric)
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as there:
        yield there


def test_json_and_csv_are_the_files_themselves(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--format", "json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == fake_run.summary(run)
    assert main(["report", str(run), "--format", "csv"]) == Exit.OK
    assert capsys.readouterr().out.strip() == (run / "timeseries.csv").read_text("utf-8").strip()


def test_markdown_says_the_scenario_and_the_verdict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--format", "md"]) == Exit.OK
    said = capsys.readouterr().out
    assert "| " in said
    assert fake_run.summary(run)["verdict"] in said.lower()


def test_parquet_holds_every_cell_of_the_series_and_money_stays_whole(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--format", "parquet"]) == Exit.OK
    path = run / "timeseries.parquet"
    assert capsys.readouterr().out.strip() == str(path)
    table = parquet.read_table(path)
    with (run / "timeseries.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert table.column_names == ["time", *rows[0]]
    for name in rows[0]:
        assert table[name].to_pylist() == [None if row[name] == "" else float(row[name]) for row in rows], name
    assert {table.schema.field(name).type for name in ("ok", "offered_minor", "settled_minor")} == {pa.int64()}
    assert table["time"][1].as_py() == datetime(2019, 11, 11, 0, 0, 1, tzinfo=UTC)
    assert json.loads(table.schema.metadata[b"sim.verdict"]) == fake_run.summary(run)["verdict"]
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize(("form", "file"), [("parquet", "timeseries.parquet"), ("html", "report.html")])
def test_a_file_that_cannot_be_written_is_told_in_one_line_and_leaves_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], form: str, file: str
) -> None:
    (run / file).unlink(missing_ok=True)
    (run / file).mkdir()  # in its place is something that a file cannot replace
    assert main(["report", str(run), "--format", form]) == Exit.ERROR
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"sim: {run / file}: cannot be written: ")
    assert told.err.count("\n") == 1
    assert not list(run.glob("*.part"))


def test_a_collector_gets_counters_that_end_at_the_counts_of_the_run(run: Path, collector: Collector) -> None:
    assert main(["report", str(run), "--otlp", collector.url]) == Exit.OK
    (taken,) = collector.taken
    assert taken[:2] == ("/v1/metrics", "application/x-protobuf")
    metrics, counts = collector.metrics(), fake_run.summary(run)["counts"]
    points = metrics["sim.transactions"][0].sum.data_points
    last = {point.attributes[0].value.string_value: point.as_int for point in points}
    assert {outcome: last[outcome] for outcome in ("ok", "rejected")} == {
        outcome: counts[outcome] for outcome in ("ok", "rejected")
    }
    began = int(datetime(2019, 11, 11, tzinfo=UTC).timestamp()) * 10**9
    assert {point.start_time_unix_nano for point in points} == {began}
    assert max(point.time_unix_nano for point in points) == began + SECONDS * 10**9
    settled = [point.as_int for point in metrics["sim.value.settled"][0].sum.data_points]
    assert settled == sorted(settled)


def test_a_collector_gets_each_windows_histogram_whole(run: Path, collector: Collector) -> None:
    assert main(["report", str(run), "--otlp", collector.url]) == Exit.OK
    points = collector.metrics()["sim.response_time"][0].histogram.data_points
    assert len(points) == SECONDS
    for point in points:
        assert point.count == sum(point.bucket_counts) == fake_run.SAMPLES_PER_S
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert 0 < point.sum / point.count <= point.max


def test_a_long_run_goes_in_several_requests_and_its_counters_go_on(
    run: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_POINTS_MAX", 5)
    assert otlp.send(read(run), collector.url) == len(collector.taken) == 3
    parts = collector.metrics()["sim.transactions.sent"]
    sent = [point.as_int for part in parts for point in part.sum.data_points]
    assert (sent == sorted(sent), len(sent), sent[-1]) == (True, SECONDS, fake_run.summary(run)["counts"]["sent"])


@pytest.mark.parametrize("status", [302, 400, 503])
def test_a_collector_that_does_not_take_it_is_told_of_in_one_line(
    run: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Collector(status) as there:
        assert main(["report", str(run), "--otlp", there.url, "--format", "csv"]) == Exit.ERROR
    assert len(there.taken) == 1  # no redirect is followed, nothing is tried again
    (line,) = capsys.readouterr().err.splitlines()
    assert f"answered {status}: well" in line


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "ftp://host", "http://", "http://host:port"])
def test_what_is_no_address_of_a_collector_is_wrong_use(
    run: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--otlp", url, "--format", "csv"]) == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "--otlp" in line


def test_a_collector_that_is_not_there_is_told_of_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Collector() as there:
        url = there.url
    assert main(["report", str(run), "--otlp", url, "--format", "csv"]) == Exit.ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be reached" in line


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("pyarrow", ["--format", "parquet"], "[parquet]"),
        ("opentelemetry.proto.collector.metrics.v1", ["--format", "csv", "--otlp", "http://127.0.0.1:1"], "[otlp]"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    run: Path, module: str, arguments: list[str], extra: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["report", str(run), *arguments]) == Exit.ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert extra in line
    assert not (run / "timeseries.parquet").exists()


def test_a_run_without_a_series_has_nothing_to_export(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "timeseries.csv").unlink()
    assert main(["report", str(run), "--format", "parquet"]) == Exit.ERROR
    assert main(["report", str(run), "--format", "csv"]) == Exit.ERROR
    first, second = capsys.readouterr().err.splitlines()
    assert "nothing to export" in first
    assert "timeseries.csv" in second
