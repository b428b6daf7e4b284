"""A run in words: the verdict as one sentence, and how counts, rates, times and money are written everywhere."""

from __future__ import annotations

from typing import Any

Summary = dict[str, Any]

NO_DATA = "no data"

WORDS = {"pass": "PASS", "fail": "FAIL", "invalid": "INVALID"}
_TIMES = frozenset({"response_time", "service_time", "schedule_lag"})
_MINOR_DIGITS = 2  # fen to the yuan
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"))
_REASONS_SHOWN = 2  # more than two in the sentence, and nobody reads any


def sentence(summary: Summary) -> str:
    """Return the verdict in one sentence: the word, then what was held, or every kind of cause, the gravest first."""
    word = WORDS.get(str(summary.get("verdict")), "UNKNOWN")
    if summary.get("interrupted"):
        word += f" (interrupted after {duration(run_seconds(summary))})"
    causes = [
        cause
        for cause in (
            _failure_cause(summary), _trip_cause(summary), audit_cause(summary), _no_answer_cause(summary),
            _validity_cause(summary), _threshold_cause(summary),
        )
        if cause
    ]  # fmt: skip
    if summary.get("verdict") == "pass":
        return f"{word}: {_what_was_held(summary)}{_limit(summary)}"
    causes = causes or ["the summary names no cause"]
    unaudited = not_audited(summary.get("audit", {}))
    return f"{word}: {'; '.join([*causes, *([unaudited] if unaudited else [])])}{_limit(summary)}"


def not_audited(audit: dict[str, Any]) -> str:
    """Why nobody looked for the money, of a run that may pass without; "" of every other."""
    return {
        "elsewhere": "money not audited: the target keeps its own books",
        "none": "money not audited: this backend books nothing",
    }.get(str(audit.get("books")), "")


def as_answered(audit: dict[str, Any]) -> str:
    """What to say before a sum of money that only answers vouch for: nobody looked into the books."""
    return "" if audit.get("books", "here") == "here" else "by the answers, "


def audit_word(audit: dict[str, Any]) -> str:
    """The audit's verdict in a word or two: of books that are not here only that, unless the clients' side has anomalies."""
    verdict = plain(audit.get("verdict", NO_DATA))
    return "money not audited" if not_audited(audit) and verdict == "unknown" and not audit.get("doubts") else verdict


def run_seconds(summary: Summary) -> float | None:
    """Return how long the load lasted, in seconds of the run's own clock; `wall_s` is not that if virtual."""
    if summary.get("duration_s") is not None:
        return float(summary["duration_s"])
    per_s = number(summary.get("rates", {}).get("offered_per_s"))
    offered = number(summary.get("counts", {}).get("offered"))
    if per_s and offered:
        return offered / per_s
    return number(summary.get("wall_s"))


def _what_was_held(summary: Summary) -> str:
    rates = summary.get("rates", {})
    virtual = summary.get("clock") == "virtual"
    held = f"{'simulated: ' if virtual else ''}held {rate(goodput_per_s(summary))}{_not_ok(summary)}"
    held += f" for {duration(run_seconds(summary))}"
    held += f" (peak {rate(rates.get('peak_offered_per_s'))})"
    held += f" at p99 {ms(summary.get('response_time_ms', {}).get('p99'))}"
    audit = summary.get("audit", {})
    if audit.get("verdict") != "clean":
        return f"{held}; {not_audited(audit) or 'the books were not checked'}"
    if virtual:
        return f"{held}; every transaction accounted for"
    money_word = "every yuan" if summary.get("value", {}).get("currency", "CNY") == "CNY" else "all money"
    lost = (summary.get("durability") or {}).get("lost_allowed")
    allowed = f", {count(lost)} transactions lost with the power as the durability allows" if lost else ""
    return f"{held}; {money_word} accounted for{allowed}"


def _limit(summary: Summary) -> str:
    """Which bound the run reached first; that there was none is worth a word only of a run that passed."""
    if "first_limit" not in summary or summary.get("failure"):
        return ""
    found, in_fault = summary["first_limit"], summary.get("first_limit_in_fault")
    told = f"; first limit: {plain(found.get('what', ''))}" if isinstance(found, dict) else ""
    if not isinstance(in_fault, dict):
        return told or ("; no limit was reached" if summary.get("verdict") == "pass" else "")
    told = told or "; no limit was reached without a fault"
    return f"{told}, under {plain(in_fault.get('fault', ''))} {plain(in_fault.get('what', ''))}"


def limit_detail(summary: Summary) -> str:
    """Return which bound was reached first, when, and how that shows, without a fault and under one; "" if there was none."""
    found, in_fault = summary.get("first_limit"), summary.get("first_limit_in_fault")
    told = [_limit_told("First limit", found)] if isinstance(found, dict) else []
    if isinstance(in_fault, dict):
        told.append(_limit_told(f"Under the fault {plain(in_fault.get('fault', ''))}", in_fault))
    return " ".join(told)


def _limit_told(head: str, found: Summary) -> str:
    when = "" if number(found.get("at_s")) is None else f", from {duration(found.get('at_s'))} on"
    return f"{head}: {plain(found.get('what', ''))}{when}: {plain(found.get('detail', ''))}."


def goodput_per_s(summary: Summary) -> float | None:
    """Return the answers `ok` per second; of a summary that does not have it, from what it completed."""
    rates, counts = summary.get("rates", {}), summary.get("counts", {})
    known = number(rates.get("goodput_per_s"))
    completed = number(rates.get("completed_per_s"))
    if known is not None or completed is None:
        return known
    ok, rejected, failed = (number(counts.get(name)) or 0.0 for name in ("ok", "rejected", "failed"))
    return completed * ok / (ok + rejected + failed) if ok + rejected + failed else completed


def _not_ok(summary: Summary) -> str:
    """The shares of what was offered that did not end well, each where it is not 0: ` (2.1% refused, 0.3% in doubt)`."""
    counts = summary.get("counts", {})
    offered = number(counts.get("offered"))
    if not offered:
        return ""
    words = (("rejected", "refused"), ("failed", "failed"), ("unknown", "in doubt"), ("dropped", "dropped"))
    told = [f"{share(n / offered)} {word}" for name, word in words if (n := number(counts.get(name)))]
    return f" ({', '.join(told)})" if told else ""


def _failure_cause(summary: Summary) -> str:
    failure = summary.get("failure")
    return f"the platform stopped: {plain(failure)}" if failure else ""


def _trip_cause(summary: Summary) -> str:
    return plain(summary.get("stop_reason")) if summary.get("tripped") else ""


def audit_cause(summary: Summary) -> str:
    """What the audit has against the run, "" if it has nothing against it."""
    audit = summary.get("audit", {})
    if audit.get("verdict") == "unknown" and audit.get("books") == "undeclared":
        return (
            "nobody audited the money: this run keeps no books; if the target keeps its own, say so in the scenario: "
            "books: elsewhere"
        )
    if audit.get("verdict") == "unknown" and not_audited(audit):
        return "the audit could not tell what clients were told" if audit.get("doubts") else ""
    if audit.get("verdict") == "unknown":
        return "the audit could not tell whether the books balance"
    if audit.get("verdict") != "anomalies":
        return ""
    found = {name: n for name, n in audit.get("anomalies", {}).items() if n}
    total = sum(found.values())
    names = ", ".join(f"{plain(name)} {count(n)}" for name, n in found.items())
    return f"audit found {count(total)} {'anomaly' if total == 1 else 'anomalies'}" + (f" ({names})" if names else "")


def _no_answer_cause(summary: Summary) -> str:
    """Of a run of which nothing ended ok, how it ended instead: that explains whatever else is wrong with it."""
    counts, reasons = summary.get("counts", {}), summary.get("reasons") or {}
    sent = number(counts.get("sent"))
    if not sent or counts.get("ok") != 0:
        return ""
    ends = {status: number(counts.get(status)) or 0.0 for status in ("rejected", "failed", "unknown")}
    worst = max(ends, key=lambda status: ends[status])
    named = sorted((reasons.get(worst) or {}).items(), key=lambda item: -item[1])[:_REASONS_SHOWN]
    told = ", ".join(f"{metric_name(name)} {count(n)}" for name, n in named)
    return f"of {count(sent)} sent none ended ok: {count(ends[worst])} {worst}" + (f" ({told})" if told else "")


def _validity_cause(summary: Summary) -> str:
    validity = summary.get("validity", {})
    opening = {
        "generator-limited": "the generator was the bottleneck",
        "inconclusive": "the measurement is inconclusive",
    }.get(validity.get("verdict", ""))
    if opening is None:
        return ""
    reasons = [plain(reason) for reason in validity.get("reasons", [])]
    more = len(reasons) - _REASONS_SHOWN
    told = "; ".join(reasons[:_REASONS_SHOWN]) + (f" (and {more} more)" if more > 0 else "")
    return f"{opening}: {told}" if told else opening


def _threshold_cause(summary: Summary) -> str:
    crossed = [threshold for threshold in summary.get("thresholds", []) if not threshold.get("passed")]
    if not crossed:
        return ""
    first = crossed[0]
    metric = str(first.get("metric", ""))
    said = f"{metric_name(metric)} {plain(first.get('expression', ''))} was crossed: {observed(first)}"
    more = len(crossed) - 1
    return said + (f" (and {more} more threshold{'s' if more > 1 else ''})" if more else "")


def returned(summary: Summary) -> str:
    """Return what was answered ok, refused at the payee's account and given back, "" if nothing was."""
    found = summary.get("returned", {})
    n = number(found.get("transactions"))
    if not n:
        return ""
    given = money(found.get("value_minor"), str(summary.get("value", {}).get("currency", "CNY")))
    return f"{given} given back, not in what is settled: {count(n)} answered ok, then refused"


def metric_name(metric: str) -> str:
    """Return a metric's name as people say it: `response_time` → `response time`."""
    return plain(metric).replace("_", " ")


def observed(threshold: dict[str, Any]) -> str:
    """Return what a threshold saw, with its unit (times in ms, throughput per second, shares in percent), and its note."""
    told, note = seen(threshold), threshold.get("note")
    return f"{told}, {plain(note)}" if note else told


def seen(threshold: dict[str, Any]) -> str:
    """Return what a threshold saw, with its unit and without its note."""
    value, metric = threshold.get("observed"), str(threshold.get("metric")).partition("{")[0]
    n = number(value)
    if n is None:
        return NO_DATA if value is None else plain(value)
    if metric in _TIMES:
        return ms(n)
    if metric == "throughput":
        return rate(n)
    if str(threshold.get("expression")).startswith("rate"):
        return f"{100 * n:.6g} %"
    return count(int(n)) if n == int(n) else f"{n:.4g}"


def accounts(n: int) -> str:
    """Return how many accounts, in words."""
    return "1 account" if n == 1 else f"{n:,} accounts"


def number(value: object) -> float | None:
    """Return `value` as a float, or None when it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) != float("inf") and value == value else None  # noqa: PLR0124  NaN is not itself


def plain(text: object) -> str:
    """Return `text` on one line without control characters, so that a name cannot steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def count(value: object) -> str:
    """Return a count with thousands separated."""
    n = number(value)
    return NO_DATA if n is None else f"{int(n):,}"


def rate(value: object) -> str:
    """Return a rate per second; one decimal below ten, where it matters."""
    n = number(value)
    if n is None:
        return NO_DATA
    return f"{n:,.0f}/s" if n >= 10 or n == int(n) else f"{n:.1f}/s"  # noqa: PLR2004  ten, as above


def ms(value: object) -> str:
    """Return a time given in milliseconds, to three digits, always in ms so that a column can be compared by eye."""
    n = number(value)
    if n is None:
        return NO_DATA
    if n >= 999.5:  # noqa: PLR2004  from here three digits would turn into an exponent
        return f"{n:,.0f} ms"
    return f"{n:.3g} ms" if n == 0 or abs(n) >= 0.001 else "<0.001 ms"  # noqa: PLR2004  a microsecond


def share(value: object) -> str:
    """Return a fraction of one as a percentage; what is not nought never reads as nought."""
    n = number(value)
    if n is None:
        return NO_DATA
    return f"{100 * n:.1f}%" if n == 0 or n >= 0.0005 else "<0.1%"  # noqa: PLR2004  what one decimal can show


def duration(seconds: object) -> str:
    """Return a time span given in seconds, as the scenario file writes it: `45s`, `1m30s`, `2h05m`."""
    n = number(seconds)
    if n is None:
        return NO_DATA
    if n < 10 and n != int(n):  # noqa: PLR2004  below ten seconds a tenth is worth its place
        return f"{n:.1f}s"
    minutes, rest = divmod(round(n), 60)
    if minutes >= 60:  # noqa: PLR2004  an hour: to the nearest minute
        hours, minutes = divmod(round(n / 60), 60)
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def drain(seconds: object) -> str:
    """Return how long a spike took to drain; None: it had not when the run ended."""
    n = number(seconds)
    return "not within the run" if n is None else f"{n:,.1f} s"


def size(value: object) -> str:
    """Return a number of bytes in MiB or GiB."""
    n = number(value)
    if n is None:
        return NO_DATA
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= scale:
            return f"{n / scale:,.1f} {unit}"
    return f"{n:.0f} B"


def money(minor: object, currency: str = "CNY") -> str:
    """Return minor units exactly, in major units: `1,234.56 CNY`. Integers throughout."""
    if isinstance(minor, bool) or not isinstance(minor, int):
        return NO_DATA
    whole, rest = divmod(abs(minor), 10**_MINOR_DIGITS)
    return f"{'-' if minor < 0 else ''}{whole:,}.{rest:02d} {plain(currency)}"


def money_short(minor: object, currency: str = "CNY") -> str:
    """Return minor units rounded down for a headline: `525.1 million CNY`. Integers throughout."""
    if isinstance(minor, int) and not isinstance(minor, bool):
        for scale, name in _SCALES:
            whole, rest = divmod(abs(minor), scale * 10**_MINOR_DIGITS)
            if whole:
                tenths = rest // (scale * 10 ** (_MINOR_DIGITS - 1))
                return f"{'-' if minor < 0 else ''}{whole:,}.{tenths} {name} {plain(currency)}"
    return money(minor, currency)


def moves(rebalance: dict[str, Any]) -> str:
    """What a summary's `rebalance` comes to: `2 of 2 shards, 1,250 accounts, longest pause 12.3 ms`."""
    made = len(rebalance.get("moves", []))
    planned = rebalance.get("planned")
    told = (
        f"{made} of {planned} shards" if planned is not None else f"{made} {'shard' if made == 1 else 'shards'} by load"
    )
    if not made:
        return told
    return f"{told}, {count(rebalance.get('keys_moved'))} accounts, longest pause {ms(rebalance.get('pause_ms_max'))}"
