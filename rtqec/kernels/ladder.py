"""What a window will cost, learned while it runs, and the step of the ladder that fits.

A cost is the time from the decision to the hand-over of the correction: it holds everything that can still go wrong.
It is kept per matcher and number of detection events, as a quantile that moves a little with every window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled

NUM_BUCKETS = 32
_EXACT = 16
_STEP = 0.05
"""How far one window moves a quantile, relative: outliers count as one window, however long they took."""
_FORGET = 0.00002
_POPCOUNT = np.array([byte.bit_count() for byte in range(256)], np.int64)


@compiled
def count_bits(byte: Any) -> Any:
    """Ones of a byte."""
    return _POPCOUNT[byte]


@compiled
def bucket_of(num_events: Any) -> Any:
    """The bucket of a number of events: exact below 16, then two per octave."""
    if num_events < _EXACT:
        return num_events
    shift = 0
    while (num_events >> shift) >= 2 * _EXACT:
        shift += 1
    half = ((num_events >> shift) - _EXACT) >> 3
    return min(_EXACT + 2 * shift + half, NUM_BUCKETS - 1)


@compiled
def predict_ns(cost_ns: Any, model: Any, num_events: Any) -> Any:
    """The predicted cost of one window, ns."""
    return cost_ns[model, bucket_of(num_events)]


@compiled
def learn_cost(cost_ns: Any, model: Any, num_events: Any, took_ns: Any, quantile: Any) -> Any:
    """Let a window's cost move the quantile of its bucket.

    Args:
        cost_ns: float64, shape (num_models, NUM_BUCKETS).
        quantile: Fraction of windows that shall cost less than what is predicted.

    Source: Robbins and Monro, Ann. Math. Stat. 22, 400 (1951), on a logarithmic scale.
    """
    bucket = bucket_of(num_events)
    known = cost_ns[model, bucket]
    if took_ns > known:
        cost_ns[model, bucket] = known * (1.0 + _STEP * quantile)
    else:
        cost_ns[model, bucket] = known * (1.0 - _STEP * (1.0 - quantile))


@compiled
def forget_cost(cost_ns: Any, model: Any, num_events: Any) -> Any:
    """Let the cost of a step that was passed over sink a little, so that it is tried again some day.

    What is not tried is not learned: a step that was slow once would else be thought slow for ever. A try that fails
    costs one late window in about `_STEP / _FORGET` of those passed over.
    """
    cost_ns[model, bucket_of(num_events)] *= 1.0 - _FORGET


@compiled
def fits(predicted_ns: Any, time_ns: Any, deadline_ns: Any, queued_ns: Any, last_deadline_ns: Any) -> Any:
    """Whether a window that takes `predicted_ns` is on time, and leaves time for those that wait behind it.

    Args:
        deadline_ns: Its own.
        queued_ns: What the windows behind it need at least.
        last_deadline_ns: The latest of their deadlines.
    """
    done_ns = time_ns + predicted_ns
    return done_ns <= deadline_ns and done_ns + queued_ns <= last_deadline_ns
