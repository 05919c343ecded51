"""Makes the page: facts, figures and pictures into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from typing import TYPE_CHECKING, Any

from automl_tl.errors import UsageError
from automl_tl.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from automl_tl.report.figures import Figure

_FIGURES_PER_CENT = ("accuracy", "balanced_accuracy")
_KEPT = "\n\u2009\u202f\u200c\u200d"
"""Line breaks, thin spaces and the joiners of scripts and emoji."""


def plotly_script() -> str:
    """Return plotly's JavaScript.

    Raises:
        UsageError: When plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UsageError(
            "A report needs plotly, which is not installed: install automl-tl with its extra, "
            "`pip install 'automl-tl[report]'`."
        ) from None
    return str(get_plotlyjs()).replace("\r\n", "\n")


def render(
    facts: Mapping[str, Any],
    figures: Mapping[str, Figure],
    thumbnails: Mapping[int, str],
    picture_problem: str | None,
    limits: Mapping[str, int],
) -> str:
    """Return the page.

    It asks for nothing from anywhere, and its content security policy forbids every script but its
    own two, whatever a name from the data may say.

    Args:
        facts: From ``facts.gather``.
        figures: By name: plotly's data, or the sentence that stands in its place.
        thumbnails: ``data:`` URLs by row of the data.
        picture_problem: Why there are none, or None.
        limits: Most trials that a kind of plot draws: ``points``, ``lines``, ``bars``, ``marks``.
    """
    import jinja2
    from markupsafe import Markup

    folder = importlib.resources.files("automl_tl") / "templates" / "report"
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )
    environment.filters |= {
        "percent": percent,
        "figure": metric_figure,
        "duration": format_duration,
        "size": format_bytes,
        "count": lambda n: f"{n:,}".replace(",", "\u2009"),
    }
    scripts = [plotly_script(), (folder / "page.js").read_text(encoding="utf-8")]
    drawn = {name: figure for name, figure in figures.items() if not isinstance(figure, str)}
    return environment.get_template("report.html.j2").render(
        **facts,
        figures=figures,
        thumbnails=thumbnails,
        picture_problem=picture_problem,
        limits=limits,
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        drawn=Markup(inline_json(drawn)),
    )


def inline_json(value: Any) -> str:
    """Return JSON that no HTML parser leaves, whatever its strings hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as ``97.5 %``; a dash for None."""
    return "\u2013" if share is None else f"{100 * share:.{digits}f}\u202f%"


def metric_figure(value: float | None, name: str) -> str:
    """Return a metric's value as people write it."""
    if value is None:
        return "\u2013"
    return percent(value) if name in _FIGURES_PER_CENT else f"{value:.3f}"


def _visible(value: Any) -> Any:
    """Make control and direction characters in names visible instead of obeying them."""
    if type(value) is not str:
        return value
    return "".join(
        c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in value
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
