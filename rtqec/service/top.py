"""`rtqec top`: a running daemon, live in a terminal."""

from __future__ import annotations

import sys
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, Static

from rtqec.config import Config
from rtqec.errors import ConfigError, ExitCode, FaultError
from rtqec.kernels.records import Span
from rtqec.service.alarms import Alarm, find_alarms
from rtqec.service.figures import NOTHING, in_percent, in_short, in_time, in_us
from rtqec.service.heat import draw_lattice, draw_scale, lattice
from rtqec.service.reader import ServiceReader
from rtqec.service.readings import Counts, Interval, PatchReading, ServiceReading, difference
from rtqec.service.status import COLUMNS, LEFT, LEGEND, WIDE, describe_absence, head_line, patch_row, rungs_line
from rtqec.units import NS_PER_S

_MAP_S = 30.0
"""The map shows what fell within the last one to two of these: fewer rounds are sampled than one wants to see."""
_MAP_ROWS = 14
"""Of a patch of distance 13; smaller ones are drawn larger."""
_ALARM_LINES = 3
_PARTS = (0.5, 0.99, 0.999)


def run_top(config: Config, interval_s: float = 1.0) -> int:
    """Show the daemon of a configuration until the user has seen enough.

    Args:
        config: The deployment.
        interval_s: How often to look.

    Returns:
        `ExitCode.OK`.

    Raises:
        ConfigError: There is no terminal.
    """
    # Textual draws on standard error, so that standard output may be a pipe.
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            "rtqec top", "has no terminal: standard input or error is a pipe or a file.",
            "It draws a screen again and again.", "For scripts there is rtqec status CONFIG --json.",
        )  # fmt: skip
    Top(ServiceReader(config), interval_s).run()
    return ExitCode.OK


class LastWhile:
    """What was counted within the last while: between one and two times `span_s`, less at the beginning."""

    def __init__(self, span_s: float) -> None:
        self._span_ns = span_s * NS_PER_S
        self._old: ServiceReading | None = None
        self._young: ServiceReading | None = None

    def take(self, reading: ServiceReading) -> Interval | None:
        """What was counted until this reading; None where it is the first of a daemon."""
        if self._old is None or self._young is None or self._old.started_ns != reading.started_ns:
            self._old = self._young = reading
        elif reading.taken_ns - self._young.taken_ns >= self._span_ns:
            self._old, self._young = self._young, reading
        return difference(self._old, reading)


class Top(App[None]):
    """The screen: the daemon, its patches, the selected one in detail, alarms.

    Args:
        reader: Of the deployment.
        interval_s: How often to look.
    """

    TITLE = "rtqec top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("j", "select(1)", "Next patch"),
        ("k", "select(-1)", "Previous patch"),
    ]
    CSS = """
    #head, #legend { height: 1; }
    #legend { color: $text-muted; }
    #patches { height: 1fr; min-height: 4; scrollbar-size: 1 1; }
    #selected { height: auto; min-height: 10; max-height: 60%; }
    #map { width: auto; min-width: 32; padding-right: 2; }
    #alarms { height: 4; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, reader: ServiceReader, interval_s: float) -> None:
        super().__init__()
        self._reader = reader
        self._interval_s = interval_s
        self._before: ServiceReading | None = None
        self._while = LastWhile(_MAP_S)
        self._was_there: bool | None = None
        self._patches: dict[str, tuple[PatchReading, Counts | None, Counts | None]] = {}
        self._now_ns = 0

    def compose(self) -> ComposeResult:
        """The widgets, from top to bottom."""
        yield Static(id="head")
        yield DataTable(id="patches", cursor_type="row", cell_padding=0)
        yield Static(LEGEND, id="legend")
        with Horizontal(id="selected"):
            yield Static(id="map")
            yield Static(id="detail")
        yield Static(id="alarms")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        table = self.query_one(DataTable)
        for name in COLUMNS:
            table.add_column(_cell(name, Text(name)), key=name)
        self.look()
        self.set_interval(self._interval_s, self.look)

    def look(self) -> None:
        """Read the daemon, and show what there is."""
        try:
            reading = self._reader.read()
        except FaultError as error:
            self._show_absence(str(error))
            return
        if reading is None:
            self._show_absence(describe_absence(self._reader))
            return
        self._note_presence(reading.alive, f"the daemon is back: process {reading.pid}")
        interval = difference(self._before, reading) if self._before is not None else None
        lately = self._while.take(reading)
        self._before, self._now_ns = reading, reading.taken_ns
        self._patches = {
            str(patch.facts.id): (patch, _counts_of(patch, interval), _counts_of(patch, lately))
            for patch in reading.patches
        }
        self.query_one("#head", Static).update(head_line(reading))
        self._show_patches(interval)
        self._show_selected()
        self._show_alarms(find_alarms(reading, interval))

    def action_select(self, step: int) -> None:
        """Select another patch; the arrow keys do the same."""
        table = self.query_one(DataTable)
        table.move_cursor(row=table.cursor_row + step)

    def on_data_table_row_highlighted(self) -> None:
        """Another patch was selected."""
        self._show_selected()

    def _show_absence(self, text: str) -> None:
        self._note_presence(False, "")
        self._before, self._patches = None, {}
        self.query_one(DataTable).clear()
        self.query_one("#head", Static).update(Text("no daemon; waiting for one", style="bold red"))
        self.query_one("#detail", Static).update("")
        self.query_one("#map", Static).update("")
        self.query_one("#alarms", Static).update(Text(text))

    def _note_presence(self, is_there: bool, welcome: str) -> None:
        """Say when the daemon goes away, and when it comes back."""
        if self._was_there and not is_there:
            self.notify("the daemon has gone away; waiting for it", severity="error")
        elif self._was_there is False and is_there:
            self.notify(welcome)
        self._was_there = is_there

    def _show_patches(self, interval: Interval | None) -> None:
        table = self.query_one(DataTable)
        if [key.value for key in table.rows] != list(self._patches):
            table.clear()
            for key in self._patches:
                table.add_row(*("" for _ in COLUMNS), key=key)
        num_rungs = 2 if self.size.width >= WIDE else 1
        for key, (patch, _, _) in self._patches.items():
            for name, cell in zip(COLUMNS, patch_row(patch, interval, num_rungs), strict=True):
                table.update_cell(key, name, _cell(name, cell), update_width=True)

    def _show_selected(self) -> None:
        keys = list(self._patches)
        row = self.query_one(DataTable).cursor_row
        if not 0 <= row < len(keys):
            return
        patch, just_now, lately = self._patches[keys[row]]
        self.query_one("#map", Static).update(draw_map(patch, lately))
        self.query_one("#detail", Static).update(describe_patch(patch, just_now, self._now_ns))

    def _show_alarms(self, alarms: list[Alarm]) -> None:
        text = Text()
        if not alarms:
            text.append("no alarms", style="green")
        for alarm in alarms[:_ALARM_LINES]:
            text.append(f"{'!' if alarm.urgent else ' '} {alarm.where}: {alarm.text}\n",
                        style="bold red" if alarm.urgent else "")  # fmt: skip
        if len(alarms) > _ALARM_LINES:
            text.append(f"  and {len(alarms) - _ALARM_LINES} more: rtqec status has them", style="dim")
        self.query_one("#alarms", Static).update(text)


def _cell(column: str, text: Text) -> Text:
    """With a space before it: the table's own padding takes twice as much."""
    return Text(" ", justify="left" if column in LEFT else "right").append_text(text)


def _counts_of(patch: PatchReading, interval: Interval | None) -> Counts | None:
    return interval.patches.get(patch.facts.id) if interval is not None else None


def draw_map(patch: PatchReading, lately: Counts | None) -> Text:
    """Where the detection events of a patch fall, lately or, before there are any, since the start."""
    counts = lately if lately is not None and lately.sampled_rounds else patch.counts
    fractions = counts.detection_fractions
    if fractions is None:
        return Text("no round has been sampled yet", style="dim")
    if not patch.facts.detectors:
        return Text("the plan has no coordinates", style="dim")
    largest = float(fractions.max())
    text = Text.assemble("events ", draw_scale(largest), f" {in_percent(largest)}\n")
    grid = lattice(patch.facts.detectors, fractions)
    zoom = max(1, _MAP_ROWS // max(grid.shape))
    text.append_text(draw_lattice(grid.repeat(zoom, axis=0).repeat(zoom, axis=1), largest))
    place = patch.facts.detectors[int(fractions.argmax())]
    return text.append(f"\nmost at ({place[0]:g}, {place[1]:g})", style="dim")


def describe_patch(patch: PatchReading, just_now: Counts | None, now_ns: int) -> Text:
    """A patch in some lines: its plan, its times, its ladder, where it stands."""
    facts, last = patch.facts, patch.last
    counts = just_now if just_now is not None and just_now.rungs.any() else patch.counts
    distance = "" if facts.distance is None else f"d={facts.distance} "
    times_us = f"budget {in_us(patch.budget_us)}, period {in_us(facts.round_period_us)}"
    lines = [
        f"patch {facts.id} on {facts.lane}: {distance}{facts.rounds}, plan {facts.plan_tag}",
        f"windows {facts.commit_rounds}+{facts.buffer_rounds}, {times_us}",
        f"{'':9}{'p50':>7} {'p99':>7} {'p99.9':>7}",
    ]
    for span in Span:
        times = " ".join(f"{in_us(counts.percentile_us(span, part)):>7}" for part in _PARTS)
        lines.append(f"{span.name.lower():9}{times}")
    lines.append(f"rungs: {rungs_line(counts, len(_PARTS))}")
    lines.append(f"backlog: {in_short(patch.backlog)}, at most {in_short(patch.backlog_max)}, "
                 f"bound {in_short(patch.backlog_bound)}")  # fmt: skip
    if last is not None:
        age = in_time((now_ns - last.published_ns) / NS_PER_S)
        lines.append(f"last: shot {last.shot_id} round {last.first_round + last.num_rounds - 1}, {age} ago")
    else:
        lines.append(f"last: {NOTHING}")
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
