"""`sim run`, from the command line to the files of its folder: their contract, their sums, and the exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
import yaml
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from simulator.measure.recorder import HISTORY
from simulator.report.wording import sentence
from simulator.transaction import Status

if TYPE_CHECKING:
    from pathlib import Path

    from sim_process import Ended

COUNTS = ("offered", "sent", "ok", "rejected", "failed", "unknown", "dropped")
TIMES = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")
NUMBER = (int, float)

_COUNTS: dict[str, Any] = dict.fromkeys(COUNTS, int)
_TIMES: dict[str, Any] = dict.fromkeys(TIMES, float)
_KIND: dict[str, Any] = {"counts": _COUNTS, "response_time_ms": _TIMES}
# The contract of summary.json: a type, a tuple of types, a nested object, or a list of objects that are all alike.
CONTRACT: dict[str, Any] = {
    "schema": int,
    "scenario": str,
    "clock": str,
    "seed": int,
    "started_at": str,
    "wall_s": float,
    "version": str,
    "interrupted": bool,
    "verdict": str,
    "validity": {"verdict": str, "reasons": list},
    "counts": _COUNTS,
    "rates": {
        "offered_per_s": NUMBER,
        "completed_per_s": NUMBER,
        "goodput_per_s": NUMBER,
        "peak_offered_per_s": NUMBER,
    },
    "value": {"offered_minor": int, "settled_minor": int, "currency": str},
    "response_time_ms": _TIMES,
    "service_time_ms": _TIMES,
    "schedule_lag_ms": _TIMES,
    "by_kind": dict.fromkeys(("payment", "refund", "authorize", "post", "void"), _KIND),
    "nodes": [{"node": int, "sent": int, "share": float, "in_flight_max": int, "response_time_ms": _TIMES}],
    "shards": [{"shard": int, "node": int, "applied": int, "queue_max": int}],
    "balancer": {"policy": str, "imbalance_max_over_mean": float, "jain": float},
    "audit": {"verdict": str, "anomalies": dict, "conservation_minor": int},
    "durability": {
        "mode": str,
        "power_losses": list,
        "lost_allowed": int,
        "lost_beyond": int,
        "restarts": {"count": int},
    },
    "thresholds": [{"metric": str, "expression": str, "observed": NUMBER, "passed": bool}],
}


def breaches(value: Any, contract: Any, where: str = "summary") -> list[str]:  # noqa: ANN401  any JSON
    """Where a value is not what the contract says."""
    if isinstance(contract, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        missing = [f"{where}.{key} is missing" for key in contract.keys() - value.keys()]
        present = contract.keys() & value.keys()
        return missing + [found for key in present for found in breaches(value[key], contract[key], f"{where}.{key}")]
    if isinstance(contract, list):
        if not isinstance(value, list) or not value:
            return [f"{where} is no list with entries"]
        return [found for i, entry in enumerate(value) for found in breaches(entry, contract[0], f"{where}[{i}]")]
    # In Python a bool is an int; in the contract it is not.
    sound = isinstance(value, contract) and (contract is bool or not isinstance(value, bool))
    return [] if sound else [f"{where} is {value!r}"]


def history(run: Path) -> Any:  # noqa: ANN401  a structured array
    """How each transaction ended."""
    return np.fromfile(run / "history.bin", HISTORY)


def merged(run: Path, tag: str) -> Any:  # noqa: ANN401  hdrh has no types
    """All intervals of one measure of latency.hlog, by the library that defines the format."""
    total = HdrHistogram(1, 3_600_000_000_000, 3)
    with closing(HistogramLogReader(str(run / "latency.hlog"), total)) as log:
        while (interval := log.get_next_interval_histogram()) is not None:
            if interval.get_tag() == tag:
                total.add(interval)
    return total


def assert_counts_add_up(counts: dict[str, int]) -> None:
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["ok"] + counts["rejected"] + counts["failed"] + counts["unknown"]


# The folder.


def test_every_file_of_the_contract_is_there_and_no_unfinished_one(small_run: Ended) -> None:
    there = {path.name for path in small_run.folder.iterdir()}
    assert there >= set(sim_process.FILES)
    assert all((small_run.folder / name).stat().st_size for name in sim_process.FILES)
    assert not [name for name in there if name.startswith(".") or name.endswith(".part")]


def test_the_summary_has_every_key_of_the_contract_in_its_type(small_run: Ended) -> None:
    assert breaches(small_run.summary, CONTRACT) == []


def test_the_contract_check_itself_finds_a_missing_key_and_a_wrong_type(small_run: Ended) -> None:
    broken = json.loads(json.dumps(small_run.summary))
    del broken["counts"]["ok"]
    broken["nodes"][1]["sent"] = 1.5
    broken["interrupted"] = 0
    assert sorted(breaches(broken, CONTRACT)) == [
        "summary.counts.ok is missing",
        "summary.interrupted is 0",
        "summary.nodes[1].sent is 1.5",
    ]


def test_a_run_that_met_everything_says_so_everywhere(small_run: Ended) -> None:
    summary = small_run.summary
    assert (summary["schema"], summary["scenario"], summary["clock"], summary["seed"]) == (1, "small", "wall", 7)
    assert (summary["verdict"], summary["validity"]["verdict"], summary["audit"]["verdict"]) == (
        "pass", "valid", "clean",
    )  # fmt: skip
    assert summary["audit"]["conservation_minor"] == 0
    assert [threshold["passed"] for threshold in summary["thresholds"]] == [True, True]
    assert summary["interrupted"] is False


def test_the_audit_looked_at_every_transaction(small_run: Ended) -> None:
    audit = json.loads((small_run.folder / "audit.json").read_text("utf-8"))
    assert audit["verdict"] == "clean"
    assert audit["checked"]["transactions"] == small_run.summary["counts"]["offered"]
    assert audit["checked"]["records"] >= small_run.summary["counts"]["ok"]
    assert audit["checked"]["shards"] == 4


def test_the_resolved_scenario_can_be_run_again_as_it_is(small_run: Ended, tmp_path: Path) -> None:
    resolved = yaml.safe_load((small_run.folder / "scenario.yaml").read_text("utf-8"))
    assert (resolved["name"], resolved["seed"], resolved["balancer"]["policy"]) == ("small", 7, "p2c")
    assert sim_process.call("check", str(small_run.folder / "scenario.yaml"), cwd=tmp_path).code == 0


def test_events_are_json_lines_in_order_of_time(small_run: Ended) -> None:
    events = [json.loads(line) for line in (small_run.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["t_s"] for event in events] == sorted(event["t_s"] for event in events)
    assert {"started", "drained"} <= {event["event"] for event in events}


def test_a_report_can_be_rendered_again_and_needs_no_network(small_run: Ended) -> None:
    page = (small_run.folder / "report.html").read_text("utf-8")
    assert sentence(small_run.summary).partition(":")[2] in page
    assert not re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=[\"']?https?:", page)


# The sums.


def test_counts_add_up_as_a_whole_and_for_each_kind(small_run: Ended) -> None:
    summary = small_run.summary
    assert_counts_add_up(summary["counts"])
    assert summary["counts"]["offered"] > 8_000
    for kind in summary["by_kind"].values():
        assert_counts_add_up(kind["counts"])
        assert kind["counts"]["offered"] > 0
    for name in COUNTS:
        assert sum(kind["counts"][name] for kind in summary["by_kind"].values()) == summary["counts"][name]


def test_seconds_nodes_and_shards_add_up_to_the_whole(small_run: Ended) -> None:
    summary, series = small_run.summary, small_run.series
    for name in COUNTS:
        assert sum(series[name]) == summary["counts"][name], name
    assert sum(series["completed"]) == sum(summary["counts"][name] for name in ("ok", "rejected", "failed"))
    assert sum(node["sent"] for node in summary["nodes"]) == summary["counts"]["sent"]
    assert sum(shard["applied"] for shard in summary["shards"]) == summary["journal"]["records"]
    for node in summary["nodes"]:
        assert sum(series[f"node{node['node']}_sent"]) == node["sent"]
    by_shard = [sum(series[f"shard{shard['shard']}_ok"]) for shard in summary["shards"]]
    assert all(by_shard)
    assert sum(by_shard) == summary["counts"]["ok"]
    for name in ("offered_minor", "settled_minor"):
        assert sum(series[name]) == summary["value"][name]
    assert sum(node["share"] for node in summary["nodes"]) == pytest.approx(1, abs=1e-5)
    assert summary["rates"]["peak_offered_per_s"] == max(series["offered"])


def test_the_history_holds_each_offered_transaction_once(small_run: Ended) -> None:
    rows = history(small_run.folder)
    counts = small_run.summary["counts"]
    assert len(rows) == counts["offered"]
    assert sorted(rows["id"].tolist()) == list(range(1, len(rows) + 1))
    for status in (Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN, Status.DROPPED):
        assert int((rows["status"] == status).sum()) == counts[status.name.lower()]


@pytest.mark.parametrize(
    ("tag", "counted"), [("response_time", "ok"), ("service_time", "ok"), ("schedule_lag", "sent")]
)
def test_the_histogram_log_read_by_its_own_library_agrees_with_the_summary(
    small_run: Ended, tag: str, counted: str
) -> None:
    histogram = merged(small_run.folder, tag)
    times = small_run.summary[f"{tag}_ms"]
    assert histogram.get_total_count() == small_run.summary["counts"][counted]
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99.9", 99.9), ("max", 100)):
        assert histogram.get_value_at_percentile(percent) / 1e6 == pytest.approx(times[name], abs=1e-6), name


def test_response_time_is_no_shorter_than_service_time(small_run: Ended) -> None:
    response, service = small_run.summary["response_time_ms"], small_run.summary["service_time_ms"]
    assert all(response[name] >= service[name] for name in TIMES)
    assert 0 < service["p50"] <= service["p90"] <= service["p99"] <= service["max"]


# What it prints.


def test_a_run_raises_no_warning(tmp_path: Path) -> None:
    path = str(sim_process.scenario(tmp_path / "run"))
    strict = (
        sys.executable,
        "-W",
        "error",
        "-m",
        "simulator.cli",
        "run",
        path,
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    )
    short = sim_process.settings("duration=300ms", "backend.embedded.nodes=2")
    ended = subprocess.run(
        [*strict, *short], capture_output=True, text=True, check=False, timeout=sim_process.PATIENCE_S,
        env=sim_process.environment(),
    )  # fmt: skip
    assert ended.stderr == ""


@pytest.fixture(scope="module")
def same_seed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The small run again, not quiet."""
    return sim_process.run(tmp_path_factory.mktemp("again") / "run")


def test_quiet_prints_the_verdict_sentence_and_nothing_else(small_run: Ended) -> None:
    assert small_run.out == sentence(small_run.summary) + "\n"
    assert small_run.out.startswith("PASS: held ")


def test_where_there_is_no_terminal_lines_are_printed_without_escape_codes(same_seed: Ended) -> None:
    assert (same_seed.code, same_seed.err) == (0, "")
    assert "\x1b" not in same_seed.out
    assert "\r" not in same_seed.out
    lines = same_seed.out.splitlines()
    for phase in ("running", "draining", "auditing", "reporting"):
        assert any(f", {phase}," in line for line in lines), same_seed.out
    assert str(same_seed.folder / "report.html") in "".join(lines)


def test_the_verdict_sentence_stands_in_the_output_whole(same_seed: Ended) -> None:
    assert sentence(same_seed.summary) in same_seed.out.splitlines()


def test_no_color_is_honoured_even_where_colour_would_be_forced(tmp_path: Path) -> None:
    short = sim_process.settings("duration=300ms")
    ended = sim_process.run(tmp_path / "run", *short, NO_COLOR="1", FORCE_COLOR="1", TERM="xterm-256color")
    colours = re.findall(r"\x1b\[[0-9;]*m", ended.out)
    assert not [code for code in colours if re.search(r"[\[;](?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]", code)]


# The same seed.


def test_the_same_seed_asks_for_the_same_and_moves_the_same(small_run: Ended, same_seed: Ended) -> None:
    first, second = small_run.summary, same_seed.summary
    asked = [Counter(history(ended.folder)[["id", "fingerprint"]].tolist()) for ended in (small_run, same_seed)]
    assert asked[0] == asked[1]
    assert first["value"]["offered_minor"] == second["value"]["offered_minor"]
    assert first["counts"]["rejected"] == second["counts"]["rejected"] == 0
    ended_as = [Counter(history(e.folder)[["id", "fingerprint", "status"]].tolist()) for e in (small_run, same_seed)]
    assert ended_as[0] == ended_as[1]
    assert first["counts"] == second["counts"]
    assert first["value"] == second["value"]
    assert [kind["counts"] for kind in first["by_kind"].values()] == [
        kind["counts"] for kind in second["by_kind"].values()
    ]


# Every way to keep books. Each row has another policy, durability and shape.


@pytest.mark.parametrize(
    ("policy", "durability", "nodes", "shards"),
    [
        ("round_robin", "memory", 2, 4),
        ("random", "os", 1, 4),
        ("p2c", "{interval: 10ms}", 3, 5),
        ("affinity", "group", 3, 5),
        ("p2c", "memory", 1, 1),
    ],
)
def test_every_policy_and_durability_runs_and_audits_clean(
    tmp_path: Path, policy: str, durability: str, nodes: int, shards: int
) -> None:
    embedded = f"backend={{embedded: {{nodes: {nodes}, shards: {shards}, durability: {durability}, remember: 16384}}}}"
    chosen = sim_process.settings("duration=700ms", "load.follow_up.after=100ms", f"balancer.policy={policy}", embedded)
    ended = sim_process.run(tmp_path / "run", "--seed", "11", "--quiet", *chosen)
    assert (ended.code, ended.err) == (0, "")
    summary = ended.summary
    assert (summary["audit"]["verdict"], summary["audit"]["conservation_minor"]) == ("clean", 0)
    assert (summary["balancer"]["policy"], summary["seed"]) == (policy, 11)
    assert_counts_add_up(summary["counts"])
    assert summary["counts"]["ok"] > 0
    assert [node["node"] for node in summary["nodes"]] == list(range(nodes))
    assert [shard["node"] for shard in summary["shards"]] == [shard % nodes for shard in range(shards)]
    assert all(node["sent"] > 0 for node in summary["nodes"])
    handed_on = sum(node["handed_on"] for node in summary["nodes"])
    assert (handed_on == 0) == (policy == "affinity" or nodes == 1)
    again = sim_process.call("audit", str(ended.folder))
    assert (again.code, again.out.splitlines()[0]) == (0, "audit: clean")


# Exit codes.


def test_a_crossed_threshold_ends_with_99_and_is_told(tmp_path: Path) -> None:
    crossed = sim_process.settings("duration=600ms", 'thresholds={response_time: ["max < 1us"]}')
    ended = sim_process.run(tmp_path / "run", "--quiet", *crossed)
    assert ended.code == 99
    assert ended.summary["verdict"] == "fail"
    assert [threshold["passed"] for threshold in ended.summary["thresholds"]] == [False]
    assert ended.out.startswith("FAIL: response time max < 1us was crossed: ")


def test_a_run_that_the_generator_limited_is_invalid_and_ends_with_120(tmp_path: Path) -> None:
    too_much = sim_process.settings(
        "duration=300ms", "load.rate=1000000/s", "dispatcher.in_flight=1024", "load.mix={payment: 1}"
    )
    ended = sim_process.run(tmp_path / "run", "--quiet", *too_much)
    summary = ended.summary
    assert ended.code == 120
    assert (summary["verdict"], summary["validity"]["verdict"]) == ("invalid", "generator-limited")
    assert summary["counts"]["dropped"] > 0
    assert sum(summary["reasons"]["dropped"].values()) == summary["counts"]["dropped"]
    assert_counts_add_up(summary["counts"])
    assert summary["audit"]["verdict"] == "clean"
    assert ended.out.startswith("INVALID: the generator was the bottleneck: ")


def test_a_run_against_noop_measures_the_simulator_and_claims_nothing_of_money(tmp_path: Path) -> None:
    noop = sim_process.settings("duration=600ms", "backend={noop: {}}", 'thresholds={dropped: "count == 0"}')
    ended = sim_process.run(tmp_path / "run", "--quiet", *noop)
    assert ended.code == 0, ended.out
    assert (ended.summary["validity"]["verdict"], ended.summary["audit"]["verdict"]) == ("valid", "unknown")
    assert ended.summary["audit"]["conservation_minor"] is None
    assert "money not audited: this backend books nothing" in ended.out
    assert all((ended.folder / name).is_file() for name in sim_process.FILES)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--set", "load.rat=5000/s"], "load.rat"),
        (["--set", "backend={embedded: {nodes: 5, shards: 4}}"], "nodes"),
    ],
    ids=["unknown key", "nodes without a shard"],
)
def test_a_scenario_that_cannot_be_run_ends_with_104_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], word: str
) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    path = sim_process.scenario(tmp_path / "run")
    ended = sim_process.call("run", str(path), *arguments, cwd=place)
    assert ended.code == 104
    assert ended.out == ""
    assert re.fullmatch(r"sim: .+\n", ended.err), ended.err
    assert word in ended.err
    assert list(place.iterdir()) == []


def test_results_are_never_overwritten(small_run: Ended) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in small_run.folder.iterdir()}
    ended = sim_process.run(small_run.folder)
    assert ended.code == 2
    assert re.fullmatch(r"sim: .*exists already.*--out\n", ended.err), ended.err
    assert {path.name: path.stat().st_mtime_ns for path in small_run.folder.iterdir()} == before


@pytest.mark.parametrize(
    "place",
    ["file/run", "file/deep/run", "dangling", "n" * 300],
    ids=["below a file", "deep below a file", "a dangling link", "too long a name"],
)
def test_a_folder_that_cannot_be_made_is_a_wrong_command_line_and_leaves_nothing(tmp_path: Path, place: str) -> None:
    path = sim_process.scenario(tmp_path / "run")
    (tmp_path / "file").write_text("in the way", "utf-8")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = set(tmp_path.iterdir())
    ended = sim_process.call("run", str(path), "--out", str(tmp_path / place), "--quiet")
    assert ended.code == 2
    assert ended.out == ""
    assert re.fullmatch(r"sim: .+\n", ended.err), ended.err
    assert set(tmp_path.iterdir()) == before


def test_a_reader_who_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    command = [*sim_process.SIM, "run", str(sim_process.scenario(tmp_path / "run")), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(sim_process.PATIENCE_S) == 0
    assert all((tmp_path / "run" / name).exists() for name in sim_process.FILES)
