"""`rtqec top` shows what happens as it happens, on a small terminal too, and waits for a daemon that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from rtqec.errors import ConfigError
from rtqec.kernels.records import PathCounter
from rtqec.service.heat import colour_of, draw_lattice, lattice
from rtqec.service.reader import ServiceReader
from rtqec.service.readings import ServiceReading
from rtqec.service.top import LastWhile, Top, run_top
from rtqec.wire import Reason, Rung
from tests.fake_service import FakeService

NEVER_S = 1e6
"""Between two looks by itself; tests look when they want to."""
SMALL = (80, 24)
Scenario = Callable[[Pilot[None], Top], Awaitable[None]]


def play(service: FakeService, scenario: Scenario, size: tuple[int, int] = SMALL) -> None:
    """Let a user do something with the screen."""

    async def run() -> None:
        app = Top(ServiceReader(service.config), NEVER_S)
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            await scenario(pilot, app)

    asyncio.run(run())


def screen_of(app: Top) -> str:
    """All text that is drawn, line by line."""
    return "\n".join(
        "".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()
    )  # fmt: skip


def text_of(app: Top, widget: str) -> str:
    return str(app.query_one(widget, Static).render())


async def look(pilot: Pilot[None], app: Top) -> None:
    app.look()
    await pilot.pause()


def test_every_part_is_seen_on_a_small_terminal(tmp_path: Path) -> None:
    """80 columns and 24 lines hold the state, each patch with all its columns, the selected one, alarms and keys."""
    service = FakeService(tmp_path, [0, 2], [1])
    for patch_id in (0, 1):
        service.carry(patch_id)
    service.place_of(1)[0].path_counters[0, PathCounter.CORRECTIONS_LATE] = 7

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        drawn = screen_of(app)
        assert len(drawn.splitlines()) == SMALL[1]
        for words in ("rtqec ready", "rounds/s", "frame", "match 100%", "15.0%", "clean", "patch 0 on lane0",
                      "reaction", "late corrections 7", "no round has come yet", "q Quit"):  # fmt: skip
            assert words in drawn, words
        assert [row.split()[0] for row in drawn.splitlines()[2:5]] == ["0", "2", "1"]

    play(service, scenario)


def test_a_look_shows_what_was_since_the_one_before(tmp_path: Path) -> None:
    """Rate, percentiles and rungs are those of the last interval, not of all that ever was."""
    service = FakeService(tmp_path)
    service.carry(0, rounds=60_000, took_us=50.0)

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        assert "50us" in text_of(app, "#detail").replace("49.9", "50")
        service.carry(0, rounds=9_000, took_us=2_000.0, rung=Rung.UNION_FIND, reason=Reason.DEADLINE)
        await look(pilot, app)
        row = [str(cell).strip() for cell in app.query_one(DataTable).get_row("0")]
        assert row[1] not in ("0", "-")
        assert (row[3], row[4], row[6]) == ("2.01ms", "2.01ms", "uf 100%")
        await look(pilot, app)
        row = [str(cell).strip() for cell in app.query_one(DataTable).get_row("0")]
        assert row[1] == "0"

    play(service, scenario)


@pytest.mark.parametrize("key", ["j", "down"])
def test_another_patch_can_be_selected(tmp_path: Path, key: str) -> None:
    """The keys move the selection, a look leaves it where it is, and the details are those of the selected patch."""
    service = FakeService(tmp_path, [0, 7])

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        assert "patch 0" in text_of(app, "#detail")
        await pilot.press(key)
        await look(pilot, app)
        assert "patch 7" in text_of(app, "#detail")
        await pilot.press("k")
        assert "patch 0" in text_of(app, "#detail")

    play(service, scenario)


def test_it_waits_for_a_daemon_that_went_away(tmp_path: Path) -> None:
    """That the daemon has gone is said, then that it is back; in between it goes on looking."""
    service = FakeService(tmp_path)
    service.carry(0)

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        assert "ready" in text_of(app, "#head")
        service.write(pid=(1 << 22) - 1)
        await look(pilot, app)
        assert "gone" in text_of(app, "#head")
        assert "died while it was ready" in text_of(app, "#alarms")
        ServiceReader(service.config).path.unlink()
        await look(pilot, app)
        assert "waiting" in text_of(app, "#head")
        assert app.query_one(DataTable).row_count == 0
        FakeService(tmp_path).carry(0)
        await look(pilot, app)
        assert "ready" in text_of(app, "#head")
        assert app.query_one(DataTable).row_count == 1
        messages = [notification.message for notification in app._notifications]
        assert [("gone away" in message, "is back" in message) for message in messages] == [
            (True, False),
            (False, True),
        ]

    play(service, scenario)


def test_it_begins_without_a_daemon(tmp_path: Path) -> None:
    """Started before the daemon, it says where it looks, and shows the daemon when it comes."""
    service = FakeService(tmp_path)
    path = ServiceReader(service.config).path
    said = path.read_text()
    path.unlink()

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        assert "waiting" in text_of(app, "#head")
        assert str(path) in text_of(app, "#alarms")
        path.write_text("of another version")
        await look(pilot, app)
        assert "not the service file" in text_of(app, "#alarms")
        path.write_text(said)
        await look(pilot, app)
        assert "ready" in text_of(app, "#head")

    play(service, scenario)


def test_q_quits(tmp_path: Path) -> None:
    """One key ends it."""

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running

    play(FakeService(tmp_path), scenario)


def test_many_alarms_are_cut_and_counted(tmp_path: Path) -> None:
    """What does not fit is said to be there."""
    service = FakeService(tmp_path, list(range(9)))

    async def scenario(pilot: Pilot[None], app: Top) -> None:
        assert "and 6 more" in text_of(app, "#alarms")

    play(service, scenario)


def test_without_a_terminal_it_is_refused(tmp_path: Path) -> None:
    """In a pipe there is nothing to draw on; the message names what to use instead."""
    with pytest.raises(ConfigError, match="rtqec status CONFIG --json"):
        run_top(FakeService(tmp_path).config)


def test_the_last_while_is_between_one_and_two_spans(tmp_path: Path) -> None:
    """What the map shows began at least one span ago once there is so much, and at most two."""
    service = FakeService(tmp_path)
    reading = ServiceReader(service.config).read()
    assert reading is not None

    def at(second: int) -> ServiceReading:
        return ServiceReading(**(reading.__dict__ | {"taken_ns": second * 10**9}))

    last_while = LastWhile(30.0)
    lengths = [interval.seconds if (interval := last_while.take(at(second))) else 0.0 for second in range(300)]
    assert lengths[:30] == list(range(30))
    assert all(30 <= length < 61 for length in lengths[60:])


def test_a_lattice_has_every_place_once() -> None:
    """Values lie where their coordinates say, on the coarsest grid; between them is nothing."""
    grid = lattice([[2, 0], [4, 2], [0, 2], [2, 4]], np.array([1.0, 2.0, 3.0, 4.0]))
    assert np.array_equal(grid, [[np.nan, 1, np.nan], [3, np.nan, 2], [np.nan, 4, np.nan]], equal_nan=True)


def test_a_lattice_without_a_step_is_drawn_by_rank() -> None:
    """Coordinates that lie on no reasonable grid keep their order, and the map its size."""
    grid = lattice([[0, 0], [0.001, 2], [1000, 5]], np.array([1.0, 2.0, 3.0]))
    assert grid.shape == (4, 3)
    assert (grid[0, 0], grid[1, 1], grid[3, 2]) == (1, 2, 3)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30, unique_by=lambda x: round(x, 6)))
def test_no_two_places_of_a_line_fall_together(coordinates: list[float]) -> None:
    """Whatever the distances, each place has a cell of its own, in order."""
    grid = lattice([[x, 0.0] for x in coordinates], np.array(coordinates))
    assert [value for value in grid[0].tolist() if not np.isnan(value)] == sorted(coordinates)


def test_two_detectors_in_one_place_show_the_larger() -> None:
    """A place has the larger of its values."""
    assert lattice([[1, 1], [1, 1]], np.array([0.25, 0.125])).tolist() == [[0.25]]


def test_a_map_is_two_rows_in_a_line() -> None:
    """Upper and lower row share a line, each cell two columns wide, and only places have a colour."""
    text = draw_lattice(np.array([[0.0, np.nan], [np.nan, 1.0], [0.5, 0.5]]), 1.0)
    assert text.plain == "\u2580\u2580\u2584\u2584\n\u2580\u2580\u2580\u2580"
    assert [str(span.style) for span in text.spans] == ["#181c3c", "#eb4632", "#1e968c", "#1e968c"]


def test_colours_grow_from_nothing_to_the_largest() -> None:
    """0 has the first colour, the largest the last, whatever it is; no value has no colour."""
    first, last = colour_of(0.0, 3.0), colour_of(3.0, 3.0)
    assert first is not None
    assert last is not None
    assert first != last
    assert (colour_of(0.0, 0.0), colour_of(9.0, 3.0), colour_of(np.nan, 3.0)) == (first, last, None)
