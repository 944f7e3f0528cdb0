"""Refusals of engines in four sentences, as everywhere: key, value, reason, remedy."""

from __future__ import annotations

from rtqec.device.engine import EngineError


def refusal(where: str, found: str, reason: str, remedy: str) -> EngineError:
    """An engine that cannot be had.

    Args:
        where: The key, as `[predecode] engine`, or the file.
        found: What is wrong with its value, including the value and the bound.
        reason: Why that cannot work.
        remedy: What to do instead.
    """
    return EngineError(f"{where} {found}\n{reason}\n{remedy}")
