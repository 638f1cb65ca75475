"""Where pictures are drawn: matplotlib on the way in, inline SVG on the way out.

Colours are CSS (`currentColor` and variables of the page), the background is transparent and text stays text, so that a
picture follows the page's fonts and its light or dark scheme.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SERIES = 6
WIDTH = 5.2  # inches, so that 10 point text can still be read when a phone shrinks the picture

# matplotlib wants colours and CSS wants names: these stand for the names until the picture is text.
INK, MUTED, ACCENT = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0404{i:02x}" for i in range(1, MAX_SERIES + 1))
CSS = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)"} | {c: f"var(--series-{i})" for i, c in enumerate(SERIES, 1)}
_STYLE = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": MUTED,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "ablatrix",
}


@contextmanager
def canvas(panels: int, height: float) -> Iterator[tuple[Figure, list[Axes]]]:
    """`panels` axes of `height` inches, one below the other, so that a narrow screen can show them.

    The user's own matplotlib settings stay out.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+", category=UserWarning)  # the browser has its own fonts
        figure = Figure(figsize=(WIDTH, panels * height), layout="constrained")
        yield figure, [figure.add_subplot(panels, 1, i + 1) for i in range(panels)]


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """The bare element, with `name` before each id since pictures share a page; no date and no maker, so equal bytes."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    tags = re.sub(r"<[^<>]*>", lambda tag: _own(tag.group(), name), text[text.index("<svg") :])
    return tags.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def prefixed(svg: str, name: str) -> str:
    """An inline picture whose ids start with `name` too, for a page that has several of its kind."""
    return re.sub(r"<[^<>]*>", lambda tag: _renamed(tag.group(), name), svg)


def _own(tag: str, name: str) -> str:
    """One tag with the page's ids and colours; text between tags is never touched."""
    return re.sub("|".join(CSS), lambda colour: CSS[colour.group()], _renamed(tag, name))


def _renamed(tag: str, name: str) -> str:
    return re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
