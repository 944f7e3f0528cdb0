"""A controller: shots of a simulated surface code, sent round by round to a daemon that runs.

In one terminal:  rtqec run configs/d5_memory_z.toml --set control.endpoint=ipc:///tmp/rtqec-control.ipc
In another one:   python examples/client.py ipc:///tmp/rtqec-control.ipc
"""

from __future__ import annotations

import sys

import numpy as np
import stim

from rtqec.client import Client

SHOTS = 100
ROUNDS = 50


def main(control: str) -> None:
    """Decode some shots, and ask the daemon how it is."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=5, rounds=ROUNDS, after_clifford_depolarization=0.003,
        before_measure_flip_probability=0.003, after_reset_flip_probability=0.003,
        before_round_data_depolarization=0.003,
    )  # fmt: skip
    measurements = circuit.compile_sampler(seed=1).sample(SHOTS)
    _, flips = circuit.compile_m2d_converter().convert(measurements=measurements, separate_observables=True)
    with Client(control) as client:
        patch = client.open(0)
        wrong = 0
        for shot, truth in zip(measurements, flips, strict=True):
            # 24 ancillas in each round, then the 25 data qubits.
            rounds = np.split(shot, range(24, 24 * ROUNDS + 1, 24))
            correction = patch.decode(rounds)
            wrong += bool((correction.frame_bits != truth).any())
        status = client.status()
    took_us = (correction.published_ns - correction.received_ns) / 1000
    print(f"{SHOTS} shots, {wrong} wrong; the last correction was made by {correction.rung.name} in {took_us:.0f} us")
    print(f"the daemon is {status.state}; patch 0 has had {status.patches[0].counters['rounds']} rounds")


if __name__ == "__main__":
    main(sys.argv[1])
