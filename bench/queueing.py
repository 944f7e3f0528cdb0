"""A single server that takes customers in the order in which they come, computed exactly.

Customer k arrives at A[k] and is served for S[k]. The server begins when it is there and the one before it is through
(Lindley's recursion):

    W[0] = 0        W[k + 1] = max(0, W[k] + S[k] - (A[k + 1] - A[k]))

W is the waiting time, W + S the response time. For windows: A is the arrival of the last round that a window needs.
Times are integer nanoseconds, so that nothing is rounded.

Source: Lindley, Mathematical Proceedings of the Cambridge Philosophical Society 48, 277 (1952).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def waiting_ns(arrivals_ns: NDArray[np.int64], services_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """How long each customer waits before it is served.

    Args:
        arrivals_ns: int64, shape (n,), not falling.
        services_ns: int64, shape (n,).

    Returns:
        int64, shape (n,).
    """
    # With all work so far taken off, whoever came last before a busy spell decides when it began.
    done_before = np.cumsum(services_ns) - services_ns
    begins: NDArray[np.int64] = np.maximum.accumulate(arrivals_ns - done_before) + done_before
    return begins - arrivals_ns


def response_ns(arrivals_ns: NDArray[np.int64], services_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """From each arrival to the end of its service; arguments and result as of `waiting_ns`."""
    return waiting_ns(arrivals_ns, services_ns) + services_ns
