"""HdrHistogram logs: samples as any HdrHistogram tool reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter
from numpy.typing import NDArray

from rtqec.units import NS_PER_S

HIGHEST_NS = 3_600 * NS_PER_S
FIGURES = 3
"""Significant figures that are kept: values are known to one in a thousand."""


def write_hdr_log(path: Path, samples_ns: dict[str, NDArray[np.int64]], began_s: float, ended_s: float) -> None:
    """One histogram per name, in ns, each as an interval with that tag.

    Args:
        path: Overwritten.
        samples_ns: int64 each; what is below 1 counts as 1, which is the least that such a histogram knows.
        began_s, ended_s: When they were taken, s since the epoch.
    """
    with path.open("w", encoding="utf-8") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_comment(f"[StartTime: {began_s:.3f} (seconds since epoch)]")
        writer.output_comment("Values are nanoseconds; the column Interval_Max is milliseconds.")
        writer.output_legend()
        for name, samples in samples_ns.items():
            histogram = HdrHistogram(1, HIGHEST_NS, FIGURES)
            values, counts = np.unique(np.clip(samples, 1, HIGHEST_NS), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                histogram.record_value(value, count)
            file.write(f"Tag={name},")
            writer.output_interval_histogram(histogram, began_s, ended_s)
