"""Rate against distance."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.figures.page import STYLE, Drawing, colours_of, logarithmic, markers_of, plain_ticks
from bench.rows import Row
from bench.runs import Wording, grouped, of_verb, value_at

_MODES = {"wire": "over the wire", "service": "path alone, one core"}
_SHIFT = 0.10
"""Of a series from the next one at the same distance, in distances, so that intervals do not cover each other."""


def draw(rows: list[Row]) -> Drawing | None:
    """Rounds per second: one line for each way of measuring, error rate and kind of window."""
    shown = [row for row in of_verb(rows, "rate") if row["case"]["distance"] and _rate(row) is not None]
    if not shown:
        return None
    common = Wording(shown, ("distance", "commit_rounds", "buffer_rounds", "period_us", "overrides", "rounds"))
    series: dict[tuple[str, str, str], list[list[Row]]] = {}
    for repeats in grouped(shown):
        first = repeats[0]
        series.setdefault((common.of(first), _windows(first), first["result"]["mode"]), []).append(repeats)
    noises, kinds = colours_of(key[0] for key in series), markers_of(key[1:] for key in series)
    drawing = Drawing(
        "rate", "The highest round rate that is held, against code distance", common.shared(), shown,
        "Points: median of the repeats. Bars: from the lowest to the highest end of their 95 % intervals. Over the "
        "wire: nothing lost, no growing backlog, simulator and daemon on the same machine. Path alone: recorded "
        "rounds that lie in the ring already. Arrows: the limit lies beyond the rates that were tried.", 3.5,
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        axes = drawing.figure.subplots()
        for i, (key, of_case) in enumerate(sorted(series.items(), key=lambda item: str(item[0]))):
            colour, marker = noises[key[0]], kinds[key[1:]]
            xs, middle, low, high = np.array(sorted(_point(repeats) for repeats in of_case)).T
            axes.errorbar(
                xs + _SHIFT * (i - (len(series) - 1) / 2), middle, [middle - low, high - middle], color=colour,
                marker=marker, linestyle="-" if key[2] == "wire" else "--", capsize=2.5, elinewidth=1,
                markerfacecolor=colour if key[2] == "wire" else "white",
            )  # fmt: skip
            for repeats in of_case:
                _mark_edge(axes, repeats, _SHIFT * (i - (len(series) - 1) / 2), colour)
        axes.axhline(1e6, color="#444444", linewidth=0.8, linestyle=":")
        axes.annotate(
            "one round per us", (1, 1e6), (-2, 3), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", size=8,
        )  # fmt: skip
        logarithmic(axes, "y")
        axes.set(xlabel="code distance", ylabel="rounds per second")
        plain_ticks(axes.xaxis, sorted({row["case"]["distance"] for row in shown}))
        axes.grid(visible=True, which="minor", linewidth=0.3)
        colours = [Line2D([], [], color=colour, linewidth=4, label=noise) for noise, colour in noises.items() if noise]
        ways = [
            Line2D([], [], color="#555555", marker=marker, linestyle="-" if mode == "wire" else "--",
                   markerfacecolor="#555555" if mode == "wire" else "white",
                   label=f"{_MODES.get(mode, mode)}, {windows}")
            for (windows, mode), marker in kinds.items()
        ]  # fmt: skip
    return drawing.finish([*colours, *ways], 3)


def _rate(row: Row) -> float | None:
    return value_at(row["result"], "rounds_per_s")


def _mark_edge(axes: Axes, repeats: list[Row], shift: float, colour: str) -> None:
    """An arrow where the search found the limit beyond the rates that it was allowed to try."""
    edges = {row["result"].get("edge") for row in repeats}
    if len(edges) == 1 and (beyond := {"low": 0.7, "high": 1.4}.get(edges.pop() or "")):
        distance, middle, _, _ = _point(repeats)
        x = distance + shift
        axes.annotate("", (x, middle * beyond), (x, middle), arrowprops={"arrowstyle": "->", "color": colour})


def _windows(row: Row) -> str:
    """Windows in distances, so that they are one series."""
    case = row["case"]
    distance, commit, buffer = case["distance"], case["commit_rounds"], case["buffer_rounds"]
    if commit % distance or buffer % distance:
        return f"commit {commit}, buffer {buffer} rounds"
    return f"commit {commit // distance} d, buffer {buffer // distance} d"


def _point(repeats: list[Row]) -> tuple[float, float, float, float]:
    """Distance, median rate, and how far their intervals reach together."""
    rates = [rate for row in repeats if (rate := _rate(row)) is not None]
    ends = [end for row in repeats for end in (row["result"].get("interval") or []) if end is not None] or rates
    middle = float(np.median(rates))
    return float(repeats[0]["case"]["distance"]), middle, min(*ends, middle), max(*ends, middle)
