"""The report: how long it takes to make, how large it is, and when a browser shows it; beside the floor of each.

    python benchmarks/bench_report.py [RUN …]

Without a run's folder it makes two up: a minute in seconds, and a day in as many windows as a simulated one has, with 64 nodes
and 256 shards. Floors: for the time an interpreter that imports the same and renders nothing, for the size the chart library,
for the first paint an empty page. Bounds are 3 s and 5 s, 8 MiB, and 1.5 s. Needs a quiet machine, and Chromium for the last.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from simulator.measure.grid import lengths_s, peak_grid, seconds_grid, starts_s
from simulator.measure.histogram import Histogram
from simulator.report.export import encode, write_json, write_series
from simulator.report.page import plotly_js

NODES, SHARDS = 64, 256
SAMPLES = 2_000  # response times in each window
ROUNDS = 3
DAY_NS = 86_400 * 10**9


def made_up(folder: Path, edges: np.ndarray) -> Path:
    """A run's folder with what the report reads most of."""
    folder.mkdir()
    random = np.random.default_rng(1)
    starts, lengths = starts_s(edges), lengths_s(edges)
    windows = len(starts)
    counts = (lengths * 50_000).astype(np.int64)
    columns = {"second": starts.tolist(), "window_s": lengths.tolist(), "target": counts.tolist()}
    columns |= {name: random.poisson(counts).tolist() for name in ("offered", "sent", "completed", "ok", "in_flight")}
    columns |= {
        f"response_{mark}_ms": random.gamma(2, 5, windows).tolist() for mark in ("p50", "p90", "p99", "p999", "max")
    }
    columns |= {f"node{n}_sent": random.poisson(counts / NODES).tolist() for n in range(NODES)}
    columns |= {f"shard{s}_ok": random.poisson(counts / SHARDS).tolist() for s in range(SHARDS)}
    write_series(folder / "timeseries.csv", columns)
    lines = ["#[StartTime: 1573401600.000 (seconds since epoch)]", "#[BaseTime: 1573401600.000 (seconds since epoch)]"]
    for tag in ("response_time", "service_time", "schedule_lag"):
        for start, length in zip(starts, lengths, strict=True):
            found = Histogram.of(random.gamma(2, 5e6, SAMPLES).astype(np.int64))
            lines.append(f"Tag={tag},{start:.3f},{length:.3f},0.000000,{encode(found)}")
    (folder / "latency.hlog").write_text("\n".join(lines) + "\n", "utf-8")
    counted = dict.fromkeys(("offered", "sent", "ok"), int(counts.sum()))
    write_json(
        folder / "summary.json",
        {
            "scenario": folder.name, "verdict": "pass", "validity": {"verdict": "valid"}, "counts": counted, "rates": {},
            "response_time_ms": {}, "audit": {"verdict": "clean"}, "thresholds": [],
        },
    )  # fmt: skip
    return folder


def seconds_of(*command: str) -> float:
    """The least of some rounds of a command."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
    return min(took)


def first_paint_ms(page: Path) -> float | None:
    """When Chromium first paints a page; None: there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page()
        shown.goto(page.as_uri())
        shown.wait_for_function("performance.getEntriesByName('first-paint').length > 0")
        at = float(shown.evaluate("performance.getEntriesByName('first-paint')[0].startTime"))
        browser.close()
    return at


def main() -> None:
    """Prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        runs = asked.runs or [
            made_up(place / "a minute", seconds_grid(60)),
            made_up(place / "a day", peak_grid(DAY_NS, 10**10, 30 * 10**9)),
        ]
        empty = place / "empty.html"
        empty.write_text("<!doctype html><title>empty</title><p>empty", "utf-8")
        floor_s = seconds_of("-c", "import simulator.cli, simulator.report")
        floor_ms, floor_bytes = first_paint_ms(empty), len(plotly_js().encode())
        for run in runs:
            took_s = seconds_of("-m", "simulator.cli", "report", str(run))
            page = run / "report.html"
            size, paint_ms = page.stat().st_size, first_paint_ms(page)
            text = f"{run.name}: made in {took_s:.2f} s ({took_s / floor_s:.1f} × imports alone), "
            text += f"{size / 2**20:.2f} MiB ({size / floor_bytes:.2f} × the library)"
            if paint_ms is not None and floor_ms is not None:
                text += f", first paint after {paint_ms:.0f} ms ({paint_ms / floor_ms:.1f} × an empty page)"
            print(text)


if __name__ == "__main__":
    main()
