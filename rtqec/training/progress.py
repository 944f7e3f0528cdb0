"""How far training and measuring are: a bar on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from rtqec.training.evaluation import Point

LINE_EVERY_S = 300.0
"""Between lines in a pipe: a night's training is then a hundred lines."""


class Progress:
    """Shows one thing at a time.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, what: str, fraction: float, text: str = "") -> None:
        """Show how far something is.

        Args:
            what: The thing, always by the same name.
            fraction: Done.
            text: More about it, that changes.
        """
        if self.console.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=1.0)
            self._bars.update(self._tasks[what], completed=min(fraction, 1.0), description=f"{what} {text}".strip())
        elif time.monotonic() - self._spoken >= LINE_EVERY_S:
            self.say(f"{what}: {fraction:.0%} {text}".strip())

    def point(self, point: Point, fraction: float) -> None:
        """Show how far the measurement of a point is."""
        source = point.source
        noise = "" if source.noise is None else f" p={source.noise:g}"
        self.show(f"measuring d={source.distance} r={source.rounds}{noise}", fraction)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._spoken = time.monotonic()
        self.console.print(line, highlight=False, soft_wrap=True)
