"""Where a round's time goes, beside the floor."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.figures.page import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, STYLE, YELLOW, Drawing
from bench.rows import Row
from bench.runs import Wording, grouped, number, of_verb, typical, value_at

_STAGES = {
    "transport": ("transport: receive", GREY),
    "ingest": ("ingest: check, fold", "#bbbbbb"),
    "window": ("window: gather", SKY),
    "predecode": ("predecode", PURPLE),
    "match": ("match: PyMatching", BLUE),
    "commit": ("commit", GREEN),
    "publish": ("publish: send", ORANGE),
    "other": ("between the stages", YELLOW),
}
_CASES_MAX = 8


def draw(rows: list[Row]) -> Drawing | None:
    """Two bars per case, ours and the floor, with the ratio written beside them."""
    found = [best for repeats in grouped(of_verb(rows, "stages")) if (best := typical(repeats, "path_over_floor"))]
    if not found:
        return None
    shown = found[:_CASES_MAX]
    wording = Wording(shown, ("overrides", "config", "period_us"))
    left_out = f" {len(found) - len(shown)} further cases stand in the table only." if len(found) > len(shown) else ""
    drawing = Drawing(
        "stages", "Where a round's CPU time goes, and the floor under it", wording.shared(), shown,
        "Floor: the same messages received by a decoder that looks at none of them, the same windows through the same "
        "matcher objects in one batch, and as many answers sent. Path: window to publish; stages as shares of it where "
        "a clock between them made them longer. Of each case the repeat with the median ratio. Each case has its own "
        "scale."
        f"{left_out}", 0.85 * len(shown) + 0.35,
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        grid = drawing.figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, row in zip(grid, shown, strict=True):
            _draw_case(axes, row, wording.of(row))
        grid[-1].set_xlabel("us of CPU time per round")
        present = {name for row in shown for name, width in parts_of(row) if width > 0}
        handles = [Patch(color=colour, label=label) for name, (label, colour) in _STAGES.items() if name in present]
    return drawing.finish(handles, 4)


def parts_of(row: Row) -> list[tuple[str, float]]:
    """Stages and us per round; together they are the total, and none is less than nothing.

    The path is measured as a whole, its stages with a clock between them. Where that makes them longer than the path
    (`other` is below zero), they are shown as their shares of it.
    """
    parts = {name: value_at(row["result"], f"cpu_us_per_round/{name}") or 0.0 for name in _STAGES}
    if parts["other"] < 0:
        stages = [name for name in _STAGES if name not in ("transport", "ingest", "other")]
        path = (value_at(row["result"], "cpu_us_per_round/path") or 0.0) / sum(parts[name] for name in stages)
        parts |= {name: parts[name] * path for name in stages} | {"other": 0.0}
    return list(parts.items())


def _draw_case(axes: Axes, row: Row, title: str) -> None:
    result = row["result"]
    ours = parts_of(row)
    floor = [
        (stage, value_at(result, f"floor_us_per_round/{name}") or 0.0)
        for name, stage in (("transport", "transport"), ("match", "match"), ("send", "publish"))
    ]
    for y, parts in ((1, ours), (0, floor)):
        left = 0.0
        for name, width in parts:
            if width > 0:
                axes.barh(y, width, 0.72, left=left, color=_STAGES[name][1], edgecolor="white", linewidth=0.5)
                left += width
        axes.text(left, y, f"  {number(left)} us", va="center", size=8, color=BLACK)
    axes.set_yticks([0, 1], ["floor", "rtqec"])
    axes.set_ylim(-0.5, 1.5)
    axes.grid(visible=False, axis="y")
    longest = max(sum(width for _, width in parts) for parts in (ours, floor))
    axes.set_xlim(0, longest * 1.12)
    axes.set_title(title)
    axes.set_title(
        f"all: {result['total_over_floor']:.2f} x floor; path: {result['path_over_floor']:.2f} x bare PyMatching",
        loc="right", weight="bold",
    )  # fmt: skip
