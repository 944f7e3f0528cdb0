"""Beside other decoders, on the same shots."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.figures.page import BLUE, STYLE, VERMILLION, Drawing, logarithmic
from bench.rows import Row
from bench.runs import Wording, grouped, identity, number, of_verb, refusal, value_at

OURS = "rtqec"
NULL = "null"
_OTHER, _NOTHING = "#b5b5b5", "#e3e3e3"
_PANELS_MAX = 6


def draw(rows: list[Row]) -> Drawing | None:
    """One panel per case, a bar per decoder; where we lose, it is coloured so."""
    compared = of_verb(rows, "compare")
    panels: dict[object, list[list[Row]]] = {}
    for repeats in grouped(compared):
        if any(refusal(row) is None and _time(row) for row in repeats):
            panels.setdefault(identity(repeats[0], ("decoder",)), []).append(repeats)
    if not panels:
        return None
    chosen = list(panels.values())[:_PANELS_MAX]
    shown = [row for panel in chosen for repeats in panel for row in repeats]
    wording = Wording([panel[0][0] for panel in chosen], ("overrides", "config", "period_us"))
    heights = [0.25 * len(panel) + 0.30 for panel in chosen]
    drawing = Drawing(
        "comparison", "Time per round beside other decoders, on the same shots", wording.shared(), shown,
        "Bars: CPU time per round, median of the repeats; lines: least to most. The factor is over rtqec in the same "
        "repeat. In brackets: what one call is given (a round as it comes, a whole shot, or all shots at once)."
        f"{_unavailable(compared)}", sum(heights) + 0.45,
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        grid = drawing.figure.subplots(len(chosen), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
        for axes, panel in zip(grid, chosen, strict=True):
            _draw_panel(axes, panel, wording.of(panel[0][0]))
        times = [time for row in shown if (time := _time(row))]
        grid[-1].set_xlabel("us of CPU time per round (log scale)")
        grid[-1].set_xlim(min(times) / 2.5, max(times) * (max(times) / min(times)) ** 0.45 * 2)
        logarithmic(grid[-1], "x")
    key = {OURS: BLUE, f"faster than {OURS}": VERMILLION, f"slower than {OURS}": _OTHER, "decodes nothing": _NOTHING}
    return drawing.finish([Patch(color=colour, label=label) for label, colour in key.items()], 4)


def _time(row: Row) -> float | None:
    return value_at(row["result"], "us_per_round")


def _draw_panel(axes: Axes, panel: list[list[Row]], title: str) -> None:
    times = {id(repeats): np.array([time for row in repeats if (time := _time(row))]) for repeats in panel}
    ordered = sorted(panel, key=lambda repeats: -float(np.median(times[id(repeats)])))
    for y, repeats in enumerate(ordered):
        of_decoder = times[id(repeats)]
        middle = float(np.median(of_decoder))
        name = repeats[0]["result"]["decoder"]
        factor = _factor(repeats)
        colour = _colour(name, faster=factor is not None and factor < 1)
        axes.barh(y, middle, 0.7, color=colour)
        axes.plot([of_decoder.min(), of_decoder.max()], [y, y], color="black", linewidth=1, marker="|", markersize=5)
        said = f"{number(middle)} us" + ("" if name == OURS or factor is None else f", {number(factor)} x")
        axes.text(max(middle, of_decoder.max()) * 1.12, y, said, va="center", size=8)
    axes.set_yticks(range(len(ordered)), [_label(repeats[0]) for repeats in ordered], fontsize=8)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.set_title(title)


def _factor(repeats: list[Row]) -> float | None:
    """Time over rtqec's in the same repeat, the median of the repeats: the machine's speed drifts between them."""
    factors = [factor for row in repeats if (factor := value_at(row["result"], "relative_to_rtqec")) is not None]
    return float(np.median(factors)) if factors else None


def _colour(name: str, *, faster: bool) -> str:
    if name in (OURS, NULL):
        return BLUE if name == OURS else _NOTHING
    return VERMILLION if faster else _OTHER


def _label(row: Row) -> str:
    result = row["result"]
    version = f" {result['version']}" if result.get("version") else ""
    return f"{result['decoder']}{version} ({result.get('takes') or '?'})"


def _unavailable(rows: list[Row]) -> str:
    """Who was asked and did not answer, by reason."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if refusal(row) is not None:
            of_reason = names.setdefault(row["result"].get("why") or "not installed", [])
            if row["result"]["decoder"] not in of_reason:
                of_reason.append(row["result"]["decoder"])
    said = [f"{', '.join(of_reason)} ({why})" for why, of_reason in names.items()]
    return f" Missing: {'; '.join(said)}." if said else ""
