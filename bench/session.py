"""One invocation of a verb: what it measures, where rows go, what the terminal shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.cases import Case
from bench.rows import Results, Row

_PIPE_COLUMNS = 160
"""A table in a pipe or a file is not cut to the eighty columns of a terminal that is not there."""


@dataclass
class Session:
    """What a verb is given.

    Attributes:
        cases: What to measure.
        repeats: How often each.
        seed: Of everything random that a verb draws itself.
        results: Where rows go.
        console: Standard output, for tables.
    """

    cases: list[Case]
    repeats: int
    seed: int
    results: Results
    console: Console
    _progress: Progress | None = field(default=None, repr=False)
    _task: TaskID | None = field(default=None, repr=False)

    def measurements(self) -> Iterator[tuple[int, Case]]:
        """Every case `repeats` times, the repeats outermost, so that the machine's drift falls on all cases alike."""
        for repeat in range(self.repeats):
            for case in self.cases:
                yield repeat, case

    def add(self, case: Case, repeat: int, result: dict[str, Any], plan_digest: str | None = None) -> Row:
        """Write a row; see `Results.add`."""
        return self.results.add(case, repeat, result, plan_digest)

    @contextmanager
    def progress(self, total: int, what: str) -> Iterator[None]:
        """A bar with the time left, on a terminal; silence in a pipe. `advance` moves it."""
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            self._progress = progress
            self._task = progress.add_task(what, total=total)
            try:
                yield
            finally:
                self._progress = self._task = None

    def advance(self, what: str | None = None, steps: float = 1) -> None:
        """One step further; `what` is going on now."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=steps)
            if what is not None:
                self._progress.update(self._task, description=what)


def open_session(verb: str, cases: list[Case], repeats: int, seed: int, folder: Path, command: str) -> Session:
    """A session whose rows go to `folder`."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    return Session(cases, repeats, seed, Results(folder, verb, command), console)
