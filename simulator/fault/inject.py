"""Carries out strikes on the nodes of an embedded platform, and keeps the witness that each one bit."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.fault.loss import record_loss
from simulator.fault.schedule import Fault
from simulator.ledger.flaws import threshold_of
from simulator.seeds import Stream, bits, stream_key
from simulator.shard import snapshot
from simulator.shard.journal import journal_path

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.fault.schedule import Schedule, Strike
    from simulator.shard.pool import Pool


def synced_bytes(pool: Pool, journals: Path, node: int) -> int:
    """How much of a dead node's journal its disk has for certain: what it synced itself, or a snapshot for its own sake."""
    journal = journal_path(journals, node)
    size = journal.stat().st_size
    own = int(pool.row(node)["synced_bytes"])
    return min(max(own, snapshot.synced_bytes(snapshot.snapshot_path(journals, node), journal)), size)


class Injector:
    """Strikes when a strike is due. `journals` is the folder of the nodes' journals."""

    def __init__(self, schedule: Schedule, pool: Pool, journals: Path, seed: int) -> None:
        self._schedule = schedule
        self._pool = pool
        self._journals = journals
        self._key = stream_key(seed, Stream.FAULTS)
        self._cuts = 0
        self._losses = 0
        self._paused: list[tuple[int, int]] = []  # (until_ns, node)
        self._poisons: list[Strike] = []  # those under way
        self._set_aside = 0  # before the poisons under way

    def next_ns(self) -> int | None:
        """When something is to be done next; None: never."""
        moments = [until for until, _ in self._paused]
        moments += [strike.until_ns for strike in self._poisons if strike.until_ns is not None]
        if self._schedule.next_ns is not None:
            moments.append(self._schedule.next_ns)
        return min(moments, default=None)

    def act(self, now_ns: int) -> list[dict[str, Any]]:
        """Does what is due, and returns an event for each thing done."""
        events = [event for strike in self._schedule.due(now_ns) for event in self._strike(strike, now_ns)]
        for until, node in [pause for pause in self._paused if pause[0] <= now_ns]:
            self._paused.remove((until, node))
            if all(other != node for _, other in self._paused):
                self._signal(node, signal.SIGCONT)
                events.append({"event": "fault_over", "fault": str(Fault.PAUSE), "node": node})
        for strike in [poison for poison in self._poisons if (poison.until_ns or 0) <= now_ns]:
            self._poisons.remove(strike)
            self._poison()
            # The witness that it bit: how many operations were set aside meanwhile.
            struck = self._count_set_aside() - self._set_aside
            event = {
                "event": "fault_over",
                "fault": str(Fault.POISON),
                "nodes": list(strike.nodes),
                "set_aside": struck,
            }
            events.append(event)
        return events

    def release(self) -> None:
        """Lets everything go on that stands still, and ends every poison."""
        self._poisons.clear()
        self._poison()
        for _, node in self._paused:
            self._signal(node, signal.SIGCONT)
        self._paused.clear()

    def _strike(self, strike: Strike, now_ns: int) -> list[dict[str, Any]]:
        if strike.fault is Fault.POWER_LOSS:
            return self._power_loss(strike, now_ns)
        if strike.poison is not None:
            if not self._poisons:
                self._set_aside = self._count_set_aside()
            self._poisons.append(strike)
            self._poison()
            about = {"share": strike.poison.share, "leg": "far" if strike.poison.far else "near"}
            return [{"event": "fault", "fault": str(strike.fault), "nodes": list(strike.nodes), **about}]
        number = signal.SIGSTOP if strike.fault is Fault.PAUSE else signal.SIGKILL
        events = []
        for node in strike.nodes:
            pid = self._pool.pids[node]
            self._signal(node, number)
            if strike.until_ns is not None:
                self._paused.append((strike.until_ns, node))
            events.append({"event": "fault", "fault": str(strike.fault), "node": node, "pid": pid})
        return events

    def _power_loss(self, strike: Strike, now_ns: int) -> list[dict[str, Any]]:
        """Kills every node, then takes from its journal what its disk had not synced, but for a random part of it.

        `kill -9` alone would keep the page cache, and so lose nothing that was written.
        """
        pool = self._pool
        pool.halt()
        self._losses += 1
        pool.board.epoch[0] += 1  # before a node starts again: it stamps its answers with it
        events = []
        for node in strike.nodes:
            path = journal_path(self._journals, node)
            size = path.stat().st_size
            synced = synced_bytes(pool, self._journals, node)
            kept = synced + int(bits(self._key, (1 << 40) + self._cuts)) % (size - synced + 1)
            self._cuts += 1
            loss = record_loss(
                self._journals, self._losses, node, now_ns,
                durability=pool.durability, unsynced_ns_max=pool.unsynced_ns_max,
                synced_bytes=synced, synced_ns=int(pool.row(node)["synced_ns"]), kept_bytes=kept,
            )  # fmt: skip
            os.truncate(path, kept)
            events.append({
                "event": "fault", "fault": str(strike.fault), "node": node, "synced_bytes": synced,
                "written_bytes": size, "kept_bytes": kept, "dropped_records": loss.dropped_records,
            })  # fmt: skip
        return events

    def _poison(self) -> None:
        """Tells each node what fails there now: of several poisons of one kind of leg the strongest."""
        asked = np.zeros_like(self._pool.board.poison)
        for strike in self._poisons:
            if strike.poison is None:
                continue
            for node in strike.nodes:
                leg = int(strike.poison.far)
                asked[node, leg] = max(asked[node, leg], threshold_of(strike.poison.share))
                asked[node, 2] = strike.poison.heals_after
        self._pool.board.poison[:] = asked

    def _count_set_aside(self) -> int:
        return int(self._pool.board.nodes["set_aside"].sum())

    def _signal(self, node: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it ended by itself in the meantime
            os.kill(self._pool.pids[node], number)
