"""Empty figures in the report's look, and how they are written: as PNG on white, and as SVG that
takes the page's own colours.

In the SVG each colour is replaced by a CSS value, so that a picture follows light and dark.
"""

import io
import math
import re
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GRID = "#1b2330", "#d8dde6"
SERIES = (
    "#2f6fdf",
    "#d9730d",
    "#12966b",
    "#8a4fe0",
    "#d1397f",
    "#5f6b7a",
    "#0d8fa8",
    "#8f8a1e",
)  # on white; the page has a second set for dark
WIDTH, HEIGHT = 5.4, 3.5  # inches: two pictures side by side on a desk, one on a phone
LEGEND_LINE = 0.22  # inches that a line of a legend takes


def colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _columns(entries: int) -> int:
    """Columns of a legend of so many entries: what the width holds."""
    return min(entries, 3) if entries <= 3 else 2


def empty(height: float = HEIGHT, legend: int = 0) -> tuple[Figure, Axes]:
    """An empty figure that grows with the number of entries in the legend above it."""
    lines = math.ceil(legend / _columns(legend)) - 1 if legend else 0
    figure = Figure(figsize=(WIDTH, height + LEGEND_LINE * lines), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def label_axes(axes: Axes, *, x: str, y: str = "") -> None:
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)


def legend_above(axes: Axes, entries: int, **more: Any) -> None:
    """A legend above the axes."""
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": _columns(entries)}
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **place, **more)


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as inline SVG: scalable, text as text, colours as CSS."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg height="[^"]*" ', "<svg ", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--line)")
    for index, shade in enumerate(SERIES):
        text = text.replace(shade, f"var(--c{index})")
    return re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--font)", text)


def png(figure: Figure, path: Path) -> None:
    """The figure as a PNG on white."""
    figure.savefig(path, format="png", dpi=160, facecolor="white")
