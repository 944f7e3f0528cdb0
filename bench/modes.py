"""What is measured of a case: the daemon as it runs on this machine, the path alone, or both."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Of `rtqec-bench rate` and `latency`."""

    WIRE = "wire"
    """A daemon and a simulated controller on this machine, over ZeroMQ."""
    SERVICE = "service"
    """The path alone, in CPU time."""
    BOTH = "both"

    @property
    def each(self) -> tuple[Mode, ...]:
        """One after the other."""
        return (Mode.WIRE, Mode.SERVICE) if self is Mode.BOTH else (self,)
