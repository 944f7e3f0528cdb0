"""Numbers for small screens: three digits and a unit."""

from __future__ import annotations

from rtqec.units import BYTES_PER_MIB, US_PER_S

NOTHING = "-"
"""Where there is no number."""
_SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_S_PER_MINUTE, _S_PER_HOUR, _S_PER_DAY = 60, 3600, 86400


def in_short(count: float) -> str:
    """A count or a rate: 7, 99.9k, 1.25M."""
    for size, unit in _SIZES:
        if count >= size * 0.9995:
            return f"{_three_digits(count / size)}{unit}"
    return str(count) if isinstance(count, int) else _three_digits(count)


def in_us(duration_us: float | None) -> str:
    """A latency: 12.3us, 4.56ms, 1.20s."""
    if duration_us is None:
        return NOTHING
    for size, unit in ((US_PER_S, "s"), (1000, "ms")):
        if duration_us >= size * 0.9995:
            return f"{_three_digits(duration_us / size)}{unit}"
    return f"{_three_digits(duration_us)}us"


def in_percent(fraction: float | None) -> str:
    """A part of the whole: 0.12%, 100%."""
    return NOTHING if fraction is None else f"{_three_digits(100 * fraction)}%"


def in_time(duration_s: float) -> str:
    """How long ago, or for how long: 12 s, 5 min 3 s, 2 d 4 h."""
    seconds = int(duration_s)
    if seconds >= _S_PER_DAY:
        return f"{seconds // _S_PER_DAY} d {seconds % _S_PER_DAY // _S_PER_HOUR} h"
    if seconds >= _S_PER_HOUR:
        return f"{seconds // _S_PER_HOUR} h {seconds % _S_PER_HOUR // _S_PER_MINUTE} min"
    if seconds >= _S_PER_MINUTE:
        return f"{seconds // _S_PER_MINUTE} min {seconds % _S_PER_MINUTE} s"
    return f"{seconds} s"


def in_mib(num_bytes: int) -> str:
    """Memory: 312 MiB."""
    if not num_bytes:
        return NOTHING
    return f"{num_bytes / BYTES_PER_MIB:.0f} MiB"


def _three_digits(value: float) -> str:
    """999, 99.9, 9.99; whole numbers of more digits as they are."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value else "0"
