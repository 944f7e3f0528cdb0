"""Time is integer nanoseconds of CLOCK_MONOTONIC inside; other units only at the edges, in names that say so."""

from __future__ import annotations

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
MS_PER_S = 1_000
US_PER_S = 1_000_000
BYTES_PER_MIB = 1 << 20


def ns_from_us(duration_us: float) -> int:
    """Microseconds to integer nanoseconds, rounded to the nearest."""
    return round(duration_us * NS_PER_US)


def us_from_ns(duration_ns: float) -> float:
    """Nanoseconds to microseconds."""
    return duration_ns / NS_PER_US
