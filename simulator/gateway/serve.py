"""`sim serve`: a platform, one or more gateways in front of it, until somebody says that it is enough."""

from __future__ import annotations

import ipaddress
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import BackendError, Exit, SimError, UsageError
from simulator.gateway.fleet import Fleet
from simulator.gateway.server import Listen
from simulator.scenario.units import INT64_MAX
from simulator.shard.journal import JournalReader
from simulator.shard.layout import Durability, Shape
from simulator.shard.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S = 0.05  # how soon a signal is heeded
_STOP_S = 30.0
_RUN = 0x5E12FE  # what the journals of gateways carry in place of a run's seed


@dataclass(frozen=True)
class Serving:
    """What is to be served; money in minor units."""

    host: str
    port: int
    name: str
    gateways: int
    currency: str
    accounts: int
    merchants: int
    balance_minor: int
    nodes: int
    shards: int
    durability: str
    remember: int
    queue: int
    in_flight: int
    rate_per_s: int | None
    timeout_s: float
    folder: Path | None
    expose: bool


def check(serving: Serving) -> None:
    """Raises UsageError for what cannot be served."""
    try:
        loopback = serving.host == "localhost" or ipaddress.ip_address(serving.host).is_loopback
    except ValueError:
        raise UsageError(f"--host {serving.host} is no address; write for example 127.0.0.1") from None
    if not loopback and not serving.expose:
        raise UsageError(
            f"--host {serving.host} would let other machines in, and this gateway asks nobody who they are; "
            "if that is what you want, add --expose"
        )
    if serving.port + serving.gateways - 1 > 65_535:  # noqa: PLR2004  TCP's last port
        raise UsageError(f"{serving.gateways} gateways from port {serving.port} on reach past port 65535")
    if serving.shards < serving.nodes:
        raise UsageError(
            f"--shards {serving.shards} leave some of {serving.nodes} nodes without one; write at least {serving.nodes}"
        )
    if serving.shards > serving.accounts:
        raise UsageError(f"--shards {serving.shards} are more than the {serving.accounts} accounts they share")
    if serving.remember & (serving.remember - 1):
        raise UsageError(f"--remember {serving.remember} is not a power of two")
    if serving.balance_minor * serving.accounts > INT64_MAX:
        raise UsageError(f"--balance times {serving.accounts} accounts is more than 64 bits of minor units")


def _check_journals(folder: Path, shape: Shape) -> None:
    """Journals that are there must be of a platform of this shape: on another one they would mean something else."""
    for path in sorted(folder.glob("node-*.journal")):
        header = JournalReader(path).header
        there = {
            "--nodes": (int(header["nodes"]), shape.nodes),
            "--shards": (int(header["shards"]), shape.shards),
            "--accounts": (int(header["customers"]), shape.customers),
            "--merchants": (int(header["accounts"]) - int(header["customers"]), shape.merchants),
            "--balance (minor units)": (int(header["opening_minor"]), shape.opening_minor),
        }
        for flag, (was, asked) in there.items():
            if was != asked:
                raise UsageError(
                    f"{path} was written with {flag} {was}, not {asked}; say the same, or name another folder"
                )


def serve(serving: Serving, asked_to_stop: Callable[[], bool]) -> Exit:
    """Serves until asked to stop, then closes the books. Raises SimError if it cannot start."""
    check(serving)
    folder = serving.folder
    passing = folder is None
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="sim-serve-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _serve(serving, folder, asked_to_stop)
    except OSError as error:
        raise BackendError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        if passing:
            shutil.rmtree(folder, ignore_errors=True)


def _serve(serving: Serving, folder: Path, asked_to_stop: Callable[[], bool]) -> Exit:
    shape = Shape(
        serving.nodes, serving.shards, serving.accounts, serving.merchants, serving.balance_minor, serving.remember
    )
    _check_journals(folder, shape)
    pool = Pool(
        shape, folder, durability=Durability[serving.durability.upper()], interval_ns=0, queue=serving.queue, run=_RUN,
        restarts=1_000, doors=serving.gateways,
    )  # fmt: skip
    pool.board.epoch_ns[0] = time.monotonic_ns()
    host = "127.0.0.1" if serving.host == "localhost" else serving.host
    single = serving.gateways == 1
    names = [serving.name if single else f"{serving.name}-{number}" for number in range(serving.gateways)]
    places = [Listen(host, serving.port + number if serving.port else 0) for number in range(serving.gateways)]
    fleet = Fleet(
        pool, names, places, currency=serving.currency, rate_per_s=serving.rate_per_s, in_flight=serving.in_flight,
        timeout_s=serving.timeout_s,
    )  # fmt: skip
    try:
        pool.start()
        fleet.start()
        for name, url in zip(fleet.names, fleet.urls, strict=True):
            _say(f"{name} listens on {url}")
        failure = _watch(pool, fleet, asked_to_stop)
        fleet.stop()
        closed = pool.stop(_STOP_S)
    finally:
        fleet.kill()
        pool.kill()
    if failure is None and not closed:
        failure = f"the nodes did not settle within {_STOP_S:.0f} s what was under way between them"
    if failure is not None:
        raise SimError(failure)
    _say("stopped; the books are closed")
    return Exit.OK


def _watch(pool: Pool, fleet: Fleet, asked_to_stop: Callable[[], bool]) -> str | None:
    """Until asked to stop, or until something stopped that no restart brings back: then what."""
    while not asked_to_stop():
        for notice in pool.supervise():
            _complain(f"node {notice.node}: {notice.event.replace('_', ' ')} {notice.details}")
        for told in fleet.supervise():
            _complain(f"{fleet.names[told.gateway]}: {told.event.replace('_', ' ')} {told.details}")
        failures = [*(f"node {f.node} stopped: {f.reason}" for f in pool.failures()), *fleet.failures()]
        if failures:
            return "; ".join(failures)
        wait([*pool.sentinels, *fleet.sentinels], _LOOK_S)
    return None


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"sim: {text}\n")
    sys.stderr.flush()
