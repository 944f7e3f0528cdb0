"""Keep a thread's signal stack as it is while a library does what it likes with it.

OpenVINO's CPU plugin sets a signal stack of its own for the thread that compiles a model, and frees its memory with the
model (2026.4.1). Python's signal handlers run on that stack: the next SIGINT or SIGTERM then kills the process with a
segmentation fault.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the calling thread its signal stack back at the end; none, where it had none."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
