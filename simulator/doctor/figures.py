"""The figures of an examination, as plain values: measured elsewhere, judged elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

SCHEMA = 1


@dataclass(frozen=True)
class Ceilings:
    """The highest rates (transactions a second) that were reached; None: not measured, or none was held.

    Attributes:
        http_open_per_s: open loop over HTTP to a sink on loopback with the schedule kept (`OpenLoop.held`).
        http_closed_per_s: closed loop over HTTP to the same sink.
        http_connections: that these used.
        http_cpu_us: CPU time of the generator for each request in open loop, in microseconds.
        noop_per_s: released and settled without a platform.
        embedded_memory_per_s: applied by an embedded platform that keeps nothing, and
        embedded_group_per_s: by one whose every commit is on disk.
        virtual_simple_per_s: simulated on one core, nodes alone, and
        virtual_full_per_s: with shards, time-outs and retries.
    """

    http_open_per_s: float | None
    http_closed_per_s: float | None
    http_connections: int
    http_cpu_us: float | None
    noop_per_s: float | None
    embedded_memory_per_s: float | None
    embedded_group_per_s: float | None
    virtual_simple_per_s: float | None
    virtual_full_per_s: float | None


@dataclass(frozen=True)
class Timing:
    """Clock and timers; a sleep's lateness is what it took beyond what was asked."""

    clock_resolution_ns: int
    clock_read_ns: float
    sleep_asked_us: float
    late_us_p50: float
    late_us_p99: float
    late_us_max: float


@dataclass(frozen=True)
class Disk:
    """Small appended writes, each made durable by `fdatasync`, on the disk of results/; None: it could not be written to."""

    file_system: str
    free_bytes: int
    fdatasync_ms_p50: float | None
    fdatasync_ms_p99: float | None


@dataclass(frozen=True)
class Machine:
    """What is read and not measured; None: the system does not tell."""

    cores: int  # that this process may use
    cores_of_the_machine: int
    governor: str | None
    memory_bytes: int
    memory_available_bytes: int
    descriptors_soft: int  # -1: no limit
    descriptors_hard: int
    port_first: int | None
    port_last: int | None
    load_1m: float

    @property
    def ports(self) -> int | None:
        """Local ports that connections to one address and port can have."""
        return None if self.port_first is None or self.port_last is None else self.port_last - self.port_first + 1


@dataclass(frozen=True)
class Noise:
    """What else the machine did meanwhile, as shares of the CPU time of all its cores; None: the system does not tell."""

    seconds: float
    steal: float | None  # taken by the hypervisor for others
    others: float | None  # used by processes that are not ours


@dataclass(frozen=True)
class Figures:
    """An examination."""

    taken_at: str  # ISO 8601, UTC
    quick: bool
    version: str
    machine: Machine
    timing: Timing
    disk: Disk
    ceilings: Ceilings
    noise: Noise

    def as_json(self) -> dict[str, Any]:
        """For other programs and the cache."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Self:  # noqa: ANN401  whatever a file has in it
        """The inverse of `as_json`. Raises ValueError for anything else."""
        try:
            if data["schema"] != SCHEMA:
                raise ValueError("another schema")
            parts: dict[str, Any] = {
                name: part(**data[name])
                for name, part in (
                    ("machine", Machine), ("timing", Timing), ("disk", Disk), ("ceilings", Ceilings), ("noise", Noise),
                )
            }  # fmt: skip
            plain = {field.name: data[field.name] for field in fields(cls) if field.name not in parts}
        except (KeyError, TypeError) as error:
            raise ValueError("these are no figures of an examination") from error
        return cls(**plain, **parts)

    def short(self) -> dict[str, Any]:
        """What goes into a run's environment.json: one level, units in the names."""
        ceilings, timing, noise = self.ceilings, self.timing, self.noise
        return {
            "taken_at": self.taken_at,
            "quick": self.quick,
            "http_open_per_s": ceilings.http_open_per_s,
            "noop_per_s": ceilings.noop_per_s,
            "embedded_memory_per_s": ceilings.embedded_memory_per_s,
            "embedded_group_per_s": ceilings.embedded_group_per_s,
            "virtual_full_per_s": ceilings.virtual_full_per_s,
            "timer_late_us_p99": timing.late_us_p99,
            "fdatasync_ms_p50": self.disk.fdatasync_ms_p50,
            "fdatasync_ms_p99": self.disk.fdatasync_ms_p99,
            "noise_steal_share": noise.steal,
            "noise_others_share": noise.others,
        }
