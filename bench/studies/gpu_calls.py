"""Calls of engines and chunk devices, one after the other, and their quantiles."""

from __future__ import annotations

import time

import numpy as np

from rtqec.device.chunks import ChunkDevice
from rtqec.device.engine import Engine

QUANTILES = {"min": 0, "p50": 0.5, "p99": 0.99, "p999": 0.999}


def call(one: Engine | ChunkDevice, chunks: int) -> int:
    """One call; its time in ns."""
    began = time.monotonic_ns()
    one.enqueue(chunks)
    while not one.wait(1_000_000_000):
        pass
    one.take()
    return time.monotonic_ns() - began


def quantiles(took_ns: list[int], prefix: str = "") -> dict[str, float]:
    """Of times, in us."""
    return {
        f"{prefix}{name}_us": round(float(np.quantile(took_ns, q)) / 1000, 3) for name, q in QUANTILES.items()
    }  # fmt: skip
