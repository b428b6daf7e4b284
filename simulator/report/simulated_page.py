"""What the page says of a simulated run: plainly that it is one, of which platform, where its limits are, what clients did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.report.blocks import Table
from simulator.report.wording import NO_DATA, count, duration, ms, number, plain, rate, share

if TYPE_CHECKING:
    from collections.abc import Mapping

Summary = dict[str, Any]

# What clients did, in the order of a transaction's life; each with what it means.
_CLIENT: tuple[tuple[str, str, str], ...] = (
    ("attempts", "attempts", "sent to a node, the first ones included"),
    ("retries", "retries", "of these: again, after a refusal, an error or a time-out"),
    ("hedges", "hedges", "of these: beside one that was late"),
    ("retries_over_budget", "retries not made: budget", "the retry budget was spent"),
    ("hedges_over_budget", "hedges not made: budget", "the hedge budget was spent"),
    ("timeouts", "attempts timed out", "no answer in the client's time"),
    ("deadlines", "transactions past their deadline", "given up by the client"),
    ("late_answers", "late answers", "came to a client that had gone"),
    ("mail_lost", "mail of balancers lost", "probes and replies not sent, too many were under way"),
    ("begun_for_nobody", "begun for nobody", "services that a node began for a client that had gone already"),
    ("cancelled", "cancelled", "dropped before service, its client gone"),
    ("queue_full", "refused: queue full", "the node's queue had no room"),
    ("over_concurrency", "refused: concurrency", "the node held as much as its adaptive limit allows"),
    ("not_admitted", "refused: admission", "the node's admission control turned it away"),
    ("no_node", "refused: no node", "the balancer had none that may take it"),
    ("node_down", "node down", "found its node dead: nobody listened"),
    ("connection_reset", "reset", "the connection ended before the answer; its node may have died with it"),
    ("garbage", "no HTTP", "what came back was no answer"),
    ("errors", "errors", "answers that decide nothing, such as a 500"),
    ("given_up_for_room", "retries not made: room", "as many as there may be were waiting"),
    ("no_connection", "retries not made: connection", "none was free in time"),
    ("over_cap", "retries not made: cap", "the run has sent the most requests that it may"),
    ("ended_by_the_stop", "retries not made: stop", "they waited when the run was stopped"),
    ("answered_alike", "answered alike", "applied before, by another attempt of the same transaction"),
    ("unknown_but_applied", "in doubt, but applied", "the client does not know it, and the money moved"),
)


def statement(summary: Summary) -> str:
    """One sentence: that it is simulated, of what, and how fast; empty for a run on the wall clock."""
    told = summary.get("simulated")
    if not isinstance(told, dict):
        return ""
    platform = summary.get("platform") or {}
    units, nodes, workers, shards = (number(platform.get(k)) or 0 for k in ("units", "nodes", "workers", "shards"))
    what = f"{nodes:,.0f} nodes" + (f" of {workers:,.0f} workers" if workers > 1 else "") + f" and {shards:,.0f} shards"
    what += f" in {units:,.0f} units" if units > 1 else ""
    given = "" if platform.get("given") else ", modelled after the built-in platform"
    pace = f"{duration(told.get('seconds'))} of its time took {duration(told.get('took_s'))}"
    return f"Simulated, not measured: a model of {what}{given}. {pace}, {rate(told.get('transactions_per_real_s'))}."


def over_capacity(summary: Summary) -> str:
    """By how much more was offered than the platform can take; empty if it was not."""
    found = summary.get("over_capacity")
    if not isinstance(found, dict):
        return ""
    return (
        f"Offered exceeds capacity by {share(found.get('excess'))} in the worst second, and for {duration(found.get('seconds'))} "
        f"in all: {rate(found.get('offered_per_s'))}, where the {plain(found.get('stage'))} can take "
        f"{rate(found.get('capacity_per_s'))}. Queues grow while that lasts."
    )


def stages(summary: Summary) -> Table:
    """What each stage is, and can take."""
    platform = summary.get("platform") or {}
    peak = number(summary.get("rates", {}).get("peak_offered_per_s"))
    rows = []
    for stage in platform.get("stages", []):
        capacity = number(stage.get("capacity_per_s"))
        used = share(peak / capacity) if peak is not None and capacity else NO_DATA
        limit = rate(capacity) if capacity else "no limit"
        rows.append((plain(stage.get("stage", "")), plain(stage.get("what", "")), limit, used))
    return Table(
        "The platform that was simulated", ("stage", "model", "can take", "peak offered"), rows, frozenset({0, 1})
    )


def stations(summary: Summary) -> Table:
    """How busy each station was, and whether Little's law holds there."""
    rows = [_station(row) for row in summary.get("stations") or []]
    return Table(
        "Stations: how busy, how long, and Little's law",
        ("station", "arrivals", "utilisation", "mean time", "mean number", "rate × time", "mean queue"),
        rows,
        note="Little's law: the mean number at a station is the rate of arrivals × the mean time there. The two columns are "
        "counted apart; that they agree says that nobody was lost on the way. client: from meaning to pay to the end.",
    )


def _station(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        plain(row.get("station", "")),
        rate(row.get("arrivals_per_s")),
        share(row.get("utilisation")),
        ms(row.get("mean_time_ms")),
        _figure(row.get("mean_number")),
        _figure(row.get("little_number")),
        _figure(row.get("mean_queue")),
    )


def _figure(value: object) -> str:
    n = number(value)
    return "" if n is None else f"{n:,.4g}"


def client(summary: Summary) -> Table:
    """What clients did beyond asking once; what never happened is left out."""
    found = summary.get("client") or {}
    rows = [(label, count(found.get(key)), meaning) for key, label, meaning in _CLIENT if found.get(key)]
    note = ""
    amplification, wasted = number(found.get("amplification")), number(found.get("begun_for_nobody_share"))
    if amplification is not None:
        note = f"Amplification: {amplification:.3f} attempts for each transaction."
    if wasted:
        note += f" {share(wasted)} of the nodes' work was begun for clients that had gone already."
    return Table("What clients did", ("", "count", "meaning"), rows, frozenset({0, 2}), note)


def dependency(summary: Summary) -> list[tuple[str, str]]:
    """What became of the calls of the dependency."""
    found = summary.get("dependency") or {}
    return [(plain(name).replace("_", " "), count(n)) for name, n in found.items()]
