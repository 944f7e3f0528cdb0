"""All of a chunk on the GPU is, bit for bit, what the host makes of it; shown on numba's simulator, without a GPU.

The simulator runs each thread of each kernel as Python; memory, streams and graphs are those of the pretended GPU. That
real memory, streams and graphs do the same is shown by `test_gpu_engines` only, where there is a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtqec.device.chunks import at_least
from tests.gpu.chunk_cases import CASES

ROOT = Path(__file__).parents[2]


def run_simulated(case: str) -> None:
    """Run a case of `tests.gpu.simulated` in a process of its own: the simulator would replace numba.cuda in this."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.simulated", case], check=False, cwd=ROOT, capture_output=True, text=True,
        timeout=300, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_host(case: str) -> None:
    """Random rounds, kinds of layers, spans and answers, NaN among them: input, changes, flips and marks are equal."""
    run_simulated(case)


def test_the_path_with_all_of_it_on_the_gpu() -> None:
    """Corrections are those of answers over whole shots, two patches in one launch, and every check holds."""
    run_simulated("streaming")


@pytest.mark.parametrize("threshold", [0.1, 0.3, -0.1, 1.0, 1e-300, 1e30, float("inf"), -2.5])
def test_thresholds_are_rounded_up(threshold: float) -> None:
    """Comparing float32 logits with the rounded threshold is comparing them with the threshold itself."""
    least = at_least(threshold)
    for logit in (least, np.nextafter(least, np.float32(-np.inf)), np.nextafter(least, np.float32(np.inf))):
        assert (logit >= least) == (float(logit) >= threshold)
