"""Draw the latency figure of the README from a report.

firmware-sim loop configs/d5_memory_z.toml --report report.json
python -m bench.figure report.json docs/reaction.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

LABELS = {
    "service_ns": "service: last round received to correction handed over",
    "reaction_ns": "reaction: last round due to be sent to correction handed over",
}


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    mpl.rcParams["svg.hashsalt"] = "rtqec"
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, label in LABELS.items():
        edges, counts = np.array(report["histograms"][name]).T
        above = counts[::-1].cumsum()[::-1] / counts.sum()
        axes.step(edges / 1000, above, where="post", label=label)
    axes.set(xscale="log", yscale="log", xlabel="microseconds", ylabel="fraction of corrections that took longer")
    axes.set_title(
        f"{sum(c for _, c in report['histograms']['service_ns']):,} corrections, one round every "
        f"{report['period_us']:g} us, {report['machine']['cores']} shared cores ({report['machine']['cpu']})",
        fontsize=9,
    )
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
