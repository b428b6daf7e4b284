"""The dispatcher: releases each transaction at its intended time, open loop, and settles what comes back.

It never waits for the backend. A transaction that cannot go out is counted at once: *dropped* when the fault is the
generator's (no in-flight slot left, or later than `patience`), *rejected, overflow* when the backend's queue is full.
Everything between is one row in the in-flight table (`simulator.in_flight`). What is to be tried again goes through
`simulator.retries` before it is settled; where nothing is, that costs one comparison a batch.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.choose import choose, note_answered, note_sent, sweep
from simulator.balancer.fleet import NEVER_NS
from simulator.balancer.health import is_bad
from simulator.balancer.policy import fleet_from, settings_from
from simulator.in_flight import BETWEEN, NOT_PICKED, in_history, open_in_flight
from simulator.kernel import inlined, int64, kernel
from simulator.ledger.digest import fingerprint
from simulator.measure.histogram import count_one
from simulator.measure.recorder import (
    ASKED,
    HISTORY,
    LAG,
    REORDERED,
    RESPONSE,
    SECOND,
    SERVICE,
    ClientCount,
    Dense,
    Recorder,
    Tallies,
    account_in_flight,
    note,
    note_failed,
    note_fine,
    second_of,
)
from simulator.retries import Around, Retries
from simulator.seeds import Stream, stream_key
from simulator.shard.split import Split, booked_account, home_of, homes, unsplit
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status
from simulator.workload.hot_keys import NO_HOT_KEYS, HotKeys, is_hot

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulator.backend.backend import Backend
    from simulator.balancer.fleet import Fleet, Settings
    from simulator.in_flight import InFlight
    from simulator.retries import RetryPolicy
    from simulator.scenario.balancing import Balancer

STAGE = 8_192  # transactions released to one node at a time
SECOND_MAX = 1 << 20  # answers to nothing in flight that are written down; what comes beyond is counted only


class WhenFull(IntEnum):
    """What becomes of a transaction that its node's queue has no room for."""

    REFUSE = 0  # the platform said no
    HOLD = 1  # it waits here, in order and within its patience; then the platform said no
    WAIT = 2  # it was not sent yet: it waits here for a connection, its lateness counts, and past its patience it is dropped


_OK, _REJECTED, _UNKNOWN, _DROPPED = int(Status.OK), int(Status.REJECTED), int(Status.UNKNOWN), int(Status.DROPPED)
_PENDING, _REORDERED, _SECOND, _ASKED = int(Status.PENDING), REORDERED, SECOND, ASKED
_OVERFLOW, _IN_FLIGHT, _LATE = int(Reason.OVERFLOW), int(Reason.IN_FLIGHT), int(Reason.LATE)
_LIMIT, _CIRCUIT = int(Reason.LIMIT), int(Reason.CIRCUIT)
_LOOKUP = int(Kind.LOOKUP)
_PAYMENT, _REFUND, _POST = int(Kind.PAYMENT), int(Kind.REFUND), int(Kind.POST)


@kernel
def write_history(
    history: NDArray[np.void],
    history_count: NDArray[np.int64],
    m: np.void,
    lsn: int,
    shard: int,
    flags: int,
    status: int,
    reason: int,
) -> None:
    """Appends how a transaction ended."""
    row = history[history_count[0]]
    history_count[0] += 1
    row["id"] = m["id"]
    row["fingerprint"] = fingerprint(m["id"], m["amount_minor"], m["related"], m["payer"], m["payee"], m["kind"])
    row["lsn"] = lsn
    row["shard"] = shard
    row["flags"] = flags
    row["status"] = status
    row["kind_reason"] = m["kind"] | (reason << 3)


@inlined
def note_keys(tallies: Tallies, split: Split, hot: HotKeys, m: np.void, status: int, response_ns: int) -> None:
    """Counts an answer where hot keys and the shards that are paid are counted."""
    if is_hot(hot, m["payer"], m["payee"]):
        tallies.hot_by_status[status] += 1
        if status == _OK:
            count_one(tallies.hot_response, response_ns)
    if status == _OK and (m["kind"] == _PAYMENT or m["kind"] == _POST):
        tallies.shard_credited[booked_account(split, m["payee"], m["payer"]) % split.shards] += 1


@kernel
def write_asked(history: NDArray[np.void], history_count: NDArray[np.int64], m: np.void, shard: int) -> None:
    """Notes that a lookup goes out: what stands before this row was known to clients when it was asked."""
    row = history[history_count[0]]
    history_count[0] += 1
    row["id"] = m["id"]
    row["fingerprint"] = m["related"]
    row["lsn"] = m["payer"]
    row["shard"] = shard
    row["flags"] = _ASKED
    row["status"] = _PENDING
    row["kind_reason"] = m["kind"]


@kernel
def write_second(history: NDArray[np.void], history_count: NDArray[np.int64], outcome: np.void) -> None:
    """Notes an answer to nothing in flight, for the auditor to hold against the first."""
    row = history[history_count[0]]
    history_count[0] += 1
    row["id"] = outcome["id"]
    row["fingerprint"] = 0
    row["lsn"] = outcome["lsn"]
    row["shard"] = outcome["shard"]
    row["flags"] = _SECOND
    row["status"] = outcome["status"]
    row["kind_reason"] = outcome["reason"] << 3


@kernel
def fire(  # noqa: PLR0915  one pass over a transaction, straight
    batch: NDArray[np.void], start: int, stop: int, now_ns: int, patience_ns: int,
    settings: Settings, fleet: Fleet, key: np.uint64, by_payee: int, owners: NDArray[np.int64], split: Split, hot: HotKeys,
    flight: InFlight,
    staged: NDArray[np.void], staged_count: NDArray[np.int64], history: NDArray[np.void], history_count: NDArray[np.int64],
    tallies: Tallies, dense: Dense, wait: bool,  # noqa: FBT001  a kernel's arguments have no names
) -> int:  # fmt: skip
    """Releases batch[start:stop], all due by `now_ns`, into staged[node]; returns the position after the last one handled.

    Stops early when a stage or the history is full, or a second is not resident. With `wait` none counts as sent before
    `note_fired` says so.
    """
    seconds = tallies.offered.shape[0]
    account_in_flight(tallies, now_ns)
    for i in range(start, stop):
        m = batch[i]
        intended = m["intended_ns"]
        second = second_of(intended, seconds)
        slot_of_second = dense.slots[second]
        if slot_of_second < 0 or history_count[0] >= history.shape[0]:
            return i
        shard = home_of(split, m["payer"], m["payee"])
        node = flight.picks[1]
        if node == NOT_PICKED:
            account = np.uint64(m["payee"] if by_payee != 0 else m["payer"])
            node = choose(settings, fleet, 0, now_ns, key, flight.picks[0], account, owners[shard])
            flight.picks[0] += 1
        if node >= 0 and staged_count[node] >= staged.shape[1]:
            flight.picks[1] = node
            return i
        flight.picks[1] = NOT_PICKED
        tallies.offered[second] += 1
        tallies.offered_minor[second] += m["amount_minor"]
        kind = int64(m["kind"])
        tallies.by_kind[kind - 1, _PENDING] += 1
        hot_key = is_hot(hot, m["payer"], m["payee"])
        tallies.hot_by_status[_PENDING] += hot_key
        late = now_ns - intended > patience_ns
        if late or flight.free_count[0] == 0:
            reason = _LATE if late else _IN_FLIGHT
            now_second = second_of(now_ns, seconds)
            tallies.answered[now_second, _DROPPED] += 1
            tallies.by_kind[kind - 1, _DROPPED] += 1
            tallies.hot_by_status[_DROPPED] += hot_key
            tallies.by_reason[_DROPPED, reason] += 1
            write_history(history, history_count, m, 0, shard, 0, _DROPPED, reason)
            continue
        if node < 0:
            now_second = second_of(now_ns, seconds)
            tallies.sent[now_second] += 1
            tallies.answered[now_second, _REJECTED] += 1
            tallies.by_kind[kind - 1, _REJECTED] += 1
            tallies.hot_by_status[_REJECTED] += hot_key
            tallies.by_reason[_REJECTED, _CIRCUIT] += 1
            tallies.refused[now_second] += 1
            write_history(history, history_count, m, 0, shard, 0, _REJECTED, _CIRCUIT)
            continue
        flight.free_count[0] -= 1
        slot = flight.free[flight.free_count[0]]
        m["fired_ns"] = now_ns
        m["slot"] = slot
        m["node"] = node
        flight.table[slot] = m
        flight.seen_lsn[slot] = flight.acknowledged_lsn[shard]
        flight.seen_epoch[slot] = flight.epoch[shard]
        flight.asked[slot] = 0
        flight.attempts[slot] = 0 if wait else 1
        flight.attempted_ns[slot] = now_ns
        if kind == _LOOKUP:
            write_asked(history, history_count, m, shard)
        staged[node, staged_count[node]] = m
        staged_count[node] += 1
        if not wait:
            fired_second = second_of(now_ns, seconds)
            tallies.sent[fired_second] += 1
            tallies.node_sent[fired_second, node] += 1
            note_fine(tallies, node, now_ns)
            note(dense.lag, tallies.totals, LAG, slot_of_second, kind, node, now_ns - intended)
        note_sent(settings, fleet, 0, node, now_ns)
        tallies.in_flight_max[node] = max(tallies.in_flight_max[node], tallies.in_flight[node])
        tallies.shard_in_flight[shard] += 1
        tallies.shard_in_flight_max[shard] = max(tallies.shard_in_flight_max[shard], tallies.shard_in_flight[shard])
    total = tallies.in_flight.sum()
    now_second = second_of(now_ns, seconds)
    tallies.in_flight_top[now_second] = max(tallies.in_flight_top[now_second], total)
    return stop


@kernel
def note_fired(
    batch: NDArray[np.void], start: int, stop: int, now_ns: int, flight: InFlight, tallies: Tallies, dense: Dense
) -> int:
    """Counts batch[start:stop] as sent at `now_ns`; returns the position after the last one handled.

    Stops early when a second is not resident.
    """
    seconds = tallies.offered.shape[0]
    second = second_of(now_ns, seconds)
    for i in range(start, stop):
        m = batch[i]
        slot_of_second = dense.slots[second_of(m["intended_ns"], seconds)]
        if slot_of_second < 0:
            return i
        node = int64(m["node"])
        slot = int64(m["slot"])
        flight.table[slot]["fired_ns"] = now_ns
        flight.attempts[slot] = 1
        flight.attempted_ns[slot] = now_ns
        tallies.sent[second] += 1
        tallies.node_sent[second, node] += 1
        note_fine(tallies, node, now_ns)
        note(dense.lag, tallies.totals, LAG, slot_of_second, int64(m["kind"]), node, now_ns - m["intended_ns"])
    return stop


@kernel
def settle(  # noqa: C901, PLR0912, PLR0915  a kernel is long but straight
    outcomes: NDArray[np.void], start: int, stop: int, now_ns: int, settings: Settings, fleet: Fleet, split: Split,
    hot: HotKeys, flight: InFlight,
    history: NDArray[np.void], history_count: NDArray[np.int64], tallies: Tallies, dense: Dense,
) -> int:  # fmt: skip
    """Settles outcomes[start:stop] as answered at `now_ns`, or when they say themselves; returns the position after the last one.

    Stops early when the history is full or a second is not resident. Response and service times are counted for `ok` only:
    an answer that says no quickly must not make the rest look fast.
    """
    seconds = tallies.offered.shape[0]
    polled_ns = now_ns
    account_in_flight(tallies, now_ns)
    for i in range(start, stop):
        outcome = outcomes[i]
        now_ns = int64(outcome["answered_ns"]) if outcome["answered_ns"] > 0 else polled_ns
        now_second = second_of(now_ns, seconds)
        slot = int64(outcome["slot"])
        if history_count[0] >= history.shape[0]:
            return i
        known = slot < flight.table.shape[0] and outcome["id"] != 0
        if not known or flight.table[slot]["id"] != outcome["id"]:
            tallies.stray[0] += 1
            if outcome["id"] != 0 and flight.seconds[0] < SECOND_MAX:
                flight.seconds[0] += 1
                write_second(history, history_count, outcome)
            continue
        m = flight.table[slot]
        slot_of_second = dense.slots[second_of(m["intended_ns"], seconds)]
        if slot_of_second < 0:
            return i
        status = int64(outcome["status"])
        reason = int64(outcome["reason"])
        if flight.asked[slot] != 0 and reason in (_OVERFLOW, _LIMIT) and outcome["lsn"] == 0:
            # A refusal for want of room that was not logged speaks for one copy only, and the other may be booked: ask until
            # there is a decision.
            if flight.asked[slot] == 1:
                flight.asked[slot] = 2
                flight.again[flight.again_count[0]] = slot
                flight.again_count[0] += 1
            continue
        kind = int64(m["kind"])
        node = int64(m["node"])
        shard = home_of(split, m["payer"], m["payee"])
        lsn = int64(outcome["lsn"])
        flags = 0
        tallies.answered[now_second, status] += 1
        tallies.by_kind[kind - 1, status] += 1
        tallies.by_reason[status, reason] += 1
        note_keys(tallies, split, hot, m, status, now_ns - m["intended_ns"])
        # A refusal that was logged is a decision like any other; only one that was not says that there was no room.
        no_room = status == _REJECTED and reason in (_OVERFLOW, _LIMIT) and lsn == 0
        if no_room:
            tallies.refused[now_second] += 1
        if status == _OK:
            note(dense.response, tallies.totals, RESPONSE, slot_of_second, kind, node, now_ns - m["intended_ns"])
            note(dense.service, tallies.totals, SERVICE, slot_of_second, kind, node, now_ns - m["fired_ns"])
            tallies.shard_ok[now_second, shard] += 1
            if kind in (_PAYMENT, _REFUND, _POST):
                tallies.settled_minor[now_second] += m["amount_minor"]
            epoch = int64(outcome["epoch"])
            if kind != _LOOKUP and 0 < lsn <= flight.seen_lsn[slot] and epoch == flight.seen_epoch[slot]:
                flags = _REORDERED
            if epoch > flight.epoch[shard]:
                flight.epoch[shard] = epoch
                flight.acknowledged_lsn[shard] = lsn
            elif epoch == flight.epoch[shard]:
                flight.acknowledged_lsn[shard] = max(flight.acknowledged_lsn[shard], lsn)
        attempts = int64(flight.attempts[slot])
        write_history(history, history_count, m, lsn, shard, flags | in_history(attempts), status, reason)
        if attempts < BETWEEN:
            good = int64(not is_bad(status, reason) or (status == _REJECTED and reason == _LIMIT and not no_room))
            note_answered(settings, fleet, 0, node, now_ns, now_ns - flight.attempted_ns[slot], good)
            if good == 0 and status != _DROPPED:
                note_failed(tallies, node, now_ns)
        tallies.shard_in_flight[shard] -= 1
        m["id"] = 0
        flight.free[flight.free_count[0]] = slot
        flight.free_count[0] += 1
    tallies.settled_ns[0] = polled_ns
    return stop


@kernel
def in_doubt(flight: InFlight, outcomes: NDArray[np.void], status: int, reason: int, after: int) -> tuple[int, int]:
    """Fills `outcomes` for what is still in flight, from slot `after` on; returns (how many, the slot to go on from)."""
    found = 0
    for slot in range(after, flight.table.shape[0]):
        if flight.table[slot]["id"] != 0:
            if found == outcomes.shape[0]:
                return found, slot
            outcome = outcomes[found]
            outcome["id"] = flight.table[slot]["id"]
            outcome["slot"] = slot
            outcome["lsn"] = 0
            outcome["epoch"] = 0
            outcome["status"] = status
            outcome["reason"] = reason
            found += 1
    return found, flight.table.shape[0]


@kernel
def unanswered(
    flight: InFlight, owners: NDArray[np.int64], split: Split, node: int, batch: NDArray[np.void], after: int
) -> tuple[int, int]:
    """Fills `batch` with what is in flight and was in the hands of `node`, from slot `after` on.

    That is what entered there, what is decided there, and what was asked about before: its second copy went to whoever
    owned the shard then. Returns (how many, the slot to go on from).
    """
    found = 0
    for slot in range(after, flight.table.shape[0]):
        m = flight.table[slot]
        mine = m["node"] == node or owners[home_of(split, m["payer"], m["payee"])] == node or flight.asked[slot] != 0
        if m["id"] != 0 and mine:
            if found == batch.shape[0]:
                return found, slot
            flight.asked[slot] = 1
            batch[found] = m
            found += 1
    return found, flight.table.shape[0]


class Dispatcher:
    """Releases transactions and settles outcomes; holds the in-flight table and the history that is not yet written."""

    def __init__(
        self, backend: Backend, balancer: Balancer, seed: int, tallies: Tallies, recorder: Recorder, *,
        in_flight: int, patience_ns: int, write: Callable[[memoryview], None], when_full: WhenFull = WhenFull.REFUSE,
        split: Split | None = None, hot: HotKeys = NO_HOT_KEYS, retry: RetryPolicy | None = None,
    ) -> None:  # fmt: skip
        """`write` takes the bytes of history rows, in order. `in_flight` is the size of the table.

        `split` says which accounts the backend splits (none by default), `hot` whose transactions are measured apart.

        `retry` says what is tried again; None: nothing. It goes with `WhenFull.WAIT`.

        What waits here for room in a node's queue (`when_full`) is bounded by the in-flight table and by `patience_ns`.
        """
        self.backend = backend
        self.tallies = tallies
        self.recorder = recorder
        self.settings = settings_from(balancer)
        self.fleet = fleet_from(
            balancer, self.settings, backend.nodes, in_flight=tallies.in_flight.reshape(1, -1), seed=seed
        )
        self._by_payee = int(balancer.hash.key == "payee")
        self._key = stream_key(seed, Stream.BALANCER)
        self._patience_ns = patience_ns
        self._write = write
        self._owners = backend.owners()
        self._split = unsplit(len(self._owners)) if split is None else split
        self._hot = hot
        self._flight = open_in_flight(in_flight, len(self._owners))
        self._staged = np.zeros((backend.nodes, STAGE), TRANSACTION)
        self._staged_count = np.zeros(backend.nodes, np.int64)
        self._history = np.zeros(65_536, HISTORY)
        self._history_count = np.zeros(1, np.int64)
        self._when_full = when_full
        self._held: list[deque[NDArray[np.void]]] = [deque() for _ in range(backend.nodes)]
        self._asking: list[deque[NDArray[np.void]]] = [deque() for _ in range(backend.nodes)]
        self.asked_again = 0
        self._retries: Retries | None = None
        if retry is not None:
            around = Around(
                backend,
                self.settings,
                self.fleet,
                self._flight,
                tallies,
                self._owners,
                self._split,
                self._key,
                self._by_payee,
            )
            self._retries = Retries(retry, around, patience_ns=patience_ns)

    @property
    def in_flight(self) -> int:
        """How many transactions were sent and not yet answered."""
        return len(self._flight.table) - int(self._flight.free_count[0])

    @property
    def next_retry_ns(self) -> int:
        """When the next attempt of what is tried again is due; `NEVER_NS`: none is."""
        return NEVER_NS if self._retries is None else self._retries.next_ns

    def release(self, batch: NDArray[np.void], now_ns: int) -> None:
        """Sends a batch (TRANSACTION) of which every one is due by `now_ns`."""
        if now_ns >= self.fleet.next_sweep_ns[0]:
            sweep(self.settings, self.fleet, 0, now_ns)
        position = 0
        while position < len(batch):
            reached = fire(
                batch, position, len(batch), now_ns, self._patience_ns, self.settings, self.fleet, self._key, self._by_payee,
                self._owners, self._split, self._hot, self._flight, self._staged, self._staged_count, self._history,
                self._history_count, self.tallies, self.recorder.dense, self._when_full == WhenFull.WAIT,
            )  # fmt: skip
            if reached < len(batch):
                self._make_room(int(batch["intended_ns"][reached]))
            self._send(now_ns)
            position = reached

    def _send(self, now_ns: int) -> None:
        for node in np.flatnonzero(self._staged_count):
            count = int(self._staged_count[node])
            self._staged_count[node] = 0
            batch = self._staged[node, :count]
            held = self._held[node]
            accepted = 0 if held else self._offer(int(node), batch, now_ns)
            if accepted == count:
                continue
            if self._when_full == WhenFull.REFUSE:
                self._turn_away(batch[accepted:], now_ns)
            else:
                held.append(batch[accepted:].copy())

    def _offer(self, node: int, batch: NDArray[np.void], now_ns: int) -> int:
        """Offers a batch to a node; returns how many it took."""
        accepted = self.backend.offer(node, batch)
        position = 0
        while self._when_full == WhenFull.WAIT and position < accepted:
            position = note_fired(batch, position, accepted, now_ns, self._flight, self.tallies, self.recorder.dense)
            if position < accepted:
                self._make_room(int(batch["intended_ns"][position]))
        if self._retries is not None and accepted:
            self._retries.note_first(accepted, now_ns)
        return accepted

    def _turn_away(self, batch: NDArray[np.void], now_ns: int) -> None:
        """Settles what found no room: the platform's no, or, where it was never sent, a drop of ours."""
        refused = np.zeros(len(batch), OUTCOME)
        refused["id"] = batch["id"]
        refused["slot"] = batch["slot"]
        unsent = self._when_full == WhenFull.WAIT
        refused["status"] = _DROPPED if unsent else _REJECTED
        refused["reason"] = _LATE if unsent else _OVERFLOW
        self._settle(refused, now_ns)

    def push_held(self, now_ns: int) -> None:
        """Sends what is due to be tried again, and offers again, in order, what was held back. Call it every turn.

        What is past its patience is turned away.
        """
        if self._retries is not None:
            while len(ended := self._retries.send(now_ns)):
                self._settle(ended, now_ns)
        since = "intended_ns" if self._when_full == WhenFull.WAIT else "fired_ns"
        for node, held in enumerate(self._held):
            while held:
                late = int(np.searchsorted(held[0][since], now_ns - self._patience_ns))
                if late:
                    self._turn_away(held[0][:late], now_ns)
                    held[0] = held[0][late:]
                accepted = self._offer(node, held[0], now_ns) if len(held[0]) else 0
                if accepted < len(held[0]):
                    held[0] = held[0][accepted:]
                    break
                held.popleft()

    def settle(self, outcomes: NDArray[np.void], now_ns: int) -> None:
        """Counts a batch of outcomes (OUTCOME) as answered at `now_ns`; what is tried again is taken out of it, in place."""
        if self._retries is not None:
            outcomes = outcomes[: self._retries.absorb(outcomes, now_ns)]
        self._settle(outcomes, now_ns)

    def stop_retrying(self, now_ns: int) -> None:
        """From now on nothing is tried again; what waits for that ends with the answer that it has."""
        if self._retries is not None:
            while len(ended := self._retries.stop()):
                self._settle(ended, now_ns)

    def _settle(self, outcomes: NDArray[np.void], now_ns: int) -> None:
        position = 0
        while position < len(outcomes):
            position = settle(
                outcomes, position, len(outcomes), now_ns, self.settings, self.fleet, self._split, self._hot, self._flight,
                self._history,
                self._history_count, self.tallies, self.recorder.dense,
            )  # fmt: skip
            if position < len(outcomes):
                slot = int(outcomes["slot"][position])
                known = slot < len(self._flight.table)  # one that is not stopped for want of room in the history alone
                self._make_room(int(self._flight.table["intended_ns"][slot]) if known else 0)

    def ask_again(self) -> None:
        """Offers again what nodes that came back may have lost, as far as their queues have room; call it every turn.

        A transaction keeps its id, slot and times. If the first try was booked after all, the node answers it alike, and
        whichever answer comes second finds its slot empty (`stray`): it is written into the history as a second answer.
        """
        for node in self.backend.returned():
            self._ask_about(node)
        if self._flight.again_count[0]:
            slots = self._flight.again[: int(self._flight.again_count[0])]
            self._flight.asked[slots] = 1
            self._queue_to_ask(self._flight.table[slots])
            self._flight.again_count[0] = 0
        for node, batches in enumerate(self._asking):
            while batches:
                # What was answered meanwhile needs no second copy.
                batches[0] = batches[0][self._flight.table["id"][batches[0]["slot"]] == batches[0]["id"]]
                accepted = self.backend.offer(node, batches[0]) if len(batches[0]) else 0
                self.asked_again += accepted
                self.tallies.client[ClientCount.ASKED_AGAIN] += accepted
                if accepted < len(batches[0]):
                    batches[0] = batches[0][accepted:]
                    break
                batches.popleft()

    def _ask_about(self, node: int) -> None:
        """Queues what was in the hands of a node that came back; at most as much as the in-flight table holds."""
        slot = 0
        batch = np.zeros(STAGE, TRANSACTION)
        while slot < len(self._flight.table):
            count, slot = unanswered(self._flight, self._owners, self._split, node, batch, slot)
            self._queue_to_ask(batch[:count])

    def _queue_to_ask(self, batch: NDArray[np.void]) -> None:
        """Each goes straight to the owner of its shard: the node that it entered may have been the one that was lost."""
        shards = np.zeros(len(batch), np.int64)
        homes(batch, self._split, shards)
        owners = self._owners[shards]
        for owner in np.unique(owners):
            self._asking[owner].append(batch[owners == owner])

    def give_up(self, now_ns: int, status: Status, reason: Reason) -> None:
        """Settles everything still in flight with this status; what was never sent is dropped."""
        self.stop_retrying(now_ns)
        for held in self._held if self._when_full == WhenFull.WAIT else []:
            while held:
                self._turn_away(held.popleft(), now_ns)
        outcomes = np.zeros(STAGE, OUTCOME)
        slot = 0
        while slot < len(self._flight.table):
            found, slot = in_doubt(self._flight, outcomes, int(status), int(reason), slot)
            self._settle(outcomes[:found], now_ns)

    def flush(self) -> None:
        """Hands the history rows that are not yet written to `write`."""
        count = int(self._history_count[0])
        if count:
            self._write(self._history[:count].view(np.uint8).data)
            self._history_count[0] = 0

    def _make_room(self, intended_ns: int) -> None:
        """A kernel stopped: the history is full, or the second of `intended_ns` is not resident (or a stage is full)."""
        if self._history_count[0] >= len(self._history):
            self.flush()
        second = min(max(intended_ns, 0) // 1_000_000_000, len(self.tallies.offered) - 1)
        if self.recorder.dense.slots[second] < 0:
            self.recorder.admit(second)
