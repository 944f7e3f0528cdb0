"""What all figures have in common: a title that says what, a caption that says where from, and two files each.

Made without `pyplot`, so that nothing is global, and without dates or random names, so that the same rows give the same
bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.rows import Row
from bench.runs import Source

BLACK, GREY = "#000000", "#7f7f7f"
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PURPLE, YELLOW = "#56b4e9", "#cc79a7", "#f0e442"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""Told apart by colour-blind readers. Source: Okabe, Ito, Color Universal Design (2008)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
STYLE: Any = {
    "svg.hashsalt": "rtqec",
    "text.parse_math": False,  # a name with two dollar signs in it is a name
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
WIDTH = 8.3
"""Inches: at a README's width one point of type is then more than one pixel."""
_TITLE, _SUBTITLE, _LINE, _ENTRY, _GAP = 0.36, 0.22, 0.15, 0.19, 0.10
_CAPTION_COLUMNS = 146
_PNG_DPI = 160
_PLACES = 5
_DECADES_FEW = 1.6
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass
class Drawing:
    """One figure. Draw into `figure`, then `finish` it.

    Attributes:
        name: Of its files.
        title, subtitle: What it shows; what all that is shown has in common.
        rows: Everything that it is made from.
        legend: What the marks mean, and how to read them; one paragraph.
        height: Of the part with axes, inches.
        figure: Empty so far; axes go between title and caption.
    """

    name: str
    title: str
    subtitle: str
    rows: Sequence[Row]
    legend: str
    height: float
    figure: Figure = field(init=False, repr=False)

    def __post_init__(self) -> None:
        with mpl.rc_context(STYLE):
            self.figure = Figure(layout="constrained", facecolor="white")

    def finish(self, handles: Sequence[Artist], columns: int) -> Drawing:
        """Put title, key and caption around the axes.

        Args:
            handles: Of the key, in `columns` columns.
        """
        caption = self.caption()
        head = _TITLE + (_SUBTITLE if self.subtitle else 0)
        foot = _LINE * len(caption) + _GAP
        key = _ENTRY * math.ceil(len(handles) / columns) + _GAP
        total = head + self.height + key + foot
        figure = self.figure
        figure.set_size_inches(WIDTH, total)
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.set(rect=(0, (foot + key) / total, 1, self.height / total))  # type: ignore[call-arg]
        figure.text(0.012, 1 - 0.10 / total, self.title, size=12, weight="bold", va="top")
        figure.text(0.012, 1 - 0.36 / total, self.subtitle, size=9, color="#444444", va="top")
        corner = 0.5, (foot + _GAP / 2) / total
        with mpl.rc_context(STYLE):
            box = figure.legend(handles=handles, ncols=columns, loc="lower center", bbox_to_anchor=corner, borderpad=0)
        box.set_in_layout(False)
        for i, (line, weight, colour) in enumerate(caption):
            height = (foot - 0.04 - _LINE * i) / total
            figure.text(0.012, height, line, size=7.5, color=colour, weight=weight, va="top")
        self._settle()
        return self

    def _settle(self) -> None:
        """Fix the layout. Its last digits depend on Python's hash seed, and with them names in the SVG."""
        with mpl.rc_context(STYLE):
            self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        for axes in self.figure.axes:
            left, bottom, width, height = (round(value, _PLACES) for value in axes.get_position().bounds)
            axes.set_position((left, bottom, width, height))

    def caption(self) -> list[tuple[str, str, str]]:
        """Lines under the axes, with weight and colour."""
        source = Source.of(self.rows)
        where = f"{source.when}, commit {', '.join(source.commits)}, {'; '.join(source.machines)}, {source.loads}."
        lines = [(line, "normal", "#333333") for line in textwrap.wrap(f"{self.legend} {where}", _CAPTION_COLUMNS)]
        if source.dirty:
            lines.append(("DIRTY TREE: what was measured is not, or may not be, that commit.", "bold", VERMILLION))
        return lines

    @property
    def description(self) -> str:
        """For who cannot see it."""
        return ". ".join(text for text in (self.title, self.subtitle, self.legend) if text)

    def save(self, folder: Path) -> list[Path]:
        """Write it as PNG and as SVG; the same rows give the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.name}.png", folder / f"{self.name}.svg"]
        with mpl.rc_context(STYLE):
            self.figure.savefig(paths[0], dpi=_PNG_DPI, metadata={"Software": None})
            self.figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
        return paths


def colours_of(values: Iterable[Any]) -> dict[Any, str]:
    """A colour for each distinct value, in their order; they repeat after seven."""
    return {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(dict.fromkeys(values))}


def markers_of(values: Iterable[Any]) -> dict[Any, str]:
    """A marker for each distinct value, in their order; they repeat after nine."""
    return {value: MARKERS[i % len(MARKERS)] for i, value in enumerate(dict.fromkeys(values))}


def plain_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Exactly these ticks, written as they are, on an axis that may be logarithmic."""
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def logarithmic(axes: Axes, *names: str) -> None:
    """Make axes ("x", "y") logarithmic, decades written as one would say them."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
        axis.set_minor_formatter(FuncFormatter(partial(_between_decades, axis)))


def _between_decades(axis: Axis, value: float, _position: int | None = None) -> str:
    """Labels of minor ticks: only where there are too few decades to read a number from, and then few."""
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else math.inf
    digit = round(value / 10 ** math.floor(math.log10(value) + 1e-9))
    said = decades < _DECADES_FEW / 3 or (decades < _DECADES_FEW and digit in (2, 5))
    return decade(value) if said else ""


def decade(value: float) -> str:
    """0.01, 1, 1,000, 1,000,000; below a hundredth as a power of ten."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value <= 0 or value >= 0.0099:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10**exponent, 2)
    return ("" if digit == 1 else f"{digit:g}·") + "10" + str(exponent).translate(_SUPERSCRIPTS)
