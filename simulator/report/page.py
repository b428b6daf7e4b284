"""What every page of ours is made with: one file, offline, in which nothing but its own scripts runs.

The content security policy forbids every request, and every script but the two that stand in the page, which it names by their
hashes. The whole of Plotly is in the Python wheel, no smaller bundle (4.8 MB); none of the charts here needs the parts of it
that would build code from text, so no `unsafe-eval`. Styles are allowed inline, because Plotly writes style rules as it draws.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.errors import SimError
from simulator.report.export import write_text
from simulator.report.wording import NO_DATA

if TYPE_CHECKING:
    from pathlib import Path

_ASSETS = ("page.css", "page.js")


def environment() -> Environment:
    """What renders the templates of this package: everything escaped, nothing undefined."""
    made = Environment(
        loader=PackageLoader("simulator.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"NO_DATA": NO_DATA}
    return made


def render_page(template: str, data: dict[str, Any], **words: Any) -> str:  # noqa: ANN401  whatever a template shows
    """A whole page: a template that extends `page.html.jinja`, the charts' data, and the words that it shows."""
    css, script = (asset(name) for name in _ASSETS)
    return (
        environment()
        .get_template(template)
        .render(
            **words,
            data=embedded(data),
            css=Markup(css),  # noqa: S704  ours
            script=Markup(script),  # noqa: S704  ours
            plotly=Markup(plotly_js()),  # noqa: S704  the installed wheel's own file, no input of a run
            policy=policy(plotly_js(), script),
        )
    )


def policy(*scripts: str) -> str:
    """The content security policy of a page with these inline scripts."""
    allowed = " ".join(f"'{csp_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def csp_hash(script: str) -> str:
    """The source expression that lets exactly this inline script run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def asset(name: str) -> str:
    """A file of this package that pages hold: their style and their script."""
    return _newlines((files("simulator.report") / name).read_text("utf-8"))


@cache
def plotly_js() -> str:
    """The chart library's own script, read as a file: importing the library would take longer than rendering the page."""
    return _newlines((files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8"))


def _newlines(text: str) -> str:
    # As an HTML parser sees them, or the hash would not match.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def embedded(data: dict[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in, whatever a name in it says."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  escaped in the line above


def write_page(report: Path, page: str) -> Path:
    """Writes a page whole or not at all; raises SimError if it cannot."""
    try:
        write_text(report, page)
    except OSError as error:
        raise SimError(f"{report}: cannot be written: {error.strerror}") from None
    return report
