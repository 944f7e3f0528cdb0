"""The interface of engines, and those that need no library: one that answers nothing, one that follows a script.

An engine runs a network on chunks: pieces of a shot in a volume of fixed size. It owns the memory of its input and of
its answers. A call is enqueued, looked at, and taken; at most one is under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class EngineError(Exception):
    """An engine that cannot be built or loaded, or whose call failed. The path goes on without it."""


@dataclass(frozen=True)
class ChunkShape:
    """The shape of a call.

    Attributes:
        chunks: Most chunks of a call.
        layers: Layers of each.
        distance: Rows and columns.
        outputs: Answers per cell.
    """

    chunks: int
    layers: int
    distance: int
    outputs: int

    @property
    def volume(self) -> tuple[int, ...]:
        """Of the input."""
        return (self.chunks, 4, self.layers, self.distance, self.distance)

    @property
    def inside(self) -> tuple[int, ...]:
        """Of the marks of layers that exist."""
        return (self.chunks, 1, self.layers, 1, 1)

    @property
    def logits(self) -> tuple[int, ...]:
        """Of the answers."""
        return (self.chunks, self.outputs, self.layers, self.distance, self.distance)


class Engine(Protocol):
    """What runs a network.

    A call is enqueued, waited for until it is done, and taken; then the next one. One that was given up as late is
    waited for and taken as well, whatever it says.

    Attributes:
        name: What it is, for logs and metrics: library, version, precision, device.
        shape: Of its calls.
        volume: float32, `shape.volume`: detection events of both channels, presence of both; the caller fills it.
        inside: float32, `shape.inside`: 1 for layers of the shot, 0 beyond its ends; the caller fills it.
        logits: float32, `shape.logits`: valid from `take` to the next `enqueue`.
    """

    name: str
    shape: ChunkShape
    volume: NDArray[np.float32]
    inside: NDArray[np.float32]
    logits: NDArray[np.float32]

    def warm(self) -> None:
        """Run once, so that nothing is allocated or compiled later.

        Raises:
            EngineError: It does not run.
        """

    def enqueue(self, count: int) -> None:
        """Begin a call on the first `count` chunks.

        Raises:
            EngineError: It does not run, or the call before has not been taken.
        """

    def wait(self, timeout_ns: int) -> bool:
        """Whether the call is done, after waiting at most so long; 0 only looks."""

    def take(self) -> None:
        """Make `logits` those of the call that is done.

        Raises:
            EngineError: It failed.
        """


class NullEngine:
    """Answers no everywhere, at once: the path with a predecoder that does nothing."""

    def __init__(self, shape: ChunkShape) -> None:
        self.name, self.shape = "null", shape
        self.volume = np.zeros(shape.volume, np.float32)
        self.inside = np.zeros(shape.inside, np.float32)
        self.logits = np.full(shape.logits, -np.inf, np.float32)

    def warm(self) -> None:
        """Nothing to warm."""

    def enqueue(self, count: int) -> None:
        """Nothing to do."""

    def wait(self, timeout_ns: int) -> bool:
        """Done at once."""
        return timeout_ns >= 0

    def take(self) -> None:
        """Nothing to take."""


Script = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Volume and marks to logits."""


class ScriptedEngine(NullEngine):
    """Answers what a function of its input says; for tests, and for whoever wants to try an idea.

    Args:
        shape: Of its calls.
        script: The function. An exception of it is a failed call.
        late: Of each call, whether it is not done when it is looked at; None for never.
    """

    def __init__(self, shape: ChunkShape, script: Script, late: Callable[[], bool] | None = None) -> None:
        super().__init__(shape)
        self.name = "scripted"
        self._script, self._late = script, late
        self._count = 0
        self._is_late = False

    def enqueue(self, count: int) -> None:
        """Note how many chunks there are, and whether this call will be late."""
        if self._count:
            raise EngineError("a call was enqueued while another is under way")
        self._count = count
        self._is_late = self._late() if self._late is not None else False

    def wait(self, timeout_ns: int) -> bool:
        """Done at once, unless it is late: then after the first look."""
        if self._is_late:
            self._is_late = False
            time.sleep(timeout_ns / 1e9)
            return False
        return True

    def take(self) -> None:
        """Run the function."""
        count, self._count = self._count, 0
        try:
            self.logits[:count] = self._script(self.volume[:count], self.inside[:count])
        except Exception as error:
            raise EngineError(f"the script failed: {error!r}") from error
