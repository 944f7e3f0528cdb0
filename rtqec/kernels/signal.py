"""Sleep until somebody has something new, and wake whoever sleeps; also across processes.

The sleeper reads SEQUENCE, looks for work, sets WAITING, and sleeps only while SEQUENCE is what it read. The waker
makes its work visible, adds to SEQUENCE, and looks at WAITING. Whichever comes second sees the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled, fetch_add, futex_wait, futex_wake, load_acquire, store_release
from rtqec.kernels.records import SIGNAL_SEQUENCE, SIGNAL_WAITING


@compiled
def wake(signal: Any) -> Any:
    """Tell whoever sleeps on a signal (uint32, shape (SIGNAL_WORDS,)) that there is something new."""
    fetch_add(signal, SIGNAL_SEQUENCE, np.uint32(1))
    if load_acquire(signal, SIGNAL_WAITING):
        futex_wake(signal)


@compiled
def sleep_on(signal: Any, seen: Any, timeout_ns: Any, spec: Any) -> Any:
    """Sleep unless the sequence is not `seen` any more, at most `timeout_ns`."""
    store_release(signal, SIGNAL_WAITING, np.uint32(1))
    # The kernel compares the sequence again under its own lock, so that no wake-up is lost in between.
    futex_wait(signal, seen, timeout_ns, spec)
    store_release(signal, SIGNAL_WAITING, np.uint32(0))
