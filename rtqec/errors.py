"""Every exception that rtqec raises on purpose.

Bad data is never an exception: it is a counter (`telemetry`). Bad configuration is one, before READY. A broken
invariant is one, and ends the lane.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means. Kept stable: service managers act on it."""

    OK = 0
    FAILED = 1
    """The command ran and its check did not hold."""
    CONFIG = 2
    """The configuration cannot work. Restarting does not help."""
    FAULT = 3
    """A broken invariant. The lane stopped and published nothing more."""


class RtqecError(Exception):
    """Base of all errors that rtqec raises on purpose."""

    exit_code = ExitCode.FAULT


class ConfigError(RtqecError):
    """A configuration that cannot work: names the key, the value, the bound, the reason and the remedy."""

    exit_code = ExitCode.CONFIG

    def __init__(self, where: str, found: str, reason: str, remedy: str) -> None:
        """Compose the four sentences.

        Args:
            where: The key, as `[table] key`.
            found: What is wrong with its value, including the value and the bound.
            reason: Why that cannot work.
            remedy: What to set instead.
        """
        self.where, self.found, self.reason, self.remedy = where, found, reason, remedy
        super().__init__(f"{where} {found}\n{reason}\n{remedy}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, str, str]]:
        """How it is told to another process; `Exception` knows only the message in one piece."""
        return type(self), (self.where, self.found, self.reason, self.remedy)


class PlanError(ConfigError):
    """A circuit or detector error model from which no streaming decoder can be made."""


class FaultError(RtqecError):
    """A broken invariant inside the daemon. Nothing may be published after it."""


class NoPeerError(RtqecError):
    """Nobody answers at the other end of a socket."""

    exit_code = ExitCode.FAILED
