"""The HTML report: one file that needs no network, rendered from a run's folder as often as wanted, always the same."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.errors import SimError
from simulator.report import answerers, durability, folder, generators, simulated_page, wording
from simulator.report.balancing import BEHAVIOUR, behaviour_rows
from simulator.report.blocks import Table, Tile
from simulator.report.figures import Figure, figures
from simulator.report.wording import NO_DATA, count, metric_name, ms, number, plain, rate, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from simulator.report.folder import RunFolder

ROWS_MAX = 200  # of nodes, shards or events in a table; the files hold them all
LINES_MAX = 40  # events drawn into the charts; more would hide the curves

_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
_OUTCOMES = (
    ("ok", "applied, as durable as the scenario asks"),
    ("rejected", "the platform said no; nothing moved"),
    ("failed", "it did not happen, and we know it"),
    ("unknown", "in doubt at the end"),
    ("dropped", "never sent: the generator could not"),
)
_NOT_DRAWN = frozenset({"dead_letters", "move_requested", "move_taken", "move_switched"})
_CLOCKS = {"wall": "real processes on this machine", "virtual": "simulated time"}


def render(run: Path) -> Path:
    """Write `report.html` into a run's folder, from the files that are there, and return its path.

    Raises:
        SimError: `run` is no run's folder, is half-written, or cannot be written to.
    """
    return write_page(run / "report.html", _page(folder.read(run)))


def write_page(report: Path, page: str) -> Path:
    """Writes a page whole or not at all; raises SimError if it cannot."""
    beside = report.with_suffix(".html.part")  # a reader never sees half a page
    try:
        beside.write_text(page, encoding="utf-8", newline="\n")
        beside.replace(report)
    except OSError as error:
        raise SimError(f"{report}: cannot be written: {error.strerror}") from None
    return report


def environment() -> Environment:
    """What renders the templates of this package: everything escaped, nothing undefined."""
    made = Environment(
        loader=PackageLoader("simulator.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["csp_hash"] = _csp_hash
    return made


def _page(run: RunFolder) -> str:
    charts = figures(run)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            **_words(run),
            figures={chart.key: chart for chart in charts},
            data=embedded(_data(run, charts)),
            plotly=Markup(plotly_js()),  # noqa: S704  the installed wheel's own file, no input of a run
            NO_DATA=NO_DATA,
        )
    )


def plotly_js() -> str:
    """The chart library's own script."""
    # Imported here: nobody but a report needs it. Newlines as an HTML parser sees them, or the hash would not match.
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def _csp_hash(script: str) -> str:
    """The source expression that lets exactly this inline script run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def embedded(data: dict[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in, whatever a name in it says."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  escaped in the line above


def _data(run: RunFolder, charts: list[Figure]) -> dict[str, Any]:
    # Counts that come every second are no moments; and of a move's four events the one that stops its shard is the one to see.
    drawn = (event for event in run.events if event.get("event") not in _NOT_DRAWN)
    timed = [(number(event.get("t_s")), plain(event.get("event", "event"))) for event in drawn]
    return {
        "charts": [chart.data() for chart in charts if not chart.empty],
        "events": [{"t": t, "label": label} for t, label in timed if t is not None][:LINES_MAX],
        "span": [0, folder.end_s(run.series)],
        "fine": "window_s" in run.series,
    }


def _words(run: RunFolder) -> dict[str, Any]:
    summary = run.summary
    word, _, cause = wording.sentence(summary).partition(": ")
    return {
        "name": plain(summary.get("name") or summary["scenario"]),
        "description": str(summary.get("description") or ""),
        "verdict": summary["verdict"],
        "word": word,
        "cause": cause,
        "facts": _facts(summary),
        "virtual": summary.get("clock") == "virtual",
        "statement": simulated_page.statement(summary),
        "over_capacity": simulated_page.over_capacity(summary),
        "stages": simulated_page.stages(summary),
        "stations": simulated_page.stations(summary),
        "client": simulated_page.client(summary),
        "dependency": simulated_page.dependency(summary),
        "tiles": _tiles(summary),
        "thresholds": [
            (item.get("passed"), metric_name(item.get("metric", "")), item.get("expression"), wording.observed(item))
            for item in summary["thresholds"]
        ],
        "outcomes": _outcomes(summary),
        "latency": _latency(summary),
        "kinds": _kinds(summary),
        "balancer": _balancer(summary),
        "nodes": _nodes(summary),
        "shards": _shards(summary),
        "hot_facts": _hot_facts(summary),
        "hot_keys": _hot_keys(summary),
        "hot_accounts": _hot_accounts(run),
        "rebalance": _rebalance(summary),
        "answered_by": _answerers("Who answered, by their own names", answerers.nodes(summary)),
        "sick": _answerers("What became of a sick node's part", answerers.faults(summary)),
        "generators": _answerers("The generators", generators.rows(summary)),
        "audit": run.audit,
        "power": durability.sentence(summary.get("durability") or {}),
        "power_losses": _power_losses(summary),
        "audit_facts": _audit_facts(run),
        "anomalies": _anomalies(run.audit),
        "validity": summary["validity"],
        "journal": _journal(summary),
        "dead_letters": _dead_letters(summary),
        "overload": _overload(summary),
        "events": _events(run),
        "environment": _environment(run),
        "scenario_text": run.scenario,
        "notes": run.notes,
    }


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    clock = str(summary.get("clock", ""))
    facts = [
        ("scenario", plain(summary["scenario"])),
        ("clock", f"{clock} ({_CLOCKS[clock]})" if clock in _CLOCKS else clock),
        ("seed", str(summary.get("seed", ""))),
        ("started", str(summary.get("started_at", ""))),
        ("load lasted", wording.duration(wording.run_seconds(summary))),
        ("whole run took", wording.duration(summary.get("wall_s"))),
        ("stopped because", str(summary.get("stop_reason") or "")),
        ("version", str(summary.get("version", ""))),
    ]
    return [(label, plain(value)) for label, value in facts if value and value != NO_DATA]


def _tiles(summary: dict[str, Any]) -> list[Tile]:
    counts, rates, times = summary["counts"], summary["rates"], summary["response_time_ms"]
    value, audit, validity = summary.get("value", {}), summary["audit"], summary["validity"]
    currency = str(value.get("currency", "CNY"))
    dropped = counts.get("dropped") or 0
    virtual = summary.get("clock") == "virtual"
    audit_tile = {
        "clean": Tile(
            "Audit", "clean", "each applied once, or not at all" if virtual else _clean_note(summary), "good"
        ),
        "anomalies": Tile("Audit", "anomalies", f"{count(sum(audit.get('anomalies', {}).values()))} found", "bad"),
        "unknown": Tile("Audit", "unknown", "the books could not be checked", "warn"),
    }
    validity_tile = {
        "valid": Tile("Measurement", "valid", "simulated to its end" if virtual else "the generator kept up", "good"),
        "generator-limited": Tile("Measurement", "generator-limited", "do not quote these figures", "bad"),
        "inconclusive": Tile("Measurement", "inconclusive", "quote these figures with care", "warn"),
    }
    return [
        Tile("Offered", count(counts.get("offered")), f"{count(dropped)} dropped", "warn" if dropped else ""),
        Tile(
            "Completed", rate(rates.get("completed_per_s")), f"on average; {rate(rates.get('offered_per_s'))} offered"
        ),
        Tile("Peak second", rate(rates.get("peak_offered_per_s")), "offered"),
        Tile(
            "Value settled",
            wording.money_short(value.get("settled_minor"), currency),
            f"of {wording.money_short(value.get('offered_minor'), currency)} offered",
        ),
        audit_tile.get(str(audit.get("verdict")), Tile("Audit", NO_DATA)),
        Tile("Response p50", ms(times.get("p50")), "half were faster", _tone(summary, "p(50)")),
        Tile("Response p99", ms(times.get("p99")), "99 of 100 were faster", _tone(summary, "p(99)")),
        Tile("Response p99.9", ms(times.get("p99.9")), "999 of 1,000 were faster", _tone(summary, "p(99.9)")),
        Tile("Slowest", ms(times.get("max")), "response time, maximum", _tone(summary, "max")),
        validity_tile.get(str(validity.get("verdict")), Tile("Measurement", NO_DATA)),
    ]


def _clean_note(summary: dict[str, Any]) -> str:
    lost = (summary.get("durability") or {}).get("lost_allowed")
    return f"{count(lost)} lost with the power, as allowed" if lost else "every transaction is where it should be"


def _tone(summary: dict[str, Any], statistic: str) -> str:
    """Colour a response time only where the scenario has an opinion about it."""
    found = [
        item.get("passed")
        for item in summary["thresholds"]
        if item.get("metric") == "response_time" and str(item.get("expression", "")).startswith(statistic)
    ]
    return ("good" if all(found) else "bad") if found else ""


def _outcomes(summary: dict[str, Any]) -> Table:
    counts, reasons = summary["counts"], summary.get("reasons") or {}
    offered = counts.get("offered") or 0
    rows = []
    for outcome, meaning in _OUTCOMES:
        n = counts.get(outcome)
        why = ", ".join(f"{metric_name(name)} {count(k)}" for name, k in (reasons.get(outcome) or {}).items() if k)
        part = share(n / offered) if offered and n is not None else NO_DATA
        rows.append((outcome, count(n), part, why, meaning))
    return Table(
        caption=f"How they ended: {count(offered)} offered, {count(counts.get('sent'))} sent",
        head=("outcome", "count", "share", "reasons", "meaning"),
        rows=rows,
        words=frozenset({0, 3, 4}),
    )


def _latency(summary: dict[str, Any]) -> Table:
    names = (
        ("response time: what customers felt", "response_time_ms"),
        ("service time: the platform's part", "service_time_ms"),
        ("schedule lag: the generator's own delay", "schedule_lag_ms"),
    )
    columns = ("mean", *_PERCENTILES)
    return Table(
        caption="Times over the whole run",
        head=("time", *columns),
        rows=[(label, *(ms(summary.get(key, {}).get(column)) for column in columns)) for label, key in names],
    )


def _kinds(summary: dict[str, Any]) -> Table:
    outcomes = ("offered", "ok", "rejected", "failed", "unknown", "dropped")
    rows = []
    for kind, found in (summary.get("by_kind") or {}).items():
        counts, times = found.get("counts", {}), found.get("response_time_ms", {})
        rows.append(
            (plain(kind), *(count(counts.get(name)) for name in outcomes), *(ms(times.get(p)) for p in _PERCENTILES))
        )
    return Table("By kind of transaction, with response times", ("kind", *outcomes, *_PERCENTILES), rows)


def _balancer(summary: dict[str, Any]) -> list[tuple[str, str]]:
    found = summary.get("balancer") or {}
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
        if key not in known and key not in BEHAVIOUR and not isinstance(value, dict | list)
    ]
    return rows + other + behaviour_rows(found)


def _decimal(value: object, places: int) -> str:
    n = number(value)
    return NO_DATA if n is None else f"{n:.{places}f}"


def _nodes(summary: dict[str, Any]) -> Table:
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
        "By node, with response times and journal commits", head, rows, note=_cut(summary.get("nodes", []), "nodes")
    )


def _shards(summary: dict[str, Any]) -> Table:
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
        note=_cut(summary.get("shards", []), "shards"),
    )


def _hot_facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
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


def _hot_keys(summary: dict[str, Any]) -> Table:
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


def _hot_accounts(run: RunFolder) -> Table:
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
    return Table("Split accounts: the sum of the parts, as audited", head, rows, note=_cut(merchants, "split accounts"))


def _rebalance(summary: dict[str, Any]) -> Table | None:
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


def _answerers(caption: str, found: answerers.Rows | None) -> Table | None:
    return None if found is None else Table(caption, found.head, tuple(found.rows))


def _cut(items: list[Any], noun: str) -> str:
    return f"The first {ROWS_MAX} of {len(items):,} {noun}; summary.json has all." if len(items) > ROWS_MAX else ""


def _audit_facts(run: RunFolder) -> list[tuple[str, str]]:
    audit, currency = run.audit, str(run.summary.get("value", {}).get("currency", "CNY"))
    facts = [("money created or lost", wording.money(audit.get("conservation_minor"), currency))]
    given_back = wording.returned(run.summary)
    facts += [("returned", given_back)] if given_back else []
    return facts + [(f"{metric_name(name)} checked", count(n)) for name, n in (audit.get("checked") or {}).items()]


def _anomalies(audit: dict[str, Any]) -> Table:
    examples = audit.get("examples") or {}
    found = audit.get("anomalies") or {}
    meanings = audit.get("looked_for") or {}
    rows = [
        (
            metric_name(name),
            plain(meanings.get(name, "")),
            ", ".join(map(plain, examples.get(name, []))),
            count(found.get(name, 0)),
        )
        for name in sorted({*meanings, *found}, key=lambda name: (-found.get(name, 0), name))
    ]
    head = ("anomaly", "meaning", "example transactions", "found")
    return Table("What the audit looked for", head, rows, words=frozenset({0, 1, 2}))


def _overload(summary: dict[str, Any]) -> list[tuple[str, str]]:
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


def _dead_letters(summary: dict[str, Any]) -> list[tuple[str, str]]:
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


def _power_losses(summary: dict[str, Any]) -> Table:
    head = (
        "at",
        "node",
        "time allowed",
        "time lost",
        "transactions not synced",
        "transactions lost",
        "records taken",
        "back after",
    )
    rows = durability.rows(summary.get("durability") or {})
    return Table("Power losses: allowed against observed", head, rows[:ROWS_MAX], note=_cut(rows, "power losses"))


def _journal(summary: dict[str, Any]) -> list[tuple[str, str]]:
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


def _events(run: RunFolder) -> Table:
    rows = []
    for event in run.events[:ROWS_MAX]:
        t = number(event.get("t_s"))
        rest = ", ".join(
            f"{metric_name(key)} {_short(value)}" for key, value in event.items() if key not in {"t_s", "event"}
        )
        rows.append((NO_DATA if t is None else f"{t:.3f} s", metric_name(event.get("event", "")), rest))
    note = f"The first {ROWS_MAX} of {len(run.events):,}; events.jsonl has all." if len(run.events) > ROWS_MAX else ""
    return Table("What happened, and when", ("at", "event", "details"), rows, words=frozenset({0, 1, 2}), note=note)


def _environment(run: RunFolder) -> list[tuple[str, str]]:
    return [(metric_name(key), _short(value)) for key, value in run.environment.items()]


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_pairs(value.items()))
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return plain(value)


def _pairs(items: Iterable[tuple[Any, Any]]) -> Iterable[str]:
    return (f"{plain(key)} {plain(value)}" for key, value in items)
