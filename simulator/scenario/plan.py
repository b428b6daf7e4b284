"""What a run will take, worked out before it runs: how many transactions, how fast, how much memory, disk and time.

The resources are estimates for choosing a machine, not promises; each constant says what it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from simulator.scenario import virtual_plan
from simulator.scenario.faults import LASTING, SLOW_FACTOR
from simulator.scenario.http_safety import refuse_beyond_caps
from simulator.scenario.model import Scenario
from simulator.scenario.rebalance import by_load, describe_moves
from simulator.scenario.units import NS_PER_S, format_bytes, format_duration, format_money

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from simulator.scenario.faults import PlannedFault
    from simulator.scenario.platform import Embedded
    from simulator.scenario.threshold import Threshold

_ACCOUNT_BYTES = 16  # available and reserved, 64 bits each
_PROMISED_BYTES = 8  # what an account is to receive: `tcc` with a balance limit
_REMEMBERED_BYTES = 136  # see simulator.ledger.books.open_books
_RING_SLOT_BYTES = 64 + 32  # a TRANSACTION on the way in, an OUTCOME on the way back
_PROCESS_BYTES = 150_000_000  # an interpreter with NumPy, Numba and the compiled kernels
_OTHER_PROCESSES = 2  # a generator and the one that measures and reports
_JOURNAL_BYTES = 2 * 40  # a transaction's two legs
_TCC_JOURNAL_BYTES = 4 * 40  # begun and tried as well
_HISTORY_BYTES = 24  # what the auditor keeps of a transaction
_RESULT_BYTES = 10_000_000  # a virtual run leaves no journal and no history
_START_S = 3.0
_DRAIN_S = 1.0  # the last answers come soon after the last transaction, unless something is wrong
_AUDITED_PER_S = 3_000_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will take.

    Attributes:
        transactions_expected: the mean of how many are offered; arrivals scatter about it.
        duration_s: how long transactions are sent.
        mean_per_s: transactions_expected over duration_s.
        peak_per_s: the highest rate, and
        peak_at_s: when it is first reached.
        value_minor: transactions_expected times the mean ticket, in minor units, also where a trace records amounts.
        memory_bytes: accounts * 16 (24 under `tcc` with a limit) + shards * remember * 136 + nodes * queue * 96 +
            (nodes + generators + 1) * 150 MB; one shard more where shards move.
        disk_bytes: 80 of journal (embedded backend only; 160 under `tcc`) and 24 of history for each transaction; a shard for
            each move.
        run_s: 3 s to start, the duration, 1 s of drain, and the audit of 3 M transactions a second. For memory_bytes,
            disk_bytes and run_s on the virtual clock see `virtual_plan`.
        thresholds: what the run must meet.
        hot_keys: the merchants popular enough to make a shard hot, in words; empty if there are none.
    """

    transactions_expected: float
    duration_s: float
    mean_per_s: float
    peak_per_s: float
    peak_at_s: float
    value_minor: int
    memory_bytes: int
    disk_bytes: int
    run_s: float
    thresholds: tuple[Threshold, ...]
    hot_keys: str = ""


def plan(scenario: Scenario) -> Plan:
    """Works out what a valid scenario will take.

    Raises:
        ScenarioError: the trace that the rate is made of cannot be read, or a run over HTTP would pass a hard cap.
    """
    from simulator.arrivals import build_rate  # noqa: PLC0415  the kernels' imports are heavy
    from simulator.workload.hot_keys import hot_keys_in_words  # noqa: PLC0415  likewise

    rate = build_rate(scenario)
    peak_per_s, peak_at_s = rate.peak()
    if scenario.clock == "wall" and scenario.backend.http is not None:
        refuse_beyond_caps(peak_per_s, rate.total)
    resources = _virtual_resources if scenario.clock == "virtual" else _wall_resources
    memory_bytes, disk_bytes, run_s = resources(scenario, rate.total, rate.duration_s)
    return Plan(
        transactions_expected=rate.total,
        duration_s=rate.duration_s,
        mean_per_s=rate.total / rate.duration_s,
        peak_per_s=peak_per_s,
        peak_at_s=peak_at_s,
        value_minor=round(rate.total * scenario.load.ticket.mean),
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        run_s=run_s,
        thresholds=scenario.threshold_list,
        hot_keys=hot_keys_in_words(scenario),
    )


def _wall_resources(scenario: Scenario, total: float, duration_s: float) -> tuple[int, int, float]:
    embedded, http = scenario.backend.ledger, scenario.backend.http
    more = http.generators - 1 if http is not None else 0
    return (
        _memory_bytes(scenario.load.accounts, embedded) + more * _PROCESS_BYTES,
        round(total * (_HISTORY_BYTES + _journal_bytes(embedded)))
        + _moves(embedded) * _shard_bytes(scenario.load.accounts, embedded),
        _START_S + duration_s + _DRAIN_S + total / _AUDITED_PER_S,
    )


def _virtual_resources(scenario: Scenario, total: float, _: float) -> tuple[int, int, float]:
    return virtual_plan.memory_bytes(scenario), _RESULT_BYTES, virtual_plan.run_s(scenario, total)


def _journal_bytes(embedded: Embedded | None) -> int:
    if embedded is None:
        return 0
    return _TCC_JOURNAL_BYTES if embedded.protocol == "tcc" else _JOURNAL_BYTES


def _memory_bytes(accounts: int, embedded: Embedded | None) -> int:
    if embedded is None:
        return _OTHER_PROCESSES * _PROCESS_BYTES
    promises = embedded.protocol == "tcc" and embedded.balance_limit is not None
    return (
        accounts * (_ACCOUNT_BYTES + (_PROMISED_BYTES if promises else 0))
        + embedded.shards * embedded.remember * _REMEMBERED_BYTES
        + embedded.nodes * embedded.queue * _RING_SLOT_BYTES
        + (embedded.nodes + _OTHER_PROCESSES) * _PROCESS_BYTES
        + min(_moves(embedded), 1) * _shard_bytes(accounts, embedded)
    )


def _moves(embedded: Embedded | None) -> int:
    """How many moves of shards there are at most."""
    if embedded is None or embedded.rebalance is None:
        return 0
    figures = by_load(embedded.rebalance)
    return figures.moves if figures is not None else len(list(embedded.rebalance))


def _shard_bytes(accounts: int, embedded: Embedded | None) -> int:
    return (
        0 if embedded is None else accounts * _ACCOUNT_BYTES // embedded.shards + embedded.remember * _REMEMBERED_BYTES
    )


def render_plan(scenario: Scenario, planned: Plan, origins: Mapping[str, str]) -> str:
    """The plan as plain text.

    Args:
        scenario: what was planned.
        planned: what `plan` made of it.
        origins: where its fields were written, as `loader.Loaded` has them.
    """
    rows = [
        ("scenario", scenario.name),
        ("clock, seed", f"{scenario.clock}, {scenario.seed}"),
        *_platform_rows(scenario, planned),
        ("duration", f"{planned.duration_s:,.6g} s"),
        ("transactions", f"about {planned.transactions_expected:,.0f}"),
        ("rate", f"{planned.mean_per_s:,.0f}/s on average"),
        ("peak", f"{planned.peak_per_s:,.0f}/s after {planned.peak_at_s:,.3g} s"),
        ("value", f"about {_grouped(format_money(planned.value_minor, scenario.currency))}"),
        *([("hot keys", planned.hot_keys)] if planned.hot_keys and scenario.clock == "wall" else []),
        ("memory", f"about {format_bytes(planned.memory_bytes)}"),
        ("disk", f"about {format_bytes(planned.disk_bytes)}"),
        (
            "time",
            f"about {planned.run_s:,.0f} s, start and {'report' if scenario.clock == 'virtual' else 'audit'} included",
        ),
    ]
    duration_ns = scenario.duration_ns or round(planned.duration_s * NS_PER_S)
    faults = [describe_fault(fault, duration_ns) for fault in scenario.faults]
    rows += [("" if index else "faults", text) for index, text in enumerate(faults)]
    rebalance = scenario.backend.embedded.rebalance if scenario.backend.embedded is not None else None
    moves = [] if rebalance is None else describe_moves(rebalance)
    rows += [("" if index else "rebalance", text) for index, text in enumerate(moves)]
    lines = [f"{label:<14}{text}" for label, text in rows]
    lines += ["", "thresholds"]
    lines += [
        f"  {threshold.name:<15} {threshold.expression}{_early(threshold)}" for threshold in planned.thresholds
    ] or ["  none"]
    lines += ["", "not the default"]
    lines += [
        f"  {path} = {value}  (default {default}; {_origin(path, origins)})"
        for path, value, default in overridden_defaults(scenario)
    ] or ["  nothing"]
    return "\n".join(lines)


def _early(threshold: Threshold) -> str:
    if not threshold.abort:
        return ""
    return "  (stops the run" + (f" from {format_duration(threshold.after_ns)} on)" if threshold.after_ns else ")")


def _platform_rows(scenario: Scenario, planned: Plan) -> list[tuple[str, str]]:
    if scenario.clock == "virtual":
        return list(virtual_plan.rows(scenario, planned.peak_per_s))
    http = scenario.backend.http
    several = [("generators", f"{http.generators} processes")] if http is not None and http.generators > 1 else []
    return [("backend", scenario.backend.name), *several, *_books(scenario), *_protocol(scenario)]


def _books(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Who audits the money, where it is not the run."""
    if scenario.books is not None:
        yield "books", "elsewhere: money is not audited, and the run may pass without"
    elif scenario.backend.ledger is None and scenario.backend.noop is None:
        yield "books", "not kept by this run: it ends with 120, unless the scenario says books: elsewhere"


def _protocol(scenario: Scenario) -> Iterator[tuple[str, str]]:
    embedded = scenario.backend.embedded
    if embedded is None:
        return
    if embedded.protocol == "unsafe_dual_write":
        yield "protocol", "unsafe_dual_write (wrong on purpose: loses money when a node is killed)"
    else:
        yield "protocol", embedded.protocol
    if embedded.balance_limit is not None:
        yield "balance limit", f"{_grouped(format_money(embedded.balance_limit, scenario.currency))} an account"


def describe_fault(fault: PlannedFault, duration_ns: int) -> str:
    """What a fault does to a run of this length, in words: `kill node 1 at 2s`."""
    noun, index = ("gateway", fault.gateway) if fault.strikes_gateway else ("node", fault.node)
    node = f"a random {noun}" if index is None else f"{noun} {index}"
    what = "power loss of every node" if fault.fault == "power_loss" else f"{fault.fault} {node}"
    if fault.fault in ("unit_loss", "dependency"):
        what = f"loss of unit {fault.unit}" if fault.fault == "unit_loss" else "the dependency is out"
    if fault.delay is not None:
        what += f" by {format_duration(fault.delay)}"
    if fault.fault == "slow" and (fault.delay is None or fault.factor is not None):
        what += f" {SLOW_FACTOR if fault.factor is None else fault.factor:g} times"
    if fault.fault == "poison":
        legs = "credits" if fault.leg == "far" else "requests"
        what = f"poison {fault.share:.4g} of the {legs} on {'every node' if fault.takes_every_node else node}"
    if fault.fault in LASTING:
        what += " to the end" if fault.for_ is None else f" for {format_duration(fault.for_)}"
    start, strikes = format_duration(fault.at), fault.strikes(duration_ns)
    if fault.every is None or (strikes == 1 and not fault.spread):
        return f"{what} at {start}"
    times, every = "once" if strikes == 1 else f"{strikes} times", format_duration(fault.every)
    if fault.spread:
        end = format_duration(fault.at + strikes * fault.every)
        return f"{what} {times} between {start} and {end}, at random once in each {every}"
    end = format_duration(fault.at + (strikes - 1) * fault.every)
    return f"{what} {times} between {start} and {end}, every {every}"


def overridden_defaults(scenario: Scenario) -> tuple[tuple[str, str, str], ...]:
    """The fields that have a default and another value: (path, value, default), as a scenario writes them."""
    # The least scenario there is: what it must have, and the default of everything else.
    least = Scenario.from_data({"name": "-", "duration": "1s", "currency": scenario.currency, "load": {"rate": "1/s"}})
    written, defaults = dict(_leaves(scenario.to_data(), "")), dict(_leaves(least.to_data(), ""))
    found = []
    if scenario.backend.name != least.backend.name:
        found.append(("backend", scenario.backend.name, least.backend.name))
    for path, value in written.items():
        # `load.arrivals.mmpp.burst` has no default of its own, but `load.arrivals` has one.
        known = next((known for known in _upward(path) if known in defaults), None)
        if known not in (None, "name", "duration", "load.rate", "faults", "thresholds") and value != defaults[known]:
            found.append((path, value, defaults[known]))
    return tuple(found)


def _leaves(data: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, str(data)


def _origin(path: str, origins: Mapping[str, str]) -> str:
    """Where a field, or the nearest thing around it, was written."""
    return next((origins[around] for around in _upward(path) if around in origins), "")


def _upward(path: str) -> Iterator[str]:
    """The path, then each path around it."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _grouped(money: str) -> str:
    number, _, currency = money.partition(" ")
    return f"{Decimal(number):,} {currency}"
