"""From a CUDA-Q kernel to corrections: a repetition code that is written as a kernel, decoded by a daemon.

Needs CUDA-Q (pip install 'rtqec[cudaq]', 3 GB) and no GPU:  CUDAQ_LOG_LEVEL=error python examples/cudaq_memory.py
(Without that variable CUDA-Q remarks on every `apply_noise` of the one shot that is run without noise.)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cudaq
import numpy as np

from firmware_sim.cudaq_source import KernelExperiment
from rtqec.client import CudaqClient
from rtqec.cudaq.decoder_writer import write_decoder_file

SHOTS = 500


@cudaq.kernel
def memory(distance: int, rounds: int, p: float) -> None:
    """Keep a bit in `distance` qubits; compare neighbours in every round."""
    data = cudaq.qvector(distance)
    ancillas = cudaq.qvector(distance - 1)
    before = mz(ancillas)  # noqa: F821 (a word of the kernel language)
    for _ in range(rounds):
        for i in range(distance):
            cudaq.apply_noise(cudaq.XError, p, data[i])
        for i in range(distance - 1):
            x.ctrl(data[i], ancillas[i])  # noqa: F821
            x.ctrl(data[i + 1], ancillas[i])  # noqa: F821
            cudaq.apply_noise(cudaq.XError, p, ancillas[i])
        now = mz(ancillas)  # noqa: F821
        for i in range(distance - 1):
            reset(ancillas[i])  # noqa: F821
        cudaq.detectors(before, now)
        before = now
    bits = mz(data)  # noqa: F821
    for i in range(distance - 1):
        cudaq.detector(before[i], bits[i], bits[i + 1])
    cudaq.logical_observable(bits[0])


EXPERIMENT = KernelExperiment(memory, (5, 20, 0.03))
"""`[source] kind = "cudaq"` of the simulator reads it from here as well."""


def main() -> None:
    """Write a decoder file, run a daemon with it, and let it decode noisy shots as a CUDA-Q program would."""
    folder = Path(tempfile.mkdtemp(prefix="rtqec"))
    decoder = EXPERIMENT.decoder
    write_decoder_file(folder / "memory.yml", [decoder])
    sets = [f"control.endpoint=ipc://{folder}/control", f"service.runtime_dir={folder}", f"service.state_dir={folder}"]
    options = [option for item in (*sets, "log.level=warning") for option in ("--set", item)]
    command = [sys.executable, "-m", "rtqec.cli", "run", str(folder / "memory.yml"), *options]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        measurements, flips = EXPERIMENT.sample(SHOTS, seed=1)
        ready = re.search(r"READY port=(\d+)", daemon.stdout.readline())
        if ready is None:
            sys.exit("the daemon ended; its message is above")
        stops = np.cumsum(decoder.block_widths)[:-1]
        with CudaqClient(("127.0.0.1", int(ready[1])), num_observables=decoder.num_observables) as client:
            corrections = [decode(client, np.split(shot, stops)) for shot in measurements]
        wrong = (np.array(corrections) != flips).any(axis=1)
        print(f"{SHOTS} shots: {flips.any(axis=1).sum()} would have flipped, {wrong.sum()} are wrong after correction")
    finally:
        daemon.terminate()
        daemon.wait()


def decode(client: CudaqClient, rounds: list[np.ndarray]) -> np.ndarray:
    """Send each round as it is measured; then ask."""
    for bits in rounds:
        client.enqueue(bits)
    return client.get_corrections()


if __name__ == "__main__":
    main()
