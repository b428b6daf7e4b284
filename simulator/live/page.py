"""The page itself and its scripts, ready to be sent: rendered once, before the run begins."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.report.page import asset, embedded, plotly_js
from simulator.report.wording import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.report.charts.chart import Chart

_SCRIPT = "text/javascript"


def page_files(name: str, description: str, token: str, charts: Sequence[Chart]) -> dict[str, tuple[str, bytes]]:
    """By name, the type and the bytes of each file; "" is the page.

    Args:
        name: the scenario's.
        description: the scenario's.
        token: in the address of everything that the page loads.
        charts: those it will have; of each its title, unit and how to read it are shown, whether it has data or not.
    """
    here = files("simulator.live")
    made = Environment(
        loader=PackageLoader("simulator.live", package_path=""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    nothing = {"charts": [], "marks": {"shapes": [], "labels": []}, "span": [0, 1], "clock": False}
    html = made.get_template("live.html.jinja").render(
        name=plain(name), description=description, token=token, charts=charts, data=embedded(nothing),
        css=Markup(asset("page.css") + (here / "live.css").read_text("utf-8")),  # noqa: S704  ours
    )  # fmt: skip
    return {
        "": ("text/html", html.encode()),
        "plotly.js": (_SCRIPT, plotly_js().encode()),
        "charts.js": (_SCRIPT, asset("page.js").encode()),
        "live.js": (_SCRIPT, (here / "live.js").read_bytes()),
    }
