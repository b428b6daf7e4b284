"""What figures mean, in words: pure functions over an examination, and over what a scenario asks for."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from simulator.scenario.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.doctor.demands import Demands
    from simulator.doctor.figures import Disk, Figures, Machine, Noise, Timing

STEAL_MAX = 0.01  # of all CPU time; a hundredth is ten milliseconds a second in which nothing of ours ran
OTHERS_MAX = 0.10  # likewise, used by processes of others
LATE_US_MAX = 1_000.0  # the schedule lag that an open loop is held to
NEAR = 0.8  # of a limit, from which on it is told
_PORT_REST_S = 60  # how long Linux keeps a closed connection's port (TIME_WAIT, tcp(7))


class Grade(StrEnum):
    """How a figure stands to its limit."""

    OK = "ok"
    NEAR = "near"  # within the limit, with less than a fifth to spare
    OVER = "over"
    UNKNOWN = "unknown"  # one of the two is not known


class Remark(NamedTuple):
    """One figure and what it means."""

    name: str
    figure: str
    meaning: str
    grade: Grade = Grade.OK


def grade(value: float, limit: float) -> Grade:
    """How a value stands to what it may be at most."""
    return Grade.OVER if value > limit else Grade.NEAR if value > NEAR * limit else Grade.OK


def remarks(figures: Figures) -> list[Remark]:
    """Each figure with what it means, in the order of reading."""
    return [
        *_ceilings(figures), *_timing(figures.timing), *_noise(figures.noise, figures.machine), *_machine(figures.machine),
        *_disk(figures.disk),
    ]  # fmt: skip


def verdict(figures: Figures) -> str:
    """One line: what it is good for now, or what stands in the way."""
    wrong = []
    if figures.noise.steal is not None and figures.noise.steal > STEAL_MAX:
        wrong.append(f"the hypervisor took {_percent(figures.noise.steal)} of the CPU time")
    if figures.noise.others is not None and figures.noise.others > OTHERS_MAX:
        wrong.append(f"other processes used {_percent(figures.noise.others)} of it")
    if figures.timing.late_us_p99 > LATE_US_MAX:
        wrong.append(f"one sleep in a hundred wakes {figures.timing.late_us_p99 / 1e3:.1f} ms late or more")
    if figures.ceilings.http_open_per_s is None and figures.ceilings.http_closed_per_s is not None:
        wrong.append("no rate over HTTP was kept to within 1 ms")
    if wrong:
        return f"not quiet: {'; '.join(wrong)}. Take these figures as lower bounds, and measure on a quiet machine"
    http = figures.ceilings.http_open_per_s
    reach = f"up to {http:,.0f}/s over HTTP from one process" if http else "the embedded platform and the virtual clock"
    return f"fit to measure with: {reach}; timers are exact to {figures.timing.late_us_p99:,.0f} µs"


def limits(demands: Demands, figures: Figures) -> list[Remark]:
    """What a scenario asks for against what there is, in the order of the path."""
    return [
        *_rate(demands, figures),
        *_connections(demands, figures.machine),
        *_room(demands, figures),
        *_lag(demands, figures),
    ]


def limiting(found: list[Remark]) -> str:
    """One line: what would limit the scenario here."""
    over = [remark.name for remark in found if remark.grade is Grade.OVER]
    near = [remark.name for remark in found if remark.grade is Grade.NEAR]
    unknown = [remark.name for remark in found if remark.grade is Grade.UNKNOWN]
    if over:
        return f"this machine would limit the scenario: {', '.join(over)}"
    rest = f"; not known: {', '.join(unknown)}" if unknown else ""
    if near:
        return f"nothing limits the scenario here, but little is to spare: {', '.join(near)}{rest}"
    return f"nothing that was looked at limits the scenario here{rest}"


# ---- of the machine ----


def _ceilings(figures: Figures) -> Iterator[Remark]:
    found = figures.ceilings
    if found.http_closed_per_s is None:
        yield Remark("HTTP", "not measured", "pip install 'transaction-load-simulator[http]' for it", Grade.UNKNOWN)
    else:
        per = f", {found.http_cpu_us:.1f} µs of CPU a request" if found.http_cpu_us is not None else ""
        if found.http_open_per_s is None:
            yield Remark(
                "HTTP open loop", "none held", "every rate that was tried was late by more than 1 ms", Grade.OVER
            )
        else:
            yield Remark(
                "HTTP open loop",
                f"{found.http_open_per_s:,.0f}/s",
                f"highest rate tried that one process kept to within 1 ms{per}",
            )
        closed = f"{found.http_closed_per_s:,.0f}/s"
        yield Remark("HTTP closed loop", closed, f"{found.http_connections} busy connections: the driver's ceiling")
    for name, per_s, meaning in (
        ("engine alone", found.noop_per_s, "transactions made, released and settled without a platform"),
        ("embedded, memory", found.embedded_memory_per_s, "two nodes that keep nothing"),
        ("embedded, group", found.embedded_group_per_s, "two nodes, every commit on the disk of results/"),
        ("virtual, nodes", found.virtual_simple_per_s, "simulated a second on one core, one stage"),
        ("virtual, full", found.virtual_full_per_s, "likewise with shards, time-outs and retries"),
    ):
        if per_s is not None:
            yield Remark(name, f"{per_s:,.0f}/s", meaning)


def _timing(timing: Timing) -> Iterator[Remark]:
    yield Remark(
        "clock",
        f"{timing.clock_resolution_ns} ns",
        f"its resolution; reading it costs {timing.clock_read_ns:.0f} ns",
    )
    late = f"{timing.late_us_p50:,.0f} / {timing.late_us_p99:,.0f} / {timing.late_us_max:,.0f} µs"
    yield Remark(
        "timer",
        late,
        f"how late a sleep of {timing.sleep_asked_us / 1e3:g} ms wakes (p50 / p99 / max): the floor of schedule lag",
        grade(timing.late_us_p99, LATE_US_MAX),
    )


def _noise(noise: Noise, machine: Machine) -> Iterator[Remark]:
    for name, found, limit, who in (
        ("steal", noise.steal, STEAL_MAX, "that the hypervisor gave to others"),
        ("other processes", noise.others, OTHERS_MAX, "that processes of others used"),
    ):
        if found is None:
            yield Remark(name, "unknown", "the system does not tell", Grade.UNKNOWN)
        else:
            yield Remark(
                name, _percent(found), f"of the CPU time {who} over {noise.seconds:.0f} s", grade(found, limit)
            )
    yield Remark("load", f"{machine.load_1m:.2f}", "runnable processes on average over the minute before")


def _machine(machine: Machine) -> Iterator[Remark]:
    governor = (
        f"frequency governor: {machine.governor}" if machine.governor else "the frequency governor cannot be read"
    )
    slow = machine.governor is not None and machine.governor not in ("performance", "schedutil")
    yield Remark(
        "cores", f"{machine.cores} of {machine.cores_of_the_machine}", f"for this process; {governor}",
        Grade.NEAR if slow else Grade.OK,
    )  # fmt: skip
    yield Remark(
        "memory", format_bytes(machine.memory_available_bytes), f"available of {format_bytes(machine.memory_bytes)}"
    )
    soft, hard = (("unlimited" if n < 0 else f"{n:,}") for n in (machine.descriptors_soft, machine.descriptors_hard))
    yield Remark("open files", soft, f"a process; it may raise that to {hard}: connections need one each")
    if machine.ports is None:
        yield Remark("local ports", "unknown", "the system does not tell", Grade.UNKNOWN)
    else:
        without = machine.ports // _PORT_REST_S
        yield Remark(
            "local ports",
            f"{machine.ports:,}",
            f"to one target; without keep-alive about {without:,} connections a second, as each rests for {_PORT_REST_S} s",
        )


def _disk(disk: Disk) -> Iterator[Remark]:
    if disk.fdatasync_ms_p50 is None or disk.fdatasync_ms_p99 is None:
        yield Remark("disk", disk.file_system, "the folder cannot be written to", Grade.UNKNOWN)
    else:
        took = f"{disk.fdatasync_ms_p50:.2f} / {disk.fdatasync_ms_p99:.2f} ms"
        yield Remark("fdatasync", took, f"of 4 KiB (p50 / p99) on {disk.file_system}: the least a durable answer takes")


# ---- of a scenario ----


def _rate(demands: Demands, figures: Figures) -> Iterator[Remark]:
    found = figures.ceilings
    if demands.backend == "virtual":
        if not found.virtual_full_per_s:
            yield Remark("simulation", "unknown", "its speed was not measured", Grade.UNKNOWN)
            return
        took = demands.transactions / found.virtual_full_per_s / min(demands.processes, figures.machine.cores)
        yield Remark(
            "simulation", f"{took:,.0f} s", f"for {demands.transactions:,.0f} transactions with the full model"
        )
        return
    ceiling = {
        "http": found.http_open_per_s, "noop": found.noop_per_s, "memory": found.embedded_memory_per_s,
        "os": found.embedded_memory_per_s, "interval": found.embedded_group_per_s, "group": found.embedded_group_per_s,
    }.get(demands.backend)  # fmt: skip
    figure = f"{demands.peak_per_s:,.0f}/s"
    if ceiling is None:
        why = "none was held" if demands.backend == "http" and found.http_closed_per_s else "none was measured"
        yield Remark("peak rate", figure, f"there is no ceiling to hold it against: {why}", Grade.UNKNOWN)
        return
    # The engine makes and releases what the platform then books, on the same cores: neither can be faster than its own ceiling.
    if demands.backend in ("memory", "os", "interval", "group") and found.noop_per_s:
        ceiling = min(ceiling, found.noop_per_s)
    processes = min(demands.processes, max(1, figures.machine.cores - 1))
    several = f" with {processes} processes, at most" if processes > 1 else ""
    ceiling *= processes
    yield Remark(
        "peak rate", figure, f"{_percent(demands.peak_per_s / ceiling)} of the {ceiling:,.0f}/s measured here{several}",
        grade(demands.peak_per_s, ceiling),
    )  # fmt: skip


def _connections(demands: Demands, machine: Machine) -> Iterator[Remark]:
    if not demands.connections:
        return
    hard = machine.descriptors_hard
    needs = f"{demands.descriptors:,} open files a process"
    if hard < 0:
        yield Remark("connections", f"{demands.connections:,}", f"need {needs}; there is no limit")
    else:
        found = grade(demands.descriptors, hard)
        remedy = f"; raise it with `ulimit -n {demands.descriptors}`" if found is Grade.OVER else ""
        yield Remark("connections", f"{demands.connections:,}", f"need {needs} of {hard:,}{remedy}", found)
    slowest_ms = demands.connections / demands.peak_per_s * 1e3 if demands.peak_per_s else float("inf")
    yield Remark(
        "time to answer",
        f"{slowest_ms:,.3g} ms",
        "on average at most, or the connections are all busy at the peak (Little's law) and transactions wait",
    )
    if machine.ports is None or not demands.by_port:
        return
    if demands.keep_alive:
        each = -(-demands.connections // demands.targets)
        yield Remark(
            "local ports", f"{each:,}", f"connections to one target, of {machine.ports:,}", grade(each, machine.ports)
        )
        return
    per_s, most = demands.peak_per_s / demands.targets, machine.ports / _PORT_REST_S
    yield Remark(
        "local ports",
        f"{per_s:,.0f}/s",
        f"connections a second to one target without keep-alive; the ports last for about {most:,.0f}/s",
        grade(per_s, most),
    )


def _room(demands: Demands, figures: Figures) -> Iterator[Remark]:
    memory, disk = figures.machine.memory_available_bytes, figures.disk.free_bytes
    yield Remark(
        "memory",
        format_bytes(demands.memory_bytes),
        f"of {format_bytes(memory)} available",
        grade(demands.memory_bytes, memory),
    )
    if figures.disk.fdatasync_ms_p50 is not None:
        yield Remark(
            "disk", format_bytes(demands.disk_bytes), f"of {format_bytes(disk)} free", grade(demands.disk_bytes, disk)
        )


def _lag(demands: Demands, figures: Figures) -> Iterator[Remark]:
    if demands.backend == "virtual":
        return  # its time is not this machine's
    late_ms, tick_ms = figures.timing.late_us_p99 / 1e3, figures.timing.sleep_asked_us / 1e3
    yield Remark(
        "lag", f"{late_ms + tick_ms:.2f} ms",
        f"to be expected at p99 (a tick and a late timer); the scenario allows {demands.lag_limit_ms:g} ms",
        grade(late_ms + tick_ms, demands.lag_limit_ms),
    )  # fmt: skip
    if demands.backend == "group" and figures.disk.fdatasync_ms_p99 is not None:
        yield Remark(
            "commit", f"{figures.disk.fdatasync_ms_p99:.2f} ms", "at p99 is the least that a durable answer takes"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
