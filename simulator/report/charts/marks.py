"""What lies over every chart: faults as bands from their start to their end, and events as moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.report.wording import number, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.report.charts.axis import TimeAxis

Event = dict[str, Any]

MOST = 40  # bands, and moments; more would hide the curves. The table of events has them all
LABELS_MOST = 8  # more would cover one another
_LATE = 0.8  # of the axis: a label there stands left of its mark

# Counts that come every second are no moments; of a move's four events the one that stops its shard is the one to see; what
# begins and ends every run tells nothing.
_NOT_DRAWN = frozenset(
    {"dead_letters", "move_requested", "move_taken", "move_switched", "started", "drained", "node_restarted"}
)
_DOWN = frozenset({"kill", "power_loss"})  # over when the node is back, which is an event of its own
_BACK = {"node_ready": "node", "gateway_ready": "gateway"}


@dataclass(frozen=True)
class Band:
    """A stretch of time in which something was wrong; `stop_s` None: to the end of the run."""

    label: str
    start_s: float
    stop_s: float | None


@dataclass(frozen=True)
class Moment:
    """Something that happened."""

    label: str
    at_s: float


def marks_of(events: Iterable[Event]) -> tuple[list[Band], list[Moment]]:
    """Bands and moments to draw: the first MOST of either, see `bands_of`."""
    bands, moments = bands_of(events)
    return bands[:MOST], moments[:MOST]


def bands_of(events: Iterable[Event]) -> tuple[list[Band], list[Moment]]:
    """Bands and moments of a run's events, in order of time.

    A fault is over at the `fault_over` of the same fault and place, a killed node's when that node is back. What struck
    several nodes at once makes a band for each, as their recoveries differ. A fault without an end known lasts.
    """
    open_: dict[tuple[str, str], tuple[str, float]] = {}
    bands: list[Band] = []
    moments: list[Moment] = []

    def close(keys: list[tuple[str, str]], at_s: float) -> None:
        bands.extend(Band(*open_.pop(key), at_s) for key in keys)

    for event in events:
        at_s, name = number(event.get("t_s")), str(event.get("event", "event"))
        if at_s is None:
            continue
        if name == "fault":
            fault, where = str(event.get("fault", "fault")), _where(event)
            open_.setdefault((fault, where), (plain(f"{fault} {where}".strip()).replace("_", " "), at_s))
        elif name == "fault_over":
            close([key for key in open_ if key == (str(event.get("fault", "fault")), _where(event))], at_s)
        elif name in _BACK:
            place = f"{_BACK[name]} {event.get(_BACK[name], '')}"
            close([key for key in open_ if key[0] in _DOWN and key[1] == place], at_s)
        elif name not in _NOT_DRAWN:
            moments.append(Moment(plain(name).replace("_", " "), at_s))
    bands += [Band(label, start_s, None) for label, start_s in open_.values()]
    return sorted(bands, key=lambda band: (band.start_s, band.label)), moments


def _where(event: Event) -> str:
    for noun in ("unit", "node", "gateway"):
        if event.get(noun) is not None:
            return f"{noun} {event[noun]}"
    nodes = event.get("nodes")
    if isinstance(nodes, list):
        return f"nodes {', '.join(map(str, nodes))}" if len(nodes) > 1 else f"node {nodes[0]}" if nodes else ""
    return f"{nodes} nodes" if nodes is not None else ""


def drawn(bands: list[Band], moments: list[Moment], axis: TimeAxis) -> dict[str, Any]:
    """Bands and moments as shapes for every chart, and their labels for the first one."""
    shapes: list[dict[str, Any]] = [
        {
            "type": "rect", "x0": band.start_s, "x1": axis.end_s if band.stop_s is None else band.stop_s, "y0": 0, "y1": 1,
            "yref": "paper", "layer": "below", "fillcolor": "$red", "opacity": 0.13, "line": {"width": 0},
        }
        for band in bands
    ]  # fmt: skip
    shapes += [
        {
            "type": "line", "x0": moment.at_s, "x1": moment.at_s, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": "$red", "width": 1, "dash": "dot"},
        }
        for moment in moments
    ]  # fmt: skip
    named = [*((band.label, band.start_s) for band in bands), *((moment.label, moment.at_s) for moment in moments)]
    labels = [
        {
            "x": at_s, "y": 0, "yref": "paper", "yanchor": "bottom", "yshift": 4 + 16 * (at % 4), "text": label,
            "showarrow": False, "xanchor": "right" if at_s > _LATE * axis.end_s else "left",
            "font": {"color": "$red", "size": 11}, "bgcolor": "$page",
        }
        for at, (label, at_s) in enumerate(sorted(named, key=lambda pair: pair[1]))
    ]  # fmt: skip
    return {"shapes": shapes, "labels": labels if len(labels) <= LABELS_MOST else []}
