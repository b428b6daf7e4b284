"""Writes a run's folder as a run would: a minute that climbs to a spike, with an event and a full set of files."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from hdrh.histogram import HdrHistogram

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_573_401_600  # 2019-11-11 00:00 in Beijing
SAMPLES_PER_S = 200
PERCENTILES = (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99.9", 99.9))


def write(  # each argument is a way in which runs differ
    folder: Path, *, name: str = "double-eleven-opening-minute", seconds: int = 60, nodes: int = 2, shards: int = 16,
    platform: bool = False,
) -> Path:  # fmt: skip
    """Write a passing run of `seconds` into `folder`, made if need be, and return it; deterministic.

    With `platform` also what newer versions record: samples of the platform, and money on its way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20191111)
    columns = _columns(random, seconds, nodes, shards)
    samples = _samples(random, np.array(columns["offered"]))
    for tag, label in (("response_time", "response"), ("service_time", "service"), ("schedule_lag", "lag")):
        for mark, percentile in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100)):
            if f"{label}_{mark}_ms" in columns:
                columns[f"{label}_{mark}_ms"] = [
                    round(float(np.percentile(second, percentile)) / 1e6, 4) for second in samples[tag]
                ]
    if platform:
        columns["reserved_minor"] = [n * 150 for n in columns["offered"]]
        columns["float_minor"] = [n * 40 for n in columns["offered"][:-1]] + [0]
        _write_csv(folder / "platform.csv", _platform(random, np.array(columns["offered"]), nodes, shards))
    _write_csv(folder / "timeseries.csv", columns)
    _write_hlog(folder / "latency.hlog", samples)
    write_json(
        folder / "summary.json", _summary(columns, samples, name=name, seconds=seconds, nodes=nodes, shards=shards)
    )
    write_json(
        folder / "audit.json",
        {
            "verdict": "clean",
            "anomalies": {"lost": 0, "doubled": 0, "torn": 0, "reordered": 0},
            "conservation_minor": 0,
            "checked": {"transactions": sum(columns["sent"]), "records": 2 * sum(columns["ok"]), "shards": shards},
            "examples": {},
            "reasons": [],
        },
    )
    write_json(
        folder / "environment.json",
        {
            "python": "3.11.7",
            "numpy": "2.3.1",
            "numba": "0.62.0",
            "cpu_model": "An Example Processor",
            "cores": 2,
            "memory_bytes": 8 * 2**30,
            "kernel": "6.1.0",
            "file_system": "ext4",
            "started_at": "2019-11-10T16:00:00Z",
        },
    )
    events = [
        {"t_s": 0.0, "event": "started", "processes": [1001, 1002]},
        {"t_s": seconds * 0.45, "event": "node_stopped", "node": 1, "by": "fault"},
        {"t_s": seconds * 0.55, "event": "node_back", "node": 1},
        {"t_s": float(seconds), "event": "drained", "in_flight": 0},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    scenario = f"name: {json.dumps(name)}\nclock: wall\nseed: 20191111\nduration: {seconds}s\n"
    scenario += "load:\n  rate: {curve: double-eleven/paper}\n  arrivals: poisson\n"
    (folder / "scenario.yaml").write_text(scenario, encoding="utf-8")
    return folder


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON."""
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def summary(folder: Path) -> dict[str, Any]:
    """Return the summary that `write` left in `folder`."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def _columns(random: np.random.Generator, seconds: int, nodes: int, shards: int) -> dict[str, list[Any]]:
    second = np.arange(seconds)
    target = 20_000 + 71_000 * np.exp(-(((second - seconds / 4) / (seconds / 7)) ** 2))
    offered = random.poisson(target)
    rejected = random.poisson(offered * 0.002)
    ok = offered - rejected
    columns: dict[str, list[Any]] = {
        "second": second.tolist(),
        "target": [round(float(value), 1) for value in target],
        "offered": offered.tolist(),
        "sent": offered.tolist(),
        "completed": offered.tolist(),
        "ok": ok.tolist(),
        "rejected": rejected.tolist(),
        "failed": [0] * seconds,
        "dropped": [0] * seconds,
        "in_flight": (offered // 400 + random.integers(0, 40, seconds)).tolist(),
        "offered_minor": (offered * 10_000).tolist(),
        "settled_minor": (ok * 9_700).tolist(),
    }
    measured = ("response_p50", "response_p90", "response_p99", "response_p999", "response_max")
    for mark in (*measured, "service_p50", "service_p99", "lag_p50", "lag_p99"):
        columns[f"{mark}_ms"] = []
    down = (second >= seconds * 0.45) & (second < seconds * 0.55) if nodes > 1 else np.zeros(seconds, dtype=bool)
    for node in range(nodes):
        part = np.where(down, 0 if node == 1 else offered // max(nodes - 1, 1), offered // nodes)
        columns[f"node{node}_sent"] = part.tolist()
    for shard in range(shards):
        columns[f"shard{shard}_ok"] = (2 * ok // shards).tolist()
    return columns


def _platform(
    random: np.random.Generator, offered: np.ndarray[Any, Any], nodes: int, shards: int
) -> dict[str, list[Any]]:
    """Samples of the platform, a row a second: busier as the load climbs, one shard hotter than the others."""
    load, seconds = offered / 91_000, len(offered)
    columns: dict[str, list[Any]] = {"second": list(range(seconds)), "window_s": [1.0] * seconds}
    columns["commits"] = [900] * seconds
    for mark, height in (("p50", 0.3), ("p99", 1.4), ("max", 5.0)):
        columns[f"commit_{mark}_ms"] = [round(float(height * (1 + 3 * x**3)), 4) for x in load]
    for node in range(nodes):
        columns[f"node{node}_queue"] = [int(900 * x**4 + random.integers(0, 20)) for x in load]
        columns[f"node{node}_commit_p99_ms"] = [round(float(1.4 * (1 + 3 * x**3)), 4) for x in load]
        columns[f"node{node}_commit_share"] = [round(float(0.3 * x), 4) for x in load]
        columns[f"node{node}_busy"] = [round(float(0.8 * x), 4) for x in load]
    for shard in range(shards):
        hot = 6 if shard == shards // 3 else 1
        columns[f"shard{shard}_in_flight"] = [int(hot * 12 * x + random.integers(0, 4)) for x in load]
    return columns


def _samples(random: np.random.Generator, offered: np.ndarray[Any, Any]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Draw a few hundred times (ns) a second, slower as the load climbs."""
    samples: dict[str, list[np.ndarray[Any, Any]]] = {"response_time": [], "service_time": [], "schedule_lag": []}
    for load in offered / 91_000:
        service = random.gamma(2.0, 0.4e6 * (1 + 4 * load**3), SAMPLES_PER_S)
        lag = random.exponential(0.02e6, SAMPLES_PER_S)
        samples["service_time"].append(service.astype(np.int64))
        samples["schedule_lag"].append(lag.astype(np.int64))
        samples["response_time"].append((service + lag).astype(np.int64))
    return samples


def _times(values: np.ndarray[Any, Any]) -> dict[str, float]:
    found = {"mean": float(values.mean()), "max": float(values.max())}
    found |= {label: float(np.percentile(values, percentile)) for label, percentile in PERCENTILES}
    return {label: round(value / 1e6, 4) for label, value in found.items()}


def _summary(
    columns: dict[str, list[Any]],
    samples: dict[str, list[np.ndarray[Any, Any]]],
    *,
    name: str,
    seconds: int,
    nodes: int,
    shards: int,
) -> dict[str, Any]:
    merged = {tag: np.concatenate(parts) for tag, parts in samples.items()}
    times = {tag: _times(values) for tag, values in merged.items()}
    offered, ok, rejected = (sum(columns[column]) for column in ("offered", "ok", "rejected"))
    counts = {
        "offered": offered,
        "sent": offered,
        "ok": ok,
        "rejected": rejected,
        "failed": 0,
        "unknown": 0,
        "dropped": 0,
    }
    refunds = {label: n // 100 for label, n in counts.items()}
    payments = {label: n - refunds[label] for label, n in counts.items()}
    sent = [sum(columns[f"node{node}_sent"]) for node in range(nodes)]
    commit_ms = {"p50": 0.41, "p99": 1.9, "max": 4.4}
    return {
        "schema": 1,
        "scenario": name,
        "name": name,
        "description": "The first minute of the festival, at a thousandth of its height.",
        "clock": "wall",
        "seed": 20191111,
        "started_at": "2019-11-10T16:00:00Z",
        "wall_s": seconds + 3.4,
        "version": "0.1.0",
        "stop_reason": "duration",
        "interrupted": False,
        "verdict": "pass",
        "validity": {"verdict": "valid", "reasons": []},
        "counts": counts,
        "reasons": {"rejected": {"funds": rejected}, "dropped": {}, "unknown": {}, "failed": {}},
        "rates": {
            "offered_per_s": offered / seconds,
            "completed_per_s": offered / seconds,
            "peak_offered_per_s": max(columns["offered"]),
        },
        "value": {
            "offered_minor": sum(columns["offered_minor"]),
            "settled_minor": sum(columns["settled_minor"]),
            "currency": "CNY",
        },
        "response_time_ms": times["response_time"],
        "service_time_ms": times["service_time"],
        "schedule_lag_ms": times["schedule_lag"],
        "by_kind": {
            "payment": {"counts": payments, "response_time_ms": times["response_time"]},
            "refund": {"counts": refunds, "response_time_ms": times["response_time"]},
        },
        "nodes": [
            {
                "node": node,
                "pid": 1001 + node,
                "sent": sent[node],
                "share": sent[node] / sum(sent),
                "in_flight_max": 260 + node,
                "response_time_ms": times["response_time"],
                "commit_ms": commit_ms,
            }
            for node in range(nodes)
        ],
        "shards": [
            {
                "shard": shard,
                "node": shard % nodes,
                "applied": sum(columns[f"shard{shard}_ok"]) * (3 if shard == shards // 3 else 2) // 2,
                "queue_max": 40 + shard,
            }
            for shard in range(shards)
        ],
        "balancer": {"policy": "p2c", "imbalance_max_over_mean": 1.021, "jain": 0.9996, "handed_on": 0},
        "audit": {"verdict": "clean", "anomalies": {}, "conservation_minor": 0},
        "thresholds": [
            {
                "metric": "response_time",
                "expression": "p(99) < 50ms",
                "observed": times["response_time"]["p99"],
                "passed": True,
            },
            {"metric": "dropped", "expression": "count == 0", "observed": 0, "passed": True},
            {"metric": "audit", "expression": "anomalies == 0", "observed": 0, "passed": True},
        ],
        "journal": {"commits": 61_000, "records": 2 * ok, "bytes": 128 * ok, "commit_ms": commit_ms},
        "resources": {"rss_peak_bytes": 412 * 2**20, "cpu_s": 96.4},
    }


def _write_csv(path: Path, columns: dict[str, list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    path.write_text(text.getvalue(), encoding="utf-8")


def _write_hlog(path: Path, samples: dict[str, list[np.ndarray[Any, Any]]]) -> None:
    # The library's own writer knows no tags.
    lines = [
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {START_S:.3f} (seconds since epoch), 2019-11-11]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for tag, parts in samples.items():
        for second, values in enumerate(parts):
            histogram = HdrHistogram(1, 3_600_000_000_000, 3)
            for value in values.tolist():
                histogram.record_value(max(value, 1))
            payload = histogram.encode().decode()
            lines.append(f"Tag={tag},{second:.3f},1.000,{int(values.max()) / 1e6:.3f},{payload}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
