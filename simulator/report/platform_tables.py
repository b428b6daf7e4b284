"""Tables of the platform: its balancer, nodes and shards, hot keys, shards that moved, journal, dead letters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from simulator.report import answerers, wording
from simulator.report.balancing import BEHAVIOUR, behaviour_rows
from simulator.report.blocks import Table, cut
from simulator.report.wording import NO_DATA, count, metric_name, ms, number, plain, rate, share

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.report.folder import RunFolder

ROWS_MAX = 200  # of nodes, shards or merchants in a table; the files hold them all


def has_one_target(summary: dict[str, Any]) -> bool:
    """Whether this run's own balancer had nothing to pick from: who serves is picked behind its one target, if anywhere."""
    return summary.get("clock") != "virtual" and len(summary.get("nodes") or []) == 1


def balancer(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The policy, how even the load was, and how the balancer behaved."""
    found = summary.get("balancer") or {}
    if has_one_target(summary) and summary.get("answered_by"):
        # Everything about one target is even, and says nothing of the nodes behind it.
        tiers = (found.get("amplification") or {}).items()
        amplified = [(f"attempts over requests, {tier}", _decimal(n, 3)) for tier, n in tiers if number(n) is not None]
        return [("targets", "1, and so nothing to pick from"), *amplified]
    known: dict[str, tuple[str, Callable[[Any], str]]] = {
        "policy": ("policy", plain),
        "imbalance_max_over_mean": ("busiest node over the average (1 is even)", partial(_decimal, places=3)),
        "jain": ("Jain's fairness index (1 is even)", partial(_decimal, places=4)),
        "handed_on": ("handed on to another node", count),
    }
    rows = [(label, show(found[key])) for key, (label, show) in known.items() if key in found]
    other = [
        (metric_name(key), plain(value))
        for key, value in found.items()
        if key not in known and key not in BEHAVIOUR and value is not None and not isinstance(value, dict | list)
    ]
    return rows + other + behaviour_rows(found)


def _decimal(value: object, places: int) -> str:
    n = number(value)
    return NO_DATA if n is None else f"{n:.{places}f}"


def nodes(summary: dict[str, Any]) -> Table:
    """Each node: its part, its times, its commits."""
    rows = []
    for node in summary.get("nodes", [])[:ROWS_MAX]:
        times, commits = node.get("response_time_ms", {}), node.get("commit_ms") or {}
        rows.append(
            (
                plain(node.get("node", "")),
                plain(node.get("pid", "")),
                count(node.get("sent")),
                share(node.get("share")),
                count(node.get("in_flight_max")),
                *(ms(times.get(p)) for p in ("p50", "p99", "p99.9", "max")),
                *(ms(commits.get(p)) for p in ("p50", "p99")),
            )
        )
    head = (
        "node",
        "process",
        "sent",
        "share",
        "in flight max",
        "p50",
        "p99",
        "p99.9",
        "max",
        "commit p50",
        "commit p99",
    )
    return Table(
        "By node, with response times and journal commits",
        head,
        rows,
        note=cut(summary.get("nodes", []), "nodes", ROWS_MAX),
    )


def shards(summary: dict[str, Any]) -> Table:
    """Each shard: its part, its longest queue, its credit lag."""
    rows = [
        (
            plain(shard.get("shard", "")),
            plain(shard.get("node", "")),
            count(shard.get("applied")),
            share(shard.get("share")),
            count(shard.get("credited")),
            count(shard.get("queue_max")),
            *(ms((shard.get("credit_lag_ms") or {}).get(p)) for p in ("p50", "p99")),
        )
        for shard in summary.get("shards", [])[:ROWS_MAX]
    ]
    return Table(
        "By shard",
        ("shard", "on node", "applied", "share", "credited", "longest queue", "credit lag p50", "credit lag p99"),
        rows,
        note=cut(summary.get("shards", []), "shards", ROWS_MAX),
    )


def hot_facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """How concentrated the load is, beside what the formula expects; empty where nothing is hot."""
    hot = summary.get("hot_keys") or {}
    if not (hot.get("accounts") and hot.get("offered")):
        return []
    expected = hot.get("credited_max_over_mean_expected")
    largest = hot.get("largest_account_share_expected")
    split = hot.get("split_accounts") or 0
    facts = [
        ("hot keys", wording.accounts(hot["accounts"])),
        (
            "split into sub-accounts",
            f"{wording.accounts(split)}, {count(hot.get('split'))} parts each" if split else "none",
        ),
        ("their share of all transactions", share(hot.get("share"))),
        ("payments to the busiest shard over the average", _decimal(hot.get("credited_max_over_mean"), 2)),
        (
            "the same by formula, S·p + (1 − p)",
            f"{_decimal(expected, 2)} with p = {share(largest)} and S = {len(summary.get('shards', []))}"
            if expected is not None
            else "no law: a trace names the payees",
        ),
        ("records of the busiest shard over the average", _decimal(summary.get("shard_imbalance_max_over_mean"), 2)),
    ]
    return [(label, value) for label, value in facts if value != NO_DATA]


def hot_keys(summary: dict[str, Any]) -> Table:
    """Response time and credit lag of hot keys beside those of cold ones."""
    rows = []
    for label, key in (("hot", "hot_keys"), ("cold", "cold_keys")):
        found = summary.get(key) or {}
        times, lag = found.get("response_time_ms") or {}, found.get("credit_lag_ms") or {}
        rows.append(
            (
                label,
                count(found.get("offered")),
                *(ms(times.get(p)) for p in ("p50", "p99", "p99.9")),
                *(ms(lag.get(p)) for p in ("p50", "p99", "p99.9")),
            )
        )
    head = ("keys", "offered", "response p50", "p99", "p99.9", "credit lag p50", "p99", "p99.9")
    return Table("Hot keys beside cold ones: response time and credit lag", head, rows)


def hot_accounts(run: RunFolder) -> Table:
    """The split merchants, as the audit merged them."""
    currency = str(run.summary.get("value", {}).get("currency", "CNY"))
    merchants = run.audit.get("hot_accounts") or []
    rows = []
    for found in merchants[:ROWS_MAX]:
        parts = found.get("parts") or []
        balances = [part.get("balance_minor", 0) for part in parts]
        rows.append(
            (
                plain(found.get("merchant", "")),
                wording.money(found.get("balance_minor"), currency),
                count(len(parts)),
                wording.money(min(balances, default=0), currency),
                wording.money(max(balances, default=0), currency),
            )
        )
    head = ("merchant's account", "merged balance", "sub-accounts", "smallest", "largest")
    return Table(
        "Split accounts: the sum of the parts, as audited", head, rows, note=cut(merchants, "split accounts", ROWS_MAX)
    )


def rebalance(summary: dict[str, Any]) -> Table | None:
    """The shards that moved; None where none may."""
    found = summary.get("rebalance")
    if not found:
        return None
    rows = [
        (
            plain(move.get("shard", "")),
            f"node {plain(move.get('from', ''))} → node {plain(move.get('to', ''))}",
            wording.duration(move.get("at_s")),
            ms(move.get("pause_ms")),
            count(move.get("keys_moved")),
            count(move.get("parked")),
            count(move.get("refused")),
            wording.size(move.get("bytes")),
        )
        for move in found.get("moves", [])[:ROWS_MAX]
    ]
    head = ("shard", "moved", "at", "pause", "accounts", "requests that waited", "refused meanwhile", "handed over")
    return Table("Shards that moved", head, rows, words=frozenset({0, 1}), note=f"In all: {wording.moves(found)}.")


def answered(caption: str, found: answerers.Rows | None) -> Table | None:
    """Who answered, as a table; None where nobody asked who."""
    return None if found is None else Table(caption, found.head, tuple(found.rows))


def overload(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Goodput and, if there was a spike that was too much, how it went and how long it took to drain."""
    found = summary.get("overload") or {}
    facts = [
        ("goodput", rate(found.get("goodput_per_s"))),
        ("of offered", share(found.get("goodput_share"))),
        ("refused for want of room", count(found.get("refused"))),
    ]
    if found.get("spike_began_s") is not None:
        facts += [
            ("more offered than decided for", wording.duration(found.get("overloaded_s"))),
            ("offered during the spike", rate(found.get("spike_offered_per_s"))),
            ("goodput during the spike", rate(found.get("sustained_per_s"))),
            ("waiting at most", count(found.get("backlog_peak"))),
            ("drained after the spike in", wording.drain(found.get("drain_s"))),
        ]
    return [(label, value) for label, value in facts if value != NO_DATA]


def dead_letters(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was set aside and what became of it; nothing, if nothing was."""
    found = summary.get("dead_letters") or {}
    if not found.get("set_aside") and not found.get("count"):
        return []
    labels = (
        ("set_aside", "could not be booked at first"),
        ("retried", "further tries"),
        ("healed", "succeeded at one of them"),
        ("requests", "dead letters: requests, told failed"),
        ("credits", "dead letters: credits, their money on transit"),
        ("unwritten", "dead letters beyond the bound of the file"),
    )
    facts = [(label, count(found.get(key))) for key, label in labels]
    return [*facts, ("files", ", ".join(map(plain, found.get("files") or [])) or "none")]


def journal(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Commits, what was written, memory and processor time."""
    journal = summary.get("journal") or {}
    resources = summary.get("resources") or {}
    commits = journal.get("commit_ms") or {}
    cpu = number(resources.get("cpu_s"))
    facts = [
        ("commits", count(journal.get("commits"))),
        ("records", count(journal.get("records"))),
        ("written", wording.size(journal.get("bytes"))),
        *((f"commit {name}", ms(commits.get(name))) for name in ("p50", "p99", "max")),
        ("memory at its highest", wording.size(resources.get("rss_peak_bytes"))),
        ("processor time", NO_DATA if cpu is None else f"{cpu:,.1f} s"),
    ]
    return [(label, value) for label, value in facts if value != NO_DATA]
